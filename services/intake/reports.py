"""Taking a report: what is acceptable, where it is, and storing it with its event."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.intake.callers import Caller
from services.intake.limits import TooMany, window
from services.intake.models import CaseState, Report
from services.intake.settings import IntakeSettings
from shared import codes, events, outbox, topics
from shared.contacts import Email, Phone
from shared.database import Database, execute, sql
from shared.districts import District
from shared.events import CaseReported, Category, PublicCase, ReportedCase, Urgency
from shared.places import Place, resolve_place
from shared.words import Line, Sentences

Story = Annotated[Sentences, StringConstraints(max_length=2000)]


class _Strict(BaseModel):
    """A misspelt field is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class ReportedPlace(_Strict):
    """A position (WGS 84 degrees), or a village or subdistrict by Kemendagri code or name."""

    latitude: float | None = Field(default=None, ge=-90, le=90)
    longitude: float | None = Field(default=None, ge=-180, le=180)
    village: Line | None = None
    subdistrict: Line | None = None


class Reporter(_Strict):
    """Whoever reports. Only the volunteer who has taken the case gets to see it."""

    name: Line | None = None
    phone: Phone | None = None
    email: Email | None = None
    language: Literal["id", "en"] = "id"
    wants_news: bool = Field(
        default=True,
        description="whether to tell them when somebody is on the way and how it ended; if not, "
        "the contact is for the volunteer only",
    )


class NewReport(_Strict):
    """A report as it comes in."""

    category: Category
    place: ReportedPlace
    district: Line | None = Field(default=None, description="Kemendagri code, if it is known")
    urgency: Urgency = "normal"
    people: int = Field(default=1, ge=1, le=1000)
    description: Story | None = None
    reporter: Reporter = Reporter()
    channel: Annotated[Line, StringConstraints(max_length=40)] = "web"
    drill: bool = Field(default=False, description="a rehearsal: nothing of it counts as real")


class KeyUsedForAnotherReport(Exception):
    """An idempotency key came with a body other than the first time."""


@dataclass(frozen=True)
class Accepted:
    """What a reporter gets to know."""

    case_id: UUID
    code: str


# What stands for the moment of receipt in an event until the database's clock has given it.
_RECEIVED_AT = datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

# The report and its event in one statement, which is a transaction of its own: all or nothing, in
# one round trip. The event's times are put in by the database, whose clock is the only one.
#
# The limits are part of it. What is counted are the reports themselves (a moving window), so that
# all replicas count together, a restart forgets nothing, and no two reporters wait for each other
# over a counter. Of the last N of a kind the oldest says how long the limit still holds. Reports
# that are under way at the same instant do not see each other: as many as there are connections
# may be over a limit.
_STORE = sql("""
    WITH counted AS (
        SELECT (SELECT received_at FROM reports WHERE caller = :limited_by
                ORDER BY received_at DESC LIMIT 1 OFFSET CAST(:floods AS int) - 1)
                   + CAST(:floods_within AS interval) - now() AS floods_for,
               (SELECT received_at FROM reports WHERE caller = :limited_by
                ORDER BY received_at DESC LIMIT 1 OFFSET CAST(:by_address AS int) - 1)
                   > now() - CAST(:by_address_within AS interval) AS by_address,
               (SELECT received_at FROM reports
                WHERE reporter_phone = :limited_phone AND caller IS NOT NULL
                ORDER BY received_at DESC LIMIT 1 OFFSET CAST(:for_contact AS int) - 1)
                   > now() - CAST(:for_contact_within AS interval) AS for_phone,
               (SELECT received_at FROM reports
                WHERE lower(reporter_email) = lower(:limited_email) AND caller IS NOT NULL
                ORDER BY received_at DESC LIMIT 1 OFFSET CAST(:for_contact AS int) - 1)
                   > now() - CAST(:for_contact_within AS interval) AS for_email,
               -- Those held back use nothing up: a flood of one address holds back no other's.
               (SELECT received_at FROM reports
                WHERE district = :district AND caller IS NOT NULL AND review IS NULL
                ORDER BY received_at DESC LIMIT 1 OFFSET CAST(:in_district AS int) - 1)
                   > now() - interval '1 minute' AS in_district
    ), judged AS (
        SELECT CASE WHEN :limited_by IS NULL THEN NULL
                    WHEN by_address THEN 'too_many_from_one_address'
                    WHEN for_phone OR for_email THEN 'too_many_for_one_contact'
                    WHEN in_district THEN 'too_many_in_the_district' END AS review,
               -- What was taken before is answered again, whatever has come since.
               CASE WHEN floods_for > interval '0'
                         AND NOT EXISTS (SELECT FROM reports
                                         WHERE idempotency_key = :idempotency_key)
                    THEN floods_for END AS floods_for
        FROM counted
    ), stored AS (
        INSERT INTO reports
            (id, case_id, code, idempotency_key, body_hash, district, category, urgency, people,
             description, channel, latitude, longitude, approximate, subdistrict,
             subdistrict_name, village, reporter_name, reporter_phone, reporter_email,
             reporter_language, reporter_wants_news, drill, caller, review)
        SELECT
            :id, :case_id, :code, :idempotency_key, :body_hash, :district, :category, :urgency,
             :people, :description, :channel, :latitude, :longitude, :approximate, :subdistrict,
             :subdistrict_name, :village, :reporter_name, :reporter_phone, :reporter_email,
             :reporter_language, :reporter_wants_news, :drill, :limited_by, review
        FROM judged WHERE floods_for IS NULL
        ON CONFLICT (idempotency_key) DO NOTHING
        RETURNING case_id, received_at, review
    ), published AS (
        INSERT INTO outbox (event_id, topic, key, payload)
        SELECT :event_id, :topic, CAST(case_id AS text),
               replace(replace(CAST(:payload AS text), CAST(:received_at AS text),
                               to_char(received_at AT TIME ZONE 'UTC',
                                       'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
                       CAST(:review AS text),
                       coalesce(',"review":"' || review || '"', ''))
        FROM stored
    )
    SELECT (SELECT case_id FROM stored) AS case_id, floods_for FROM judged
""")
# What stands for the review in an event until the database has judged. No text that a reporter
# writes can look like it: their quotation marks have a backslash before them.
_REVIEW = "?"
_REVIEW_JSON = f',"review":"{_REVIEW}"'


async def accept(
    database: Database,
    report: NewReport,
    *,
    districts: Mapping[str, District],
    caller: Caller,
    settings: IntakeSettings,
    idempotency_key: str | None = None,
    traceparent: str | None = None,
) -> Accepted:
    """Store a report together with its event.

    The same key and body give the same case again; another caller's key says nothing.

    Raises:
        PlaceError: the place is in no district we know.
        KeyUsedForAnotherReport: the caller's key came with another body before.
        TooMany: this caller floods us; nothing is stored.
    """
    place = resolve_place(
        districts,
        latitude=report.place.latitude,
        longitude=report.place.longitude,
        village=report.place.village,
        subdistrict=report.place.subdistrict,
        district=report.district,
    )
    accepted = Accepted(case_id=uuid7(), code=codes.random_code())
    body_hash = _hash(report)
    event = _event(report, place, accepted, traceparent)
    values = (
        _row(report, place, accepted)
        | _limits(report, districts[place.district], caller, settings)
        | {
            "body_hash": body_hash,
            "event_id": event.id,
            "topic": topics.TOPIC_OF[CaseReported].name,
            "payload": outbox.payload_of(event),
            "received_at": _RECEIVED_AT.isoformat().replace("+00:00", "Z"),
            "review": _REVIEW_JSON,
        }
    )
    for key in _keys(caller, idempotency_key):
        (stored,) = await database.once_more(_STORE, values | {"idempotency_key": key})
        if stored.floods_for is not None:
            raise TooMany(stored.floods_for)
        if stored.case_id is not None:
            database.wake(outbox.WORK)
            return accepted
        first = await _stored_before(database, key)
        if first.body_hash == body_hash:
            return Accepted(case_id=first.case_id, code=first.code)
        if caller.signed_in or first.caller == caller.address:
            break
    raise KeyUsedForAnotherReport


def _keys(caller: Caller, key: str | None) -> tuple[str, ...]:
    """Under which keys a report is stored, in this order (docs/adr/0025).

    A line break is in no header, so that no caller can write another's key.
    """
    if key is None:
        # A key of our own makes it safe to try again when the database has blinked.
        return (str(uuid7()),)
    if caller.signed_in:
        return (f"agency\n{key}",)
    return key, f"{caller.address}\n{key}"


def _limits(
    report: NewReport, district: District, caller: Caller, settings: IntakeSettings
) -> dict[str, Any]:
    strangers = caller.limited_by is not None
    return {
        "limited_by": caller.limited_by,
        "limited_phone": report.reporter.phone if strangers else None,
        "limited_email": report.reporter.email if strangers else None,
        "floods": settings.floods_per_address.amount,
        "floods_within": window(settings.floods_per_address),
        "by_address": settings.reports_per_address.amount,
        "by_address_within": window(settings.reports_per_address),
        "for_contact": settings.reports_per_contact.amount,
        "for_contact_within": window(settings.reports_per_contact),
        "in_district": district.policy.reports.a_minute,
    }


# Fields of the reporter that came later, with what they are where nobody says them: then a body
# keeps the hash that it had before, so that a key stays good over an upgrade.
_LATER = {"language": "id", "wants_news": True}


def _hash(report: NewReport) -> str:
    unsaid = {name for name, value in _LATER.items() if getattr(report.reporter, name) == value}
    said = report.model_dump_json(exclude={"reporter": unsaid})
    return hashlib.sha256(said.encode()).hexdigest()


def _event(
    report: NewReport, place: Place, accepted: Accepted, traceparent: str | None
) -> CaseReported:
    event: CaseReported = CaseReported.of(
        ReportedCase(
            code=accepted.code,
            category=report.category,
            urgency=report.urgency,
            place=_event_place(place),
            people=report.people,
            channel=report.channel,
            reported_at=_RECEIVED_AT,
            reporter=_event_reporter(report.reporter),
            review=_REVIEW,
        ),
        case_id=accepted.case_id,
        district=place.district,
        time=_RECEIVED_AT,
        drill=report.drill,
        traceparent=traceparent,
    )
    return event


def _row(report: NewReport, place: Place, accepted: Accepted) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "case_id": accepted.case_id,
        "code": accepted.code,
        "district": place.district,
        "category": report.category,
        "urgency": report.urgency,
        "people": report.people,
        "description": report.description,
        "channel": report.channel,
        "latitude": place.latitude,
        "longitude": place.longitude,
        "approximate": place.approximate,
        "subdistrict": place.subdistrict,
        "subdistrict_name": place.subdistrict_name,
        "village": place.village,
        "reporter_name": report.reporter.name,
        "reporter_phone": report.reporter.phone,
        "reporter_email": report.reporter.email,
        "reporter_language": report.reporter.language,
        "reporter_wants_news": report.reporter.wants_news,
        "drill": report.drill,
    }


def _event_reporter(reporter: Reporter) -> events.Reporter | None:
    """Whom to tell and to call; without a contact nobody, and a name alone helps nobody."""
    if reporter.phone is None and reporter.email is None:
        return None
    return events.Reporter(**reporter.model_dump())


def _event_place(place: Place) -> events.Place:
    return events.Place(
        latitude=place.latitude,
        longitude=place.longitude,
        approximate=place.approximate,
        subdistrict=place.subdistrict,
        subdistrict_name=place.subdistrict_name,
        village=place.village,
        village_name=place.village_name,
        centre_latitude=place.centre_latitude,
        centre_longitude=place.centre_longitude,
    )


async def _stored_before(database: Database, key: str) -> Report:
    async with database.transaction() as session:
        query = select(Report).where(col(Report.idempotency_key) == key)
        return (await session.exec(query)).one()


_FORGET = sql("""
    UPDATE reports SET caller = NULL
    WHERE caller IS NOT NULL AND received_at < now() - CAST(:after AS interval)
""")


async def forget_callers(session: AsyncSession, *, after: timedelta) -> None:
    """Forget from where reports came that no limit counts any more."""
    await execute(session, _FORGET, {"after": after})


@dataclass(frozen=True)
class Status:
    """The public state of a report: nothing about the person, nothing about the reporter."""

    code: str
    state: str
    waiting_for: str | None
    category: str
    subdistrict: str
    approximate_place: bool
    received_at: datetime
    changed_at: datetime


async def status(session: AsyncSession, code: str) -> Status | None:
    """What became of a report; None if there is none with this code."""
    query = (
        select(Report, CaseState)
        .join(CaseState, col(CaseState.case_id) == col(Report.case_id), isouter=True)
        .where(col(Report.code) == codes.normalised(code))
    )
    found = (await session.exec(query)).first()
    if found is None:
        return None
    report, case = found
    return Status(
        code=report.code,
        state=case.state if case else "received",
        waiting_for=case.waiting_for if case else None,
        category=report.category,
        subdistrict=report.subdistrict_name,
        approximate_place=report.approximate,
        received_at=report.received_at,
        changed_at=case.changed_at if case else report.received_at,
    )


# A state only moves forward: an event that comes late or again changes nothing.
_REMEMBER = sql("""
    INSERT INTO case_states (case_id, version, state, waiting_for, changed_at)
    SELECT case_id, version, state, waiting_for, changed_at
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:versions AS int[]), CAST(:states AS text[]),
                CAST(:waiting_for AS text[]), CAST(:changed_at AS timestamptz[]))
         AS told (case_id, version, state, waiting_for, changed_at)
    ORDER BY case_id
    ON CONFLICT (case_id) DO UPDATE
    SET version = excluded.version, state = excluded.state, waiting_for = excluded.waiting_for,
        changed_at = excluded.changed_at
    WHERE case_states.version < excluded.version
""")


async def remember_states(
    session: AsyncSession, changes: Sequence[events.Event[PublicCase]]
) -> None:
    """Keep the newest public state of each case."""
    newest = {change.subject: change for change in sorted(changes, key=lambda c: c.data.version)}
    await execute(
        session,
        _REMEMBER,
        {
            "case_ids": list(newest),
            "versions": [change.data.version for change in newest.values()],
            "states": [change.data.state for change in newest.values()],
            "waiting_for": [change.data.waiting_for for change in newest.values()],
            "changed_at": [change.time for change in newest.values()],
        },
    )
