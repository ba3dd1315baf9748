"""Volunteers: imported from a district's spreadsheet, whole or not at all; changed one by one."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import duty, matching, openings
from services.assignment.headings import role_of
from services.assignment.models import Volunteer
from shared.contacts import Email, Phone
from shared.database import Row, Statement, execute, now, sql
from shared.districts import District, why_not
from shared.events import Category, Role
from shared.places import resolve_place
from shared.words import Line

# Columns that a file may leave out: then they change nothing of whoever is known already.
OPTIONAL = ("trainings", "language", "duty", "off_until", "on_duty", "channel")

UNREACHABLE = "Nobody without a phone or an e-mail can be on duty: they could not be asked."


# --- what one is told about a volunteer -----------------------------------------------------------


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(";") if part.strip()]


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _role(value: Any) -> Any:
    return role_of(value) or _lower(value) if isinstance(value, str) else value


def _degrees(value: Any) -> Any:
    """Spreadsheets in Indonesian write -2,49."""
    return value.replace(",", ".") if isinstance(value, str) and value.count(",") == 1 else value


def _training(value: Any) -> Any:
    return "_".join(value.lower().replace("-", " ").split()) if isinstance(value, str) else value


def _yes_or_no(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in ("yes", "ya", "true", "1", "y", "aktif"):
        return True
    if word in ("no", "tidak", "false", "0", "n", "t", "nonaktif", "tidak aktif"):
        return False
    raise ValueError("write yes or no (ya or tidak)")


def _windows(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a text such as mon-fri 08:00-17:00")
    return duty.parse_times(value)


def _until(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else ""
    try:
        # A date alone is not a moment: which one it is, the district's time zone says.
        until = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write it as 2026-08-31 or 2026-08-31T14:00") from None
    # Beyond this Python cannot put it into every time zone.
    if not 2000 <= until.year < 2200:
        raise ValueError("must be a year between 2000 and 2199")
    return until


# Control characters reach no telephone, and a zero byte not even the database.
AnyRole = Annotated[Role, BeforeValidator(_role)]
Categories = Annotated[list[Category], BeforeValidator(_split)]
Training = Annotated[
    str, BeforeValidator(_training), StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")
]
Trainings = Annotated[list[Training], BeforeValidator(_split), Field(max_length=20)]
Language = Annotated[Literal["id", "en"], BeforeValidator(_lower)]
OnDuty = Annotated[bool, BeforeValidator(_yes_or_no)]
# What somebody would rather be reached by; without, what the district does first.
PreferredChannel = Annotated[Literal["sms", "email", "other"], BeforeValidator(_lower)]
DutyTimes = Annotated[list[dict[str, Any]], BeforeValidator(_windows, json_schema_input_type=str)]
# The last day off, or the moment at which it ends.
OffUntil = Annotated[datetime | date, BeforeValidator(_until)]
Latitude = Annotated[float, Field(ge=-90, le=90), BeforeValidator(_degrees)]
Longitude = Annotated[float, Field(ge=-180, le=180), BeforeValidator(_degrees)]
Capacity = Annotated[int, Field(ge=1, le=100)]


class VolunteerRow(BaseModel):
    """One line of a volunteers file."""

    model_config = ConfigDict(extra="forbid")

    name: Line
    role: AnyRole
    phone: Phone | None = None
    email: Email | None = None
    village: str | None = None
    # Only to find the village, or the middle of it all where there is none.
    subdistrict: str | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    categories: Categories = []
    capacity: Capacity | None = None
    trainings: Trainings = []
    language: Language = "id"
    duty: DutyTimes = []
    off_until: OffUntil | None = None
    on_duty: OnDuty = True
    channel: PreferredChannel | None = None

    @model_validator(mode="after")
    def reachable(self) -> "VolunteerRow":
        """Nobody can be asked who cannot be reached; and by the contact a row is known again."""
        if self.phone is None and self.email is None:
            raise ValueError("phone or email: one of them is needed, or nobody can be asked.")
        return self

    @model_validator(mode="after")
    def preferred_by_what_they_have(self) -> "VolunteerRow":
        """Whoever prefers e-mail has one."""
        if missing := missing_for(self.channel, phone=self.phone, email=self.email):
            raise ValueError(f"channel: {missing}")
        return self


def missing_for(channel: str | None, *, phone: str | None, email: str | None) -> str | None:
    """What a preferred channel lacks, in a sentence."""
    if channel == "sms" and not phone:
        return "Without a phone nobody can be reached by SMS."
    if channel == "email" and not email:
        return "Without an e-mail address nobody can be reached by e-mail."
    return None


def off_until_moment(until: datetime | date | None, *, timezone: str) -> datetime | None:
    """The moment at which somebody is back: a date counts whole, times are the district's."""
    if until is None:
        return None
    if not isinstance(until, datetime):
        until = datetime.combine(until + timedelta(days=1), time(), ZoneInfo(timezone))
    if until.tzinfo is None:
        until = until.replace(tzinfo=ZoneInfo(timezone))
    return until.astimezone(UTC)


def off_until_text(until: datetime | None, *, timezone: str) -> str:
    """Write it as :func:`off_until_moment` reads it: the last day off, or the moment."""
    if until is None:
        return ""
    local = until.astimezone(ZoneInfo(timezone))
    if local.timetz().replace(tzinfo=None) == time():
        return (local.date() - timedelta(days=1)).isoformat()
    return local.isoformat()


# --- many at once ---------------------------------------------------------------------------------


class BrokenFile(Exception):
    """A volunteers file with mistakes: ``problems`` name the row, the column and the reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Imported:
    """How many volunteers a file brought."""

    added: int
    updated: int


_STORE = """
    INSERT INTO volunteers
        (id, district, name, role, phone, email, village, latitude, longitude, categories, capacity,
         trainings, language, duty_times, off_until, on_duty, channel)
    SELECT id, district, name, role, phone, email, village, latitude, longitude,
           ARRAY(SELECT jsonb_array_elements_text(categories)), capacity,
           ARRAY(SELECT jsonb_array_elements_text(coalesce(trainings, '[]'))),
           coalesce(language, 'id'), coalesce(duty, '[]'), off_until, coalesce(on_duty, true),
           channel
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS listed
        (id uuid, district text, name text, role text, phone text, email text, village text,
         latitude float8, longitude float8, categories jsonb, capacity int, trainings jsonb,
         language text, duty jsonb, off_until timestamptz, on_duty bool, channel text)
    {conflict} DO UPDATE
    SET name = excluded.name, role = excluded.role, email = excluded.email,
        village = excluded.village, latitude = excluded.latitude, longitude = excluded.longitude,
        categories = excluded.categories, updated_at = now(),
        -- Nobody has written STOP from a new address.
        reachable = volunteers.reachable OR excluded.email IS DISTINCT FROM volunteers.email,
        stopped = CASE WHEN excluded.email IS DISTINCT FROM volunteers.email
                       THEN array_remove(volunteers.stopped, 'email') ELSE volunteers.stopped END,
        -- Nobody is cut below what they have already taken on.
        capacity = greatest(excluded.capacity, volunteers.open_cases){optional}
    RETURNING xmax = 0 AS added, id
"""
_CONFLICTS = {
    "phone": "ON CONFLICT (district, phone) WHERE phone IS NOT NULL",
    "email": "ON CONFLICT (district, email) WHERE phone IS NULL",
}
_STORED_AS = {"duty": "duty_times"}


def _store_statement(contact: str, listed: Iterable[str]) -> Statement:
    """Insert or update by ``contact``; of the optional columns only those that are listed."""
    stored = [_STORED_AS.get(name, name) for name in OPTIONAL if name in listed]
    optional = "".join(f",\n        {name} = excluded.{name}" for name in stored)
    return sql(_STORE.format(conflict=_CONFLICTS[contact], optional=optional))


async def store(
    session: AsyncSession, rows: Sequence[Mapping[str, Any]], *, district: District
) -> Imported:
    """Add volunteers, or update those with the same phone (or e-mail); waiting cases look again.

    All ``rows`` are of one file: they have the same columns.
    """
    # Searches claim places of the same people: they wait for us, or we for them.
    await matching.hold(session, [district.code])
    stored: list[Row] = []
    for contact, part in (
        ("phone", [row for row in rows if row["phone"]]),
        ("email", [row for row in rows if not row["phone"]]),
    ):
        if part:
            statement = _store_statement(contact, part[0])
            values = {"rows": json.dumps([dict(row) for row in part], default=str)}
            stored += await execute(session, statement, values)
    await duty.recompute(
        session, [row.id for row in stored], timezones={district.code: district.timezone}
    )
    # Without statistics the planner does not know that the index on positions pays off.
    await execute(session, sql("ANALYZE volunteers"))
    await openings.announce(session, [district.code])
    added = sum(row.added for row in stored)
    return Imported(added=added, updated=len(stored) - added)


@dataclass(frozen=True)
class Verdict:
    """What an import would do with a row: new, or these columns from and to; or nothing."""

    new: bool
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


_KNOWN = sql("""
    SELECT name, role, phone, email, village, latitude, longitude, categories, capacity,
           open_cases, trainings, language, duty_times AS duty, off_until, on_duty, channel
    FROM volunteers
    WHERE district = :district
      AND (phone = ANY (CAST(:phones AS text[]))
           OR phone IS NULL AND email = ANY (CAST(:emails AS text[])))
""")


async def verdicts(
    session: AsyncSession, rows: Sequence[Mapping[str, Any]], *, district: District
) -> list[Verdict]:
    """What :func:`store` would do with each of the rows; changes nothing."""
    values = {
        "district": district.code,
        "phones": [row["phone"] for row in rows if row["phone"]],
        "emails": [row["email"] for row in rows if not row["phone"]],
    }
    known = {row.phone or row.email: row for row in await execute(session, _KNOWN, values)}
    return [_verdict(row, known.get(row["phone"] or row["email"])) for row in rows]


def _verdict(row: Mapping[str, Any], known: Row | None) -> Verdict:
    if known is None:
        return Verdict(new=True)
    wanted = {name: value for name, value in row.items() if name not in ("id", "district")}
    wanted["capacity"] = max(row["capacity"], known.open_cases)
    changed = {name: (known[name], value) for name, value in wanted.items() if known[name] != value}
    return Verdict(new=False, changes=changed)


# --- one volunteer --------------------------------------------------------------------------------


class UnknownVolunteer(LookupError):
    """There is nobody with this id."""


class UnknownDistrict(LookupError):
    """A volunteer's district has no folder here, so it is not known what their times mean."""


class NotChanged(Exception):
    """A change that is refused: the field and a sentence. ``conflict``: right, but not now."""

    def __init__(self, field: str, message: str, *, conflict: bool = False) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.conflict = conflict


def district_of(volunteer: Volunteer, districts: Mapping[str, District]) -> District:
    """The district of a volunteer.

    Raises:
        UnknownDistrict: it has no folder here.
    """
    if volunteer.district not in districts:
        raise UnknownDistrict(why_not(districts, volunteer.district))
    return districts[volunteer.district]


async def get(session: AsyncSession, volunteer_id: UUID) -> Volunteer:
    """One volunteer.

    Raises:
        UnknownVolunteer: there is nobody with this id.
    """
    volunteer = await session.get(Volunteer, volunteer_id)
    if volunteer is None:
        raise UnknownVolunteer(f"There is no volunteer {volunteer_id}.")
    return volunteer


_DISTRICT = sql("SELECT district FROM volunteers WHERE id = :id")


async def change(
    session: AsyncSession,
    volunteer_id: UUID,
    changes: Mapping[str, Any],
    *,
    districts: Mapping[str, District],
) -> Volunteer:
    """Change some fields of one volunteer, and return them as they are then.

    In the district's turn: a search that is under way ends first, and its case is then seen to
    wait. ``changes`` are values of :class:`VolunteerRow`'s fields. If
    the volunteer is available afterwards, the district's waiting cases look again.

    Raises:
        UnknownVolunteer: there is nobody with this id.
        UnknownDistrict: their district has no folder here.
        PlaceError: the new home is no place of the district.
        NotChanged: it would break a rule; the transaction must then be rolled back.
    """
    found = await execute(session, _DISTRICT, {"id": volunteer_id})
    if not found:
        raise UnknownVolunteer(f"There is no volunteer {volunteer_id}.")
    await matching.hold(session, [found[0].district])
    volunteer = await session.get_one(
        Volunteer, volunteer_id, with_for_update={"key_share": True}, populate_existing=True
    )
    district = district_of(volunteer, districts)
    values = _stored_values(changes, district=district, districts=districts)
    _forget_stops(volunteer, values)
    for name, value in values.items():
        setattr(volunteer, name, value)
    _check_rules(volunteer)
    missing = missing_for(volunteer.channel, phone=volunteer.phone, email=volunteer.email)
    if values.get("channel") and missing:
        raise NotChanged("channel", missing)
    volunteer.updated_at = await now(session)
    field = "phone" if volunteer.phone else "email"
    try:
        await session.flush()
    except IntegrityError:
        raise NotChanged(
            field, f"Another volunteer of the district has this {field}.", conflict=True
        ) from None
    await duty.recompute(session, [volunteer.id], timezones={district.code: district.timezone})
    await session.refresh(volunteer)
    if volunteer.available:
        await openings.announce(session, [district.code])
    return volunteer


def _stored_values(
    changes: Mapping[str, Any], *, district: District, districts: Mapping[str, District]
) -> dict[str, Any]:
    values = {_STORED_AS.get(name, name): value for name, value in changes.items()}
    if "off_until" in values:
        values["off_until"] = off_until_moment(values["off_until"], timezone=district.timezone)
    where = {name: values[name] for name in ("village", "latitude", "longitude") if name in values}
    if where:
        place = resolve_place(districts, **where, district=district.code)
        values |= {name: getattr(place, name) for name in ("village", "latitude", "longitude")}
    return values


def _forget_stops(volunteer: Volunteer, values: Mapping[str, Any]) -> None:
    """Whoever gets a new number or address has not written STOP from it: they are asked again."""
    for name, channels in (("phone", ("sms", "other")), ("email", ("email",))):
        if values.get(name) and values[name] != getattr(volunteer, name):
            volunteer.stopped = [one for one in volunteer.stopped if one not in channels]
            volunteer.reachable = True


def _check_rules(volunteer: Volunteer) -> None:
    if volunteer.on_duty and volunteer.phone is None and volunteer.email is None:
        raise NotChanged("on_duty", UNREACHABLE)
    if volunteer.capacity < volunteer.open_cases:
        raise NotChanged(
            "capacity",
            f"{volunteer.name} has {volunteer.open_cases} open cases; "
            f"a capacity of {volunteer.capacity} would cut them below that.",
            conflict=True,
        )


@dataclass(frozen=True)
class OpenWork:
    """A case that a volunteer is asked for or has accepted, by its codes and its subdistrict.

    ``answer_code`` is what an answer by SMS begins with.
    """

    answer_code: str
    code: str
    state: str
    subdistrict_name: str
    respond_by: datetime


_OPEN_WORK = sql("""
    SELECT o.answer_code, c.code, o.state, c.subdistrict_name, o.respond_by
    FROM offers o JOIN cases c ON c.id = o.case_id
    WHERE o.volunteer_id = :id AND o.state IN ('offered', 'accepted', 'arrived')
    ORDER BY o.made_at, o.id
""")


async def open_work(session: AsyncSession, volunteer_id: UUID) -> list[OpenWork]:
    """What a volunteer has open now, the oldest first; nothing of it tells of the person."""
    rows = await execute(session, _OPEN_WORK, {"id": volunteer_id})
    return [OpenWork(**dict(row)) for row in rows]


async def listed(
    session: AsyncSession, *, district: str | None, limit: int, after: UUID | None
) -> Sequence[Volunteer]:
    """Volunteers in the order of their ids, a page at a time."""
    query = select(Volunteer).order_by(col(Volunteer.id)).limit(limit)
    if district is not None:
        query = query.where(col(Volunteer.district) == district)
    if after is not None:
        query = query.where(col(Volunteer.id) > after)
    return (await session.exec(query)).all()


async def every(
    session: AsyncSession, *, district: str | None, page: int = 1000
) -> AsyncIterator[Volunteer]:
    """All volunteers in the order of their ids."""
    after: UUID | None = None
    while found := await listed(session, district=district, limit=page, after=after):
        for volunteer in found:
            yield volunteer
        after = found[-1].id
