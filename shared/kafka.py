"""The one place where a broker or a subscriber is made.

The defaults of FastStream and aiokafka lose events (``ACK_FIRST``, ``latest``, ``acks=1``,
auto-created topics of one partition); what is set here and why is in docs/adr/0003.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka import TopicPartition as Partition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError, for_code
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.message import StreamMessage

from shared import topics
from shared.consume import Consumer
from shared.dead_letters import fingerprint
from shared.events import CONTENT_TYPE
from shared.health import Loop
from shared.outbox import OutgoingRecord, RefusedAsTooLarge
from shared.records import Received
from shared.settings import Settings
from shared.topics import Topic, UndecodableRecord

log = structlog.get_logger("kafka")

TOPIC_ALREADY_EXISTS = 36
# What a broker takes unless it is told otherwise (message.max.bytes is 1,048,588).
LARGEST_RECORD = 1_048_576
CONNECT_TIMEOUT = timedelta(seconds=10)
# Deadlines that wait for answers pass so much later at most; a look costs no request.
OBSERVE_EVERY = timedelta(milliseconds=250)
# How long a handler may take to end when it is asked to stop; a farewell to Kafka comes after it.
GRACE = timedelta(seconds=5)
STOP_TIMEOUT = timedelta(seconds=7)
# Before a new consumer joins, the old one must have gone: a request to a frozen Kafka takes 15 s.
REPLACE_TIMEOUT = timedelta(seconds=45)


def make_broker(settings: Settings, *, client_id: str) -> KafkaBroker:
    """A broker whose producer acknowledges only what all replicas have."""
    return KafkaBroker(
        settings.kafka_bootstrap_servers.split(","),
        client_id=client_id,
        acks="all",
        enable_idempotence=settings.kafka_idempotence,
        allow_auto_create_topics=False,
        # The relay has gathered its batch already; waiting for more only adds latency.
        linger_ms=0,
        max_batch_size=256 * 1024,
        max_request_size=LARGEST_RECORD,
        request_timeout_ms=15_000,
        # How long a handler may take to end when the process is asked to stop.
        graceful_timeout=GRACE.total_seconds(),
        # The decoder gives typed events already; a second validation would cost as much again.
        apply_types=False,
        logger=None,
    )


def subscribe(broker: KafkaBroker, consumer: Consumer, settings: Settings) -> Any:
    """Let ``consumer`` read its topic in batches, each acknowledged after its transaction."""
    subscriber = broker.subscriber(
        settings.topic_prefix + consumer.topic.name,
        group_id=settings.topic_prefix + consumer.name,
        batch=True,
        max_records=settings.batch_size,
        batch_timeout_ms=10,  # of the first poll only, see _wait_inside_the_poll
        fetch_max_wait_ms=settings.kafka_fetch_max_wait_ms,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        heartbeat_interval_ms=settings.kafka_session_timeout_ms // 5,
        listener=consumer,
        parser=_tolerate_any_header,
        decoder=_decoder(consumer.topic, prefix=settings.topic_prefix),
    )
    subscriber(consumer.handle_batch)
    consumer.subscriber = subscriber
    return subscriber


async def _tolerate_any_header(records: tuple[ConsumerRecord, ...], parse: Any) -> Any:
    """Let no header of a stranger's record break the batch: FastStream expects UTF-8 in all."""
    return await parse(tuple(_with_readable_headers(record) for record in records))


def _with_readable_headers(record: ConsumerRecord) -> ConsumerRecord:
    if not record.headers:
        return record
    readable = tuple(
        (name, (value or b"").decode(errors="backslashreplace").encode())
        for name, value in record.headers
    )
    return replace(record, headers=readable)


def _decoder(topic: Topic, *, prefix: str) -> Any:
    async def decode(message: StreamMessage[tuple[ConsumerRecord, ...]]) -> list[Received]:
        return [_received(record, topic, prefix=prefix) for record in message.raw_message]

    return decode


def _received(record: ConsumerRecord, topic: Topic, *, prefix: str) -> Received:
    event, problem = None, None
    try:
        event = topic.decode(record.value)
    except UndecodableRecord as error:
        problem = error
    name = record.topic.removeprefix(prefix)
    payload = record.value or b""
    return Received(
        event=event,
        problem=problem,
        record_id=str(event.id)
        if event
        else fingerprint(name, record.partition, record.offset, record.timestamp, payload),
        topic=name,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        payload=record.value,
        headers=json.dumps([[name, value.decode()] for name, value in record.headers]),
    )


@dataclass
class Publisher:
    """Publishes the outbox; makes itself a new producer when the old one is beyond hope."""

    settings: Settings
    client_id: str
    _broker: KafkaBroker | None = None

    async def publish(self, records: Sequence[OutgoingRecord]) -> None:
        """Send all, then wait until Kafka has acknowledged all.

        Raises:
            OSError, TimeoutError: Kafka is away. The connection is made anew at the next call.
            RefusedAsTooLarge: it will never take one of them.
        """
        try:
            broker = await self._connected()
            # One by one would be 15 times slower; publish_batch would ignore the keys.
            pending = [
                await broker.publish(
                    record.value,
                    topic=self.settings.topic_prefix + record.topic,
                    key=record.key,
                    headers={"content-type": CONTENT_TYPE},
                    no_confirm=True,
                )
                for record in records
            ]
            await asyncio.gather(*pending)
        except BaseException as error:
            await self.close()
            if isinstance(error, asyncio.CancelledError | OSError):
                raise
            if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                raise RefusedAsTooLarge(str(error)) from error
            raise ConnectionError(f"Kafka did not take the events: {error!r}") from error

    async def _connected(self) -> KafkaBroker:
        if self._broker is None:
            broker = make_broker(self.settings, client_id=self.client_id)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT.total_seconds()):
                    await broker.start()
            except BaseException:
                await _stop(broker)
                raise
            self._broker = broker
        return self._broker

    async def close(self) -> None:
        """Close the producer, if there is one."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await _stop(broker)


async def _stop(broker: KafkaBroker, *, within: timedelta = STOP_TIMEOUT) -> bool:
    """Stop within a bounded time; returns whether all has ended.

    With Kafka away, a clean farewell may never come.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            await broker.stop()
    except (TimeoutError, OSError) as error:
        log.warning("broker.not_stopped_cleanly", error=repr(error))
        return False
    return True


def _wait_inside_the_poll(client: AIOKafkaConsumer, consumer: Consumer) -> None:
    """Let a poll return when there is something, and not before.

    After an empty poll FastStream sleeps for as long again (``BatchSubscriber.get_msg`` of 0.7.8),
    during which events wait. Short polls would buy latency with the CPU of an idle process; a poll
    that is never empty costs neither. Stopping cancels it.
    """
    poll = client.getmany

    async def until_there_is_something(*partitions: Partition, **options: Any) -> Any:
        try:
            while not (records := await poll(*partitions, **{**options, "timeout_ms": 1000})):
                pass
        except UnicodeDecodeError as error:
            # aiokafka chokes on the name of a header. What it has read from other partitions in the
            # same poll is gone while their positions have moved: no commit may follow.
            consumer.unreadable = f"a record in Kafka cannot be read: {error}"
            log.error("poll.unreadable", consumer=consumer.name, error=repr(error))
            await asyncio.Event().wait()
        consumer.polled({partition: found[0].offset for partition, found in records.items()})
        return records

    client.getmany = until_there_is_something


class Subscriptions:
    """The consumers of one process, started when Kafka is there and made anew when they stall."""

    def __init__(
        self, settings: Settings, consumers: Sequence[Consumer], *, client_id: str
    ) -> None:
        self.settings = settings
        self.consumers = consumers
        self.client_id = client_id
        self._broker: KafkaBroker | None = None

    async def run(self, loop: Loop) -> None:
        """Keep the consumers alive until cancelled."""
        try:
            while True:
                if self._broker is None:
                    await self._start()
                elif stalled := [c for c in self.consumers if c.stalled]:
                    # aiokafka #1154, #1037: a consumer can be dead and look alive.
                    log.warning("consumers.restart", stalled=[c.name for c in stalled])
                    await self._replace()
                for consumer in self.consumers:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1):  # no position while the group rebalances
                            await consumer.observe()
                loop.beat()
                await asyncio.sleep(OBSERVE_EVERY.total_seconds())
        finally:
            await self._drop()

    async def _start(self) -> None:
        broker = make_broker(self.settings, client_id=self.client_id)
        for consumer in self.consumers:
            subscribe(broker, consumer, self.settings)
        try:
            # Covers joining the group, which waits for the other members' rebalance.
            async with asyncio.timeout(60):
                await broker.start()
        except Exception as error:
            log.warning("consumers.not_started", error=repr(error))
            await self._gone(broker)
            await asyncio.sleep(1)
            return
        except BaseException:
            await _stop(broker)
            raise
        self._broker = broker
        for consumer in self.consumers:
            _wait_inside_the_poll(consumer.subscriber.consumer, consumer)
            consumer.started()
        log.info("consumers.started", consumers=[c.name for c in self.consumers])

    async def _replace(self) -> None:
        """Let go of the consumers, so that new ones are made."""
        broker, self._broker = self._broker, None
        for consumer in self.consumers:
            consumer.subscriber = None
        if broker is not None:
            await self._gone(broker)

    async def _gone(self, broker: KafkaBroker) -> None:
        """Stop consumers for good.

        Raises:
            RuntimeError: one is still there. It would stay in its group and keep partitions that
                nobody reads, so the process has to end.
        """
        if not await _stop(broker, within=REPLACE_TIMEOUT):
            raise RuntimeError("A consumer could not be stopped; only a new process is clean.")

    async def _drop(self) -> None:
        broker, self._broker = self._broker, None
        for consumer in self.consumers:
            consumer.subscriber = None
        if broker is not None:
            await _stop(broker)


async def create_topics(settings: Settings) -> list[str]:
    """Create the declared topics that are missing; returns their names.

    Raises:
        KafkaError: Kafka refused one, for example because there are fewer brokers than replicas.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await admin.start()
        wanted = [
            NewTopic(
                settings.topic_prefix + topic.name,
                topic.partitions,
                settings.topic_replication,
                topic_configs={
                    "retention.ms": str(
                        -1
                        if topic.retention is None
                        else int(topic.retention.total_seconds() * 1000)
                    ),
                    "cleanup.policy": "delete",
                    **({"min.insync.replicas": "2"} if settings.topic_replication > 2 else {}),
                },
            )
            for topic in topics.ALL
        ]
        created = []
        response = await admin.create_topics(wanted)
        for name, code, *message in response.topic_errors:
            if code == 0:
                created.append(name)
            elif code != TOPIC_ALREADY_EXISTS:
                raise for_code(code)(f"{name}: {message[0] if message else ''}")
        return created
    finally:
        await admin.close()


async def delete_topics(settings: Settings) -> None:
    """Delete the declared topics under this prefix: for runs that clean up after themselves."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await admin.start()
        await admin.delete_topics([settings.topic_prefix + topic.name for topic in topics.ALL])
    finally:
        await admin.close()


@dataclass(frozen=True)
class Lag:
    """How far one consumer group is behind on one topic."""

    group: str
    topic: str
    events: int
    seconds: float


async def lag_of(
    settings: Settings, group: str, topic: Topic, *, timeout: timedelta = timedelta(seconds=10)
) -> Lag:
    """Events between the committed and the last offset, and the age of the oldest of them.

    Raises:
        KafkaError, TimeoutError: Kafka is away.
    """
    reader = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        group_id=settings.topic_prefix + group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=settings.kafka_fetch_max_wait_ms,
    )
    name = settings.topic_prefix + topic.name
    async with asyncio.timeout(timeout.total_seconds()):
        try:
            await reader.start()
            partitions = [Partition(name, number) for number in range(topic.partitions)]
            reader.assign(partitions)
            ends = await reader.end_offsets(partitions)
            begins = await reader.beginning_offsets(partitions)
            behind = {}
            for partition in partitions:
                committed = await reader.committed(partition)
                position = max(committed or 0, begins[partition])
                if ends[partition] > position:
                    behind[partition] = ends[partition] - position
                    reader.seek(partition, position)
            idle = [partition for partition in partitions if partition not in behind]
            if idle:
                reader.pause(*idle)
            oldest = None
            for partition in behind:
                record = await reader.getone(partition)
                oldest = min(oldest or record.timestamp, record.timestamp)
        finally:
            await reader.stop()
    seconds = datetime.now(UTC).timestamp() - oldest / 1000 if oldest else 0.0
    return Lag(group, topic.name, sum(behind.values()), max(seconds, 0.0))
