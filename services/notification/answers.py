"""Answers: what a volunteer said about an offer, published for assignment to judge."""

import json
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from shared import outbox
from shared.database import Row, execute, now, sql
from shared.events import Answer, GivenAnswer, OfferAnswered, Outcome
from shared.words import without_control

# Two requests with one key wait for each other. The lock lives as long as the transaction.
_LOCK = sql("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))")
_GIVEN = sql("SELECT payload FROM outbox WHERE event_id = :id")
# Whoever was asked; the newest, should a coordinator have assigned the same offer later.
_ASKED = sql("""
    SELECT case_id, district, drill, recipient, phone, email, answer_code FROM messages
    WHERE offer_id = :offer AND purpose IN ('offer', 'assigned')
    ORDER BY created_at DESC LIMIT 1
""")


class UnknownOffer(LookupError):
    """No message was ever made for this offer."""


class KeyUsedForAnotherAnswer(ValueError):
    """The same key came with a different answer."""


async def give(
    session: AsyncSession,
    *,
    offer_id: UUID,
    answer: Answer,
    outcome: Outcome | None = None,
    words: str | None = None,
    channel: str = "sandbox",
    key: str | None = None,
) -> UUID:
    """Publish what the volunteer of this offer has answered; returns the event's id.

    The same ``key`` for the same offer is the same event, and it is handled once.

    Raises:
        UnknownOffer: there is no message of this offer.
        KeyUsedForAnotherAnswer: the key came before with another answer.
    """
    asked = await asked_for(session, offer_id)
    given = GivenAnswer(
        offer_id=offer_id,
        answer=answer,
        outcome=outcome,
        # What no database can store, and what would make a coordinator's terminal obey.
        words=without_control(words) if words else None,
        channel=channel,
        volunteer_id=UUID(asked.recipient),
        phone=asked.phone,
        email=asked.email,
    )
    event_id = uuid7() if key is None else uuid5(NAMESPACE_URL, f"jangkau:{offer_id}:{key}")
    if key is not None and await _came_before(session, event_id, given):
        return event_id
    answered: OfferAnswered = OfferAnswered.of(
        given,
        case_id=asked.case_id,
        district=asked.district,
        time=await now(session),
        drill=asked.drill,
    )
    await outbox.publish(session, [answered.model_copy(update={"id": event_id})])
    return event_id


async def asked_for(session: AsyncSession, offer_id: UUID) -> Row:
    """Who was asked: case_id, district, drill, recipient, phone, email, answer_code.

    Raises:
        UnknownOffer: there is no message of this offer.
    """
    found = await execute(session, _ASKED, {"offer": offer_id})
    if not found:
        raise UnknownOffer(f"There is no message of the offer {offer_id}.")
    return found[0]


async def _came_before(session: AsyncSession, event_id: UUID, given: GivenAnswer) -> bool:
    await execute(session, _LOCK, {"id": str(event_id)})
    for row in await execute(session, _GIVEN, {"id": event_id}):
        if GivenAnswer.model_validate(json.loads(row.payload)["data"]) != given:
            raise KeyUsedForAnotherAnswer
        return True
    return False
