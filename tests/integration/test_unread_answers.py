"""An answer that was given in time counts, however long it takes until it can be handled."""

import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.assignment.handlers import Sweep, on_notification_answers
from shared import consume, set_aside, topics
from shared.consume import Consumer
from shared.database import Database, execute, sql
from shared.districts import District
from shared.events import CaseEscalated, Event
from shared.hearing import nothing
from shared.records import Received
from tests.factories import case_reported, offer_answered
from tests.integration.cases import (
    events_of,
    offers_of,
    people,
    report,
    state_of,
    time_passes,
    who,
    with_policy,
)
from tests.integration.conftest import run

PARTITION = TopicPartition("notification.answers", 0)
MINUTE = timedelta(minutes=1)


class Kafka:
    """aiokafka's consumer of one partition, as far as the horizon is read from it."""

    def __init__(self) -> None:
        self.end = self.next = 0

    def assignment(self) -> set[TopicPartition]:
        return {PARTITION}

    def highwater(self, _: TopicPartition) -> int:
        return self.end

    def last_poll_timestamp(self, _: TopicPartition) -> float:
        return time.time() * 1000

    async def position(self, _: TopicPartition) -> int:
        return self.next


class Reading:
    """The reader of the answers of one process, with a broker that does as it is told."""

    def __init__(self, database: Database, policy: Mapping[str, District]) -> None:
        self.kafka = Kafka()
        self.batch: list[Received] = []
        # Another connection, which does not wait long for a lock.
        self.database = Database(database.engine.url, lock_timeout_s=0.05)
        self.consumer = Consumer(
            "assignment.notification-answers",
            topics.NOTIFICATION_ANSWERS,
            on_notification_answers(policy, duty_link=lambda _: None),
            database=self.database,
        )
        self.consumer.subscriber = SimpleNamespace(consumer=self.kafka)

    async def join(self) -> None:
        await self.consumer.on_partitions_assigned({PARTITION})
        await self.consumer.observe()

    async def poll(self, *events: Event[Any]) -> None:
        """Kafka has these, and they are brought."""
        first = self.kafka.end
        self.batch = [await self.received(event) for event in events]
        self.kafka.next = self.kafka.end
        self.consumer.polled({PARTITION: first})

    async def received(self, event: Event[Any]) -> Received:
        """The record of an event, which Kafka has from now on."""
        self.kafka.end += 1
        return Received(
            event=event, problem=None, record_id=str(event.id), topic="notification.answers",
            partition=0, offset=self.kafka.end - 1, key=str(event.subject).encode(),
            payload=event.to_json().encode(), headers="[]",
        )  # fmt: skip

    def time_passes(self, by: timedelta) -> None:
        """As if all that was heard lay so much farther back."""
        hearing = self.consumer.hearing
        assert hearing.until is not None
        hearing.until = hearing.since = hearing.until - by.total_seconds()

    async def moves_on(self) -> None:
        """Kafka says that there is nothing new."""
        self.kafka.next = self.kafka.end
        await self.consumer.observe()

    def sweep(self, policy: Mapping[str, District]) -> Sweep:
        return Sweep(self.database, districts=policy, every_s=1, heard=self.consumer.heard)

    async def handle(self, *, tries: int = 1) -> bool:
        """What the loop of the consumer does with the batch in hand; whether it got through."""
        for _ in range(tries):
            try:
                await self.consumer.handle_batch(self.batch)
            except Exception:  # noqa: S112 - it comes again
                continue
            await self.consumer.observe()
            return True
        await self.consumer.observe()
        return False


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_seconds: float) -> None:
        return None

    monkeypatch.setattr(consume.asyncio, "sleep", at_once)  # type: ignore[attr-defined]


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts)


@pytest.fixture
async def reading(
    assignment_database: Database, policy: dict[str, District]
) -> AsyncIterator[Reading]:
    made = Reading(assignment_database, policy)
    await made.join()
    yield made
    await made.database.close()


async def asked(db: Database, policy: Mapping[str, District], count: int) -> tuple[Any, ...]:
    """So many cases, each with one open offer, and somebody left to be asked."""
    await people(db, count + 2)
    cases = [case_reported() for _ in range(count)]
    await report(db, policy, *cases)
    return tuple(cases)


async def yes(db: Database, case: Any) -> Event[Any]:
    (offer,) = [o for o in await offers_of(db, case) if o.state in ("offered", "accepted")]
    return offer_answered(
        "accept", case_id=offer.case_id, offer_id=offer.id, volunteer_id=offer.volunteer_id
    )


async def states(db: Database, case: Any) -> list[str]:
    return [offer.state for offer in await offers_of(db, case)]


async def locked_for(session: Any, case: Any) -> None:
    """Hold the case, as a transaction that hangs does."""
    await execute(session, sql("SELECT 1 FROM cases WHERE id = :id FOR UPDATE"), {"id": who(case)})


async def test_an_offer_does_not_expire_while_its_yes_waits_in_a_batch_that_cannot_go_on(
    assignment_database: Database, policy: dict[str, District], reading: Reading
) -> None:
    db = assignment_database
    locked, other = await asked(db, policy, 2)
    sweep = reading.sweep(policy)
    await reading.poll(await yes(db, locked), await yes(db, other))
    async with db.transaction() as session:
        await locked_for(session, locked)
        await time_passes(db, other, 11 * MINUTE)
        reading.time_passes(11 * MINUTE)
        assert not await reading.handle(tries=2)
        await sweep.look_at_cases()
        assert await states(db, other) == ["offered"]
        # And its yes counts as soon as it can be handled, while the locked one waits aside.
        assert await reading.handle(tries=2)
        assert await states(db, other) == ["accepted"]
        await sweep.look_at_cases()
    assert await states(db, locked) == ["offered"]


async def test_the_deadlines_of_a_case_stand_still_while_an_answer_of_it_waits_aside(
    assignment_database: Database, policy: dict[str, District], reading: Reading
) -> None:
    db = assignment_database
    locked, silent = await asked(db, policy, 2)
    sweep = reading.sweep(policy)
    await reading.poll(await yes(db, locked))
    async with db.transaction() as session:
        await locked_for(session, locked)
        assert await reading.handle(tries=4)
    for case in (locked, silent):
        await time_passes(db, case, 11 * MINUTE)
    await reading.moves_on()
    await sweep.look_at_cases()
    assert await states(db, locked) == ["offered"], "its answer is known to be there"
    assert await states(db, silent) == ["expired", "offered"], "all others go on"
    await run(db, "UPDATE set_aside SET next_try_at = now()")
    assert await reading.consumer.take_up_one()
    await sweep.look_at_cases()
    assert await states(db, locked) == ["accepted"]


async def test_a_polled_batch_that_nobody_has_begun_to_handle_is_unread(
    assignment_database: Database, policy: dict[str, District], reading: Reading
) -> None:
    db = assignment_database
    (case,) = await asked(db, policy, 1)
    await reading.poll(await yes(db, case))
    await time_passes(db, case, 11 * MINUTE)
    reading.time_passes(11 * MINUTE)
    await reading.consumer.observe()
    await reading.sweep(policy).look_at_cases()
    assert await states(db, case) == ["offered"]
    assert await reading.handle()
    assert await states(db, case) == ["accepted"]


async def test_only_deadlines_before_the_oldest_unread_answer_pass(
    assignment_database: Database, policy: dict[str, District], reading: Reading
) -> None:
    """What is unread has come after the one deadline and before the other."""
    db = assignment_database
    early, late = await asked(db, policy, 2)
    await time_passes(db, early, 20 * MINUTE)  # ten minutes ago
    await time_passes(db, late, 10 * MINUTE + timedelta(seconds=1))
    reading.time_passes(5 * MINUTE)
    sweep = reading.sweep(policy)
    await sweep.look_at_cases()
    assert await states(db, early) == ["expired", "offered"]
    assert await states(db, late) == ["offered"]
    await reading.moves_on()
    await sweep.look_at_cases()
    assert await states(db, late) == ["expired", "offered"]


@pytest.mark.parametrize("why", ["stopped", "set aside"])
@pytest.mark.parametrize("state", ["offered", "accepted"])
async def test_a_coordinator_hears_once_of_a_case_whose_answers_cannot_be_read_for_long(
    assignment_database: Database,
    policy: dict[str, District],
    reading: Reading,
    state: str,
    why: str,
) -> None:
    db = assignment_database
    (case,) = await asked(db, policy, 1)
    sweep = reading.sweep(policy)
    if state == "accepted":
        await reading.poll(await yes(db, case))
        assert await reading.handle()
    if why == "stopped":
        reading.consumer.parked_in_a_row = reading.consumer.max_parked_in_a_row
        await reading.poll(await yes(db, case))
        assert not await reading.handle()
        reading.time_passes(120 * MINUTE)
    else:
        await set_aside.put(db, "assignment.notification-answers", [
            await reading.received(await yes(db, case))
        ], "LockNotAvailableError 55P03")  # fmt: skip
        await run(db, "UPDATE set_aside SET set_aside_at = now() - interval '1 hour'")
    await time_passes(db, case, 120 * MINUTE)
    # Its moment has passed after what was heard, and long enough ago for a person to act.
    for _ in range(3):
        await sweep.look_at_cases()
    assert await states(db, case) == [state], "nothing is taken from whoever may have answered"
    (told,) = await events_of(db, CaseEscalated)
    assert told.data.reason == "answers_unread"
    assert (await state_of(db, case)).state == state


async def test_nobody_is_told_of_unread_answers_in_the_first_minutes(
    assignment_database: Database, policy: dict[str, District], reading: Reading
) -> None:
    """Also not after a long outage of everything, when all deadlines lie far back."""
    db = assignment_database
    (case,) = await asked(db, policy, 1)
    await time_passes(db, case, 600 * MINUTE)
    await reading.consumer.on_partitions_assigned({PARTITION})
    await reading.poll(await yes(db, case))
    sweep = reading.sweep(policy)
    await sweep.look_at_cases()
    assert await events_of(db, CaseEscalated) == []
    assert await reading.handle()
    assert await states(db, case) == ["accepted"]


async def test_what_was_told_of_unread_answers_does_not_take_the_place_of_what_comes_of_the_search(
    assignment_database: Database, districts: dict[str, District]
) -> None:
    db = assignment_database
    policy = with_policy(districts, escalate_after={"normal": 30 * MINUTE, "urgent": 30 * MINUTE})
    (case,) = await asked(db, policy, 1)
    await time_passes(db, case, 20 * MINUTE)
    deaf = nothing(since=time.monotonic() - 3600)
    await Sweep(db, districts=policy, every_s=1, heard=lambda: deaf).look_at_cases()
    await time_passes(db, case, 20 * MINUTE)
    await Sweep(db, districts=policy, every_s=1).look_at_cases()
    reasons = [event.data.reason for event in await events_of(db, CaseEscalated)]
    assert reasons == ["answers_unread", "nobody_accepted_in_time"]
