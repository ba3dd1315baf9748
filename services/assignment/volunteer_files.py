"""A list of volunteers from a file of an office, and back: every row checked, all mistakes told."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import phonenumbers
from pydantic import ValidationError
from uuid_utils.compat import uuid7

from services.assignment import duty, headings, sheets
from services.assignment.headings import Table
from services.assignment.models import Volunteer
from services.assignment.sheets import Row
from services.assignment.volunteers import (
    OPTIONAL,
    BrokenFile,
    VolunteerRow,
    district_of,
    missing_for,
    off_until_moment,
    off_until_text,
)
from shared.districts import District
from shared.places import PlaceError, resolve_place

REQUIRED = ("name", "role")
# What an export writes. An import knows the subdistrict as well.
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
    *OPTIONAL,
)

# 8.12E+11: the digits that the spreadsheet did not show are lost.
_ROUNDED = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE]\+?[0-9]+")
_TWO_NUMBERS = re.compile(r"[0-9][0-9 .-]{6,}[0-9]\s*(?:[/;,&|\n]|atau|dan|or|and)\s*\+?[0-9]")


@dataclass(frozen=True)
class Checked:
    """One row of a file: its number as a spreadsheet shows it, and the values or the problems."""

    number: int
    values: Mapping[str, Any] | None = None
    problems: Sequence[str] = ()
    name: str = ""


@dataclass(frozen=True)
class VolunteerFile:
    """A file that was read. ``problems`` concern it as a whole; ``notices`` hold up nothing."""

    rows: Sequence[Checked] = ()
    problems: Sequence[str] = ()
    notices: Sequence[str] = field(default=())

    @property
    def all_problems(self) -> list[str]:
        """Of the whole and of each row, in their order."""
        rows = [f"row {row.number}, {problem}" for row in self.rows for problem in row.problems]
        return [*self.problems, *rows]

    def values(self) -> list[dict[str, Any]]:
        """The volunteers, to be stored.

        Raises:
            BrokenFile: there is any mistake.
        """
        if problems := self.all_problems:
            raise BrokenFile(problems)
        return [dict(row.values) for row in self.rows if row.values is not None]


def read_file(
    content: bytes, *, district: District, districts: Mapping[str, District]
) -> VolunteerFile:
    """Read and check every row of a CSV file or a workbook; see docs/how-to/volunteers.md."""
    try:
        table = headings.find(sheets.read(content), needed=REQUIRED)
    except sheets.Unreadable as error:
        return VolunteerFile(problems=[str(error)])
    missing = [name for name in REQUIRED if table is None or name not in table.columns]
    if table is None or missing:
        return VolunteerFile(problems=[_no_heading(table, missing)])
    seen: dict[str, int] = {}
    namesakes: dict[tuple[str, str], int] = {}
    notices = _notices(table)
    checked = []
    for row in table.rows:
        one = _checked(table, row, district=district, districts=districts)
        if one.values:
            address = str(one.values["phone"] or one.values["email"])
            if address in seen:
                contact = "phone" if one.values["phone"] else "email"
                sentence = (
                    f"{table.heading_of(contact)}: the same contact as in row {seen[address]}"
                )
                one = Checked(row.number, problems=[sentence], name=one.name)
            seen.setdefault(address, row.number)
        if one.values:
            person = (headings.plain(one.name), str(one.values["village"]))
            if person in namesakes:
                first = namesakes[person]
                notices.append(
                    f"row {row.number}: the same name and village as in row {first}; is it one "
                    "person twice?"
                )
            namesakes.setdefault(person, row.number)
        checked.append(one)
    if not checked:
        below = f"below the heading in row {table.heading.number}"
        return VolunteerFile(problems=[f"The file has no volunteers {below}."], notices=notices)
    return VolunteerFile(checked, notices=notices)


def _no_heading(table: Table | None, missing: Sequence[str]) -> str:
    asked = " and ".join(
        {"name": "the names (name, nama)", "role": "the roles (role, peran, jabatan)"}[one]
        for one in missing
    )
    if table is None:
        return f"There is no heading: a row that names the columns, with {asked}."
    known = ", ".join(f"“{table.heading_of(name)}”" for name in table.columns)
    return f"row {table.heading.number}: a column for {asked} is missing; found are {known}."


def _notices(table: Table) -> list[str]:
    notices = []
    if table.ignored:
        names = ", ".join(f"“{heading[:40]}”" for heading in table.ignored)
        notices.append(f"Not read and not kept: {names}.")
    for positions in table.columns.values():
        if len(positions) > 1:
            names = ", ".join(f"“{table.heading.cells[at]}”" for at in positions)
            notices.append(f"Of {names} the first that is filled counts.")
    return notices


def _checked(
    table: Table, row: Row, *, district: District, districts: Mapping[str, District]
) -> Checked:
    raw = {column: table.value(row, column) for column in table.columns}
    name = raw["name"]
    if table.is_text and table.beyond(row):
        told = (
            "the row has more values than the heading has columns; a text with the separator in it "
            "stands in quotes"
        )
        return Checked(row.number, problems=[told], name=name)
    # Within a cell, too, people begin a new line.
    given = {col: _unquoted(" ".join(value.split())) for col, value in raw.items() if value}
    problems = []
    if phone := given.get("phone", "").lstrip("'"):
        if sentence := _phone_problem(phone):
            problems.append(f"{table.heading_of('phone')}: {sentence}")
            # The other mistakes of the row are told as well.
            given["phone"] = "081234567890"
        else:
            given["phone"] = re.sub(r"\.0+$", "", phone)
    try:
        values = _values(given, raw, district=district, districts=districts)
        if sentence := _no_sms(values):
            problems.append(f"{table.heading_of('phone')}: {sentence}")
    except (ValidationError, PlaceError) as error:
        problems += [_in_file(table, column, said) for column, said in _reasons(error)]
    if problems:
        return Checked(row.number, problems=problems, name=name)
    return Checked(row.number, values, name=str(values["name"]))


def _in_file(table: Table, column: str, said: str) -> str:
    if not column:
        return said
    return f"{table.heading_of(column)}: {said}"


def _phone_problem(text: str) -> str | None:
    """What a spreadsheet or a hand makes of numbers that can be called no more."""
    if _ROUNDED.fullmatch(text):
        return (
            "the spreadsheet has rounded this number, and its digits are lost; format the column "
            "as text and write the number again, with its 0"
        )
    if _TWO_NUMBERS.search(text):
        return "these are two numbers; write the one that takes SMS"
    return None


def _no_sms(values: Mapping[str, Any]) -> str | None:
    """Whether all there is to reach somebody is a landline."""
    if not values["phone"] or values["email"]:
        return None
    number = phonenumbers.parse(values["phone"])
    if phonenumbers.number_type(number) != phonenumbers.PhoneNumberType.FIXED_LINE:
        return None
    shown = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    return f"{shown} is a landline: no SMS reaches it; give a mobile number or an e-mail"


def _values(
    given: Mapping[str, str],
    raw: Mapping[str, str],
    *,
    district: District,
    districts: Mapping[str, District],
) -> dict[str, Any]:
    row = VolunteerRow.model_validate(given)
    place = resolve_place(
        districts,
        latitude=row.latitude,
        longitude=row.longitude,
        village=row.village,
        subdistrict=row.subdistrict,
        district=district.code,
    )
    values = row.model_dump(exclude={"subdistrict"} | {key for key in OPTIONAL if key not in raw})
    if "off_until" in values:
        values["off_until"] = off_until_moment(row.off_until, timezone=district.timezone)
    return values | {
        "id": uuid7(),
        "district": district.code,
        "village": place.village,
        "latitude": place.latitude,
        "longitude": place.longitude,
        "capacity": row.capacity or district.policy.default_capacity,
    }


def _reasons(error: ValidationError | PlaceError) -> list[tuple[str, str]]:
    """The column, or nothing, and a sentence."""
    if isinstance(error, PlaceError):
        column = error.field.removeprefix("place").removeprefix(".")
        return [(column or "village", error.message)]
    return [
        (
            ".".join(str(step) for step in problem["loc"] if isinstance(step, str)),
            _sentence(problem),
        )
        for problem in error.errors(include_url=False)
    ]


def _sentence(problem: Any) -> str:
    match problem["type"]:
        case "missing":
            return "is needed"
        case "string_pattern_mismatch":
            return "is not written as it should be"
        case "literal_error":
            return f"write {problem['ctx']['expected'].replace(chr(39), '')}"
        case "int_parsing" | "int_from_float":
            return "write a whole number"
        case "float_parsing":
            return "write a number such as -2.49"
        case "too_long":
            return f"at most {problem['ctx']['max_length']} are kept"
    said = str(problem["msg"]).removeprefix("Value error, ")
    return said.replace("Input should be", "must be")


# What a spreadsheet takes for a formula when a cell begins with it.
_FORMULA = ("=", "+", "-", "@")


def _quoted(value: str) -> str:
    """Keep a spreadsheet from running a text as a formula: an apostrophe goes before it.

    Only names and e-mail addresses are free enough to carry one. A phone begins with + too, but is
    digits after it, which at worst are shown as a number and are read again all the same.
    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{value}" if value.lstrip("'").startswith(_FORMULA) else value


def _unquoted(value: str) -> str:
    quoted = value.startswith("'") and value.lstrip("'").startswith(_FORMULA)
    return value[1:] if quoted else value


def write_csv(found: Iterable[Volunteer], *, districts: Mapping[str, District]) -> str:
    """Volunteers as the file that :func:`read_file` reads, and nothing that it would not read.

    Without a contact nobody could be told apart at the next import: they are left out.

    Raises:
        UnknownDistrict: one of them is of a district that has no folder here.
    """
    file = io.StringIO()
    # Every text in quotation marks, so that also a spreadsheet that splits at semicolons finds
    # no cell within a cell.
    writer = csv.DictWriter(file, COLUMNS, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    for volunteer in found:
        if not (volunteer.phone or volunteer.email):
            continue
        timezone = district_of(volunteer, districts).timezone
        writer.writerow(
            {
                "name": _quoted(volunteer.name),
                "role": volunteer.role,
                "phone": volunteer.phone or "",
                "email": _quoted(volunteer.email or ""),
                "village": volunteer.village or "",
                "latitude": volunteer.latitude,
                "longitude": volunteer.longitude,
                "categories": ";".join(volunteer.categories),
                "capacity": volunteer.capacity,
                "trainings": ";".join(volunteer.trainings),
                "language": volunteer.language,
                "duty": duty.format_times(volunteer.duty_times),
                "off_until": off_until_text(volunteer.off_until, timezone=timezone),
                "on_duty": "yes" if volunteer.on_duty else "no",
                "channel": _channel_that_can_be_had(volunteer) or "",
            }
        )
    return file.getvalue()


def _channel_that_can_be_had(volunteer: Volunteer) -> str | None:
    """What they prefer, unless the number or address for it is gone."""
    lacks = missing_for(volunteer.channel, phone=volunteer.phone, email=volunteer.email)
    return None if lacks else volunteer.channel
