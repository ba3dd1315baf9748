"""What one sees of a demo: live progress, then a table."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ops.demo import Progress, Result


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
        for name, done, total in (
            ("Reports accepted", progress.accepted, progress.total),
            ("Volunteers asked", progress.offers, progress.total),
            ("Messages arrived", progress.messages, progress.total),
        ):
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._tasks[name], completed=done)

    def table(self, result: Result) -> None:
        """Draw what came of it."""
        table = Table(title="What became of the reports", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        p50, p99 = result.report_to_message_ms.p50, result.report_to_message_ms.p99
        lost = f"[green]{result.lost}[/]" if not result.lost else f"[bold red]{result.lost}[/]"
        rows = [
            ("Reports", f"{result.reports}", "sent in"),
            ("Accepted", f"{result.accepted}", "answered 202: stored, will not be lost"),
            ("Refused", f"{result.refused}", "told what was wrong with them"),
            ("Cases", f"{result.cases}", "one for each accepted report"),
            ("Offers", f"{result.offers}", "to the nearest available volunteer"),
            ("Messages", f"{result.messages_sent}", "arrived on a (sandbox) phone"),
            ("Waiting", f"{result.waiting}", "nobody suitable is free; tried again by itself"),
            ("Dead letters", f"{result.dead_letters}", "events that wait for a person"),
            ("Report to message, p50", f"{p50} ms" if p50 is not None else "-", "half are faster"),
            ("Report to message, p99", f"{p99} ms" if p99 is not None else "-", "99 % are faster"),
            ("Lost", lost, "202s that are missing in a database or in the public feed"),
        ]
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
        for problem in result.problems:
            self.console.print(problem, style="yellow", highlight=False, markup=False)
