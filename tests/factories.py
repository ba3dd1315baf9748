"""Events for tests: a plausible default, and only what a test is about is said."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from shared.events import (
    AnsweredPing,
    AnswerJudged,
    AskedVolunteer,
    CaseEscalated,
    CaseProgressed,
    CaseReported,
    CasesHeld,
    ClosedOffer,
    Coordinator,
    EscalatedCase,
    Event,
    GivenAnswer,
    HeldCases,
    JudgedAnswer,
    MadeOffer,
    OfferAnswered,
    OfferAssigned,
    OfferClosed,
    OfferedVolunteer,
    OfferMade,
    OfferUnreachable,
    PingAnswered,
    PingedVolunteer,
    PingUnreachable,
    Place,
    ProgressedCase,
    PublicCase,
    PublicCaseAccepted,
    PublicCaseArrived,
    PublicCaseClosed,
    PublicCaseEscalated,
    PublicCaseOffered,
    PublicCaseOpened,
    PublicCaseReopened,
    PublicCaseWaiting,
    PublicSubdistrict,
    ReportedCase,
    Reporter,
    RunLowBudget,
    SmsBudgetRunLow,
    StoppedVolunteer,
    UnreachableOffer,
    UnreachedPing,
    VolunteerPinged,
    VolunteerStopped,
)

NOON = datetime(2026, 3, 1, 5, 0, tzinfo=UTC)  # 12.00 in Bangka Tengah
DISTRICT = "19.04"
KOBA = (-2.493, 106.408)


def place(latitude: float = KOBA[0], longitude: float = KOBA[1], **values: Any) -> Place:
    """A position in Koba."""
    return Place.model_validate(
        {
            "latitude": latitude,
            "longitude": longitude,
            "approximate": False,
            "subdistrict": "19.04.01",
            "subdistrict_name": "Koba",
            "centre_latitude": KOBA[0],
            "centre_longitude": KOBA[1],
            **values,
        }
    )


def case_reported(
    latitude: float = KOBA[0],
    longitude: float = KOBA[1],
    *,
    case_id: UUID | None = None,
    district: str = DISTRICT,
    drill: bool = False,
    traceparent: str | None = None,
    **values: Any,
) -> CaseReported:
    """A report that has passed the gate."""
    data = {
        "code": "ABCD2345",
        "category": "homeless",
        "urgency": "normal",
        "place": place(latitude, longitude),
        "people": 1,
        "channel": "web",
        "reported_at": NOON,
        **values,
    }
    reported: CaseReported = CaseReported.of(
        ReportedCase.model_validate(data),
        case_id=case_id or uuid7(),
        district=district,
        time=NOON,
        drill=drill,
        traceparent=traceparent,
    )
    return reported


def reporter(**values: Any) -> Reporter:
    """Budi, who told us and wants to hear more."""
    data = {"name": "Budi", "phone": "+6281299998888", "email": "budi@example.org", **values}
    return Reporter.model_validate(data)


def offered_volunteer(**values: Any) -> OfferedVolunteer:
    """Siti, who can be reached both ways."""
    data = {
        "id": uuid7(),
        "name": "Siti",
        "phone": "+6281234567890",
        "email": "siti@example.org",
        **values,
    }
    return OfferedVolunteer.model_validate(data)


def made_offer(**values: Any) -> MadeOffer:
    """What one volunteer is asked."""
    data = {
        "offer_id": uuid7(),
        "answer_code": "K7P2M",
        "respond_by": NOON + timedelta(minutes=10),
        "volunteer": offered_volunteer(),
        "distance_m": 3200.0,
        "category": "elderly_abandoned",
        "urgency": "normal",
        "people": 1,
        "place": place(village="19.04.01.1002", village_name="Berok"),
        "utc_offset_minutes": 420,
        "reported_at": NOON,
        **values,
    }
    return MadeOffer.model_validate(data)


def _event(
    kind: type[Event[Any]], data: Any, *, case_id: UUID | None, drill: bool, time: datetime = NOON
) -> Any:
    return kind.of(data, case_id=case_id or uuid7(), district=DISTRICT, time=time, drill=drill)


def offer_made(*, drill: bool = False, case_id: UUID | None = None, **values: Any) -> OfferMade:
    """An offer on its way to a volunteer, open for an hour from now."""
    values = {"respond_by": datetime.now(UTC) + timedelta(hours=1), **values}
    made: OfferMade = _event(OfferMade, made_offer(**values), case_id=case_id, drill=drill)
    return made


def offer_assigned(
    *, drill: bool = False, case_id: UUID | None = None, **values: Any
) -> OfferAssigned:
    """A case that a coordinator has just given to a volunteer."""
    values = {"respond_by": datetime.now(UTC) + timedelta(hours=1), **values}
    made: OfferAssigned = _event(
        OfferAssigned,
        made_offer(**values),
        case_id=case_id,
        drill=drill,
        time=datetime.now(UTC),
    )
    return made


def offer_closed(
    reason: str = "taken_by_another",
    *,
    offer: Event[MadeOffer] | None = None,
    drill: bool = False,
    case_id: UUID | None = None,
    time: datetime | None = None,
    **values: Any,
) -> OfferClosed:
    """An offer that ended: ``offer``, or one of which nobody has heard. ``time``: now."""
    data = {
        "offer_id": offer.data.offer_id if offer else uuid7(),
        "answer_code": offer.data.answer_code if offer else "K7P2M",
        "reason": reason,
        "volunteer": offer.data.volunteer if offer else offered_volunteer(),
        **values,
    }
    made: OfferClosed = _event(
        OfferClosed,
        ClosedOffer.model_validate(data),
        case_id=case_id or (offer.subject if offer else None),
        drill=offer.drill if offer else drill,
        time=time or datetime.now(UTC),
    )
    return made


def answer_judged(
    answer: str = "accept",
    verdict: str = "recorded",
    *,
    offer: Event[MadeOffer] | None = None,
    drill: bool = False,
    case_id: UUID | None = None,
    time: datetime | None = None,
    **values: Any,
) -> AnswerJudged:
    """What became of an answer: to ``offer``, or to one that nobody knows. ``time``: now."""
    data = {
        "offer_id": offer.data.offer_id if offer else uuid7(),
        "answer_code": offer.data.answer_code if offer else "K7P2M",
        "answer": answer,
        "verdict": verdict,
        "volunteer": offer.data.volunteer if offer else offered_volunteer(),
        **values,
    }
    made: AnswerJudged = _event(
        AnswerJudged,
        JudgedAnswer.model_validate(data),
        case_id=case_id or (offer.subject if offer else None),
        drill=offer.drill if offer else drill,
        time=time or datetime.now(UTC),
    )
    return made


def coordinator(**values: Any) -> Coordinator:
    """Bu Ani of the agency, who can be reached both ways."""
    data = {"name": "Ani", "phone": "+6281200000001", "email": "ani@example.org", **values}
    return Coordinator.model_validate(data)


def asked_volunteer(**values: Any) -> AskedVolunteer:
    """Somebody who was asked and said no."""
    data = {
        "name": "Budi",
        "phone": "+6281234567891",
        "role": "psm",
        "distance_m": 3200.0,
        "state": "declined",
        **values,
    }
    return AskedVolunteer.model_validate(data)


def cases_held(**values: Any) -> CasesHeld:
    """Reports that a duty officer is to look at, as of now."""
    data = {
        "district_name": "Bangka Tengah",
        "cases": 37,
        "urgent": 4,
        "reasons": ["too_many_from_one_address"],
        "look_by": NOON + timedelta(minutes=10),
        "utc_offset_minutes": 420,
        "coordinators": [coordinator()],
        **values,
    }
    made: CasesHeld = _event(
        CasesHeld, HeldCases.model_validate(data), case_id=None, drill=False, time=datetime.now(UTC)
    )
    return made


def case_escalated(
    reason: str = "nobody_left_to_ask",
    *,
    drill: bool = False,
    case_id: UUID | None = None,
    time: datetime | None = None,
    **values: Any,
) -> CaseEscalated:
    """A case that a coordinator must look at: one volunteer was asked. ``time``: now."""
    data = {
        "code": "ABCD2345",
        "reason": reason,
        "coordinators": [coordinator()],
        "asked": [asked_volunteer()],
        "category": "elderly_abandoned",
        "urgency": "normal",
        "people": 1,
        "place": place(village="19.04.01.1002", village_name="Berok"),
        "utc_offset_minutes": 420,
        "reported_at": NOON,
        **values,
    }
    made: CaseEscalated = _event(
        CaseEscalated,
        EscalatedCase.model_validate(data),
        case_id=case_id,
        drill=drill,
        time=time or datetime.now(UTC),
    )
    return made


def offer_answered(
    answer: str = "accept",
    *,
    offer: Event[MadeOffer] | None = None,
    offer_id: UUID | None = None,
    drill: bool = False,
    case_id: UUID | None = None,
    time: datetime = NOON,
    **values: Any,
) -> OfferAnswered:
    """What a volunteer answered: to ``offer``, to the one with ``offer_id``, or to no known one."""
    volunteer = offer.data.volunteer if offer else None
    data = {
        "offer_id": offer.data.offer_id if offer else offer_id or uuid7(),
        "answer": answer,
        "outcome": "resolved" if answer == "done" else None,
        "channel": "sandbox",
        "form": "button",
        "volunteer_id": volunteer.id if volunteer else None,
        "phone": volunteer.phone if volunteer else None,
        "email": volunteer.email if volunteer else None,
        **values,
    }
    made: OfferAnswered = _event(
        OfferAnswered,
        GivenAnswer.model_validate(data),
        case_id=case_id or (offer.subject if offer else None),
        drill=offer.drill if offer else drill,
        time=time,
    )
    return made


def offer_unreachable(
    reason: str = "no_channel_left",
    *,
    offer: Event[MadeOffer] | None = None,
    offer_id: UUID | None = None,
    drill: bool = False,
    case_id: UUID | None = None,
    time: datetime = NOON,
) -> OfferUnreachable:
    """An offer that no channel could bring: ``offer``, or the one with ``offer_id``."""
    data = {
        "offer_id": offer.data.offer_id if offer else offer_id or uuid7(),
        "reason": reason,
    }
    made: OfferUnreachable = _event(
        OfferUnreachable,
        UnreachableOffer.model_validate(data),
        case_id=case_id or (offer.subject if offer else None),
        drill=offer.drill if offer else drill,
        time=time,
    )
    return made


def case_progressed(
    step: str = "accepted",
    *,
    outcome: str | None = None,
    drill: bool = False,
    case_id: UUID | None = None,
    time: datetime | None = None,
    **values: Any,
) -> CaseProgressed:
    """News for whoever reported. ``time``: now."""
    data = {
        "code": "ABCD2345",
        "step": step,
        "outcome": outcome or ("resolved" if step == "closed" else None),
        "reporter": reporter(),
        **values,
    }
    made: CaseProgressed = _event(
        CaseProgressed,
        ProgressedCase.model_validate(data),
        case_id=case_id,
        drill=drill,
        time=time or datetime.now(UTC),
    )
    return made


def volunteer_pinged(
    *, drill: bool = False, time: datetime | None = None, **values: Any
) -> VolunteerPinged:
    """Siti is asked for a sign of life, within an hour from now. ``time``: now."""
    data = {
        "ping_id": uuid7(),
        "answer_code": "P2K7M",
        "respond_by": datetime.now(UTC) + timedelta(hours=1),
        "volunteer": offered_volunteer(),
        **values,
    }
    pinged = PingedVolunteer.model_validate(data)
    made: VolunteerPinged = _event(
        VolunteerPinged,
        pinged,
        case_id=pinged.volunteer.id,
        drill=drill,
        time=time or datetime.now(UTC),
    )
    return made


def ping_answered(
    words: str | None = None,
    *,
    ping_id: UUID | None = None,
    volunteer_id: UUID | None = None,
    time: datetime | None = None,
) -> PingAnswered:
    """A sign of life. ``time``: now."""
    made: PingAnswered = _event(
        PingAnswered,
        AnsweredPing(ping_id=ping_id or uuid7(), words=words, channel="sandbox"),
        case_id=volunteer_id,
        drill=False,
        time=time or datetime.now(UTC),
    )
    return made


def ping_unreachable(
    reason: str = "undelivered",
    *,
    ping_id: UUID | None = None,
    volunteer_id: UUID | None = None,
    time: datetime | None = None,
) -> PingUnreachable:
    """A test that no channel could bring. ``time``: now."""
    made: PingUnreachable = _event(
        PingUnreachable,
        UnreachedPing(ping_id=ping_id or uuid7(), reason=reason),
        case_id=volunteer_id,
        drill=False,
        time=time or datetime.now(UTC),
    )
    return made


def volunteer_stopped(
    volunteer_id: UUID | None = None,
    *,
    channel: str = "sms",
    stopped: bool = True,
    reachable: bool = False,
    time: datetime | None = None,
) -> VolunteerStopped:
    """STOP from a volunteer who has nothing else, or MULAI. ``time``: now."""
    id_ = volunteer_id or uuid7()
    made: VolunteerStopped = _event(
        VolunteerStopped,
        StoppedVolunteer(
            volunteer_id=id_,
            channel=channel,
            stopped=stopped,
            reachable=reachable,
        ),
        case_id=id_,
        drill=False,
        time=time or datetime.now(UTC),
    )
    return made


def sms_budget_run_low(used: int = 400, budget: int = 500) -> SmsBudgetRunLow:
    """Four fifths of the day's budget are spent."""
    made: SmsBudgetRunLow = _event(
        SmsBudgetRunLow,
        RunLowBudget(day="2026-03-01", used=used, budget=budget),
        case_id=None,
        drill=False,
    )
    return made


PUBLIC: dict[str, type[Event[PublicCase]]] = {
    "searching": PublicCaseOpened,
    "offered": PublicCaseOffered,
    "waiting": PublicCaseWaiting,
    "escalated": PublicCaseEscalated,
    "accepted": PublicCaseAccepted,
    "arrived": PublicCaseArrived,
    "reopened": PublicCaseReopened,
    "closed": PublicCaseClosed,
}


def public_case(
    state: str, *, version: int, case_id: UUID, waiting_for: str | None = None, **values: Any
) -> Event[PublicCase]:
    """One step in the public life of a case; ``reopened`` is a step back to searching."""
    data = {
        "version": version,
        "state": "searching" if state == "reopened" else state,
        "category": "homeless",
        "urgency": "normal",
        "subdistrict": PublicSubdistrict(
            code="19.04.01", name="Koba", latitude=KOBA[0], longitude=KOBA[1]
        ),
        "reported_at": NOON,
        "waiting_for": waiting_for,
        **values,
    }
    made: Event[PublicCase] = PUBLIC[state].of(
        PublicCase.model_validate(data),
        case_id=case_id,
        district=DISTRICT,
        time=NOON + timedelta(seconds=version),
    )
    return made
