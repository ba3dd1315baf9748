"""What one sees of a demo: live progress, then a table."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ops.demo import Progress
from ops.outcome import Result


class View:
    """Shows a demo on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.console.print("Starting PostgreSQL, Kafka and the three services …", style="dim")
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Draw where the demo is."""
        bars: list[tuple[str, int, int | None]] = [
            ("Reports accepted", progress.accepted, progress.total)
        ]
        if progress.answered:
            bars += [
                ("Volunteers asked", progress.offers, None),
                ("Answers given", progress.answers, None),
                ("Cases taken, or escalated", progress.ended, progress.total),
            ]
        else:
            bars += [
                ("Volunteers asked", progress.offers, max(progress.offers, progress.total)),
                ("Messages arrived", progress.messages, max(progress.offers, progress.total)),
            ]
        for name, done, total in bars:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._tasks[name], completed=done, total=total)

    def table(self, result: Result) -> None:
        """Draw what came of it."""
        table = Table(title="What became of the reports", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        first = result.report_to_message_ms
        rows = [
            ("Reports", f"{result.reports}", "sent in"),
            ("Stored", f"{result.accepted_reports}", "answered 202: will not be lost"),
            ("Refused", f"{result.refused}", "told what was wrong with them"),
            ("Cases", f"{result.cases}", "one for each stored report"),
            ("Offers", f"{result.offers}", "to the nearest available volunteers"),
            ("Messages", f"{result.messages_sent}", "arrived on a (sandbox) phone"),
            *(_calls(result) if "sms" in result.attempts else []),
            *(_loop(result) if result.answers else []),
            ("Waiting", f"{result.waiting}", "nobody suitable is free; tried again by itself"),
            ("Escalated", f"{result.escalated}", "a coordinator was told; the search went on"),
            ("Dead letters", _none(result.dead_letters), "events that wait for a person"),
            ("Report to message, p50", _ms(first.p50), "half of the cases are faster"),
            ("Report to message, p99", _ms(first.p99), "99 % of the cases are faster"),
            ("Lost", _none(result.lost), "202s missing in a database or in the public feed"),
        ]
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
        for problem in result.problems:
            self.console.print(problem, style="yellow", highlight=False, markup=False)


def _loop(result: Result) -> list[tuple[str, str, str]]:
    """The rows about answers, when volunteers gave some."""
    late = result.late_next_offer_ms
    return [
        ("Answers", f"{result.answers}", "given on the (sandbox) phones"),
        ("Accepted", f"{result.accepted}", "cases that a volunteer took"),
        ("Closed", f"{result.states.get('closed', 0)}", "cases that ended with an outcome"),
        ("Declined", f"{result.declined}", "offers that went to the next at once"),
        ("Silent", f"{result.expired}", "offers that went to the next at their deadline"),
        ("Asked after the first", f"{result.reoffers}", "offers because somebody else was not"),
        ("Next after a deadline, p99", _ms(late.p99), "until the next message was there"),
        ("Accepted twice", _none(result.double_accepted), "cases that two had at the same time"),
        ("Over capacity", _none(result.over_capacity), "volunteers with more than they can take"),
        ("Asked twice", _none(result.asked_twice), "volunteers asked again for the same case"),
        ("Not ended", _none(result.unfinished), "neither taken nor told to a coordinator"),
    ]


def _calls(result: Result) -> list[tuple[str, str, str]]:
    """The rows about calls to a gateway."""
    calls = result.attempts["sms"]
    return [
        ("Calls to the gateway", f"{sum(calls.values())}", "each noted before it was made"),
        ("  refused", f"{calls.get('failed', 0)}", "tried again later, or by another channel"),
        ("  unknown", f"{calls.get('unknown', 0)}", "perhaps taken: never again by this channel"),
        ("Delivered", f"{result.delivered}", "messages of which a receipt said so"),
        ("Unknown", f"{result.unknown}", "messages that may have arrived or not"),
        ("Failed", f"{result.failed}", "messages that no channel could bring"),
        ("SMS segments", f"{result.segments}", "what the gateway will charge for"),
        ("Not explained", _none(result.unexplained), "calls that should not have been made"),
    ]


def _none(count: int) -> str:
    """A count that has to be none."""
    return f"[green]{count}[/]" if not count else f"[bold red]{count}[/]"


def _ms(value: float | None) -> str:
    return f"{value} ms" if value is not None else "-"
