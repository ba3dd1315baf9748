"""What one sees of the status: a table for each thing that one would ask about."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.status import SystemStatus

WELL, UNWELL = "[green]●[/]", "[red]●[/]"


def duration(seconds: float | None) -> str:
    """A duration as one would say it: 4 s, 3 min, 2 h."""
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _known(count: int | None) -> str:
    return "?" if count is None else str(count)


def _counts(by_state: dict[str, int] | None) -> str:
    if by_state is None:
        return "unknown"
    return ", ".join(f"{count} {state}" for state, count in by_state.items()) or "none"


def show(status: SystemStatus, console: Console) -> None:
    """Print the whole status."""
    services = Table("", "service", "processes", "outbox", "oldest", "dead letters")
    for service in status.services:
        needs_a_person = service.problems or service.dead_letters or service.set_aside
        well = service.up and not needs_a_person
        services.add_row(
            WELL if well else UNWELL, service.name, str(service.instances),
            _known(service.outbox_events), duration(service.outbox_age_seconds),
            _known(service.dead_letters),
        )  # fmt: skip
    queues = Table("", "queue", "read by", "waiting", "oldest")
    for queue in status.queues:
        queues.add_row(
            WELL if queue.problem is None else UNWELL, queue.topic, queue.group,
            _known(queue.lag_events),
            duration(queue.lag_seconds),
        )  # fmt: skip
    console.print(services)
    console.print(queues)
    cases, messages = _counts(status.cases), _counts(status.messages)
    console.print(f"[bold]Cases[/]     {cases}", highlight=False)
    if status.oldest_waiting_seconds is not None:
        console.print(
            f"          the oldest has waited {duration(status.oldest_waiting_seconds)}",
            highlight=False,
        )
    if status.overdue_cases:
        console.print(
            f"[red]          {status.overdue_cases} should have been looked at by now: see the log "
            "of assignment[/]",
            highlight=False,
        )
    console.print(f"[bold]Messages[/]  {messages}", highlight=False)
    told_by: dict[str, list[str]] = {}
    for service in status.services:
        for problem in dict.fromkeys(service.problems):  # replicas say the same
            told_by.setdefault(problem, []).append(service.name)
    problems = [f"{', '.join(names)}: {problem}" for problem, names in told_by.items()]
    problems += [sentence for s in status.services for sentence in s.set_aside]
    problems += [f"{q.topic}: {q.problem}" for q in status.queues if q.problem]
    for problem in problems:
        console.print(Text(problem, style="red"), soft_wrap=True)
