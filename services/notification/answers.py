"""Answers: what a volunteer said about an offer, published for assignment to judge."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import asked, offers
from services.notification.incoming.reading import Reading
from shared import outbox
from shared.database import Row, execute, now, sql
from shared.events import (
    Answer,
    AnsweredPing,
    AskedDutyPage,
    DutyPageAsked,
    GivenAnswer,
    OffDutyVolunteer,
    OfferAnswered,
    Outcome,
    PingAnswered,
    VolunteerOffDuty,
)
from shared.words import without_control

WORDS_AT_MOST = 1000  # what the contract of the event takes

# Two requests with one key wait for each other. The lock lives as long as the transaction.
_LOCK = sql("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))")
_GIVEN = sql("SELECT payload FROM outbox WHERE event_id = :id")


class UnknownOffer(LookupError):
    """Nobody was ever asked with this offer."""


class KeyUsedForAnotherAnswer(ValueError):
    """The same key came with a different answer."""


def form_of(reading: Reading, answer_code: str) -> tuple[str, bool]:
    """How surely a text says what it says (`form` of the event), and whether it has the code of
    the offer that it is about: a code in the subject of a mail was typed by nobody."""
    return ("plain" if reading.plain else "words"), reading.code == answer_code


@dataclass(frozen=True)
class Writer:
    """Whose answer it is, and where the sentence back goes."""

    volunteer_id: UUID
    phone: str | None
    email: str | None


async def give(
    session: AsyncSession,
    *,
    offer_id: UUID,
    answer: Answer,
    outcome: Outcome | None = None,
    words: str | None = None,
    channel: str = "sandbox",
    key: str | None = None,
    writer: Writer | None = None,
    form: str = "button",
    code_typed: bool | None = None,
) -> UUID:
    """Publish what the volunteer of this offer has answered; returns the event's id.

    ``writer`` is who answered, if it need not be the volunteer who was asked: assignment judges
    whether it is theirs to answer. The same ``key`` for the same offer is the same event, and it
    is handled once. ``form`` and ``code_typed`` say how surely it was said (:func:`form_of`).

    Raises:
        UnknownOffer: nobody was asked with this offer.
        KeyUsedForAnotherAnswer: the key came before with another answer.
    """
    about = await asked_for(session, offer_id)
    writer = writer or Writer(about.volunteer_id, about.phone, about.email)
    given = GivenAnswer(
        offer_id=offer_id,
        answer=answer,
        outcome=outcome,
        # What no database can store, and what would make a coordinator's terminal obey.
        words=without_control(words)[:WORDS_AT_MOST] if words else None,
        channel=channel,
        volunteer_id=writer.volunteer_id,
        phone=writer.phone,
        email=writer.email,
        form=form,
        code_typed=code_typed,
    )
    event_id = uuid7() if key is None else uuid5(NAMESPACE_URL, f"jangkau:{offer_id}:{key}")
    if key is not None and await _came_before(session, event_id, given):
        return event_id
    answered: OfferAnswered = OfferAnswered.of(
        given,
        case_id=about.case_id,
        district=about.district,
        time=await now(session),
        drill=about.drill,
    )
    await outbox.publish(session, [answered.model_copy(update={"id": event_id})])
    return event_id


async def alive(
    session: AsyncSession, pings: Sequence[Row], *, words: str | None, channel: str
) -> None:
    """Publish a sign of life for each of these tests of reachability (models.Asked)."""
    moment = await now(session)
    said = without_control(words).strip()[:WORDS_AT_MOST] if words else None
    events = [
        PingAnswered.of(
            AnsweredPing(ping_id=row.offer_id, words=said or None, channel=channel),
            case_id=row.volunteer_id,
            district=row.district,
            time=moment,
            drill=row.drill,
        )
        for row in pings
    ]
    await outbox.publish(session, events)
    # What of them has not gone out yet need not.
    await offers.hear(session, {row.offer_id: "ended" for row in pings})


async def off_duty(
    session: AsyncSession,
    writer: Writer,
    *,
    district: str,
    last_day: date,
    words: str | None,
    channel: str,
) -> None:
    """Publish that a volunteer is off duty from now to the end of ``last_day``, a local day."""
    said = without_control(words).strip()[:WORDS_AT_MOST] if words else None
    data = OffDutyVolunteer(
        last_day=last_day, channel=channel, words=said, phone=writer.phone, email=writer.email
    )
    event: VolunteerOffDuty = VolunteerOffDuty.of(
        data, case_id=writer.volunteer_id, district=district, time=await now(session)
    )
    await outbox.publish(session, [event])


async def ask_duty_page(
    session: AsyncSession, writer: Writer, *, district: str, channel: str
) -> None:
    """Publish that a volunteer wants the link to their duty page, which assignment signs."""
    data = AskedDutyPage(channel=channel, phone=writer.phone, email=writer.email)
    event: DutyPageAsked = DutyPageAsked.of(
        data, case_id=writer.volunteer_id, district=district, time=await now(session)
    )
    await outbox.publish(session, [event])


async def asked_for(session: AsyncSession, offer_id: UUID) -> Row:
    """Who was asked with an offer (models.Asked), with its ``state``.

    Raises:
        UnknownOffer: nobody was.
    """
    found = await asked.find(session, offer_id)
    if found is None or found.kind != "offer":
        raise UnknownOffer(f"Nobody was asked with the offer {offer_id}.")
    return found


async def _came_before(session: AsyncSession, event_id: UUID, given: GivenAnswer) -> bool:
    await execute(session, _LOCK, {"id": str(event_id)})
    for row in await execute(session, _GIVEN, {"id": event_id}):
        if GivenAnswer.model_validate(json.loads(row.payload)["data"]) != given:
            raise KeyUsedForAnotherAnswer
        return True
    return False
