"""Volunteers: imported from a district's spreadsheet, whole or not at all."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.assignment import offers
from services.assignment.models import Volunteer
from shared.contacts import Email, Phone
from shared.database import column, execute, sql
from shared.districts import District
from shared.events import Category, Role
from shared.places import PlaceError, resolve_place

COLUMNS = (
    "name",
    "role",
    "phone",
    "email",
    "village",
    "latitude",
    "longitude",
    "categories",
    "capacity",
)
REQUIRED = ("name", "role")


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(";") if part.strip()]


class VolunteerRow(BaseModel):
    """One line of a volunteers file."""

    model_config = ConfigDict(extra="forbid")

    # Control characters reach no telephone, and a zero byte not even the database.
    name: Annotated[
        str,
        StringConstraints(
            strip_whitespace=True, min_length=1, max_length=120, pattern=r"^[^\x00-\x1f]*$"
        ),
    ]
    role: Annotated[Role, BeforeValidator(lambda v: v.strip().lower() if isinstance(v, str) else v)]
    phone: Phone | None = None
    email: Email | None = None
    village: str | None = None
    latitude: float | None = Field(default=None, ge=-90, le=90)
    longitude: float | None = Field(default=None, ge=-180, le=180)
    categories: Annotated[list[Category], BeforeValidator(_split)] = []
    capacity: int | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def reachable(self) -> "VolunteerRow":
        """Nobody can be asked who cannot be reached."""
        if self.phone is None and self.email is None:
            raise ValueError("phone or email: one of them is needed, or nobody can be asked.")
        return self


class BrokenFile(Exception):
    """A volunteers file with mistakes: ``problems`` name the line, the column and the reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Imported:
    """How many volunteers a file brought."""

    added: int
    updated: int


def read_csv(
    content: str, *, district: District, districts: Mapping[str, District]
) -> list[dict[str, Any]]:
    """Read and check every row; all mistakes are told at once.

    Raises:
        BrokenFile: with a sentence for each broken line.
    """
    content = content.removeprefix("\ufeff")
    # Spreadsheets in Indonesian save CSV with semicolons.
    first, _, _ = content.partition("\n")
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.DictReader(io.StringIO(content), delimiter=delimiter)
    header = [name.strip().lower() for name in reader.fieldnames or []]
    problems = [f"line 1: the column {name} is missing" for name in REQUIRED if name not in header]
    problems += [
        f"line 1: unknown column {name!r}; known are {', '.join(COLUMNS)}"
        for name in header
        if name not in COLUMNS
    ]
    if problems:
        raise BrokenFile(problems)
    reader.fieldnames = header
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    try:
        lines = list(_lines(reader))
    except csv.Error as error:
        raise BrokenFile([f"line {reader.line_num}: {error}"]) from error
    for line, raw in lines:
        if None in raw:
            problems.append(f"line {line}: has more values than the header has columns")
            continue
        try:
            row = _checked(raw, district=district, districts=districts)
        except (ValidationError, PlaceError) as error:
            problems += [f"line {line}: {reason}" for reason in _reasons(error)]
            continue
        address = row["phone"] or row["email"]
        if address in seen:
            problems.append(f"line {line}: the same contact as in line {seen[address]}")
        seen[address] = line
        rows.append(row)
    if not rows and not problems:
        problems.append("line 1: the file has no volunteers")
    if problems:
        raise BrokenFile(problems)
    return rows


def _lines(reader: "csv.DictReader[str]") -> Iterator[tuple[int, dict[str, Any]]]:
    for raw in reader:
        yield reader.line_num, raw


def _checked(
    raw: Mapping[str, str | None], *, district: District, districts: Mapping[str, District]
) -> dict[str, Any]:
    given = {key: value for key, value in raw.items() if value is not None and value.strip()}
    row = VolunteerRow.model_validate(given)
    place = resolve_place(
        districts,
        latitude=row.latitude,
        longitude=row.longitude,
        village=row.village,
        district=district.code,
    )
    return row.model_dump() | {
        "id": str(uuid7()),
        "district": district.code,
        "village": place.village,
        "latitude": place.latitude,
        "longitude": place.longitude,
        "capacity": row.capacity or district.policy.default_capacity,
    }


def _reasons(error: ValidationError | PlaceError) -> list[str]:
    if isinstance(error, PlaceError):
        return [f"{error.field.removeprefix('place.')}: {error.message}"]
    return [
        ": ".join(
            part
            for part in (
                ".".join(str(step) for step in problem["loc"] if isinstance(step, str)),
                "is needed"
                if problem["type"] == "missing"
                else "is not written as it should be"
                if problem["type"] == "string_pattern_mismatch"
                else problem["msg"].removeprefix("Value error, "),
            )
            if part
        )
        for problem in error.errors(include_url=False)
    ]


_STORE = """
    INSERT INTO volunteers
        (id, district, name, role, phone, email, village, latitude, longitude, categories, capacity)
    SELECT id, district, name, role, phone, email, village, latitude, longitude,
           ARRAY(SELECT jsonb_array_elements_text(categories)), capacity
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS listed
        (id uuid, district text, name text, role text, phone text, email text, village text,
         latitude float8, longitude float8, categories jsonb, capacity int)
    {conflict} DO UPDATE
    SET name = excluded.name, role = excluded.role, email = excluded.email,
        village = excluded.village, latitude = excluded.latitude, longitude = excluded.longitude,
        categories = excluded.categories, updated_at = now(),
        -- Nobody is cut below what they have already taken on.
        capacity = greatest(excluded.capacity, volunteers.open_cases)
    RETURNING xmax = 0 AS added
"""
_BY_PHONE = sql(_STORE.format(conflict="ON CONFLICT (district, phone) WHERE phone IS NOT NULL"))
_BY_EMAIL = sql(_STORE.format(conflict="ON CONFLICT (district, email) WHERE phone IS NULL"))


_LOCK = sql("""
    SELECT id FROM volunteers WHERE district = :district ORDER BY id FOR NO KEY UPDATE
""")


async def store(
    session: AsyncSession, rows: Sequence[Mapping[str, Any]], *, district: District
) -> Imported:
    """Add volunteers, or update those with the same phone (or e-mail); wakes waiting cases."""
    # In the order in which claims lock them, so that the two wait for each other.
    await execute(session, _LOCK, {"district": district.code})
    added: list[bool] = []
    for statement, part in (
        (_BY_PHONE, [row for row in rows if row["phone"]]),
        (_BY_EMAIL, [row for row in rows if not row["phone"]]),
    ):
        if part:
            added += column(
                await execute(session, statement, {"rows": json.dumps(list(map(dict, part)))})
            )
    # Without statistics the planner does not know that the index on positions pays off.
    await execute(session, sql("ANALYZE volunteers"))
    await offers.wake_waiting(session, district=district.code)
    return Imported(added=sum(added), updated=len(added) - sum(added))


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
