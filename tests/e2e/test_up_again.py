"""The embedded stack goes on where it stopped, though its broker forgets everything."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ops import demo
from ops.embedded import Stack, running
from ops.synthetic import read_reports
from shared.database import DATABASE_ERRORS
from tests import servers

pytestmark = pytest.mark.skipif(
    servers.kind_of("KAFKA_BOOTSTRAP_SERVERS") != "embedded"
    or servers.kind_of("DATABASE_URL") != "embedded",
    reason="about the embedded servers; others are given here",
)

REPORTS = read_reports(demo.SAMPLE)


async def play(stack: Stack, count: int) -> None:
    accepted: dict[str, str] = {}
    refused: list[str] = []
    await demo.play(
        REPORTS[:count], stack.url("intake"), speed=None, accepted=accepted, refused=refused
    )
    assert (len(accepted), refused) == (count, [])


async def sent(stack: Stack, count: int) -> None:
    """Wait until so many messages have arrived; each on its phone once."""
    async with asyncio.timeout(60):
        while True:
            (row,) = await stack.rows(
                "notification",
                """SELECT count(*) AS messages,
                          count(*) FILTER (WHERE state = 'sent') AS sent,
                          (SELECT count(*) FROM sandbox_messages) AS arrived FROM messages""",
            )
            if row.sent >= count:
                break
            await asyncio.sleep(0.2)
    assert (row.messages, row.sent, row.arrived) == (count, count, count)
    (offers,) = await stack.rows("assignment", "SELECT count(*) AS n FROM offers")
    assert offers.n == count


async def test_a_second_start_goes_on_with_nothing_lost_and_nothing_twice() -> None:
    lines: list[str] = []

    def output(source: str, line: str) -> None:
        lines.append(line)

    with servers.scratch("jangkau-again-") as data_dir:
        async with running(data_dir, output=output) as stack:
            volunteers: Path = demo.SAMPLE.parent / "volunteers.csv"
            await demo.import_volunteers(stack, volunteers, demo.SAMPLE_DISTRICT)
            # Accepted, and then everything is stopped before it can have come far.
            await play(stack, 10)
        async with running(data_dir, output=output) as stack:
            assert any("of the journal go out again" in line for line in lines)
            await sent(stack, 10)

            os.kill(stack.processes["broker"].pid, signal.SIGKILL)
            for _ in range(300):
                await asyncio.sleep(0.2)
                living = [p for p in stack.processes.values() if p.returncode is None]
                if len(living) == 4 and "broker" in stack.processes:
                    break
            await stack.wait_until_ready()
            await play(stack, 5)
            await sent(stack, 15)


async def test_postgresql_killed_comes_back_by_itself() -> None:
    with servers.scratch("jangkau-postgres-") as data_dir:
        async with running(data_dir, output=lambda source, line: None) as stack:
            await demo.import_volunteers(
                stack, demo.SAMPLE.parent / "volunteers.csv", demo.SAMPLE_DISTRICT
            )
            await play(stack, 3)
            postmaster = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]
            os.kill(int(postmaster), signal.SIGKILL)
            await play(stack, 6)
            for _ in range(300):
                await asyncio.sleep(0.2)
                try:
                    await sent(stack, 9)
                    break
                except (OSError, *DATABASE_ERRORS):
                    continue
            await sent(stack, 9)
