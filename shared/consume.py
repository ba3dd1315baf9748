"""The unit of work: decode each record, inbox, handle, outbox, commit, and only then the offset.

If a batch fails for good it is tried again one event at a time, and what can never be handled is
parked. A transient error waits and puts the batch back, so that nothing is parked because a
database was down. After some tries the batch is taken apart: what still cannot go on, while its
neighbours can, is set aside with what follows of its case (:mod:`shared.set_aside`).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as Partition
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import dead_letters, inbox, set_aside
from shared.database import Database, Row, brief, is_transient
from shared.events import Event
from shared.hearing import HeardUntil, Hearing
from shared.records import Received, as_text
from shared.set_aside import NotNow
from shared.telemetry import (
    BATCH_RETRIES,
    BATCH_SECONDS,
    CONSUMER_EVENT_AGE,
    CONSUMER_LAG,
    EVENTS_DUPLICATE,
    EVENTS_HANDLED,
    EVENTS_SET_ASIDE,
)
from shared.topics import Topic, UndecodableRecord

log = structlog.get_logger("consume")

LONGEST_PAUSE = timedelta(seconds=5)
STOPPED_PAUSE = timedelta(seconds=5)
# Kafka gives the partitions to others if no poll comes for five minutes (max.poll.interval.ms);
# one more record may take the half minute of a statement.
TAKEN_APART_WITHIN = timedelta(seconds=60)


class TooManyParked(RuntimeError):
    """So many records in a row failed that we are broken, not they."""


@dataclass
class _Stuck:
    """Records of one case that cannot go on, and why the first cannot."""

    error: Exception
    records: list[Received] = field(default_factory=list)


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
        tries_together: int = 3,
        stalled_after: timedelta = timedelta(seconds=30),
    ) -> None:
        self.name = name
        self.topic = topic
        self.database = database
        self.max_parked_in_a_row = max_parked_in_a_row
        self.tries_together = tries_together
        self.stalled_after = stalled_after
        self.subscriber: Any = None
        self.parked_in_a_row = 0
        self.lag = 0
        self.standing_by = False
        self.joined = False
        self.rebalancing = False
        self.hearing = Hearing()
        self.unreadable: str | None = None
        self._handler = handler
        self._failures = 0
        self._failing_since: float | None = None
        self._last_error = ""
        self._aside_in_a_row = 0
        self._last_progress = time.monotonic()
        # Of the batch that is not handled yet: the first offset of each partition.
        self._in_hand: dict[Hashable, int] = {}

    def polled(self, first_offsets: Mapping[Hashable, int]) -> None:
        """Take note of a batch the moment that it is polled, before anything else can look."""
        self._in_hand = dict(first_offsets)

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
            await self._pause(error)
            raise
        finally:
            self._last_progress = time.monotonic()
        self._failures, self._failing_since = 0, None
        self._in_hand.clear()

    async def _handle(self, received: list[Received]) -> None:
        if self._failures >= self.tries_together:
            await self._take_apart(received)
            return
        if all(one.event is not None for one in received):
            try:
                await self._in_one_transaction(received)
            except Exception as error:
                if is_transient(error):
                    raise
                log.warning(
                    "batch.split", consumer=self.name, size=len(received), error=brief(error)
                )
            else:
                self.parked_in_a_row = self._aside_in_a_row = 0
                return
        for one in received:
            await self._handle_alone(one)

    async def _take_apart(self, received: list[Received]) -> None:
        """Each record on its own; what cannot go on while others can is set aside, with what
        follows of its case. What may not be set aside lets the batch come again."""
        stuck: dict[UUID, _Stuck] = {}
        went_on, cut = 0, False
        until = time.monotonic() + TAKEN_APART_WITHIN.total_seconds()
        for one in received:
            case = one.event.subject if one.event else None
            if case in stuck:
                stuck[case].records.append(one)
                continue
            try:
                went_on += await self._handle_alone(one)
            except Exception as error:
                if case is None or not is_transient(error):
                    raise
                stuck[case] = _Stuck(error, [one])
                # A poll must not be too long in coming; the others come again.
                cut = len(stuck) == self.max_parked_in_a_row or time.monotonic() > until
                if cut:
                    break
            self._last_progress = time.monotonic()
        if not stuck:
            return
        may = set_aside.may_go_aside(
            {case: each.error for case, each in stuck.items()},
            others_went_on=went_on > 0,
            in_a_row=self._aside_in_a_row,
            most_in_a_row=self.max_parked_in_a_row,
        )
        for case in may:
            self._aside_in_a_row += await self._set_aside(stuck[case])
        left = [each.error for case, each in stuck.items() if case not in may]
        if left:
            raise left[0]
        if cut:
            raise TimeoutError(f"{len(stuck)} cases of one batch could not go on")

    async def _set_aside(self, stuck: "_Stuck") -> bool:
        """Set these records of one case aside; returns whether there was any that still needed
        it."""
        error = _in_words(stuck.error)
        put = await set_aside.put(self.database, self.name, stuck.records, error)
        if not put:
            return False
        EVENTS_SET_ASIDE.labels(self.name).inc(len(put))
        log.error(
            "record.set_aside",
            consumer=self.name,
            case=str(stuck.records[0].event.subject) if stuck.records[0].event else None,
            record=stuck.records[0].record_id,
            behind_it=len(put) - 1,
            error=error,
        )
        return True

    async def _handle_alone(self, one: Received) -> bool:
        """One record in a transaction of its own; parked if it can never succeed. Returns whether
        it went on."""
        if self.stopped:
            raise TooManyParked(self.problem)
        try:
            if one.event is None:
                raise one.problem or UndecodableRecord("no event")
            await self._in_one_transaction([one])
        except Exception as error:
            if is_transient(error):
                raise
            if isinstance(error, NotNow):
                await self._set_aside(_Stuck(error, [one]))
                return True
            async with self.database.transaction() as session:
                fresh = await dead_letters.park(session, one.letter(self.name, error))
            self._parked(error, fresh=fresh, record=one.record_id, partition=one.partition,
                         offset=one.offset)  # fmt: skip
            return False
        self.parked_in_a_row = self._aside_in_a_row = 0
        return True

    def _parked(self, error: Exception, *, fresh: bool, **record: Any) -> None:
        # One that was parked before says nothing new; else a restart would stop at the same
        # records again, even when a person has discarded them.
        self.parked_in_a_row += fresh
        log.error(
            "record.parked",
            consumer=self.name,
            topic=self.topic.name,
            error=type(error).__name__,
            **record,
        )

    async def _in_one_transaction(self, received: Sequence[Received]) -> None:
        # The same event twice in a batch counts once.
        by_id = {one.event.id: one for one in received if one.event}
        async with self.database.transaction() as session:
            claimed = await inbox.claim(session, self.name, list(by_id))
            mine = [one for id_, one in by_id.items() if id_ in claimed]
            behind = await set_aside.put_behind(session, self.name, mine)
            fresh = [one.event for one in mine if one.event and one.event.id not in behind]
            if fresh:
                await self._handler(session, fresh)
        if behind:
            EVENTS_SET_ASIDE.labels(self.name).inc(len(behind))
            log.warning("records.put_behind", consumer=self.name, size=len(behind))
        self._count(fresh, duplicates=len(received) - len(mine))

    async def take_up_one(self) -> bool:
        """Try the next record that was set aside, if one is due; returns whether one was.

        Raises:
            OSError, asyncpg.PostgresError: the database is away.
        """
        if self.stopped:
            return False
        record: Row | None = None
        try:
            async with self.database.transaction() as session:
                record = await set_aside.next_due(session, self.name)
                if record is None:
                    return False
                event = self.topic.decode(record.payload)
                fresh = await inbox.claim(session, self.name, [event.id])
                if fresh:
                    await self._handler(session, [event])
                await set_aside.remove(session, record.id)
        except Exception as error:
            if record is None:
                raise
            await self._still_stuck(record, error)
        else:
            self._count([event] if fresh else [], duplicates=not fresh)
            log.info("record.taken_up", consumer=self.name, record=str(record.event_id))
        return True

    async def _still_stuck(self, record: Row, error: Exception) -> None:
        if is_transient(error) or isinstance(error, NotNow):
            log.warning(
                "record.still_stuck",
                consumer=self.name,
                record=str(record.event_id),
                attempts=record.attempts + 1,
                error=_in_words(error),
            )
            await set_aside.failed_again(self.database, record, _in_words(error))
            return
        async with self.database.transaction() as session:
            if not await set_aside.remove(session, record.id):
                return  # another process was faster
            fresh = await dead_letters.park(session, set_aside.letter_of(record, error))
        self._parked(error, fresh=fresh, record=str(record.event_id),
                     partition=record.partition, offset=record.record_offset)  # fmt: skip

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
        self._failing_since = self._failing_since or time.monotonic()
        self._last_error = brief(error)
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
        failing_s = time.monotonic() - self._failing_since if self._failing_since else 0.0
        if failing_s > self.stalled_after.total_seconds():
            return (
                f"{self.name} has tried the same records for {failing_s:.0f} s: {self._last_error}"
            )
        if self.stalled:
            return f"{self.name} has not polled Kafka for {self._idle_seconds():.0f} s"
        return None

    @property
    def stalled(self) -> bool:
        """Whether neither a handler has ended nor Kafka has answered for too long."""
        return self._idle_seconds() > self.stalled_after.total_seconds()

    def heard(self) -> HeardUntil:
        """Up to which moment all that others have said has been handled, or set aside.

        While the group rebalances nobody knows; a reader that stands by hears nothing at all.
        """
        return self.hearing.heard()

    def started(self) -> None:
        """Say that the consumer has just joined its group."""
        self._last_progress = time.monotonic()

    async def observe(self) -> None:
        """Read lag, what is heard and the last answer from Kafka; called a few times a second."""
        client = getattr(self.subscriber, "consumer", None)
        if client is None:
            return
        if self.standing_by:
            self._last_progress = time.monotonic()
        ends: dict[Hashable, int] = {}
        handled: dict[Hashable, int] = {}
        answers, known = [], True
        for partition in client.assignment():
            highwater = client.highwater(partition)
            answers.append(client.last_poll_timestamp(partition) or 0)
            known = known and highwater is not None
            if highwater is not None:
                ends[partition] = highwater
                position = await client.position(partition)
                handled[partition] = min(self._in_hand.get(partition, position), position)
        self.lag = sum(max(end - handled[partition], 0) for partition, end in ends.items())
        CONSUMER_LAG.labels(self.name).set(self.lag)
        if not answers:
            return
        now, now_monotonic = time.time(), time.monotonic()
        self._last_progress = max(self._last_progress, now_monotonic - now + max(answers) / 1000)
        if known and not self.rebalancing and not self.unreadable:
            # What we know of a partition is as old as Kafka's last answer about it.
            oldest = min(now_monotonic - now + min(answers) / 1000, now_monotonic)
            self.hearing.look(oldest, ends, handled)

    async def on_partitions_revoked(self, revoked: set[Partition]) -> None:
        """A rebalance has begun."""
        self.standing_by, self.rebalancing = False, True
        self.hearing.lose()

    async def on_partitions_assigned(self, assigned: set[Partition]) -> None:
        """A rebalance has ended. With more replicas than partitions some have none: standing by."""
        self.standing_by = not assigned
        self.joined, self.rebalancing = True, False
        self.hearing.lose()
        self._in_hand.clear()
        self._last_progress = time.monotonic()
        log.info("partitions.assigned", consumer=self.name, partitions=len(assigned))

    def _idle_seconds(self) -> float:
        return time.monotonic() - self._last_progress


def _in_words(error: BaseException) -> str:
    """Why a record cannot go on: in a sentence where the handler has one for whoever mends it."""
    return as_text(error) if isinstance(error, NotNow) else brief(error)
