"""Who is told what: from an event to the messages that it makes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services.notification import texts
from services.notification.texts import Texts
from shared import policy
from shared.events import (
    AnsweredDuty,
    AnswerJudged,
    CaseEscalated,
    CaseProgressed,
    CaseReported,
    CasesHeld,
    Coordinator,
    DutyAnswered,
    Event,
    OfferAssigned,
    OfferClosed,
    OfferedVolunteer,
    OfferMade,
    Reporter,
    VolunteerPinged,
)

# How long a message is still worth sending; an offer for as long as it can be answered.
# A case that was given to somebody stays theirs; if it does not, the message is withdrawn.
ASSIGNED_LIFE = timedelta(hours=24)
# Later the volunteer has found out on the way, or has long forgotten; nobody is woken for it.
CLOSING_LIFE = timedelta(hours=6)
REPLY_LIFE = timedelta(hours=6)
# A case without a volunteer needs its coordinator the next morning as well.
ESCALATION_LIFE = timedelta(hours=24)
# Whoever reported a case wants to hear of it also if the gateway was away for a while.
NEWS_LIFE = timedelta(hours=12)

# What a volunteer who did not answer need not be told: they are not on their way.
# Who is off duty has been told so, and what that means.
SILENT_REASONS = ("expired", "off_duty")

# The address of the page on which an offer is answered, by its id and its answer code.
LinkTo = Callable[[UUID, str], str | None]


@dataclass(frozen=True)
class Letter:
    """One message to one person, before it is stored.

    ``event_id`` is what it is about: the same event, recipient and purpose make one message.
    ``subject`` is the case, or the volunteer where it is about no case. ``recipient`` is a
    volunteer's id, or ``coordinator:``, ``reporter:`` or ``unknown:`` and the address.
    ``preferred`` is the kind of channel that they like best. ``urgent`` goes by SMS also when the
    day's budget is spent.
    """

    event_id: UUID
    subject: UUID
    district: str
    drill: bool
    purpose: str
    recipient: str
    phone: str | None
    email: str | None
    texts: Texts
    send_before: datetime
    urgent: bool = True
    preferred: str | None = None
    offer_id: UUID | None = None
    answer_code: str | None = None
    reported_at: datetime | None = None
    # Whoever wrote STOP hears that it was understood, and nothing else.
    heeds_stop: bool = True


def offer(made: OfferMade, *, link: LinkTo) -> Letter:
    """Ask a volunteer to come."""
    data = made.data
    written = texts.offer(data, link=link(data.offer_id, data.answer_code), drill=made.drill)
    return _to_volunteer(
        made,
        "offer",
        data.volunteer,
        written,
        send_before=data.respond_by,
        urgent=data.urgency == "urgent",
        offer_id=data.offer_id,
        answer_code=data.answer_code,
        reported_at=data.reported_at,
    )


def assigned(made: OfferAssigned, *, link: LinkTo) -> Letter:
    """Tell a volunteer that a coordinator has given them a case."""
    data = made.data
    written = texts.assigned(data, link=link(data.offer_id, data.answer_code), drill=made.drill)
    return _to_volunteer(
        made,
        "assigned",
        data.volunteer,
        written,
        send_before=made.time + ASSIGNED_LIFE,
        offer_id=data.offer_id,
        answer_code=data.answer_code,
        reported_at=data.reported_at,
    )


def closing(ended: OfferClosed) -> Letter:
    """Tell a volunteer that they need not come."""
    return _to_volunteer(
        ended,
        "closed",
        ended.data.volunteer,
        texts.closed(ended.data, drill=ended.drill),
        send_before=ended.time + CLOSING_LIFE,
        offer_id=ended.data.offer_id,
        answer_code=ended.data.answer_code,
    )


def ping(pinged: VolunteerPinged, *, link: LinkTo) -> Letter:
    """Ask a volunteer for a sign of life."""
    data = pinged.data
    written = texts.ping(
        data.volunteer.name,
        data.answer_code,
        language=data.volunteer.language,
        link=link(data.ping_id, data.answer_code),
        drill=pinged.drill,
    )
    return _to_volunteer(
        pinged,
        "ping",
        data.volunteer,
        written,
        send_before=data.respond_by,
        urgent=False,
        offer_id=data.ping_id,
        answer_code=data.answer_code,
    )


def _to_volunteer(
    event: Event[Any],
    purpose: str,
    volunteer: OfferedVolunteer,
    written: Texts,
    *,
    send_before: datetime,
    offer_id: UUID,
    answer_code: str,
    urgent: bool = True,
    reported_at: datetime | None = None,
) -> Letter:
    return Letter(
        event_id=event.id,
        subject=event.subject,
        district=event.district,
        drill=event.drill,
        purpose=purpose,
        recipient=str(volunteer.id),
        phone=volunteer.phone,
        email=volunteer.email,
        preferred=volunteer.channel,
        texts=written,
        send_before=send_before,
        urgent=urgent,
        offer_id=offer_id,
        answer_code=answer_code,
        reported_at=reported_at,
    )


def reply(judged: AnswerJudged, *, link: LinkTo, over: bool = False) -> Letter | None:
    """Tell whoever has answered what became of it; None if nobody knows where they are.

    ``over``: the offer has ended since, and the reporter's contact is none of theirs any more.
    """
    said = judged.data
    phone = said.volunteer.phone if said.volunteer else said.phone
    email = said.volunteer.email if said.volunteer else said.email
    if said.volunteer is None and phone is None and email is None:
        return None
    theirs = said.volunteer is not None and said.answer_code is not None
    return Letter(
        event_id=judged.id,
        subject=judged.subject,
        district=judged.district,
        drill=judged.drill,
        purpose="reply",
        recipient=str(said.volunteer.id) if said.volunteer else f"unknown:{phone or email}",
        phone=phone,
        email=email,
        preferred=said.volunteer.channel if said.volunteer else None,
        texts=texts.reply(
            said,
            link=link(said.offer_id, said.answer_code) if theirs and said.answer_code else None,
            reporter=None if over else said.reporter,
            drill=judged.drill,
        ),
        send_before=judged.time + REPLY_LIFE,
        offer_id=said.offer_id,
        answer_code=said.answer_code,
    )


def duty(told: DutyAnswered) -> Letter | None:
    """Tell whoever wrote about their duty what became of it; None if they have no address."""
    said = told.data
    phone = said.volunteer.phone if said.volunteer else said.phone
    email = said.volunteer.email if said.volunteer else said.email
    if phone is None and email is None:
        return None
    return Letter(
        event_id=told.id,
        subject=told.subject,
        district=told.district,
        drill=told.drill,
        purpose="duty",
        recipient=str(said.volunteer.id) if said.volunteer else f"unknown:{phone or email}",
        phone=phone,
        email=email,
        preferred=said.volunteer.channel if said.volunteer else None,
        texts=_on_duty(said, drill=told.drill),
        send_before=told.time + REPLY_LIFE,
        # A stranger spends no district's budget by writing to it.
        urgent=said.volunteer is not None,
    )


def _on_duty(said: AnsweredDuty, *, drill: bool) -> Texts:
    volunteer = said.volunteer
    if volunteer is not None and said.link is not None:
        return texts.duty_page(volunteer.name, said.link, language=volunteer.language, drill=drill)
    return texts.duty(said, drill=drill)


def escalations(escalated: CaseEscalated) -> Iterator[Letter]:
    """Tell every coordinator that a case needs them."""
    for coordinator in escalated.data.coordinators:
        yield to_coordinator(
            coordinator,
            about=escalated,
            purpose="escalation",
            written=texts.escalation(escalated.data, coordinator, drill=escalated.drill),
            reported_at=escalated.data.reported_at,
        )


def held(told: CasesHeld) -> Iterator[Letter]:
    """Ask the duty officers to look at what was held back."""
    for coordinator in told.data.coordinators:
        yield to_coordinator(
            coordinator,
            about=told,
            purpose="held",
            written=texts.held(told.data, coordinator, drill=told.drill),
        )


def to_coordinator(
    coordinator: Coordinator,
    *,
    about: Event[Any],
    purpose: str,
    written: Texts,
    reported_at: datetime | None = None,
) -> Letter:
    """What a coordinator has to know: it is still worth knowing the next morning."""
    address = coordinator.phone or coordinator.email or coordinator.name
    return Letter(
        event_id=about.id,
        subject=about.subject,
        district=about.district,
        drill=about.drill,
        purpose=purpose,
        recipient=f"coordinator:{address}",
        phone=coordinator.phone,
        email=coordinator.email,
        texts=written,
        send_before=about.time + ESCALATION_LIFE,
        reported_at=reported_at,
    )


def to_officer(
    officer: Coordinator,
    *,
    event_id: UUID,
    subject: UUID,
    district: str,
    drill: bool,
    purpose: str,
    written: Texts,
    moment: datetime,
    urgent: bool,
) -> Letter:
    """What somebody has written, or how much it was: ``subject`` is the case that it is about, or
    stands for who wrote it."""
    return Letter(
        event_id=event_id,
        subject=subject,
        district=district,
        drill=drill,
        purpose=purpose,
        recipient=f"coordinator:{officer.phone or officer.email or officer.name}",
        phone=officer.phone,
        email=officer.email,
        texts=written,
        send_before=moment + ESCALATION_LIFE,
        urgent=urgent,
    )


def of_policy(coordinators: Iterable[policy.Coordinator]) -> list[Coordinator]:
    """Coordinators as events and texts know them."""
    return [
        Coordinator(name=one.name, phone=one.phone, email=one.email, language=one.language)
        for one in coordinators
    ]


def acknowledgement(reported: CaseReported) -> Letter | None:
    """Tell a reporter that their report has come in, and its code; None if they want no news."""
    reporter = reported.data.reporter
    if reporter is None or not reporter.wants_news:
        return None
    written = texts.acknowledged(
        reported.data.code, language=reporter.language, drill=reported.drill
    )
    return _to_reporter(reported, "acknowledged", reporter, written)


def progress(progressed: CaseProgressed) -> Letter | None:
    """Tell a reporter that somebody comes, or that it has ended; None for a step not known here."""
    data = progressed.data
    language, drill = data.reporter.language, progressed.drill
    if data.step == "accepted":
        written = texts.on_the_way(data.code, language=language, drill=drill)
    elif data.step == "closed":
        written = texts.case_closed(data.code, data.outcome, language=language, drill=drill)
    else:
        return None
    return _to_reporter(progressed, f"news_{data.step}", data.reporter, written)


def _to_reporter(event: Event[Any], purpose: str, reporter: Reporter, written: Texts) -> Letter:
    return Letter(
        event_id=event.id,
        subject=event.subject,
        district=event.district,
        drill=event.drill,
        purpose=purpose,
        recipient=f"reporter:{reporter.phone or reporter.email}",
        phone=reporter.phone,
        email=reporter.email,
        texts=written,
        send_before=event.time + NEWS_LIFE,
        urgent=False,
    )
