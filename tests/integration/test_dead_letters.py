"""Dead letters: parked once, and decided on by a person."""

import json
from uuid import UUID

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import dead_letters, inbox, topics
from shared.consume import Consumer, TooManyParked
from shared.database import Database
from shared.dead_letters import DeadLetter, LetterState, NotReplayable, UnknownLetter, fingerprint
from shared.events import CaseReported
from shared.records import Received
from tests.factories import case_reported
from tests.integration.conftest import one, rows, run

CONSUMER = "assignment.intake-cases"


def letter(event: CaseReported | None, payload: bytes | None = None) -> DeadLetter:
    """A record as its consumer would put it aside."""
    raw = event.to_json().encode() if event else payload
    return DeadLetter(
        consumer=CONSUMER,
        record_id=str(event.id) if event else fingerprint("intake.cases", 1, 2, 3, raw or b""),
        event_id=event.id if event else None,
        topic="intake.cases",
        partition=1,
        record_offset=2,
        key=b"key",
        payload=raw,
        headers="[]",
        error="KeyError: '19.05'",
    )


async def park(database: Database, *letters: DeadLetter) -> None:
    async with database.transaction() as session:
        for each in letters:
            await dead_letters.park(session, each)


async def only(database: Database) -> DeadLetter:
    async with database.transaction() as session:
        (found,) = await dead_letters.listed(session, every=True)
        return found


async def replay(database: Database, *, payload: str | None = None) -> None:
    async with database.transaction() as session:
        (found,) = await dead_letters.listed(session, every=True)
        assert found.id is not None
        locked = await dead_letters.get(session, found.id)
        await dead_letters.replay(session, locked, payload=payload)


async def discard(database: Database) -> None:
    async with database.transaction() as session:
        (found,) = await dead_letters.listed(session, every=True)
        await dead_letters.discard(session, found)


async def test_a_record_is_parked_once_and_its_attempts_are_counted(
    assignment_database: Database,
) -> None:
    event = case_reported()
    await park(assignment_database, letter(event), letter(event))
    again = letter(event)
    again.error = "KeyError: '19.06'"
    await park(assignment_database, again)
    found = await only(assignment_database)
    assert (found.attempts, found.state) == (3, LetterState.PARKED)
    assert found.error == "KeyError: '19.06'"
    assert found.first_failed_at is not None
    assert found.last_failed_at is not None
    assert found.last_failed_at >= found.first_failed_at
    assert found.payload == event.to_json().encode()


async def test_a_record_without_a_value_can_be_parked(assignment_database: Database) -> None:
    empty = letter(None)
    empty.key = None
    await park(assignment_database, empty)
    found = await only(assignment_database)
    assert (found.payload, found.key) == (None, None)


async def test_each_consumer_has_its_own_letter_of_a_record(assignment_database: Database) -> None:
    event = case_reported()
    other = letter(event)
    other.consumer = "other"
    await park(assignment_database, letter(event), other)
    async with assignment_database.transaction() as session:
        assert await dead_letters.open_per_consumer(session) == {CONSUMER: 1, "other": 1}


async def test_an_event_that_is_handled_after_all_closes_its_letter(
    assignment_database: Database,
) -> None:
    event = case_reported()
    await park(assignment_database, letter(event))
    async with assignment_database.transaction() as session:
        await inbox.claim(session, "other", [event.id])
    assert (await only(assignment_database)).state == LetterState.PARKED
    async with assignment_database.transaction() as session:
        await inbox.claim(session, CONSUMER, [event.id])
        assert await dead_letters.listed(session) == []
    assert (await only(assignment_database)).state == LetterState.RESOLVED


async def test_a_replay_goes_through_the_outbox_with_its_own_id_and_key(
    assignment_database: Database,
) -> None:
    event = case_reported()
    await park(assignment_database, letter(event))
    await replay(assignment_database)
    (row,) = await rows(assignment_database, "SELECT * FROM outbox")
    assert (row.event_id, row.key) == (event.id, str(event.subject))
    assert row.topic == "intake.cases"
    assert row.payload == event.to_json()
    assert (await only(assignment_database)).state == LetterState.REPLAYING


async def test_a_replay_may_be_repeated(assignment_database: Database) -> None:
    await park(assignment_database, letter(case_reported()))
    for _ in range(2):
        await replay(assignment_database)
        await run(assignment_database, "UPDATE outbox SET published_at = now()")
    await replay(assignment_database)
    assert await rows(assignment_database, "SELECT published_at FROM outbox") == [(None,)]


async def test_a_replay_that_fails_again_is_parked_again_in_the_same_letter(
    assignment_database: Database,
) -> None:
    event = case_reported()
    await park(assignment_database, letter(event))
    await replay(assignment_database)
    await park(assignment_database, letter(event))
    found = await only(assignment_database)
    assert (found.state, found.attempts) == (LetterState.PARKED, 2)


@pytest.mark.parametrize("payload", [b"{", b"{}", None, b"\xff"])
async def test_what_is_no_event_cannot_be_replayed_as_it_is(
    assignment_database: Database, payload: bytes | None
) -> None:
    await park(assignment_database, letter(None, payload))
    with pytest.raises(NotReplayable, match="Repair it and give the repaired event"):
        await replay(assignment_database)
    assert await one(assignment_database, "SELECT count(*) FROM outbox") == 0
    assert (await only(assignment_database)).state == LetterState.PARKED


async def test_a_repaired_event_is_replayed_in_its_place(assignment_database: Database) -> None:
    await park(assignment_database, letter(None, b"{"))
    repaired = case_reported()
    await replay(assignment_database, payload=repaired.to_json())
    (row,) = await rows(assignment_database, "SELECT * FROM outbox")
    assert row.event_id == repaired.id
    # From now on the letter is about that event: handled, it closes.
    async with assignment_database.transaction() as session:
        await inbox.claim(session, CONSUMER, [repaired.id])
    assert (await only(assignment_database)).state == LetterState.RESOLVED


async def test_a_repaired_event_takes_the_place_of_a_replay_that_waits(
    assignment_database: Database,
) -> None:
    event = case_reported()
    await park(assignment_database, letter(event))
    await replay(assignment_database)
    changed = json.loads(event.to_json())
    changed["data"]["people"] = 7
    await replay(assignment_database, payload=json.dumps(changed))
    (row,) = await rows(assignment_database, "SELECT * FROM outbox")
    assert json.loads(row.payload)["data"]["people"] == 7


async def test_a_discarded_event_is_not_handled_when_it_comes_again(
    assignment_database: Database,
) -> None:
    event = case_reported()
    await park(assignment_database, letter(event))
    await discard(assignment_database)
    async with assignment_database.transaction() as session:
        assert await inbox.claim(session, CONSUMER, [event.id]) == set()
        assert await dead_letters.listed(session) == []


async def test_a_discarded_record_stays_discarded_when_it_fails_again(
    assignment_database: Database,
) -> None:
    await park(assignment_database, letter(None, b"{"))
    await discard(assignment_database)
    await park(assignment_database, letter(None, b"{"))
    assert (await only(assignment_database)).state == LetterState.DISCARDED


async def test_an_unknown_letter_is_told_in_a_sentence(assignment_database: Database) -> None:
    async with assignment_database.transaction() as session:
        with pytest.raises(UnknownLetter, match=r"There is no dead letter 42\."):
            await dead_letters.get(session, 42)


# --- from the consumer to the person and back, without a broker -----------------------------------


def delivered(payload: str) -> Received:
    """The record as the broker would bring it."""
    event = topics.INTAKE_CASES.decode(payload.encode())
    return Received(
        event=event,
        problem=None,
        record_id=str(event.id),
        topic="intake.cases",
        partition=0,
        offset=0,
        key=str(event.subject).encode(),
        payload=payload.encode(),
        headers="[]",
    )


class Patient:
    """A handler that chokes until it has been repaired."""

    def __init__(self) -> None:
        self.ill = True
        self.handled: list[UUID] = []

    async def __call__(self, _session: AsyncSession, events: list[CaseReported]) -> None:
        if self.ill:
            raise KeyError("19.05")
        self.handled += [event.id for event in events]


async def test_a_parked_event_is_handled_once_however_often_it_is_replayed(
    assignment_database: Database,
) -> None:
    handler = Patient()
    consumer = Consumer(CONSUMER, topics.INTAKE_CASES, handler, database=assignment_database)
    event = case_reported()
    await consumer.handle_batch([delivered(event.to_json())])
    assert (await only(assignment_database)).state == LetterState.PARKED
    assert consumer.parked_in_a_row == 1

    handler.ill = False
    await replay(assignment_database)
    again = await one(assignment_database, "SELECT payload FROM outbox")
    await consumer.handle_batch([delivered(again)])
    assert (await only(assignment_database)).state == LetterState.RESOLVED
    assert consumer.parked_in_a_row == 0

    await replay(assignment_database)
    await consumer.handle_batch([delivered(again), delivered(again)])
    assert handler.handled == [event.id]
    # Nobody is left to wonder whether it still has to come back.
    assert (await only(assignment_database)).state == LetterState.RESOLVED


async def test_a_record_that_was_parked_before_does_not_count_towards_stopping(
    assignment_database: Database,
) -> None:
    consumer = Consumer(
        CONSUMER,
        topics.INTAKE_CASES,
        Patient(),
        database=assignment_database,
        max_parked_in_a_row=3,
    )
    same = delivered(case_reported().to_json())
    for _ in range(5):
        await consumer.handle_batch([same])
    assert consumer.parked_in_a_row == 1
    with pytest.raises(TooManyParked):
        await consumer.handle_batch([delivered(case_reported().to_json()) for _ in range(4)])
    assert await one(assignment_database, "SELECT count(*) FROM dead_letters") == 3


async def test_an_event_is_never_both_parked_and_handled(assignment_database: Database) -> None:
    handler = Patient()
    consumer = Consumer(CONSUMER, topics.INTAKE_CASES, handler, database=assignment_database)
    await consumer.handle_batch([delivered(case_reported().to_json()) for _ in range(3)])
    handler.ill = False
    await consumer.handle_batch([delivered(case_reported().to_json()) for _ in range(3)])
    both = """SELECT count(*) FROM dead_letters l
              JOIN inbox i ON i.event_id = l.event_id AND l.state = 'parked'"""
    assert await one(assignment_database, both) == 0
    assert await one(assignment_database, "SELECT count(*) FROM inbox") == 3
