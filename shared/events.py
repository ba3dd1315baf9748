"""The contracts: one class per event, named for a fact in the past tense.

Every event is a CloudEvent 1.0 in structured JSON (https://github.com/cloudevents/spec). The
``subject`` is the case id, which is also the Kafka key, so that one case stays in order.

Events only grow: a new field is optional, a new meaning is a new ``v2`` type. Unknown fields are
ignored, unknown types are parked by whoever reads them.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from uuid_utils.compat import uuid7

CONTENT_TYPE = "application/cloudevents+json"
# A name, not an address: nothing has to answer there for as long as events are kept.
SCHEMA_BASE = "urn:jangkau:schema:"

Category = Literal[
    "elderly_abandoned",
    "child_neglected",
    "stranded_traveller",
    "mental_illness",
    "homeless",
    "beggar",
    "disability",
    "violence_victim",
    "disaster_victim",
    "poor_family",
    "other",
]
Urgency = Literal["normal", "urgent"]
Role = Literal["psm", "tksk", "pensosmas", "pkh"]
Answer = Literal["accept", "decline", "arrived", "done", "obstacle", "hand_back"]
Outcome = Literal["resolved", "referred", "not_found", "cancelled"]

# Why a report is looked at by the duty officer before volunteers are asked.
REVIEWS = (
    "too_many_from_one_address",
    "too_many_for_one_contact",
    "too_many_in_the_district",
)

# Beyond this nothing is genuine, and neither Python nor PostgreSQL can put it into every time zone.
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
]

# A word that may get company: readers of an older version let a new one pass instead of parking it.
Word = Annotated[str, Field(max_length=60)]

# Lists and texts of an event are bounded where it is made, so that Kafka always takes it. Whoever
# reads lets more pass: an older writer may still send it.
ASKED_AT_MOST = 30
COORDINATORS_AT_MOST = 20
ASKED_WORDS_AT_MOST = 300
WORDS_AT_MOST = 1000
CUT_MARK_AT_MOST = 12  # "… (+1234567)"

Data = TypeVar("Data", bound=BaseModel)


class Contract(BaseModel):
    """What every part of an event has in common: unchangeable, and blind to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(Contract, Generic[Data]):
    """A CloudEvents 1.0 envelope around ``data``.

    ``time`` is the database's clock when the fact was stored. ``district`` (Kemendagri code),
    ``drill`` and ``traceparent`` (W3C Trace Context) are extension attributes.
    """

    source_service: ClassVar[str]

    specversion: Literal["1.0"] = "1.0"
    # No default: a record without one would get another at each delivery, and be handled each time.
    id: UUID = Field(description="UUIDv7; the same fact has the same id")
    source: str = Field(description="the service that published it, such as /jangkau/intake")
    type: str
    subject: UUID = Field(description="case id; of an event about a volunteer alone, theirs")
    time: Moment
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str
    district: str = Field(description="Kemendagri code of the district, such as 19.04")
    drill: bool = Field(default=False, description="a rehearsal: nothing of it counts as real")
    traceparent: str | None = Field(default=None, description="W3C Trace Context")
    data: Data

    @classmethod
    def of(
        cls,
        data: Data,
        *,
        case_id: UUID,
        district: str,
        time: datetime,
        drill: bool = False,
        traceparent: str | None = None,
    ) -> "Any":
        """Build the event; what the class itself knows (type, source, schema) is filled in."""
        return cls.model_construct(
            specversion="1.0",
            id=uuid7(),
            source=f"/jangkau/{cls.source_service}",
            type=cls.type_name(),
            subject=case_id,
            time=time.astimezone(UTC),
            datacontenttype="application/json",
            dataschema=f"{SCHEMA_BASE}{cls.type_name()}",
            district=district,
            drill=drill,
            traceparent=traceparent,
            data=data,
        )

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents type, such as ``id.jangkau.offer.made.v1``."""
        return str(cls.model_fields["type"].default)

    def to_json(self) -> str:
        """The bytes that go over the wire (as text), absent extensions left out."""
        return self.model_dump_json(exclude_none=True)


class Place(Contract):
    """Where the person is, in WGS 84 degrees."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    approximate: bool = Field(description="a centre from a table, not a position that was measured")
    subdistrict: str = Field(description="Kemendagri code")
    subdistrict_name: str
    village: str | None = Field(default=None, description="Kemendagri code")
    village_name: str | None = None
    centre_latitude: float = Field(description="of the subdistrict")
    centre_longitude: float = Field(description="of the subdistrict")


class Reporter(Contract):
    """Who told us, if they gave a contact. Internal: holds personal data."""

    name: str | None = None
    phone: str | None = Field(default=None, description="E.164")
    email: str | None = None
    language: str = "id"
    wants_news: bool = Field(default=True, description="is told when somebody comes, and the end")


class ReportedCase(Contract):
    """A report that passed the gate and needs a volunteer. Internal: holds personal data."""

    code: str = Field(description="short code that the reporter got")
    category: Category
    urgency: Urgency
    place: Place
    people: int = Field(default=1, ge=1)
    channel: str
    reported_at: Moment
    reporter: Reporter | None = None
    review: Word | None = Field(
        default=None,
        description="why the duty officer looks at it before volunteers are asked",
        json_schema_extra={"enum": list(REVIEWS)},
    )


class CaseReported(Event[ReportedCase]):
    """Somebody reported a person in need: find a volunteer."""

    source_service = "intake"
    type: Literal["id.jangkau.case.reported.v1"] = "id.jangkau.case.reported.v1"


class OfferedVolunteer(Contract):
    """Whom to reach, and how. Internal: holds personal data."""

    id: UUID
    name: str
    phone: str | None = Field(default=None, description="E.164")
    email: str | None = None
    language: str = "id"
    channel: Word | None = Field(
        default=None,
        description="what they would rather be reached by, if it can be had",
        json_schema_extra={"enum": ["sms", "email", "other"]},
    )


class MadeOffer(Contract):
    """One case offered to one volunteer until a deadline. Internal: holds personal data."""

    offer_id: UUID
    answer_code: str = Field(description="short code that ties an answer to this offer")
    respond_by: Moment
    volunteer: OfferedVolunteer
    distance_m: float = Field(ge=0, description="great-circle metres")
    category: Category
    urgency: Urgency
    people: int = 1
    place: Place
    utc_offset_minutes: int = Field(description="of the district, for times in messages")
    reported_at: Moment
    reporter: Reporter | None = Field(
        default=None, description="only once the volunteer has the case: with offer.assigned"
    )


class OfferMade(Event[MadeOffer]):
    """This volunteer is asked to take this case, until then."""

    source_service = "assignment"
    type: Literal["id.jangkau.offer.made.v1"] = "id.jangkau.offer.made.v1"


class OfferAssigned(Event[MadeOffer]):
    """A coordinator has given this case to this volunteer: it is theirs, not asked."""

    source_service = "assignment"
    type: Literal["id.jangkau.offer.assigned.v1"] = "id.jangkau.offer.assigned.v1"


class ClosedOffer(Contract):
    """An offer that ended without its volunteer's own answer. Internal: holds personal data."""

    offer_id: UUID
    answer_code: str
    reason: Word = Field(
        json_schema_extra={
            "enum": [
                "taken_by_another",
                "expired",
                "case_closed",
                "lapsed",
                "released",
                "off_duty",
                "hands_full",
            ]
        }
    )
    volunteer: OfferedVolunteer


class OfferClosed(Event[ClosedOffer]):
    """The volunteer is no longer asked: nothing about this offer may be sent any more."""

    source_service = "assignment"
    type: Literal["id.jangkau.offer.closed.v1"] = "id.jangkau.offer.closed.v1"


class Coordinator(Contract):
    """Who is told when a case needs a person to decide. Internal: holds personal data."""

    name: str
    phone: str | None = Field(default=None, description="E.164")
    email: str | None = None
    language: str = "id"


class AskedVolunteer(Contract):
    """Who was asked for a case, and what came back."""

    name: str
    phone: str | None = Field(default=None, description="E.164")
    role: Word
    distance_m: float = Field(ge=0, description="great-circle metres")
    state: Word = Field(description="of the offer: declined, expired, handed_back …")
    words: str | None = Field(
        default=None,
        description="what they wrote; what is longer ends in … and how many letters were left out",
        json_schema_extra={"maxLength": ASKED_WORDS_AT_MOST + CUT_MARK_AT_MOST},
    )


class EscalatedCase(Contract):
    """A case that needs a coordinator, and why. Internal: holds personal data."""

    code: str
    reason: Word = Field(
        json_schema_extra={
            "enum": [
                "nobody_left_to_ask",
                "nobody_accepted_in_time",
                "obstacle",
                "no_news_after_arrival",
                "assigned_unreachable",
                "answers_unread",
            ]
        }
    )
    words: str | None = Field(
        default=None,
        description="what the volunteer reported",
        json_schema_extra={"maxLength": WORDS_AT_MOST + CUT_MARK_AT_MOST},
    )
    coordinators: list[Coordinator] = Field(json_schema_extra={"maxItems": COORDINATORS_AT_MOST})
    asked: list[AskedVolunteer] = Field(
        description="the last who were asked, in the order in which they were",
        json_schema_extra={"maxItems": ASKED_AT_MOST},
    )
    asked_left_out: int = Field(default=0, ge=0, description="how many were asked before those")
    category: Category
    urgency: Urgency
    people: int = 1
    place: Place
    utc_offset_minutes: int = Field(description="of the district, for times in messages")
    reported_at: Moment


class CaseEscalated(Event[EscalatedCase]):
    """A coordinator must act; the search goes on behind it."""

    source_service = "assignment"
    type: Literal["id.jangkau.case.escalated.v1"] = "id.jangkau.case.escalated.v1"


class HeldCases(Contract):
    """Cases of a district that wait for the duty officer. Internal: names coordinators."""

    district_name: str
    cases: int = Field(ge=1)
    urgent: int = Field(ge=0, description="how many of them")
    reasons: list[Annotated[Word, Field(json_schema_extra={"enum": list(REVIEWS)})]] = Field(
        max_length=20
    )
    look_by: Moment = Field(description="when the search begins by itself, for the first of them")
    utc_offset_minutes: int = Field(description="of the district, for times in messages")
    coordinators: list[Coordinator] = Field(json_schema_extra={"maxItems": COORDINATORS_AT_MOST})


class CasesHeld(Event[HeldCases]):
    """Too many reports came at once: a coordinator looks before volunteers are asked.

    One event tells of all that wait. The subject stands for the district.
    """

    source_service = "assignment"
    type: Literal["id.jangkau.cases.held.v1"] = "id.jangkau.cases.held.v1"


class GivenAnswer(Contract):
    """What a volunteer answered. Internal: the words may say anything."""

    offer_id: UUID
    answer: Answer
    outcome: Outcome | None = Field(default=None, description="with done")
    words: str | None = Field(
        default=None, max_length=WORDS_AT_MOST, description="as they were written"
    )
    channel: Word
    volunteer_id: UUID | None = Field(
        default=None, description="whose answer it is, where the channel knows; else the offer's"
    )
    phone: str | None = Field(default=None, description="E.164; where the sentence back goes")
    email: str | None = Field(default=None, description="where the sentence back goes")
    form: Word | None = Field(
        default=None,
        description="how surely it was said: a button on a page, the plain word that we ask for "
        "(alone, or with a code and manners), or other words; absent: nobody knows",
        json_schema_extra={"enum": ["button", "plain", "words"]},
    )
    code_typed: bool | None = Field(
        default=None, description="the offer's answer code stood in the text"
    )


class OfferAnswered(Event[GivenAnswer]):
    """A volunteer answered an offer."""

    source_service = "notification"
    type: Literal["id.jangkau.offer.answered.v1"] = "id.jangkau.offer.answered.v1"


class ProgressedCase(Contract):
    """What became of a case, for whoever reported it. Internal: holds the reporter's contact."""

    code: str = Field(description="of the report")
    step: Word = Field(json_schema_extra={"enum": ["accepted", "closed"]})
    outcome: Word | None = Field(default=None, description="with closed")
    reporter: Reporter


class CaseProgressed(Event[ProgressedCase]):
    """Something has happened that the reporter wanted to hear of."""

    source_service = "assignment"
    type: Literal["id.jangkau.case.progressed.v1"] = "id.jangkau.case.progressed.v1"


class PingedVolunteer(Contract):
    """A test whether a volunteer can be reached. Internal: holds personal data."""

    ping_id: UUID
    answer_code: str = Field(description="short code that ties an answer to this test")
    respond_by: Moment
    volunteer: OfferedVolunteer


class VolunteerPinged(Event[PingedVolunteer]):
    """This volunteer is asked for a sign of life; the subject is the volunteer."""

    source_service = "assignment"
    type: Literal["id.jangkau.volunteer.pinged.v1"] = "id.jangkau.volunteer.pinged.v1"


class AnsweredPing(Contract):
    """A sign of life. Internal: the words may say anything."""

    ping_id: UUID
    words: str | None = Field(
        default=None, max_length=WORDS_AT_MOST, description="as they were written"
    )
    channel: Word


class PingAnswered(Event[AnsweredPing]):
    """A volunteer has answered a test; the subject is the volunteer."""

    source_service = "notification"
    type: Literal["id.jangkau.ping.answered.v1"] = "id.jangkau.ping.answered.v1"


class UnreachedPing(Contract):
    """A test that no channel could bring to its volunteer."""

    ping_id: UUID
    reason: Word


class PingUnreachable(Event[UnreachedPing]):
    """No address of the volunteer works, or none is wanted; the subject is the volunteer."""

    source_service = "notification"
    type: Literal["id.jangkau.ping.unreachable.v1"] = "id.jangkau.ping.unreachable.v1"


class StoppedVolunteer(Contract):
    """A volunteer who wants no more messages by a channel, or wants them again."""

    volunteer_id: UUID
    channel: Word = Field(json_schema_extra={"enum": ["sms", "email", "other"]})
    stopped: bool
    reachable: bool = Field(description="whether another channel is left")


class VolunteerStopped(Event[StoppedVolunteer]):
    """A volunteer wrote STOP, or MULAI to be reached again; the subject is the volunteer."""

    source_service = "notification"
    type: Literal["id.jangkau.volunteer.stopped.v1"] = "id.jangkau.volunteer.stopped.v1"


class OffDutyVolunteer(Contract):
    """Days off that a volunteer has written about. Internal: the words may say anything."""

    last_day: date = Field(description="the last day off, in the volunteer's district")
    channel: Word
    words: str | None = Field(default=None, max_length=1000, description="as they were written")
    phone: str | None = Field(default=None, description="E.164; who wrote it")
    email: str | None = Field(default=None, description="who wrote it")


class VolunteerOffDuty(Event[OffDutyVolunteer]):
    """A volunteer is off duty from now to the end of a day; the subject is whoever wrote it."""

    source_service = "notification"
    type: Literal["id.jangkau.volunteer.off_duty.v1"] = "id.jangkau.volunteer.off_duty.v1"


class AskedDutyPage(Contract):
    """Who wants to see when they are asked. Internal: holds personal data."""

    channel: Word
    phone: str | None = Field(default=None, description="E.164; who wrote it")
    email: str | None = Field(default=None, description="who wrote it")


class DutyPageAsked(Event[AskedDutyPage]):
    """A volunteer wants the link to their duty page; the subject is whoever wrote it."""

    source_service = "notification"
    type: Literal["id.jangkau.duty_page.asked.v1"] = "id.jangkau.duty_page.asked.v1"


class AnsweredDuty(Contract):
    """What became of what a volunteer wrote about their duty. Internal: holds personal data."""

    about: Word = Field(
        json_schema_extra={"enum": ["off_duty", "duty_page", "refused", "unknown"]},
        description="refused: that day is over or too far away; unknown: no volunteer wrote it",
    )
    volunteer: OfferedVolunteer | None = None
    phone: str | None = Field(default=None, description="E.164; who wrote it, if no volunteer")
    email: str | None = Field(default=None, description="who wrote it, if no volunteer")
    last_day: date | None = None
    holds: list[str] = Field(
        default_factory=list, max_length=20, description="answer codes of cases that stay theirs"
    )
    link: str | None = Field(default=None, description="to their duty page: for them alone")


class DutyAnswered(Event[AnsweredDuty]):
    """A volunteer is told about their duty; the subject is the volunteer, or whoever wrote."""

    source_service = "assignment"
    type: Literal["id.jangkau.duty.answered.v1"] = "id.jangkau.duty.answered.v1"


class RunLowBudget(Contract):
    """What a district has spent on SMS today, in segments."""

    day: str = Field(description="the district's own, such as 2026-11-24")
    used: int = Field(ge=0)
    budget: int = Field(ge=0)
    ceiling: bool = Field(
        default=False, description="true: it is spent, and not even what is urgent goes by SMS"
    )


class SmsBudgetRunLow(Event[RunLowBudget]):
    """The day's SMS budget is nearly spent; then only what is urgent goes by SMS."""

    source_service = "notification"
    type: Literal["id.jangkau.sms_budget.run_low.v1"] = "id.jangkau.sms_budget.run_low.v1"


# Reasons of `offer.unreachable` and `ping.unreachable` that say nothing about an address: nothing
# was sent to it.
NOT_SENT = ("not_sent_in_time", "budget_spent")


class UnreachableOffer(Contract):
    """An offer that no channel could bring to its volunteer."""

    offer_id: UUID
    reason: Word


class OfferUnreachable(Event[UnreachableOffer]):
    """No channel reached the volunteer: ask the next one now."""

    source_service = "notification"
    type: Literal["id.jangkau.offer.unreachable.v1"] = "id.jangkau.offer.unreachable.v1"


class JudgedAnswer(Contract):
    """What became of an answer, to be said to whoever gave it. Internal: holds personal data."""

    offer_id: UUID
    answer_code: str | None = None
    answer: Word
    verdict: Word = Field(
        json_schema_extra={
            "enum": [
                "recorded",
                "already_recorded",
                "too_late",
                "taken_by_another",
                "case_closed",
                "hands_full",
                "not_accepted_yet",
                "unconfirmed",
                "not_yours",
                "unknown_offer",
            ]
        }
    )
    volunteer: OfferedVolunteer | None = None
    phone: str | None = Field(default=None, description="E.164; from the answer")
    email: str | None = Field(default=None, description="from the answer")
    reporter: Reporter | None = Field(
        default=None, description="for the volunteer who has just got the case"
    )


class AnswerJudged(Event[JudgedAnswer]):
    """An answer was recorded, or came too late: every answer gets a sentence back."""

    source_service = "assignment"
    type: Literal["id.jangkau.answer.judged.v1"] = "id.jangkau.answer.judged.v1"


class PublicSubdistrict(Contract):
    """The only position in the public feed: a subdistrict and its centre."""

    code: str
    name: str
    latitude: float
    longitude: float


class PublicCase(Contract):
    """The state of a case after this event, without personal data.

    ``version`` counts 1..n per case without a gap: a subscriber that sees a gap has missed one.
    """

    version: int = Field(ge=1)
    state: Word = Field(
        json_schema_extra={
            "enum": [
                "searching",
                "waiting",
                "offered",
                "escalated",
                "accepted",
                "arrived",
                "closed",
            ]
        }
    )
    category: Word = Field(json_schema_extra={"enum": list(get_args(Category))})
    urgency: Word = Field(json_schema_extra={"enum": list(get_args(Urgency))})
    subdistrict: PublicSubdistrict
    reported_at: Moment
    waiting_for: Word | None = Field(
        default=None,
        json_schema_extra={"enum": ["no_volunteer_in_reach", "all_volunteers_busy"]},
    )
    escalated_for: Word | None = Field(
        default=None,
        description="why a coordinator has been told; it stays while the search goes on",
        json_schema_extra={
            "enum": [
                "nobody_left_to_ask",
                "nobody_accepted_in_time",
                "obstacle",
                "no_news_after_arrival",
                "assigned_unreachable",
                *REVIEWS,
                "answers_unread",
            ]
        },
    )
    outcome: Word | None = Field(
        default=None,
        description="of a closed case",
        json_schema_extra={"enum": list(get_args(Outcome))},
    )


class PublicCaseOpened(Event[PublicCase]):
    """A case exists and a volunteer is being looked for."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.opened.v1"] = "id.jangkau.public.case.opened.v1"


class PublicCaseOffered(Event[PublicCase]):
    """A volunteer has been asked."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.offered.v1"] = "id.jangkau.public.case.offered.v1"


class PublicCaseWaiting(Event[PublicCase]):
    """Nobody suitable is free now; it is tried again on a timer and when somebody becomes free."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.waiting.v1"] = "id.jangkau.public.case.waiting.v1"


class PublicCaseEscalated(Event[PublicCase]):
    """A coordinator has been told, and why; the search goes on. Not yet where too many reports
    came at once: then the coordinator looks first."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.escalated.v1"] = "id.jangkau.public.case.escalated.v1"


class PublicCaseAccepted(Event[PublicCase]):
    """A volunteer is on the way."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.accepted.v1"] = "id.jangkau.public.case.accepted.v1"


class PublicCaseArrived(Event[PublicCase]):
    """The volunteer is with the person."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.arrived.v1"] = "id.jangkau.public.case.arrived.v1"


class PublicCaseReopened(Event[PublicCase]):
    """Whoever had it has it no longer: a volunteer is being looked for again."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.reopened.v1"] = "id.jangkau.public.case.reopened.v1"


class PublicCaseClosed(Event[PublicCase]):
    """The case has ended, with an outcome."""

    source_service = "assignment"
    type: Literal["id.jangkau.public.case.closed.v1"] = "id.jangkau.public.case.closed.v1"
