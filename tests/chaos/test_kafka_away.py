"""Kafka goes away and comes back: reports are accepted all the while, and all of them arrive."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import apache_kafka, demo
from ops.apache_kafka import Broker
from ops.demo import Show
from ops.embedded import Stack, running
from ops.synthetic import read_reports
from tests import servers
from tests.playing import import_sample, nothing_is_lost, play, send

pytestmark = pytest.mark.skipif(
    "KAFKA_BOOTSTRAP_SERVERS" not in os.environ or shutil.which("java") is None,
    reason="kills a real Apache Kafka of its own: needs KAFKA_BOOTSTRAP_SERVERS, Java and Maven",
)


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that this test may kill."""
    with apache_kafka.running(tmp_path) as own:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", own.bootstrap_servers)
        yield own


async def back(broker: Broker) -> None:
    """Start the broker again on the same port and data."""
    broker.start(wait=False)  # in this thread: the child lives as long as it
    await asyncio.to_thread(broker.wait_until_ready)


async def test_kafka_killed_in_the_middle_loses_nothing(broker: Broker) -> None:
    async def kill_kafka(stack: Stack) -> None:
        await asyncio.sleep(1.5)
        broker.kill()
        await asyncio.sleep(2)
        await back(broker)

    result = await play(Show(speed=30_000), interfere=kill_kafka)
    nothing_is_lost(result)
    assert result.restarts == 0, "a broker that is away is waited out, not died of"


async def test_reports_are_accepted_while_kafka_is_away_and_arrive_afterwards(
    broker: Broker,
) -> None:
    with servers.scratch("jangkau-away-") as data_dir:
        async with running(data_dir, output=lambda source, line: None, run="away") as stack:
            await import_sample(stack)
            broker.kill()
            await send(stack, read_reports(demo.SAMPLE)[:30])
            (waiting,) = await stack.rows(
                "intake", "SELECT count(*) AS n FROM outbox WHERE published_at IS NULL"
            )
            assert waiting.n == 30, "they wait in the outbox"
            await back(broker)
            async with asyncio.timeout(90):
                told = 0
                while told < 30:
                    await asyncio.sleep(0.3)
                    (row,) = await stack.rows(
                        "notification",
                        """SELECT count(DISTINCT case_id) AS n FROM messages
                           WHERE state = 'sent'""",
                    )
                    told = row.n


async def test_a_frozen_kafka_that_thaws_loses_nothing(broker: Broker) -> None:
    async def freeze_kafka(stack: Stack) -> None:
        await asyncio.sleep(1.5)
        broker.pause()
        await asyncio.sleep(8)
        broker.resume()

    result = await play(Show(speed=30_000), interfere=freeze_kafka)
    nothing_is_lost(result)
