"""Whatever is killed comes back by itself, and nothing is lost, asked twice or sent twice."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from ops import demo
from ops.demo import Show
from ops.embedded import Command, Stack, production_command, running
from ops.gateway import gateway
from ops.synthetic import read_reports
from shared.settings import SERVICES
from tests import servers
from tests.playing import SHORT_LEASE, import_sample, nothing_is_lost, play, send

PROJECT = Path(__file__).parents[2]
# Of one channel: what is under way when its process dies is unknown.
CALLS_AT_ONCE = 50


def crashing(service: str, point: str, marker: Path) -> Command:
    """Run this service so that it dies at that point once; the others as in production."""

    def command(name: str) -> list[str]:
        if name != service:
            return production_command(name)
        return [sys.executable, "-m", "tests.chaos.crash", name, point, str(marker)]

    return command


@pytest.mark.parametrize(
    ("service", "point"),
    [
        ("intake", "intake.after_commit"),
        ("intake", "relay.after_publish"),
        ("assignment", "assignment.before_commit"),
        ("assignment", "consumer.before_offset"),
        ("assignment", "relay.after_publish"),
        ("notification", "consumer.before_offset"),
        ("notification", "notification.before_provider"),
        ("notification", "notification.after_provider"),
        ("notification", "notification.after_sent"),
    ],
)
async def test_a_service_killed_at_the_line_loses_nothing(
    tmp_path: Path, service: str, point: str
) -> None:
    marker = tmp_path / "killed"
    result = await play(
        command=crashing(service, point, marker),
        # The sandbox knows our ids, so an abandoned attempt is repeated instead of unknown.
        environment=SHORT_LEASE,
    )
    assert marker.exists(), "the service never came to the point where it was to die"
    assert result.restarts == 1
    nothing_is_lost(result)


async def test_a_message_that_the_provider_took_before_the_kill_is_unknown_and_not_sent_again(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "killed"
    with servers.scratch("jangkau-kill-") as data_dir:
        async with gateway() as stub:
            environment = {
                "JANGKAU_CHANNELS": "sms",
                "JANGKAU_SMS_URL": f"{stub.url}/send",
                **SHORT_LEASE,
                # One at a time: exactly one message is under way when the process dies.
                "JANGKAU_CONCURRENCY": "1",
            }
            run = f"kill{uuid4().hex[:8]}"
            async with (
                servers.for_a_stack(run=run),
                running(
                    data_dir,
                    output=lambda source, line: None,
                    environment=environment,
                    run=run,
                    command=crashing("notification", "notification.after_gateway", marker),
                ) as stack,
            ):
                await import_sample(stack)
                await send(stack, read_reports(demo.SAMPLE)[:20])
                states: dict[str, int] = {}
                async with asyncio.timeout(60):
                    while True:
                        await asyncio.sleep(0.2)
                        (offers,) = await stack.rows(
                            "assignment",
                            """SELECT count(*) AS n,
                                      count(DISTINCT (case_id, volunteer_id)) AS different,
                                      count(DISTINCT case_id) AS cases FROM offers""",
                        )
                        rows = await stack.rows(
                            "notification",
                            "SELECT state, count(*) AS n FROM messages GROUP BY state",
                        )
                        states = {row.state: row.n for row in rows}
                        over = states.get("sent", 0) + states.get("unknown", 0)
                        if offers.cases == 20 and over == offers.n:
                            break
    assert marker.exists()
    assert states == {"sent": offers.n - 1, "unknown": 1}
    assert len(stub.calls) == offers.n, "every message reached the provider"
    assert set(stub.calls.values()) == {1}, "and none of them twice"
    assert offers.n == offers.different


@pytest.mark.parametrize(
    "point", ["before_sending", "before_provider", "after_gateway", "after_sent"]
)
async def test_notification_killed_around_a_call_leaves_no_call_unexplained(
    tmp_path: Path, point: str
) -> None:
    """Every offer has its message, none reaches a telephone twice, and an extra call by another
    channel follows from an unknown one. The gateway, which knows no ids, says what it has taken."""
    marker = tmp_path / "killed"
    result = await play(
        Show(gateway=0.0),
        command=crashing("notification", f"notification.{point}", marker),
        environment=SHORT_LEASE,
    )
    assert marker.exists(), "the service never came to the point where it was to die"
    assert result.restarts == 1
    nothing_is_lost(result)
    unknown = result.attempts["sms"].get("unknown", 0)
    assert result.attempts.get("sandbox", {}).get("sent", 0) == unknown
    if point in ("before_sending", "after_sent"):
        assert unknown <= CALLS_AT_ONCE
    else:
        assert 1 <= unknown <= CALLS_AT_ONCE


async def test_faults_of_the_gateway_and_kills_together_leave_no_call_unexplained() -> None:
    rng = random.Random(3)

    async def kill_some(stack: Stack) -> None:
        for _ in range(4):
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            process = stack.processes["notification"]
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)

    result = await play(
        Show(gateway=0.1, speed=20_000), interfere=kill_some, environment=SHORT_LEASE
    )
    assert result.restarts >= 1
    nothing_is_lost(result)


@pytest.mark.parametrize("seed", [1, 2])
async def test_services_killed_at_random_while_reports_come_in_lose_nothing(seed: int) -> None:
    rng = random.Random(seed)

    async def kill_some(stack: Stack) -> None:
        for _ in range(8):
            await asyncio.sleep(rng.uniform(0.3, 1.5))
            process = stack.processes[rng.choice(SERVICES)]
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)

    result = await play(
        Show(speed=20_000),
        interfere=kill_some,
        environment=SHORT_LEASE,
    )
    assert result.restarts >= 1
    nothing_is_lost(result)


async def test_all_database_sessions_ended_at_once_lose_nothing() -> None:
    async def end_sessions(stack: Stack) -> None:
        for _ in range(3):
            await asyncio.sleep(0.7)
            for service in SERVICES:
                await stack.rows(
                    service,
                    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()""",
                )

    result = await play(Show(speed=40_000), interfere=end_sessions)
    nothing_is_lost(result)
    assert result.restarts == 0, "a database that blinks is waited out, not died of"
