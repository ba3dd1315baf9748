"""`jangkau volunteers ping` and `reach`: whether the people who can be asked can be reached."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from ops.terminal import out, run

if TYPE_CHECKING:
    from services.assignment.reach import Chosen, Reach
    from shared.districts import District

# Heavy modules are imported where they are needed, so that every command answers at once.

# So many in one transaction.
AT_ONCE = 500
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
# The states of a test, and two of a volunteer: colour and words, whom to call first.
STATES = {
    "unreachable": ("bold red", "cannot be reached"),
    "wants_no_messages": ("red", "want no messages"),
    "unanswered": ("red", "did not answer"),
    "asked": ("yellow", "have not answered yet"),
    "answered": ("green", "answered"),
    "never_tested": ("dim", "never tested"),
}


def length_of(text: str) -> timedelta:
    """Read ``24h``, ``30m`` or ``2d``: from a minute to a week.

    Raises:
        typer.BadParameter: it is none of these.
    """
    found = re.fullmatch(r"([0-9]{1,5})([mhd])", text.strip().lower())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta(0)
    if not timedelta(minutes=1) <= length <= timedelta(days=7):
        raise typer.BadParameter("write it as 30m, 24h or 2d; from a minute to a week")
    return length


def ping(
    district: Annotated[str | None, typer.Option(help="Kemendagri code; default: all")] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="this one, on duty or not: name, phone, e-mail or id"),
    ] = None,
    quiet_days: Annotated[
        int | None,
        typer.Option(min=1, max=3650, help="only those of whom nothing was heard for so long"),
    ] = None,
    within: Annotated[str, typer.Option(help="how long an answer has: 30m, 24h, 2d")] = "24h",
    drill: Annotated[
        bool, typer.Option("--drill", help="mark it as a drill in every text")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask before sending")] = False,
) -> None:
    """Ask volunteers for a sign of life, to see who can be reached.

    Whoever is off duty, away, wants no messages or has an open test is left alone. `reach` shows
    what comes back.

    Example: [bold]jangkau volunteers ping --district 19.04 --quiet-days 30[/]
    """
    from ops.cli_volunteers import districts_of, the_one, transaction
    from services.assignment import reach

    length = length_of(within)

    async def look() -> "tuple[list[str], Chosen]":
        known = districts_of(one=district, villages=False)
        codes = list(known) if district is None else [district]
        async with transaction() as session:
            ids = None
            if only is not None:
                ids = [(await the_one(session, only, district=district)).id]
            quiet = timedelta(days=quiet_days) if quiet_days else None
            return codes, await reach.choose(session, districts=codes, only=ids, quiet=quiet)

    async def send(codes: Sequence[str], chosen: "Chosen") -> int:
        asked = 0
        for start in range(0, len(chosen.ids), AT_ONCE):
            part = chosen.ids[start : start + AT_ONCE]
            async with transaction() as session:
                asked += await reach.ping(
                    session, districts=codes, only=part, within=length, drill=drill
                )
        return asked

    codes, chosen = run(look())
    if not chosen.ids:
        out.print(
            "Nobody to ask: off duty, away, no messages wanted, heard of lately, or asked already."
        )
        return
    out.print(_announced(chosen, drill=drill), highlight=False)
    if not yes:
        typer.confirm("Send it?", abort=True)
    asked = run(send(codes, chosen))
    out.print(f"{asked} asked. `jangkau volunteers reach` shows who answers.", highlight=False)


def _announced(chosen: "Chosen", *, drill: bool) -> str:
    what = "a drill, marked as one" if drill else "a test"
    count = len(chosen.ids)
    who = "1 volunteer gets" if count == 1 else f"{count} volunteers get"
    return f"{who} {what}: up to {chosen.by_sms} SMS, one segment each."


def show_reach(
    district: Annotated[str | None, typer.Option(help="Kemendagri code; default: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Show the newest test of each volunteer: who answered, who did not, whose number is dead.

    It shows personal data.

    Example: [bold]jangkau volunteers reach --district 19.04[/]
    """
    from ops.cli_volunteers import districts_of, transaction
    from services.assignment import reach

    async def work() -> "tuple[list[Reach], Mapping[str, District]]":
        districts = districts_of(one=district, villages=False)
        async with transaction() as session:
            return await reach.newest(session, district=district), districts

    found, districts = run(work())
    counts = Counter(_state(each) for each in found)
    if as_json:
        told = {
            "counts": {state: counts[state] for state in STATES},
            "volunteers": [asdict(each) for each in found],
        }
        typer.echo(json.dumps(told, default=_plain))
        return
    _show([each for each in found if _state(each) != "never_tested"], districts)
    summary = ", ".join(f"{counts[state]} {words}" for state, (_, words) in STATES.items())
    out.print(f"{len(found)} volunteers: {summary}.", highlight=False)


def _state(volunteer: "Reach") -> str:
    if not volunteer.reachable:
        return "wants_no_messages"
    return volunteer.state or "never_tested"


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _show(found: "Sequence[Reach]", districts: "Mapping[str, District]") -> None:
    from rich.table import Table
    from rich.text import Text

    if not found:
        return
    table = Table()
    table.add_column("name", overflow="fold", min_width=8)
    table.add_column("contact", overflow="fold", min_width=14)  # a number cut short is none
    table.add_column("asked", min_width=10)
    table.add_column("result", overflow="fold", min_width=10)
    table.add_column("words or reason", overflow="fold", min_width=8)
    table.add_column("last heard", min_width=10)
    for each in found:
        known = districts.get(each.district)
        zone = ZoneInfo(known.timezone if known else "UTC")
        colour, result = STATES[_state(each)]
        ended = f" {_local(each.ended_at, zone)}" if each.state == "answered" else ""
        table.add_row(
            Text(each.name),
            Text("\n".join(way for way in (each.phone, each.email) if way)),
            _local(each.asked_at, zone) + (" (drill)" if each.drill else ""),
            Text(result + ended, style=colour),
            Text(each.words or (each.reason or "").replace("_", " ")),
            _local(each.last_reached_at, zone) or "never",
        )
    out.print(table)


def _local(moment: datetime | None, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}" if moment else ""
