"""The embedded stack goes on where it stopped, though its broker forgets everything."""

import asyncio
import os
import signal

import pytest

from ops import demo
from ops.embedded import Stack, running
from ops.synthetic import read_reports
from shared.database import DATABASE_ERRORS
from tests import servers
from tests.playing import import_sample, send

pytestmark = pytest.mark.skipif(
    servers.kind_of("KAFKA_BOOTSTRAP_SERVERS") != "embedded"
    or servers.kind_of("DATABASE_URL") != "embedded",
    reason="about the embedded servers; others are given here",
)

REPORTS = read_reports(demo.SAMPLE)


async def told(stack: Stack, cases: int) -> None:
    """Wait until so many cases have been offered; each offer is on its phone, once."""
    async with asyncio.timeout(60):
        while True:
            (offers,) = await stack.rows(
                "assignment",
                "SELECT count(*) AS n, count(DISTINCT case_id) AS cases FROM offers",
            )
            (row,) = await stack.rows(
                "notification",
                """SELECT count(*) AS messages,
                          count(*) FILTER (WHERE state = 'sent') AS sent,
                          (SELECT count(*) FROM sandbox_messages) AS arrived FROM messages""",
            )
            if offers.cases >= cases and row.sent >= offers.n:
                break
            await asyncio.sleep(0.2)
    assert offers.cases == cases
    assert (row.messages, row.sent, row.arrived) == (offers.n, offers.n, offers.n)


async def test_a_second_start_goes_on_with_nothing_lost_and_nothing_twice() -> None:
    lines: list[str] = []

    def output(source: str, line: str) -> None:
        lines.append(line)

    with servers.scratch("jangkau-again-") as data_dir:
        async with running(data_dir, output=output) as stack:
            await import_sample(stack)
            # Accepted, and then everything is stopped before it can have come far.
            await send(stack, REPORTS[:10])
        async with running(data_dir, output=output) as stack:
            assert any("of the journal go out again" in line for line in lines)
            await told(stack, 10)

            os.kill(stack.processes["broker"].pid, signal.SIGKILL)
            for _ in range(300):
                await asyncio.sleep(0.2)
                living = [p for p in stack.processes.values() if p.returncode is None]
                if len(living) == 4 and "broker" in stack.processes:
                    break
            await stack.wait_until_ready()
            await send(stack, REPORTS[:5])
            await told(stack, 15)


async def test_postgresql_killed_comes_back_by_itself() -> None:
    with servers.scratch("jangkau-postgres-") as data_dir:
        async with running(data_dir, output=lambda source, line: None) as stack:
            await import_sample(stack)
            await send(stack, REPORTS[:3])
            postmaster = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]
            os.kill(int(postmaster), signal.SIGKILL)
            await send(stack, REPORTS[:6])
            for _ in range(300):
                await asyncio.sleep(0.2)
                try:
                    await told(stack, 9)
                    break
                except (OSError, *DATABASE_ERRORS):
                    continue
            await told(stack, 9)
