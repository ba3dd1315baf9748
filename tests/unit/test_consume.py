"""The unit of work where no database is needed: what it retries, and when it stops."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from shared import consume, topics
from shared.consume import Consumer, TooManyParked
from shared.database import Database
from shared.records import Received
from shared.topics import UndecodableRecord
from tests.factories import case_reported


class DatabaseAway:
    """A database that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    @asynccontextmanager
    async def transaction(self, *, wake: bool = True) -> AsyncIterator[None]:
        self.asked += 1
        raise ConnectionRefusedError("nobody listens")
        yield


async def handle_nothing(_session: Any, _events: list[Any]) -> None:
    raise AssertionError("the handler must not be reached")


def consumer(database: object | None = None, **options: Any) -> Consumer:
    return Consumer(
        "assignment.intake-cases",
        topics.INTAKE_CASES,
        handle_nothing,
        database=cast(Database, database or DatabaseAway()),
        **options,
    )


def delivery(*, broken: bool = False) -> Received:
    event = case_reported()
    return Received(
        event=None if broken else event,
        problem=UndecodableRecord("not JSON") if broken else None,
        record_id="intake.cases/3/17@0/abc" if broken else str(event.id),
        topic="intake.cases",
        partition=3,
        offset=17,
        key=None,
        payload=b"{" if broken else event.to_json().encode(),
        headers="[]",
    )


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the consumer would have slept; it does not."""
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    return slept


@pytest.mark.parametrize("broken", [False, True], ids=["event", "undecodable"])
async def test_nothing_is_parked_because_the_database_is_away(
    broken: bool, naps: list[float]
) -> None:
    reader = consumer()
    with pytest.raises(ConnectionRefusedError):
        await reader.handle_batch([delivery(broken=broken)])
    assert reader.parked_in_a_row == 0
    assert len(naps) == 1


async def test_each_failure_is_waited_out_longer_than_the_one_before_up_to_a_limit(
    naps: list[float],
) -> None:
    reader = consumer()
    for _ in range(12):
        with pytest.raises(ConnectionRefusedError):
            await reader.handle_batch([delivery()])
    longest = consume.LONGEST_PAUSE.total_seconds()
    assert naps[0] <= 0.2
    assert longest / 2 <= naps[-1] <= longest


async def test_a_consumer_that_has_stopped_asks_for_a_person_and_handles_nothing(
    naps: list[float],
) -> None:
    database = DatabaseAway()
    reader = consumer(database, max_parked_in_a_row=3)
    reader.parked_in_a_row = 3
    assert reader.problem is not None
    assert "3 records in a row could not be handled" in reader.problem
    assert "jangkau dead-letters list" in reader.problem
    with pytest.raises(TooManyParked):
        await reader.handle_batch([delivery()])
    assert database.asked == 0
    assert naps == [consume.STOPPED_PAUSE.total_seconds()]


def test_a_consumer_that_has_not_heard_from_kafka_says_so() -> None:
    reader = consumer(stalled_after=timedelta(seconds=30))
    assert reader.problem is None
    reader._last_progress -= 31
    assert reader.problem == "assignment.intake-cases has not polled Kafka for 31 s"
    reader.started()
    assert reader.problem is None


async def test_a_consumer_that_tries_the_same_records_for_long_says_so_though_kafka_answers(
    naps: list[float],
) -> None:
    reader = consumer(stalled_after=timedelta(seconds=30))
    with pytest.raises(ConnectionRefusedError):
        await reader.handle_batch([delivery()])
    assert reader.problem is None
    assert reader._failing_since is not None
    reader._failing_since -= 60
    with pytest.raises(ConnectionRefusedError):
        await reader.handle_batch([delivery()])
    assert reader.problem is not None
    assert "has tried the same records for" in reader.problem
    assert "ConnectionRefusedError" in reader.problem


async def test_a_consumer_without_partitions_stands_by() -> None:
    reader = consumer()
    assert not reader.joined
    await reader.on_partitions_assigned(set())
    assert reader.joined
    assert reader.standing_by
    await reader.on_partitions_revoked(set())
    assert not reader.standing_by


def test_a_dead_letter_keeps_the_record_as_it_came() -> None:
    one = delivery(broken=True)
    letter = one.letter("assignment.intake-cases", UndecodableRecord("x" * 5000))
    assert (letter.topic, letter.partition, letter.record_offset) == ("intake.cases", 3, 17)
    assert letter.payload == b"{"
    assert letter.key is None
    assert letter.event_id is None
    assert letter.error.startswith("UndecodableRecord: xxx")
    assert len(letter.error) == 2000


def test_the_letter_of_an_event_is_about_that_event() -> None:
    one = delivery()
    letter = one.letter("assignment.intake-cases", KeyError("19.05"))
    assert one.event is not None
    assert letter.event_id == one.event.id
    assert letter.record_id == str(one.event.id)


def test_a_letter_holds_no_zero_byte_which_postgresql_could_not_store() -> None:
    error = UndecodableRecord("subject: found '\x00'")
    assert "\x00" not in delivery(broken=True).letter("assignment.intake-cases", error).error


PARTITION = TopicPartition("x", 0)


class _Client:
    """aiokafka's consumer as far as it is read from it where it stands."""

    def __init__(self, highwater: int | None, position: int, *, answered_s_ago: float = 0) -> None:
        self._highwater, self._position = highwater, position
        self._answered_s_ago = answered_s_ago

    def assignment(self) -> set[TopicPartition]:
        return {PARTITION}

    def highwater(self, _: TopicPartition) -> int | None:
        return self._highwater

    def last_poll_timestamp(self, _: TopicPartition) -> float:
        return (time.time() - self._answered_s_ago) * 1000

    async def position(self, _: TopicPartition) -> int:
        return self._position


async def look(reader: Consumer, client: _Client) -> float | None:
    reader.subscriber = SimpleNamespace(consumer=client)
    await reader.observe()
    return reader.hearing.until


async def test_a_reader_has_heard_what_was_there_when_it_has_handled_it() -> None:
    reader = consumer()
    await reader.on_partitions_assigned({PARTITION})
    assert await look(reader, _Client(None, 0)) is None, "nothing is known of the partition yet"
    assert await look(reader, _Client(7, 5)) is None
    first = await look(reader, _Client(7, 7))
    assert first is not None
    assert await look(reader, _Client(9, 7)) == first, "what has come since is not heard yet"
    later = await look(reader, _Client(9, 9))
    assert later is not None
    assert later > first


async def test_a_batch_that_is_polled_and_not_handled_is_not_heard(naps: list[float]) -> None:
    reader = consumer()
    await reader.on_partitions_assigned({PARTITION})
    before = await look(reader, _Client(7, 7))
    reader.polled({PARTITION: 7})
    assert await look(reader, _Client(9, 9)) == before, "it is in hand"
    with pytest.raises(ConnectionRefusedError):
        await reader.handle_batch([delivery()])
    assert await look(reader, _Client(9, 9)) == before, "it has failed"


async def test_a_reader_hears_nothing_while_its_group_rebalances() -> None:
    reader = consumer()
    await reader.on_partitions_assigned({PARTITION})
    assert await look(reader, _Client(0, 0)) is not None
    await reader.on_partitions_revoked({PARTITION})
    assert await look(reader, _Client(0, 0)) is None, "of the partitions that are about to go"
    await reader.on_partitions_assigned({PARTITION})
    assert reader.hearing.until is None
    assert await look(reader, _Client(0, 0)) is not None


async def test_to_whom_kafka_does_not_answer_the_moment_of_its_last_answer_is_what_is_heard() -> (
    None
):
    reader = consumer()
    await reader.on_partitions_assigned({PARTITION})
    await look(reader, _Client(0, 0, answered_s_ago=500))
    assert reader.heard().behind() >= timedelta(seconds=499)


async def test_who_has_no_partition_hears_nothing() -> None:
    reader = consumer()
    await reader.on_partitions_assigned(set())
    await reader.observe()
    assert reader.heard().behind() > timedelta(days=365)
