"""The unit of work: decode each record, inbox, handle, outbox, commit, and only then the offset.

If a batch fails it is tried again one event at a time. A permanent error parks that event; a
transient one waits and puts the batch back, so that nothing is parked because a database was down.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as Partition
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import dead_letters, inbox
from shared.database import Database, brief, is_transient
from shared.dead_letters import DeadLetter
from shared.events import Event
from shared.telemetry import (
    BATCH_RETRIES,
    BATCH_SECONDS,
    CONSUMER_EVENT_AGE,
    CONSUMER_LAG,
    EVENTS_DUPLICATE,
    EVENTS_HANDLED,
)
from shared.topics import Topic, UndecodableRecord

log = structlog.get_logger("consume")

LONGEST_PAUSE = timedelta(seconds=5)
STOPPED_PAUSE = timedelta(seconds=5)
# Kafka answers a poll at least once a second; after this long it is taken to be away.
SILENT_AFTER = timedelta(seconds=5)
# Behind for so long, a consumer has more to do than what came while it was away.
CATCH_UP_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Received:
    """One Kafka record, decoded (``event``) or found undecodable (``problem``)."""

    event: Event[Any] | None
    problem: UndecodableRecord | None
    record_id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    payload: bytes | None
    headers: str

    def letter(self, consumer: str, error: BaseException) -> DeadLetter:
        """The dead letter to keep when this record cannot be handled."""
        return DeadLetter(
            consumer=consumer,
            record_id=self.record_id,
            event_id=self.event.id if self.event else None,
            topic=self.topic,
            partition=self.partition,
            record_offset=self.offset,
            key=self.key,
            payload=self.payload,
            headers=self.headers,
            # A decoder quotes what it met; PostgreSQL stores no zero byte.
            error=f"{type(error).__name__}: {error}".replace("\x00", "\\0")[:2000],
        )


class TooManyParked(RuntimeError):
    """So many records in a row failed that we are broken, not they."""


# Handles fresh events of one batch, in order, inside the transaction it is given. Must not commit.
Handler = Callable[[AsyncSession, list[Any]], Awaitable[None]]


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """One consumer of one topic. ``name`` is its group in Kafka and its key in the inbox."""

    def __init__(
        self,
        name: str,
        topic: Topic,
        handler: Handler,
        *,
        database: Database,
        max_parked_in_a_row: int = 20,
        stalled_after: timedelta = timedelta(seconds=30),
    ) -> None:
        self.name = name
        self.topic = topic
        self.database = database
        self.max_parked_in_a_row = max_parked_in_a_row
        self.stalled_after = stalled_after
        self.subscriber: Any = None
        self.parked_in_a_row = 0
        self.lag = 0
        self.standing_by = False
        self.joined = False
        self.rebalancing = False
        self.caught_up = False
        self.unreadable: str | None = None
        self._handler = handler
        self._failures = 0
        self._last_progress = time.monotonic()
        self._assigned_at = time.monotonic()

    async def handle_batch(self, received: list[Received]) -> None:
        """Handle what one poll brought. Raising keeps the offset where it was."""
        self._last_progress = time.monotonic()
        if self.stopped:
            await asyncio.sleep(STOPPED_PAUSE.total_seconds())
            raise TooManyParked(self.problem)
        try:
            with BATCH_SECONDS.labels(self.name).time():
                await self._handle(received)
        except Exception as error:
            if is_transient(error):
                await self._pause(error)
            raise
        finally:
            self._last_progress = time.monotonic()
        self._failures = 0

    async def _handle(self, received: list[Received]) -> None:
        if all(one.event is not None for one in received):
            try:
                await self._in_one_transaction([d.event for d in received if d.event])
            except Exception as error:
                if is_transient(error):
                    raise
                log.warning(
                    "batch.split", consumer=self.name, size=len(received), error=brief(error)
                )
            else:
                self.parked_in_a_row = 0
                return
        for one in received:
            await self._handle_alone(one)

    async def _handle_alone(self, one: Received) -> None:
        """One record in a transaction of its own; parked if it can never succeed."""
        if self.stopped:
            raise TooManyParked(self.problem)
        try:
            if one.event is None:
                raise one.problem or UndecodableRecord("no event")
            await self._in_one_transaction([one.event])
        except Exception as error:
            if is_transient(error):
                raise
            async with self.database.transaction() as session:
                fresh = await dead_letters.park(session, one.letter(self.name, error))
            # One that was parked before says nothing new; else a restart would stop at the same
            # records again, even when a person has discarded them.
            self.parked_in_a_row += fresh
            log.error(
                "record.parked",
                consumer=self.name,
                topic=one.topic,
                partition=one.partition,
                offset=one.offset,
                record=one.record_id,
                error=type(error).__name__,
            )
        else:
            self.parked_in_a_row = 0

    async def _in_one_transaction(self, events: Sequence[Event[Any]]) -> None:
        by_id = {event.id: event for event in events}  # the same event twice in a batch counts once
        async with self.database.transaction() as session:
            fresh_ids = await inbox.claim(session, self.name, list(by_id))
            fresh = [event for event in by_id.values() if event.id in fresh_ids]
            if fresh:
                await self._handler(session, fresh)
        self._count(fresh, duplicates=len(events) - len(fresh))

    def _count(self, fresh: Sequence[Event[Any]], *, duplicates: int) -> None:
        for event in fresh:
            EVENTS_HANDLED.labels(self.name, event.type).inc()
        if fresh:
            age = datetime.now(UTC) - fresh[-1].time
            CONSUMER_EVENT_AGE.labels(self.name).set(age.total_seconds())
        if duplicates:
            EVENTS_DUPLICATE.labels(self.name).inc(duplicates)

    async def _pause(self, error: Exception) -> None:
        """Wait longer after each failure, with jitter so that replicas do not come back at once."""
        self._failures += 1
        longest = min(0.1 * 2 ** min(self._failures, 10), LONGEST_PAUSE.total_seconds())
        BATCH_RETRIES.labels(self.name).inc()
        log.warning("batch.retry", consumer=self.name, failures=self._failures, error=brief(error))
        await asyncio.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret

    @property
    def stopped(self) -> bool:
        """Whether too many records in a row were parked; a restart tries again."""
        return self.parked_in_a_row >= self.max_parked_in_a_row

    @property
    def problem(self) -> str | None:
        """What is wrong, in words; None if the consumer makes progress."""
        if self.stopped:
            return (
                f"{self.name} has stopped: {self.parked_in_a_row} records in a row could not be "
                "handled. Look at them with `jangkau dead-letters list`, then restart the service."
            )
        if self.unreadable:
            return f"{self.name} has stopped: {self.unreadable}"
        if self.stalled:
            return f"{self.name} has not polled Kafka for {self._idle_seconds():.0f} s"
        return None

    @property
    def stalled(self) -> bool:
        """Whether neither a handler has ended nor Kafka has answered for too long."""
        return self._idle_seconds() > self.stalled_after.total_seconds()

    @property
    def hears(self) -> bool:
        """Whether what others have said by now has been heard: it is in its group, Kafka answers,
        and it has caught up once since (or had time enough to)."""
        if (
            not self.joined
            or self.rebalancing
            or self._idle_seconds() > SILENT_AFTER.total_seconds()
        ):
            return False
        patience = time.monotonic() - self._assigned_at > CATCH_UP_WITHIN.total_seconds()
        return self.caught_up or patience

    def started(self) -> None:
        """Say that the consumer has just joined its group."""
        self._last_progress = time.monotonic()

    async def observe(self) -> None:
        """Read lag and the last answer from Kafka; called about once a second."""
        client = getattr(self.subscriber, "consumer", None)
        if client is None:
            return
        if self.standing_by:
            self._last_progress = time.monotonic()
        lag, answers, known = 0, [], True
        for partition in client.assignment():
            highwater = client.highwater(partition)
            answers.append(client.last_poll_timestamp(partition) or 0)
            known = known and highwater is not None
            if highwater is not None:
                lag += max(highwater - await client.position(partition), 0)
        self.lag = lag
        self.caught_up = self.caught_up or self.standing_by or (bool(answers) and known and not lag)
        CONSUMER_LAG.labels(self.name).set(lag)
        if answers:
            since_answer = time.time() - max(answers) / 1000
            self._last_progress = max(self._last_progress, time.monotonic() - since_answer)

    async def on_partitions_revoked(self, revoked: set[Partition]) -> None:
        """A rebalance has begun."""
        self.standing_by, self.rebalancing = False, True

    async def on_partitions_assigned(self, assigned: set[Partition]) -> None:
        """A rebalance has ended. With more replicas than partitions some have none: standing by."""
        self.standing_by = not assigned
        self.joined, self.rebalancing, self.caught_up = True, False, False
        self._assigned_at = time.monotonic()
        self._last_progress = time.monotonic()
        log.info("partitions.assigned", consumer=self.name, partitions=len(assigned))

    def _idle_seconds(self) -> float:
        return time.monotonic() - self._last_progress
