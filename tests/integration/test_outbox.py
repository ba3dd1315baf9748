"""The outbox: what was committed reaches Kafka, in order, however often somebody crashes."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from shared import dead_letters, inbox, outbox
from shared.database import Database
from shared.events import CaseReported
from shared.health import Loop
from shared.outbox import OutgoingRecord, RefusedAsTooLarge, Relay
from tests.factories import case_reported, offer_made, public_case
from tests.integration.conftest import one, rows, run

UNPUBLISHED = "SELECT count(*) FROM outbox WHERE published_at IS NULL"


class Kafka:
    """Takes what the relay hands over, unless told to fail."""

    def __init__(self) -> None:
        self.taken: list[OutgoingRecord] = []
        self.failing: Exception | None = None
        self.at_once = 0
        self.most_at_once = 0

    async def publish(self, records: Sequence[OutgoingRecord]) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        try:
            if self.failing is not None:
                raise self.failing
            self.taken += records
        finally:
            self.at_once -= 1

    @property
    def ids(self) -> list[str]:
        return [json.loads(record.value)["id"] for record in self.taken]


async def store(database: Database, count: int) -> list[CaseReported]:
    events = [case_reported() for _ in range(count)]
    async with database.transaction() as session:
        await outbox.publish(session, events)
    return events


async def test_events_are_published_in_the_order_in_which_they_were_stored(
    intake_database: Database,
) -> None:
    kafka = Kafka()
    events = await store(intake_database, 3) + await store(intake_database, 3)
    relay = Relay(intake_database, kafka.publish, service="intake")
    assert await relay.round() == 6
    assert kafka.ids == [str(event.id) for event in events]
    first = kafka.taken[0]
    assert first.topic == "intake.cases"
    assert first.key == str(events[0].subject).encode()
    assert first.value == events[0].to_json().encode()
    assert await relay.round() == 0
    assert await one(intake_database, UNPUBLISHED) == 0


async def test_nothing_is_published_of_a_transaction_that_was_rolled_back(
    intake_database: Database,
) -> None:
    kafka = Kafka()
    with pytest.raises(RuntimeError):
        async with intake_database.transaction() as session:
            await outbox.publish(session, [case_reported()])
            raise RuntimeError
    assert await Relay(intake_database, kafka.publish, service="intake").round() == 0
    assert kafka.taken == []


async def test_more_than_a_round_takes_are_published_in_rounds(
    intake_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROUND_SIZE", 10)
    kafka = Kafka()
    events = await store(intake_database, 25)
    relay = Relay(intake_database, kafka.publish, service="intake")
    assert [await relay.round() for _ in range(4)] == [10, 10, 5, 0]
    assert kafka.ids == [str(event.id) for event in events]


async def test_a_publish_that_fails_leaves_the_rows_where_they_are(
    intake_database: Database,
) -> None:
    kafka = Kafka()
    events = await store(intake_database, 3)
    relay = Relay(intake_database, kafka.publish, service="intake")
    kafka.failing = ConnectionError("Kafka is away")
    with pytest.raises(ConnectionError):
        await relay.round()
    assert await one(intake_database, UNPUBLISHED) == 3
    kafka.failing = None
    assert await relay.round() == 3
    assert kafka.ids == [str(event.id) for event in events]


async def test_a_crash_between_publish_and_commit_publishes_the_same_bytes_again(
    intake_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = Kafka()
    await store(intake_database, 3)
    relay = Relay(intake_database, kafka.publish, service="intake")

    class Dies(BaseException):
        pass

    async def die(_session: Any, _ids: Any) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "mark_published", die)
        with pytest.raises(Dies):
            await relay.round()
    assert await one(intake_database, UNPUBLISHED) == 3
    assert await relay.round() == 3
    assert kafka.taken[:3] == kafka.taken[3:]


async def test_two_relays_never_publish_at_the_same_time(intake_database: Database) -> None:
    kafka = Kafka()
    events = await store(intake_database, 30)
    relays = [Relay(intake_database, kafka.publish, service="intake") for _ in range(4)]
    for _ in range(3):
        await asyncio.gather(*(relay.round() for relay in relays))
        events += await store(intake_database, 30)
    while await relays[0].round() != 0:
        pass
    assert kafka.most_at_once == 1
    assert kafka.ids == [str(event.id) for event in events]


async def test_a_relay_whose_turn_it_is_not_says_so(intake_database: Database) -> None:
    await store(intake_database, 1)
    first, second = asyncio.Event(), asyncio.Event()

    async def slow(_: Sequence[OutgoingRecord]) -> None:
        first.set()
        await second.wait()

    busy = asyncio.create_task(Relay(intake_database, slow, service="intake").round())
    await first.wait()
    idle = Kafka()
    assert await Relay(intake_database, idle.publish, service="intake").round() is None
    second.set()
    assert await busy == 1
    assert idle.taken == []


async def test_the_relay_wakes_up_at_a_commit(
    intake_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "POLL", timedelta(hours=1))  # only the commit can wake it
    kafka = Kafka()
    relay = Relay(intake_database, kafka.publish, service="intake")
    running = asyncio.create_task(relay.run(Loop("relay", timedelta(seconds=30))))
    try:
        for number in range(1, 4):
            await store(intake_database, 1)
            async with asyncio.timeout(30):
                while len(kafka.taken) < number:  # noqa: ASYNC110 - the relay's own pace
                    await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_the_journal_can_fill_a_lost_kafka_again(intake_database: Database) -> None:
    kafka = Kafka()
    await store(intake_database, 5)
    relay = Relay(intake_database, kafka.publish, service="intake")
    await relay.round()
    async with intake_database.transaction() as session:
        assert await outbox.republish_journal(session) == 5
    assert await relay.round() == 5
    assert kafka.taken[:5] == kafka.taken[5:]


async def test_the_journal_forgets_what_its_topic_would_and_never_what_is_unpublished(
    assignment_database: Database,
) -> None:
    """Personal data goes within a week; the public feed can be rebuilt from its first day."""
    database, kafka = assignment_database, Kafka()
    relay = Relay(database, kafka.publish, service="assignment")
    old, new = offer_made(), offer_made()
    public = public_case("searching", version=1, case_id=uuid7())
    async with database.transaction() as session:
        await outbox.publish(session, [old, new, public])
    await relay.round()
    unpublished = offer_made()
    async with database.transaction() as session:
        await outbox.publish(session, [unpublished])
    age = "UPDATE outbox SET {} = now() - interval '400 days' WHERE event_id = ANY(:ids)"
    await run(database, age.format("published_at"), ids=[old.id, public.id])
    await run(database, age.format("created_at"), ids=[old.id, public.id, unpublished.id])
    async with database.transaction() as session:
        await outbox.purge_journal(session)
        size, seconds = await outbox.unpublished(session)
    assert size == 1
    assert seconds == pytest.approx(400 * 86400, abs=3600)
    left = await rows(database, "SELECT event_id FROM outbox ORDER BY id")
    assert [row.event_id for row in left] == [new.id, public.id, unpublished.id]


# --- the inbox ------------------------------------------------------------------------------------


async def test_an_event_is_claimed_once_per_consumer(intake_database: Database) -> None:
    ids = [case_reported().id for _ in range(3)]
    async with intake_database.transaction() as session:
        assert await inbox.claim(session, "one", ids[:2]) == set(ids[:2])
        assert await inbox.claim(session, "one", ids) == {ids[2]}
        assert await inbox.claim(session, "other", ids) == set(ids)


async def test_a_claim_that_was_rolled_back_is_free_again(intake_database: Database) -> None:
    ids = [case_reported().id]
    with pytest.raises(RuntimeError):
        async with intake_database.transaction() as session:
            await inbox.claim(session, "one", ids)
            raise RuntimeError
    async with intake_database.transaction() as session:
        assert await inbox.claim(session, "one", ids) == set(ids)


async def test_overlapping_claims_of_two_processes_do_not_deadlock(
    intake_database: Database,
) -> None:
    ids = [case_reported().id for _ in range(200)]

    async def claim(order: list[Any]) -> int:
        async with intake_database.transaction() as session:
            return len(await inbox.claim(session, "one", order))

    claimed = await asyncio.gather(*(claim(order) for order in (ids, ids[::-1], ids[100:], ids)))
    assert sum(claimed) == 200


async def test_the_inbox_forgets_what_can_no_longer_come_again(intake_database: Database) -> None:
    old, new = case_reported().id, case_reported().id
    async with intake_database.transaction() as session:
        await inbox.claim(session, "one", [old, new])
    await run(
        intake_database,
        "UPDATE inbox SET handled_at = now() - interval '50 days' WHERE event_id = :id",
        id=old,
    )
    async with intake_database.transaction() as session:
        await inbox.purge(session, older_than=timedelta(days=45))
        assert await inbox.claim(session, "one", [old, new]) == {old}


# --- what is too large for Kafka ------------------------------------------------------------------


def too_large(**values: Any) -> CaseReported:
    """A report whose event has more than Kafka takes."""
    return case_reported(channel="x" * (outbox.LARGEST_EVENT + 1), **values)


async def put(database: Database, event: CaseReported) -> None:
    """Put an event into the outbox past the guard, as an older version may have."""
    await run(
        database,
        "INSERT INTO outbox (event_id, topic, key, payload) "
        "VALUES (:id, 'intake.cases', :key, :payload)",
        id=event.id,
        key=str(event.subject),
        payload=event.to_json(),
    )


async def test_an_event_larger_than_kafka_takes_is_refused_with_a_sentence(
    intake_database: Database,
) -> None:
    with pytest.raises(outbox.EventTooLarge, match=r"has 900,\d+ bytes; .* at most 900,000"):
        async with intake_database.transaction() as session:
            await outbox.publish(session, [case_reported(), too_large()])
    assert await one(intake_database, "SELECT count(*) FROM outbox") == 0


@given(
    filling=st.integers(outbox.LARGEST_EVENT // 4 - 400, outbox.LARGEST_EVENT + 400),
    letter=st.sampled_from(["x", "é", "€", "😀", '"']),
)
def test_what_is_refused_is_exactly_what_has_more_bytes(filling: int, letter: str) -> None:
    event = case_reported(channel=letter * (filling // len(letter.encode())))
    fits = len(event.to_json().encode()) <= outbox.LARGEST_EVENT
    try:
        outbox.payload_of(event)
    except outbox.EventTooLarge:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_row_that_is_too_large_is_set_aside_and_those_behind_it_go_on(
    intake_database: Database, place: int
) -> None:
    kafka = Kafka()
    case = uuid7()
    events = [case_reported(), case_reported(case_id=case), case_reported()]
    events.insert(place, large := too_large(case_id=case))
    for event in events:
        await put(intake_database, event)
    relay = Relay(intake_database, kafka.publish, service="intake")
    assert await relay.round() == 4
    assert kafka.ids == [str(event.id) for event in events if event is not large]
    assert await relay.round() == 0, "and it does not come again"
    (letter,) = await rows(
        intake_database, "SELECT consumer, record_id, state, error, key, payload FROM dead_letters"
    )
    assert (letter.consumer, letter.record_id) == ("intake.outbox", str(large.id))
    assert (letter.state, letter.key.decode()) == ("parked", str(case))
    assert letter.payload.decode() == large.to_json()
    assert "bytes; Kafka takes fewer" in letter.error


async def test_what_kafka_alone_finds_too_large_is_found_out_and_set_aside(
    intake_database: Database,
) -> None:
    """Its limit is lower than ours: it names no record, so they go out one by one, in order."""
    events = await store(intake_database, 4)
    large = str(events[1].id)

    class Small(Kafka):
        async def publish(self, records: Sequence[OutgoingRecord]) -> None:
            if any(large in record.value.decode() for record in records):
                raise RefusedAsTooLarge
            await super().publish(records)

    kafka = Small()
    await Relay(intake_database, kafka.publish, service="intake").round()
    assert kafka.ids == [str(event.id) for event in events if str(event.id) != large]
    assert await one(intake_database, UNPUBLISHED) == 0
    assert await one(intake_database, "SELECT record_id FROM dead_letters") == large


async def test_what_was_set_aside_can_be_repaired_and_sent(intake_database: Database) -> None:
    kafka = Kafka()
    event = too_large()
    await put(intake_database, event)
    relay = Relay(intake_database, kafka.publish, service="intake")
    await relay.round()
    async with intake_database.transaction() as session:
        (letter,) = await dead_letters.listed(session)
        with pytest.raises(dead_letters.NotReplayable, match="bytes"):
            await dead_letters.replay(session, letter)
        await dead_letters.replay(session, letter, payload=event.to_json().replace("x" * 1000, ""))
    await relay.round()
    assert kafka.ids == [str(event.id)]
    async with intake_database.transaction() as session:
        assert await dead_letters.listed(session) == []
