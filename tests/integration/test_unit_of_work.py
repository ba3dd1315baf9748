"""The unit of work on a real broker: what is wrong is parked once, and nothing else is lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faststream.kafka import KafkaBroker
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.assignment.handlers import on_intake_cases
from services.assignment.settings import AssignmentSettings
from services.intake.handlers import on_public_cases
from services.intake.settings import IntakeSettings
from shared import consume, kafka, set_aside, topics
from shared.consume import Consumer, Handler
from shared.database import Database, execute, sql
from shared.districts import District
from shared.events import CaseReported, Event
from shared.health import Loop
from shared.kafka import Publisher, Subscriptions
from shared.outbox import OutgoingRecord
from shared.settings import Settings
from shared.topics import Topic
from tests import servers
from tests.conftest import MakeSettings
from tests.factories import case_reported, public_case
from tests.integration.cases import with_policy
from tests.integration.conftest import one, rows, run

GROUP = "test.reader"


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 90) -> None:
    """Wait for what must happen in the end, however slow the machine is."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it is another task's or process's work
            await asyncio.sleep(0.02)


async def take_up(consumer: Consumer) -> None:
    """What a service does every second with what was set aside."""
    while True:
        while await consumer.take_up_one():
            pass
        await asyncio.sleep(0.05)


class Bench:
    """One topic, one consumer, one database, and a producer that sends anything."""

    def __init__(self, settings: Settings, database: Database, producer: AIOKafkaProducer) -> None:
        self.settings = settings
        self.database = database
        self.producer = producer

    async def send(
        self,
        *values: bytes | Event[Any] | None,
        topic: Topic = topics.INTAKE_CASES,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
        key: bytes | None = b"key",
    ) -> None:
        """Put records on one partition, in this order."""
        sent = [
            await self.producer.send(
                self.settings.topic_prefix + topic.name,
                value.to_json().encode() if isinstance(value, Event) else value,
                key=key,
                partition=partition,
                headers=list(headers),
            )
            for value in values
        ]
        await asyncio.gather(*sent)

    @asynccontextmanager
    async def reading(
        self, handler: Handler, *, topic: Topic = topics.INTAKE_CASES, **options: Any
    ) -> AsyncIterator[Consumer]:
        """A process with one consumer, for as long as the block runs."""
        consumer = Consumer(GROUP, topic, handler, database=self.database, **options)
        subscriptions = Subscriptions(self.settings, [consumer], client_id="test")
        running = asyncio.create_task(subscriptions.run(Loop("test", timedelta(minutes=2))))
        taking_up = asyncio.create_task(take_up(consumer))
        try:
            yield consumer
        finally:
            running.cancel()
            taking_up.cancel()
            await asyncio.wait([running, taking_up])

    async def handled(self, *events: Event[Any]) -> bool:
        """Whether all of these have had their effect."""
        found = await rows(self.database, "SELECT event_id FROM inbox")
        return {event.id for event in events} <= {row.event_id for row in found}

    async def effects(self) -> dict[UUID, int]:
        """Case id -> how often it was handled (see `count`)."""
        found = await rows(self.database, "SELECT case_id, version FROM case_states")
        return {row.case_id: row.version for row in found}

    async def letters(self) -> list[Any]:
        return await rows(self.database, "SELECT * FROM dead_letters ORDER BY id")

    async def committed(self) -> bool:
        """Whether the group has nothing left to read."""
        lag = await kafka.lag_of(self.settings, GROUP, topics.INTAKE_CASES)
        return lag.events == 0


_COUNT = sql("""
    INSERT INTO case_states (case_id, version, state, changed_at)
    VALUES (CAST(:id AS uuid), 1, 'handled', now())
    ON CONFLICT (case_id) DO UPDATE SET version = case_states.version + 1
""")


async def count(session: AsyncSession, events: list[CaseReported]) -> None:
    """A handler whose effect can be counted, in the same transaction."""
    for event in events:
        await execute(session, _COUNT, {"id": str(event.subject)})


async def stopped(consumer: Consumer) -> bool:
    return consumer.stopped


def case_of(event: Event[Any]) -> UUID:
    return UUID(str(event.subject))


@pytest.fixture(autouse=True)
def groups_begin_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded broker lets a new group wait for half of its members' session time-out."""
    subscriber = KafkaBroker.subscriber

    def impatient(*args: Any, **options: Any) -> Any:
        return subscriber(
            *args, **{**options, "session_timeout_ms": 3000, "heartbeat_interval_ms": 500}
        )

    if servers.kind_of("KAFKA_BOOTSTRAP_SERVERS") == "embedded":
        monkeypatch.setattr(KafkaBroker, "subscriber", impatient)


@asynccontextmanager
async def _bench(settings: Settings, service: str) -> AsyncIterator[Bench]:
    database = Database(settings.database_url_of(service))
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    try:
        yield Bench(settings, database, producer)
    finally:
        await producer.stop()
        await database.close()


@pytest.fixture
async def bench(settings: MakeSettings) -> AsyncIterator[Bench]:
    async with _bench(await settings(IntakeSettings), "intake") as made:
        yield made


def without(event: CaseReported, field: str) -> bytes:
    envelope = json.loads(event.to_json())
    del envelope[field]
    return json.dumps(envelope).encode()


async def test_every_kind_of_broken_record_is_parked_once_and_its_neighbours_are_handled(
    bench: Bench,
) -> None:
    unknown = case_reported().to_json().replace("case.reported.v1", "case.reported.v9").encode()
    broken: dict[str, bytes | None] = {
        "not JSON": b"{oops",
        "unknown type": unknown,
        "id: Field required": without(case_reported(), "id"),
        "subject: ": without(case_reported(), "subject"),
        "data: Field required": without(case_reported(), "data"),
        "no value": None,
        "not JSON: 'utf-16": b"\xff\xfe\xfd",
        "not JSON: Expecting": b"garbage " * (900 * 128),  # 900 KiB
    }
    good = [case_reported() for _ in range(len(broken) + 1)]
    await bench.send(good[0])
    for payload, event in zip(broken.values(), good[1:], strict=True):
        await bench.send(payload, event)
    async with bench.reading(count):
        await until(lambda: bench.handled(*good))
        await until(bench.committed)
    letters = await bench.letters()
    assert len(letters) == len(broken)
    for letter, (said, payload) in zip(letters, broken.items(), strict=True):
        assert said in letter.error
        assert letter.payload == payload
        assert (letter.topic, letter.consumer) == ("intake.cases", GROUP)
    assert await bench.effects() == {case_of(event): 1 for event in good}


async def test_a_record_without_a_key_or_with_strange_headers_is_an_event_like_any_other(
    bench: Bench,
) -> None:
    good = [case_reported() for _ in range(3)]
    await bench.send(good[0], key=None)
    await bench.send(good[1], headers=[("strange", b"\xff\xfe"), ("empty", b"")])
    await bench.send(good[2], headers=[("content-type", b"text/plain"), ("reply_to", b"x")])
    await bench.send(b"{", headers=[("strange", b"\xff\xfe")], key=None)
    async with bench.reading(count):
        await until(lambda: bench.handled(*good))
        await until(bench.committed)
    (letter,) = await bench.letters()
    assert (letter.key, json.loads(letter.headers)) == (None, [["strange", "\\xff\\xfe"]])
    assert await bench.effects() == {case_of(event): 1 for event in good}


async def test_a_batch_over_two_partitions_that_fails_at_first_loses_nothing(
    bench: Bench,
) -> None:
    """Both are there before the consumer is, so that one poll brings both."""
    events = [case_reported() for _ in range(40)]
    await bench.send(*events[:20], partition=3)
    await bench.send(*events[20:], partition=5)
    sizes: list[int] = []

    async def fail_at_first(session: AsyncSession, fresh: list[CaseReported]) -> None:
        sizes.append(len(fresh))
        await count(session, fresh)
        if len(sizes) <= 2:
            raise ConnectionResetError("the database has just gone away")

    async with bench.reading(fail_at_first):
        await until(lambda: bench.handled(*events))
        await until(bench.committed)
    assert await bench.effects() == {case_of(event): 1 for event in events}
    assert await bench.letters() == []
    assert len(sizes) >= 3


async def test_a_batch_with_one_event_that_can_never_be_handled_parks_only_that(
    bench: Bench,
) -> None:
    events = [case_reported() for _ in range(10)]
    poison = events[4]
    await bench.send(*events)

    async def choke(session: AsyncSession, fresh: list[CaseReported]) -> None:
        await count(session, fresh)
        if any(event.id == poison.id for event in fresh):
            raise KeyError("19.05")

    async with bench.reading(choke):
        await until(lambda: bench.handled(*(e for e in events if e is not poison)))
        await until(bench.committed)
    (letter,) = await bench.letters()
    assert (letter.event_id, letter.record_id) == (poison.id, str(poison.id))
    assert letter.error == "KeyError: '19.05'"
    effects = await bench.effects()
    assert case_of(poison) not in effects
    assert set(effects.values()) == {1}
    assert not await bench.handled(poison)  # never parked and handled both


async def test_an_error_that_passes_parks_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "LONGEST_PAUSE", timedelta(milliseconds=50))
    events = [case_reported() for _ in range(5)]
    await bench.send(b"{", *events)
    tries = 0

    async def away_for_a_while(session: AsyncSession, fresh: list[CaseReported]) -> None:
        nonlocal tries
        tries += 1
        await count(session, fresh)
        if tries <= 3:
            raise TimeoutError

    async with bench.reading(away_for_a_while):
        await until(lambda: bench.handled(*events))
        await until(bench.committed)
    assert await bench.effects() == {case_of(event): 1 for event in events}
    (letter,) = await bench.letters()  # the one that is broken; how often it came is not said
    assert letter.payload == b"{"


async def test_a_record_that_cannot_go_on_holds_up_its_own_case_and_no_other_of_its_partition(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "LONGEST_PAUSE", timedelta(milliseconds=50))
    monkeypatch.setattr(set_aside, "FIRST_PAUSE", timedelta(milliseconds=10))
    stuck, later = case_reported(case_id=UUID(int=7)), case_reported(case_id=UUID(int=7))
    others = [case_reported() for _ in range(5)]
    mended = False

    async def too_slow_for_one(session: AsyncSession, fresh: list[CaseReported]) -> None:
        await count(session, fresh)
        if not mended and any(event.id == stuck.id for event in fresh):
            raise TimeoutError

    async with bench.reading(too_slow_for_one) as consumer:
        await bench.send(*others[:2], stuck, *others[2:4], later, others[4])
        await until(lambda: bench.handled(*others))
        await until(bench.committed)
        assert not await bench.handled(stuck)
        assert not await bench.handled(later)
        assert consumer.problem is None
        mended = True
        await until(lambda: bench.handled(stuck, later))
    found = await rows(bench.database, "SELECT event_id FROM inbox ORDER BY handled_at")
    order = [row.event_id for row in found]
    assert order.index(stuck.id) < order.index(later.id)
    assert await bench.letters() == []


async def test_too_many_parked_in_a_row_stop_the_consumer_until_somebody_has_looked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "STOPPED_PAUSE", timedelta(milliseconds=50))
    good = case_reported()
    await bench.send(*(b"{%d" % number for number in range(8)), good)

    async with bench.reading(count, max_parked_in_a_row=5) as consumer:
        await until(lambda: stopped(consumer))
        assert consumer.problem is not None
        assert "5 records in a row could not be handled" in consumer.problem
    assert len(await bench.letters()) == 5
    assert await bench.effects() == {}
    assert not await bench.committed()
    # A restart tries again; what was parked before does not count once more.
    async with bench.reading(count, max_parked_in_a_row=5):
        await until(lambda: bench.handled(good))
        await until(bench.committed)
    assert len(await bench.letters()) == 8
    assert await bench.effects() == {case_of(good): 1}


# --- duplicates and disorder, with the real handlers ----------------------------------------------


async def test_duplicate_reports_change_nothing(
    settings: MakeSettings, districts: dict[str, District]
) -> None:
    events = [case_reported() for _ in range(6)]
    async with _bench(await settings(AssignmentSettings), "assignment") as bench:
        insert = """INSERT INTO volunteers (id, district, name, role, phone, latitude, longitude,
                                            categories, capacity)
                    VALUES (:id, '19.04', 'Siti', 'psm', '+62811', -2.49, 106.4, '{}', 100)"""
        await run(bench.database, insert, id=uuid7())
        async with bench.reading(on_intake_cases(with_policy(districts, open_offers=10))):
            await bench.send(*events, *events)
            await until(lambda: bench.handled(*events))
            await bench.send(*reversed(events), partition=5)
            await until(bench.committed)
        assert await one(bench.database, "SELECT count(*) FROM offers") == 6
        assert await one(bench.database, "SELECT open_offers FROM volunteers") == 6
        # Per case: opened, offered, and the offer itself.
        assert await one(bench.database, "SELECT count(*) FROM outbox") == 18
        assert await bench.letters() == []


async def test_a_feed_out_of_order_and_twice_ends_in_the_newest_state(bench: Bench) -> None:
    case_id = uuid7()
    steps: list[Event[Any]] = [
        public_case("searching", version=1, case_id=case_id),
        public_case("waiting", version=2, case_id=case_id, waiting_for="all_volunteers_busy"),
        public_case("offered", version=3, case_id=case_id),
    ]
    topic = topics.PUBLIC_CASES
    async with bench.reading(on_public_cases, topic=topic):
        await bench.send(steps[2], topic=topic)
        await until(lambda: bench.handled(steps[2]))
        await bench.send(steps[1], steps[0], steps[1], steps[2], topic=topic)
        await until(lambda: bench.handled(*steps))
    assert await rows(bench.database, "SELECT state, version FROM case_states") == [("offered", 3)]


# --- publishing -----------------------------------------------------------------------------------


async def test_the_relays_records_arrive_with_key_order_and_content_type(bench: Bench) -> None:
    publisher = Publisher(bench.settings, client_id="test")
    events = [case_reported(case_id=UUID(int=7)) for _ in range(50)]
    await publisher.publish(
        [
            OutgoingRecord("intake.cases", str(e.subject).encode(), e.to_json().encode())
            for e in events
        ]
    )
    await publisher.close()
    reader = AIOKafkaConsumer(
        f"{bench.settings.topic_prefix}intake.cases",
        bootstrap_servers=bench.settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        async with asyncio.timeout(60):
            records = [await reader.getone() for _ in events]
    finally:
        await reader.stop()
    assert [record.value for record in records] == [e.to_json().encode() for e in events]
    assert {record.key for record in records} == {str(UUID(int=7)).encode()}
    assert {dict(record.headers)["content-type"] for record in records} == {
        b"application/cloudevents+json"
    }


# aiokafka counts a producer whose first connection failed as unclosed, though it holds nothing.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*AIOKafkaProducer")
async def test_a_publisher_without_kafka_says_so_and_finds_it_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "CONNECT_TIMEOUT", timedelta(seconds=1))
    publisher = Publisher(bench.settings, client_id="test")
    right = bench.settings
    publisher.settings = right.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    record = OutgoingRecord("intake.cases", b"key", case_reported().to_json().encode())
    with pytest.raises(OSError):
        await publisher.publish([record])
    publisher.settings = right
    await publisher.publish([record])
    await publisher.close()


async def test_topics_are_declared_once_with_their_partitions(bench: Bench) -> None:
    assert await kafka.create_topics(bench.settings) == []
    lag = await kafka.lag_of(bench.settings, GROUP, topics.INTAKE_CASES)
    assert (lag.events, lag.seconds) == (0, 0.0)
    await bench.send(case_reported(), partition=5)
    lag = await kafka.lag_of(bench.settings, GROUP, topics.INTAKE_CASES)
    assert lag.events == 1
