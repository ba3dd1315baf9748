"""Who is told what: from an event of assignment to the messages that it makes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.notification import texts
from services.notification.texts import Texts
from shared.events import (
    AnswerJudged,
    CaseEscalated,
    Event,
    OfferAssigned,
    OfferClosed,
    OfferMade,
)

# How long a message is still worth sending; an offer for as long as it can be answered.
# A case that was given to somebody stays theirs; if it does not, the message is withdrawn.
ASSIGNED_LIFE = timedelta(hours=24)
# Later the volunteer has found out on the way, or has long forgotten; nobody is woken for it.
CLOSING_LIFE = timedelta(hours=6)
REPLY_LIFE = timedelta(hours=6)
# A case without a volunteer needs its coordinator the next morning as well.
ESCALATION_LIFE = timedelta(hours=24)

# What a volunteer who did not answer need not be told: they are not on their way.
SILENT_REASONS = ("expired",)


@dataclass(frozen=True)
class Letter:
    """One message to one person, before it is stored. ``event``: what it is about.

    ``recipient`` is a volunteer's id, or ``coordinator:`` or ``unknown:`` and the address.
    """

    event: Event[Any]
    purpose: str
    recipient: str
    phone: str | None
    email: str | None
    texts: Texts
    send_before: datetime
    offer_id: UUID | None = None
    answer_code: str | None = None
    reported_at: datetime | None = None


def offer(made: OfferMade) -> Letter:
    """Ask a volunteer to come."""
    written = texts.offer(made.data, drill=made.drill)
    return _to_volunteer(made, "offer", written, send_before=made.data.respond_by)


def assigned(made: OfferAssigned) -> Letter:
    """Tell a volunteer that a coordinator has given them a case."""
    written = texts.assigned(made.data, drill=made.drill)
    return _to_volunteer(made, "assigned", written, send_before=made.time + ASSIGNED_LIFE)


def closing(ended: OfferClosed) -> Letter:
    """Tell a volunteer that they need not come."""
    written = texts.closed(ended.data, drill=ended.drill)
    return _to_volunteer(ended, "closed", written, send_before=ended.time + CLOSING_LIFE)


def _to_volunteer(
    event: OfferMade | OfferAssigned | OfferClosed,
    purpose: str,
    written: Texts,
    *,
    send_before: datetime,
) -> Letter:
    volunteer = event.data.volunteer
    return Letter(
        event=event,
        purpose=purpose,
        recipient=str(volunteer.id),
        phone=volunteer.phone,
        email=volunteer.email,
        texts=written,
        send_before=send_before,
        offer_id=event.data.offer_id,
        answer_code=event.data.answer_code,
        reported_at=getattr(event.data, "reported_at", None),
    )


def reply(judged: AnswerJudged) -> Letter | None:
    """Tell whoever has answered what became of it; None if nobody knows where they are."""
    said = judged.data
    phone = said.volunteer.phone if said.volunteer else said.phone
    email = said.volunteer.email if said.volunteer else said.email
    if said.volunteer is None and phone is None and email is None:
        return None
    return Letter(
        event=judged,
        purpose="reply",
        recipient=str(said.volunteer.id) if said.volunteer else f"unknown:{phone or email}",
        phone=phone,
        email=email,
        texts=texts.reply(said, drill=judged.drill),
        send_before=judged.time + REPLY_LIFE,
        offer_id=said.offer_id,
        answer_code=said.answer_code,
    )


def escalations(escalated: CaseEscalated) -> Iterator[Letter]:
    """Tell every coordinator that a case needs them."""
    for coordinator in escalated.data.coordinators:
        address = coordinator.phone or coordinator.email or coordinator.name
        yield Letter(
            event=escalated,
            purpose="escalation",
            recipient=f"coordinator:{address}",
            phone=coordinator.phone,
            email=coordinator.email,
            texts=texts.escalation(escalated.data, coordinator, drill=escalated.drill),
            send_before=escalated.time + ESCALATION_LIFE,
            reported_at=escalated.data.reported_at,
        )
