"""Playing the demo in tests: on the test's servers, with everything that was promised checked."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from ops import demo
from ops.demo import Show
from ops.embedded import Command, Stack, production_command
from ops.outcome import Played, Result
from ops.synthetic import PlannedReport
from tests import servers

SAMPLE_VOLUNTEERS = demo.SAMPLE.parent / "volunteers.csv"
# An abandoned attempt is given up, or repeated, within the test's patience.
SHORT_LEASE = {"JANGKAU_LEASE_SECONDS": "3", "JANGKAU_PROVIDER_TIMEOUT_SECONDS": "2"}


async def play(
    show: Show | None = None,
    *,
    command: Command = production_command,
    interfere: Callable[[Stack], Any] | None = None,
    environment: dict[str, str] | None = None,
) -> Result:
    """Play the sample reports, or what is to be shown, and count; what broke a promise is told."""
    lines: list[str] = []
    run = f"test{uuid4().hex[:8]}"
    async with servers.for_a_stack(run=run):
        result = await demo.demo(
            show or Show(),
            output=lambda source, line: lines.append(f"{source}: {line}"),
            watch=lambda progress: None,
            environment=environment,
            interfere=interfere,
            command=command,
            run=run,
        )
    if result.broken:
        print("\n".join(lines[-80:]))
    return result


def nothing_is_lost(result: Result) -> None:
    """Every promise was kept: all that was accepted is there, nobody asked twice, no place too many
    and no case with two."""
    assert result.refused == 0
    assert result.lost == 0, result.problems
    assert result.dead_letters == 0
    assert result.accepted_reports == result.reports == result.cases
    broken = (result.asked_twice, result.double_accepted, result.over_capacity, result.unfinished)
    assert broken == (0, 0, 0, 0), result.problems
    assert result.unexplained == 0, result.problems


async def send(stack: Stack, reports: list[PlannedReport]) -> Played:
    """Send these reports to a running stack as fast as possible; all are accepted."""
    played = Played(reports=len(reports))
    await demo.play(reports, stack, speed=None, played=played)
    assert (len(played.accepted), played.refused) == (len(reports), [])
    return played


async def import_sample(stack: Stack) -> None:
    """Bring in the sample volunteers."""
    await demo.import_volunteers(stack, SAMPLE_VOLUNTEERS, demo.SAMPLE_DISTRICT)
