"""`jangkau volunteers`: the people who can be asked."""

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape

from ops import cli_import, cli_pings
from ops.known_districts import known_districts
from ops.terminal import err, fail, out, run

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

    from services.assignment import volunteers
    from services.assignment.api import ListedVolunteer
    from services.assignment.models import Volunteer
    from shared.districts import District, Districts

# Heavy modules are imported where they are needed, so that every command answers at once.

app = typer.Typer(
    no_args_is_help=True,
    help="The people who can be asked.\n\nExample: jangkau volunteers import volunteers.csv",
)

DistrictOption = Annotated[str | None, typer.Option(help="Kemendagri code; default: all")]


@asynccontextmanager
async def transaction() -> "AsyncIterator[AsyncSession]":
    """One transaction in assignment's database."""
    from shared.database import Database
    from shared.settings import Settings

    database = Database(Settings().database_url_of("assignment"), pool_size=1)
    try:
        async with database.transaction() as session:
            yield session
    finally:
        await database.close()


def districts_of(*, villages: bool, one: str | None = None) -> "Districts":
    """The known districts; ``one`` must be among them."""
    from shared.settings import Settings

    return known_districts(Settings().district_folders, villages=villages, one=one)


@app.command("import")
def import_volunteers(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV, .xlsx, .xls or .ods")
    ],
    district: Annotated[str, typer.Option(help="Kemendagri code")] = "19.04",
    check: Annotated[
        bool, typer.Option("--check", help="say what would become of each row, import nothing")
    ] = False,
) -> None:
    """Add the volunteers of a file, or update those with the same phone.

    A file with a broken row is refused whole, with the row, the column and the reason. With
    --check nothing is imported, and it ends with 1 if a row would be refused.

    Columns: name (nama), role (peran, jabatan), phone (no. HP), email (surel), village (desa,
    kelurahan), subdistrict (kecamatan), latitude, longitude, categories, capacity; and trainings,
    language, duty, off_until, on_duty, channel, which change nothing where the file lacks them.
    All others are neither read nor kept.

    Example: [bold]jangkau volunteers import --check volunteers.xlsx[/]
    """
    from services.assignment import volunteer_files, volunteers

    def read() -> "tuple[volunteer_files.VolunteerFile, District]":
        districts = districts_of(villages=True, one=district)
        content = file.read_bytes()
        ours = districts[district]
        return volunteer_files.read_file(content, district=ours, districts=districts), ours

    async def judge() -> NoReturn:
        found, ours = read()
        known = [row.values for row in found.rows if row.values is not None]
        async with transaction() as session:
            verdicts = await volunteers.verdicts(session, known, district=ours)
        raise typer.Exit(cli_import.show_verdicts(file.name, found, verdicts, ours))

    async def work() -> "volunteers.Imported":
        found, ours = read()
        cli_import.show_notices(file.name, found)
        try:
            rows = found.values()
        except volunteers.BrokenFile as error:
            cli_import.show_problems(file.name, error.problems)
            raise fail(
                f"Nothing was imported: {len(error.problems)} problem(s) in {escape(file.name)}."
            ) from None
        return await _store(rows, district=ours)

    if check:
        run(judge())
    imported = run(work())
    out.print(f"{imported.added} added, {imported.updated} updated.", highlight=False)


async def _store(rows: list[dict[str, Any]], *, district: "District") -> "volunteers.Imported":
    from rich.progress import track

    from services.assignment import volunteers

    added = updated = 0
    parts = [rows[start : start + 1000] for start in range(0, len(rows), 1000)]
    # One transaction for all: whatever happens, nothing is half imported.
    async with transaction() as session:
        for part in track(parts, description="Importing", console=err, transient=True):
            result = await volunteers.store(session, part, district=district)
            added, updated = added + result.added, updated + result.updated
    return volunteers.Imported(added=added, updated=updated)


@app.command("export")
def export_volunteers(
    file: Annotated[Path | None, typer.Argument(dir_okay=False, help="default: print it")] = None,
    district: DistrictOption = None,
) -> None:
    """Write the volunteers as the CSV file that `import` reads. It holds personal data.

    A file has no column for the district: with more than one, name it.

    Example: [bold]jangkau volunteers export --district 19.04 volunteers.csv[/]
    """
    from services.assignment import volunteer_files, volunteers

    async def work() -> str:
        districts = districts_of(villages=False, one=district)
        async with transaction() as session:
            found = [each async for each in volunteers.every(session, district=district)]
        codes = {each.district for each in found}
        if len(codes) > 1:
            raise fail(f"There are volunteers of {', '.join(sorted(codes))}: choose a --district.")
        without = sum(not (each.phone or each.email) for each in found)
        if without:
            err.print(f"{without} without phone and e-mail left out.", highlight=False)
        try:
            return volunteer_files.write_csv(found, districts=districts)
        except volunteers.UnknownDistrict as error:
            raise fail(str(error)) from None

    content = run(work())
    if file is None:
        sys.stdout.write(content)
        return
    # Nobody else on this machine shall read it; the mark in front tells a spreadsheet that it is
    # UTF-8.
    file.touch(mode=0o600)
    file.write_text(content, encoding="utf-8-sig", newline="")
    err.print(f"Written to {file}.", highlight=False, soft_wrap=True)


@app.command("list")
def list_volunteers(
    district: DistrictOption = None,
    ready: Annotated[bool, typer.Option("--ready", help="only who can be asked now")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show the volunteers, and why somebody cannot be asked now. It shows personal data.

    Example: [bold]jangkau volunteers list --ready[/]
    """
    from services.assignment import volunteers
    from services.assignment.api import ListedVolunteer
    from shared.database import now

    async def work() -> "tuple[list[ListedVolunteer], Mapping[str, District]]":
        districts = districts_of(villages=not as_json, one=district)
        async with transaction() as session:
            moment = await now(session)
            found = [
                ListedVolunteer.of(each, districts=districts, moment=moment)
                async for each in volunteers.every(session, district=district)
            ]
        return [each for each in found if each.ready or not ready], districts

    found, districts = run(work())
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found]))
    elif not found:
        out.print("No volunteers." if not ready else "Nobody can be asked now.")
    else:
        _show(found, districts)


def _show(found: "list[ListedVolunteer]", districts: "Mapping[str, District]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("name", overflow="fold", min_width=10)
    table.add_column("role, village", overflow="fold", min_width=9)
    table.add_column("contact", overflow="fold", min_width=14)  # a number cut short is none
    table.add_column("cases", min_width=5)
    table.add_column("now", overflow="fold", min_width=10)
    table.add_column("last heard", min_width=10)
    for each in found:
        known = districts.get(each.district)
        zone = ZoneInfo(known.timezone if known else "UTC")
        village = known.village_by_code.get(each.village or "") if known else None
        where = village.name if village else each.village
        table.add_row(
            Text(each.name),
            Text("\n".join(filter(None, (each.role, where)))),
            Text("\n".join(_ways(each))),
            f"{each.open_cases}/{each.capacity}",
            Text(_now(each, zone), style="green" if each.ready else "yellow"),
            _local(each.last_reached_at, zone) if each.last_reached_at else "never",
        )
    out.print(table)
    free = sum(each.ready for each in found)
    out.print(f"{len(found)} volunteers, {free} can be asked now.", highlight=False)


# Of services.assignment.standing, as a table says it.
_WHY_NOT = {
    "off_duty": "off duty",
    "away": "away",
    "resting": "rests",
    "outside_duty_times": "outside duty times",
    "full": "full",
    "many_offers": "asked already",
}


def _now(volunteer: "ListedVolunteer", zone: ZoneInfo) -> str:
    """Whether they can be asked, or why not and until when."""
    if volunteer.why_not is None:
        return "ready"
    if volunteer.why_not == "wants_no_messages":
        return f"wants no messages ({', '.join(volunteer.stopped)})"
    until = f" until {_local(volunteer.until, zone)}" if volunteer.until else ""
    return f"{_WHY_NOT[volunteer.why_not]}{until}"


def _ways(volunteer: "ListedVolunteer") -> list[str]:
    """Phone and e-mail, with what they would rather be reached by and what they want no more."""
    ways = []
    for way, kind in ((volunteer.phone, "sms"), (volunteer.email, "email")):
        if way:
            stopped = " (stopped)" if kind in volunteer.stopped else ""
            ways.append(f"{way}{' (preferred)' if kind == volunteer.channel else ''}{stopped}")
    return ways


def _local(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


@app.command("link")
def link_volunteer(
    who: Annotated[str, typer.Argument(metavar="WHO", help="name, phone, e-mail or id")],
    district: DistrictOption = None,
) -> None:
    """Print the address of a volunteer's own page, where they set duty and leave.

    Whoever has the address can do so: give it to nobody else. It is signed with JANGKAU_LINK_KEYS
    and begins with JANGKAU_PUBLIC_URL, which must be those of the assignment service.

    Example: [bold]jangkau volunteers link 0812-3456-7890[/]
    """
    from services.assignment.pages import duty_link
    from services.assignment.settings import AssignmentSettings

    async def work() -> str:
        settings = AssignmentSettings()
        async with transaction() as session:
            found = await the_one(session, who, district=district)
        return duty_link(settings.links, found.id, public_url=settings.public_url)

    typer.echo(run(work()))


async def the_one(session: "AsyncSession", who: str, *, district: str | None = None) -> "Volunteer":
    """Who is meant by a name, a phone, an e-mail or an id; else the command ends and says why."""
    from services.assignment import naming

    try:
        return await naming.the_one(session, who, districts=[district] if district else None)
    except naming.NotOne as error:
        raise fail(escape(str(error))) from None


app.command("ping")(cli_pings.ping)
app.command("reach")(cli_pings.show_reach)
