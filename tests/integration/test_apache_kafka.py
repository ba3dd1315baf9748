"""The real broker that the fault tests and CI use: what it keeps, and what it says when it cannot.

Runs where real Apache Kafka is asked for; `make test` needs neither Java nor Maven.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ops import apache_kafka
from ops.apache_kafka import ApacheKafkaError, Broker

TOPIC = "things.kept"
GROUP = "reader"
PROJECT = Path(__file__).parents[2]

needs_apache_kafka = pytest.mark.skipif(
    not os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or shutil.which("java") is None,
    reason="real Apache Kafka is not asked for (KAFKA_BOOTSTRAP_SERVERS), or Java is missing",
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with apache_kafka.running(tmp_path_factory.mktemp("kafka")) as running:
        yield running


async def declare(broker: Broker) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=2, replication_factor=1)])
    finally:
        await admin.close()


async def produce(broker: Broker, *, first: int, count: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=True
    )
    await producer.start()
    try:
        sent = [
            await producer.send(TOPIC, value=str(number).encode(), partition=number % 2)
            for number in range(first, first + count)
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def consume(broker: Broker, *, count: int) -> list[int]:
    """Read `count` records as the one member of the group, and commit."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        numbers: list[int] = []
        while len(numbers) < count:
            batches = await consumer.getmany(timeout_ms=500)
            numbers += [int(record.value) for batch in batches.values() for record in batch]
        await consumer.commit()
    finally:
        await consumer.stop()
    return sorted(numbers)


async def committed(broker: Broker) -> list[int | None]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, group_id=GROUP)
    await consumer.start()
    try:
        return [await consumer.committed(TopicPartition(TOPIC, partition)) for partition in (0, 1)]
    finally:
        await consumer.stop()


@needs_apache_kafka
async def test_a_killed_broker_comes_back_with_every_record_and_every_offset(
    broker: Broker,
) -> None:
    await declare(broker)
    await produce(broker, first=0, count=100)
    assert await consume(broker, count=100) == list(range(100))

    broker.kill()
    broker.start(wait=False)
    await asyncio.to_thread(broker.wait_until_ready)

    assert await committed(broker) == [50, 50]
    await produce(broker, first=100, count=100)
    assert await consume(broker, count=100) == list(range(100, 200))


@needs_apache_kafka
async def test_a_paused_broker_keeps_a_write_waiting_and_then_takes_it_once(
    broker: Broker,
) -> None:
    before = sum(offset or 0 for offset in await committed(broker))
    broker.pause()
    writing = asyncio.create_task(produce(broker, first=before, count=2))
    await asyncio.sleep(1)
    assert not writing.done()
    broker.resume()
    await writing
    assert await consume(broker, count=2) == [before, before + 1]


@needs_apache_kafka
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_broker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops.apache_kafka", "--data", str(tmp_path / "kafka")]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        name, _, address = starter.stdout.readline().strip().partition("=")
        assert name == "KAFKA_BOOTSTRAP_SERVERS"
        port = int(address.rpartition(":")[2])
        starter.kill()
    deadline = time.monotonic() + 90
    while apache_kafka._answers(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not apache_kafka._answers(port)


def test_a_machine_without_java_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    apache_kafka._java.cache_clear()
    with pytest.raises(ApacheKafkaError, match="apt-get install openjdk-17-jre-headless"):
        apache_kafka.fetch(tmp_path / "cache")
