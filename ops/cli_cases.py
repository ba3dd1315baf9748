"""`jangkau case` and `jangkau cases`: who is in need, and what was done for them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape

from ops.known_districts import known_districts
from ops.terminal import fail, out, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rich.console import RenderableType
    from rich.text import Text
    from sqlmodel.ext.asyncio.session import AsyncSession

    from services.assignment.story import CaseNow, Person, Story, Told

# Heavy modules are imported where they are needed, so that every command answers at once.

T = TypeVar("T")

STATE_COLOURS = {
    "searching": "yellow",
    "offered": "cyan",
    "waiting": "red",
    "escalated": "bold red",
    "accepted": "green",
    "arrived": "green",
    "closed": "dim",
}
# What has gone well, what a person has done, what has not gone well; all else is plain.
COLOURS = {
    **dict.fromkeys(("accepted", "arrived", "closed"), "green"),
    **dict.fromkeys(("assigned", "released", "note"), "magenta"),
    **dict.fromkeys(("expired", "declined", "unreachable", "handed_back", "lapsed"), "yellow"),
    **dict.fromkeys(("escalated", "obstacle", "waiting"), "red"),
    **dict.fromkeys(("answer", "withdrawn", "called_off"), "dim"),
}


def case(
    code: Annotated[str, typer.Argument(help="the case's short code")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Tell the whole story of a case: who was asked, why, what they said, who acted.

    It holds personal data.

    Example: [bold]jangkau case HGC5T9ZW[/]
    """
    from services.assignment import story

    async def work(session: "AsyncSession") -> "Story | None":
        return await story.story(session, code)

    found = _ask(work)
    if found is None:
        raise fail(escape(f"There is no case {code}."))
    timezone = _timezones([found.case])[found.case.district]
    if as_json:
        _print_json({**vars(found), "lines": story.lines(found, timezone)})
    else:
        _show(found, timezone)


def cases(
    state: Annotated[
        str, typer.Option(help=f"open, all, or one of {', '.join(STATE_COLOURS)}")
    ] = "open",
    district: Annotated[str | None, typer.Option(help="Kemendagri code; default: all")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many at most")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list")] = False,
) -> None:
    """List the open cases, the oldest first.

    Example: [bold]jangkau cases --state waiting[/]
    """
    from services.assignment import story

    states = {"open": story.OPEN_STATES, "all": tuple(STATE_COLOURS)}.get(state, (state,))
    if not set(states) <= set(STATE_COLOURS):
        known = ", ".join(("open", "all", *STATE_COLOURS))
        raise fail(escape(f"There is no state {state!r}; known are {known}."), code=2)

    async def work(session: "AsyncSession") -> "list[CaseNow]":
        # One more than is shown, to know whether there are more.
        return await story.listed(session, states=states, district=district, limit=limit + 1)

    found = _ask(work)
    if as_json:
        _print_json(found[:limit])
        return
    if not found:
        out.print("No such case." if state != "open" else "No open case.")
        return
    out.print(_table(found[:limit]))
    if len(found) > limit:
        out.print(f"There are more than {limit}; see --limit.", style="dim", highlight=False)


def _ask(work: "Callable[[AsyncSession], Awaitable[T]]") -> "T":
    """What ``work`` finds in one transaction of assignment's database."""
    from shared.database import Database
    from shared.settings import Settings

    async def asked() -> "T":
        database = Database(Settings().database_url_of("assignment"), pool_size=1)
        try:
            async with database.transaction() as session:
                return await work(session)
        finally:
            await database.close()

    return run(asked())


def _timezones(found: "Iterable[CaseNow]") -> dict[str, str]:
    """The time zone of each case's district."""
    from services.assignment.story import timezone_of
    from shared.settings import Settings

    districts = known_districts(Settings().district_folders, villages=False)
    return {case.district: timezone_of(case, districts) for case in found}


def _print_json(values: Any) -> None:
    from pydantic import TypeAdapter

    typer.echo(TypeAdapter(Any).dump_json(values).decode())


# --- a table of cases -----------------------------------------------------------------------------


def _table(found: "list[CaseNow]") -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    timezones = _timezones(found)
    now = datetime.now(UTC)
    table = Table()
    table.add_column("code", no_wrap=True)
    table.add_column("state", min_width=9)
    table.add_column("reported", min_width=10)
    table.add_column("need", overflow="fold", min_width=9)
    table.add_column("where", overflow="fold", min_width=9)
    table.add_column("who has it, or why not", overflow="fold", min_width=9)
    for case in found:
        reported = case.reported_at.astimezone(ZoneInfo(timezones[case.district]))
        table.add_row(
            case.code,
            _state(case),
            f"{reported:%Y-%m-%d %H.%M}, {_age(now - case.reported_at)} ago",
            _need(case),
            case.subdistrict_name,
            Text(_who_or_why_not(case)),
        )
    return table


def _age(age: timedelta) -> str:
    """How old something is, roughly: 4 s, 3 min, 2 h, 5 d."""
    seconds = max(0, int(age.total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _state(case: "CaseNow") -> "Text":
    from rich.text import Text

    words = f"{case.state}: {case.outcome.replace('_', ' ')}" if case.outcome else case.state
    return Text(words, style=STATE_COLOURS.get(case.state, ""))


def _need(case: "CaseNow") -> str:
    from services.assignment.story import plain

    words = [plain(case.category)]
    words += ["urgent"] if case.urgency == "urgent" else []
    words += [f"{case.people} people"] if case.people > 1 else []
    words += ["drill"] if case.drill else []
    return ", ".join(words)


def _who_or_why_not(case: "CaseNow") -> str:
    from services.assignment.story import REASONS, WAITING_FOR

    who = [case.held_by.name] if case.held_by else []
    why = [
        known.get(word, word)
        for known, word in ((WAITING_FOR, case.waiting_for), (REASONS, case.escalated_for))
        if word and case.state != "closed"
    ]
    # While somebody is asked it is what the coordinator was told, not how things stand.
    return "; ".join(who + ([f"told: {word}" for word in why] if case.state == "offered" else why))


# --- the story of one -----------------------------------------------------------------------------


def _show(story: "Story", timezone: str) -> None:
    from rich.panel import Panel

    title = f"[bold]{story.case.code}[/]  {_need(story.case)}"
    out.print(Panel(_header(story, timezone), title=title, title_align="left", expand=False))
    out.print(_time_line(story, timezone))


def _header(story: "Story", timezone: str) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    case, place = story.case, story.place
    rows = Table.grid(padding=(0, 2))
    rows.add_row("State", _state(case))
    if case.held_by:
        rows.add_row("Who has it", Text(_reachable(case.held_by)))
    for offer in story.offers:
        if offer.state == "offered":
            until = f"{offer.respond_by.astimezone(ZoneInfo(timezone)):%H.%M}"
            rows.add_row("Asked now", Text(f"{_reachable(offer.volunteer)}; until {until}"))
    if why := _who_or_why_not(replace(case, held_by=None)):
        rows.add_row("Why", why)
    village = f"{place.village_name}, " if place.village_name else ""
    about = "about " if place.approximate else ""
    rows.add_row(
        "Where",
        f"{village}{place.subdistrict_name} ({about}{place.latitude:.5f}, {place.longitude:.5f})",
    )
    rows.add_row("Reported", _moment(case.reported_at, timezone))
    if case.next_action_at:
        rows.add_row("Next look", _moment(case.next_action_at, timezone))
    return rows


def _reachable(person: "Person") -> str:
    return ", ".join(filter(None, (f"{person.name} ({person.role})", person.phone, person.email)))


def _moment(moment: datetime, timezone: str) -> str:
    from services.assignment.story import day

    local = moment.astimezone(ZoneInfo(timezone))
    return f"{day(local)} {local:%H.%M.%S}"


def _time_line(story: "Story", timezone: str) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    from services.assignment.story import day, gap, tell

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(style="dim", justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    today = None
    for line in tell(story, timezone):
        if line.at.date() != today:
            today = line.at.date()
            grid.add_row("", "", Text(day(line.at), style="dim"))
        grid.add_row(f"{line.at:%H.%M.%S}", gap(line.gap), _coloured(line))
    return grid


def _coloured(line: "Told") -> "Text":
    from rich.text import Text

    return Text(line.text, style=COLOURS.get(line.what, ""))
