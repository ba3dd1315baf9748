"""What `jangkau volunteers import` says of a file: of each row, and of what is wrong with it."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ops.terminal import err, out

if TYPE_CHECKING:
    from rich.console import Console

    from services.assignment.volunteer_files import Checked, VolunteerFile
    from services.assignment.volunteers import Verdict
    from shared.districts import District

COLOURS = {"new": "green", "changed": "yellow", "unchanged": "dim", "refused": "bold red"}
PROBLEMS_SHOWN = 50
NAME_SHOWN = 28


def show_notices(name: str, found: "VolunteerFile") -> None:
    """What holds up nothing and should be known."""
    _print(err, (f"{name}: {notice}" for notice in found.notices))


def show_problems(name: str, problems: Sequence[str]) -> None:
    """What is wrong, the first of it."""
    _print(err, (f"{name}: {problem}" for problem in problems[:PROBLEMS_SHOWN]))
    if len(problems) > PROBLEMS_SHOWN:
        err.print(f"… and {len(problems) - PROBLEMS_SHOWN} more.", highlight=False)


def show_verdicts(
    name: str, found: "VolunteerFile", verdicts: "Sequence[Verdict]", district: "District"
) -> int:
    """A line for each row, and a summary; returns the exit code, 1 if anything is refused."""
    show_notices(name, found)
    told: Counter[str] = Counter()
    left = iter(verdicts)
    for row in found.rows:
        word, what = _verdict(row, left, district)
        told[word] += 1
        line = Text.assemble(
            (f"row {row.number:<5}", "dim"), (f"{word:<10}", COLOURS[word]), _short(row.name)
        )
        out.print(line, soft_wrap=True)
        _print(out, what, indent=" " * 9)
    _print(out, found.problems)
    counts = ", ".join(f"{told[word]} {word}" for word in COLOURS if told[word])
    refused = bool(found.problems) or bool(told["refused"])
    ends = "Nothing was imported." if not refused else "Nothing was imported, nor would be."
    out.print(f"{counts}. {ends}" if counts else ends, highlight=False)
    return 1 if refused else 0


def _verdict(
    row: "Checked", verdicts: "Iterator[Verdict]", district: "District"
) -> tuple[str, list[str]]:
    if row.values is None:
        return "refused", list(row.problems)
    verdict = next(verdicts)
    if verdict.new:
        return "new", []
    what = _changes(verdict.changes, district)
    return ("changed", what) if what else ("unchanged", [])


def _changes(changes: "Mapping[str, tuple[Any, Any]]", district: "District") -> list[str]:
    return [
        f"{name}: {_written(name, before, district)} → {_written(name, after, district)}"
        for name, (before, after) in changes.items()
    ]


def _written(name: str, value: Any, district: "District") -> str:
    """A value as the file would have it."""
    from services.assignment.duty import format_times
    from services.assignment.volunteers import off_until_text

    match name, value:
        case _, None | "" | []:
            return "empty"
        case "duty", times:
            return format_times(times)
        case "off_until", until:
            return off_until_text(until, timezone=district.timezone)
        case "village", code if code in district.village_by_code:
            return f"{district.village_by_code[code].name} ({code})"
        case _, bool():
            return "yes" if value else "no"
        case _, list():
            return ";".join(value)
    return str(value)


def _short(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 1]}…"


def _print(console: "Console", lines: Iterable[str], indent: str = "") -> None:
    """Wrapped at words, as wide as the terminal."""
    for line in lines:
        wrapped = textwrap.wrap(
            line,
            max(console.width, 40),
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
        )
        for part in wrapped:
            console.print(Text(part), soft_wrap=True)
