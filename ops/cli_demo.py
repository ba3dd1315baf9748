"""`jangkau demo`: plays reports through a fresh system and counts what came of each."""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ops.terminal import STOPPED, err, fail, out, run

if TYPE_CHECKING:
    from ops.outcome import Result

# Two days of reports in about twenty seconds, so that one can watch.
WATCHABLE = 7200
LINES_SHOWN = 30

ReportsFile = Annotated[
    Path | None,
    typer.Option(
        "--reports",
        exists=True,
        dir_okay=False,
        help="CSV with reported_at, latitude, longitude (or village, subdistrict) and optional "
        "category or type, description, channel, urgency, area",
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="times faster than the file's own times; default: full speed, and for the sample "
        "so slow that one can watch",
    ),
]
Answers = Annotated[
    Literal["mixed", "quiet"] | None,
    typer.Option(
        help="volunteers answer: mixed (30 % accept, 20 % decline, the rest silent or late) or "
        "quiet (83 % silent); deadlines are then seconds",
    ),
]


def demo(
    reports: ReportsFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    speed: Speed = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first N reports")] = None,
    answers: Answers = None,
    answer_seconds: Annotated[
        float, typer.Option(min=0.6, max=600, help="how long an offer is open, with --answers")
    ] = 4,
    gateway: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="messages go by SMS through a gateway of which this share of the calls fails in "
            "every way (0.05), and from there to the sandbox",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the volunteers' and the gateway's luck")] = 1,
) -> None:
    """Play reports through a fresh system and count what came of each.

    Without --reports it plays the sample reports of Bangka Tengah. Ends with 1 if a promise was
    broken: something lost, accepted twice, over capacity, asked twice, or sent for no reason.

    Example: [bold]jangkau demo --answers mixed[/]
    """
    from ops import demo as player
    from ops.demo_view import View

    if answers and gateway is not None:
        raise fail("Volunteers answer on their sandbox phones: --answers or --gateway, not both.")
    lines: deque[str] = deque(maxlen=LINES_SHOWN)
    if reports is None and speed is None and answers is None:
        speed = WATCHABLE
    show = player.Show(
        reports_file=reports,
        speed=speed,
        limit=limit,
        answers=answers,
        answer_s=answer_seconds,
        seed=seed,
        gateway=gateway,
    )
    view = View(err if as_json else out)
    try:
        with view:
            result: Result = run(
                player.demo(
                    show,
                    output=lambda source, line: lines.append(f"{source}: {line}"),
                    watch=view.show,
                )
            )
    except typer.Exit as ended:
        if ended.exit_code not in (0, STOPPED):
            _tell(lines)
        raise
    if as_json:
        typer.echo(result.to_json())
    else:
        view.table(result)
    if result.broken:
        _tell(lines)
        raise typer.Exit(1)


def _tell(lines: deque[str]) -> None:
    """The services' last lines, for whoever has to find out why."""
    for line in lines:
        err.print(line, highlight=False, markup=False)
