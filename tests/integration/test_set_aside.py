"""What cannot go on waits with its case; everything else goes on. On a real database, no broker."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import consume, dead_letters, inbox, set_aside, topics
from shared.consume import Consumer
from shared.database import Database, execute, sql
from shared.events import CaseReported
from shared.records import Received
from tests.factories import case_reported
from tests.integration.conftest import one, rows, run
from tests.servers import Databases

CONSUMER = "test.reader"
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be waited for is over at once."""

    async def at_once(_seconds: float) -> None:
        return None

    monkeypatch.setattr(consume.asyncio, "sleep", at_once)  # type: ignore[attr-defined]


class Log:
    """Records in the order of Kafka: a partition for each case, as their key says."""

    def __init__(self) -> None:
        self.offsets: defaultdict[int, int] = defaultdict(int)

    def record(self, case: UUID) -> Received:
        event = case_reported(case_id=case)
        partition = case.int % 3
        self.offsets[partition] += 1
        return Received(
            event=event,
            problem=None,
            record_id=str(event.id),
            topic="intake.cases",
            partition=partition,
            offset=self.offsets[partition],
            key=str(case).encode(),
            payload=event.to_json().encode(),
            headers="[]",
        )


_SEEN = sql("INSERT INTO effects (event_id) VALUES (:id)")


@dataclass
class Handler:
    """Has an effect that the database counts, and fails as it is told."""

    # Event id -> the errors of its next tries; the last one stays for ever if it stands alone.
    fails: dict[UUID, list[Exception]] = field(default_factory=dict)
    for_ever: dict[UUID, Exception] = field(default_factory=dict)
    away: bool = False
    tries: int = 0

    async def __call__(self, session: AsyncSession, events: list[CaseReported]) -> None:
        self.tries += 1
        for event in events:
            if self.away:
                raise ConnectionResetError("the database has gone")
            if event.id in self.for_ever:
                raise self.for_ever[event.id]
            if self.fails.get(event.id):
                raise self.fails[event.id].pop()
            await execute(session, _SEEN, {"id": event.id})


EFFECTS = """
    CREATE TABLE IF NOT EXISTS effects (n bigint GENERATED ALWAYS AS IDENTITY, event_id uuid)
"""


@pytest.fixture
async def database(intake_database: Database) -> Database:
    await run(intake_database, EFFECTS)
    return intake_database


def reader(database: Database, handler: Any, **options: Any) -> Consumer:
    return Consumer(CONSUMER, topics.INTAKE_CASES, handler, database=database, **options)


async def poll(consumer: Consumer, batch: list[Received], *, times: int = 1) -> bool:
    """What Kafka does with a batch: it brings it again until it is taken, so often at most."""
    for _ in range(times):
        try:
            await consumer.handle_batch(batch)
        except Exception:  # noqa: S112 - the offset stays where it was, and it comes again
            continue
        return True
    return False


async def all_due(database: Database) -> None:
    await run(database, "UPDATE set_aside SET next_try_at = now()")


async def take_up(consumer: Consumer, database: Database) -> None:
    """Every case that waits is tried once, and goes on as far as it can."""
    await all_due(database)
    while await consumer.take_up_one():
        pass


async def handled(database: Database) -> list[UUID]:
    return [row.event_id for row in await rows(database, "SELECT event_id FROM effects ORDER BY n")]


async def aside(database: Database) -> list[UUID]:
    found = await rows(database, "SELECT event_id FROM set_aside ORDER BY case_id, id")
    return [row.event_id for row in found]


def ids(*records: Received) -> list[UUID]:
    return [record.event.id for record in records if record.event]


async def test_a_record_that_cannot_go_on_is_set_aside_and_its_neighbours_go_on(
    database: Database,
) -> None:
    log = Log()
    batch = [log.record(case) for case in (ONE, TWO, ONE, THREE, TWO)]
    handler = Handler(for_ever={ids(batch[0])[0]: TimeoutError("too slow")})
    consumer = reader(database, handler)
    assert await poll(consumer, batch, times=4)
    assert await handled(database) == ids(batch[1], batch[3], batch[4])
    assert await aside(database) == ids(batch[0], batch[2])
    assert await one(database, "SELECT count(*) FROM dead_letters") == 0
    assert consumer.problem is None


async def test_what_comes_later_of_a_case_that_waits_is_put_behind_it_and_goes_on_in_order(
    database: Database,
) -> None:
    log = Log()
    first = log.record(ONE)
    handler = Handler(for_ever={ids(first)[0]: TimeoutError("too slow")})
    consumer = reader(database, handler)
    assert await poll(consumer, [first], times=4)
    later = [log.record(case) for case in (ONE, TWO, ONE)]
    assert await poll(consumer, later)
    assert await handled(database) == ids(later[1])
    assert await aside(database) == ids(first, later[0], later[2])

    await take_up(consumer, database)
    assert await handled(database) == ids(later[1])
    handler.for_ever.clear()
    await take_up(consumer, database)
    assert await handled(database) == ids(later[1], first, later[0], later[2])
    assert await aside(database) == []
    assert await poll(consumer, [log.record(ONE)])
    assert len(await handled(database)) == 5


async def test_a_locked_row_holds_up_its_own_case_and_no_other(
    databases: Databases, database: Database
) -> None:
    await run(database, """INSERT INTO case_states (case_id, version, state, changed_at)
                           SELECT CAST(id AS uuid), 1, 'reported', now()
                           FROM unnest(CAST(:ids AS text[])) AS id""",
              ids=[str(ONE), str(TWO)])  # fmt: skip

    async def touch(session: AsyncSession, events: list[CaseReported]) -> None:
        for event in events:
            values = {"id": event.subject}
            await execute(
                session,
                sql("UPDATE case_states SET version = version + 1 WHERE case_id = :id"),
                values,
            )

    impatient = Database(database.engine.url, lock_timeout_s=0.05)
    consumer = reader(impatient, touch)
    log = Log()
    batch = [log.record(case) for case in (ONE, TWO)]
    version = "SELECT version FROM case_states WHERE case_id = :id"
    async with database.transaction() as other:
        await execute(
            other, sql("SELECT 1 FROM case_states WHERE case_id = :id FOR UPDATE"), {"id": ONE}
        )
        assert await poll(consumer, batch, times=4)
        assert await one(impatient, version, id=TWO) == 2
        assert await aside(impatient) == ids(batch[0])
        (said,) = set_aside.in_words(await listed(impatient))
        assert said.startswith(
            "1 case of test.reader waits behind a record that cannot go on: "
            "LockNotAvailableError 55P03"
        )
    await take_up(consumer, impatient)
    assert await one(impatient, version, id=ONE) == 2
    assert await aside(impatient) == []
    await impatient.close()


async def listed(database: Database) -> list[set_aside.Aside]:
    async with database.transaction() as session:
        return await set_aside.listed(session)


async def test_nothing_is_set_aside_while_the_database_is_away(database: Database) -> None:
    log = Log()
    batch = [log.record(case) for case in (ONE, TWO, THREE)]
    handler = Handler(away=True)
    consumer = reader(database, handler)
    assert not await poll(consumer, batch, times=30)
    assert await aside(database) == []
    handler.away = False
    assert await poll(consumer, batch)
    assert await handled(database) == ids(*batch)


async def test_where_no_case_can_go_on_only_so_many_are_set_aside(database: Database) -> None:
    log = Log()

    async def always_too_slow(_session: AsyncSession, _events: list[CaseReported]) -> None:
        raise TimeoutError

    consumer = reader(database, always_too_slow, max_parked_in_a_row=3)
    for number in range(1, 6):
        await poll(consumer, [log.record(UUID(int=number))], times=10)
    assert len(await aside(database)) == 3


async def test_a_record_that_fails_for_good_when_taken_up_is_parked_and_those_behind_go_on(
    database: Database,
) -> None:
    log = Log()
    batch = [log.record(ONE), log.record(ONE)]
    first = ids(batch[0])[0]
    handler = Handler(for_ever={first: TimeoutError("too slow")})
    consumer = reader(database, handler)
    assert await poll(consumer, batch, times=4)
    handler.for_ever = {first: KeyError("19.05")}
    await take_up(consumer, database)
    assert await handled(database) == ids(batch[1])
    assert await aside(database) == []
    (letter,) = await rows(database, "SELECT * FROM dead_letters")
    assert (letter.event_id, letter.state) == (first, "parked")
    assert letter.payload == batch[0].payload


async def test_each_try_rests_longer_than_the_one_before_up_to_a_limit(database: Database) -> None:
    log = Log()
    record = log.record(ONE)
    consumer = reader(database, Handler(for_ever={ids(record)[0]: TimeoutError("too slow")}))
    assert await poll(consumer, [record], times=4)
    pauses = []
    for _ in range(9):
        await take_up(consumer, database)
        pauses.append(
            await one(
                database,
                "SELECT extract(epoch FROM next_try_at - now())::float FROM set_aside",
            )
        )
    assert sorted(pauses[:5]) == pauses[:5]
    assert pauses[-1] <= set_aside.LONGEST_PAUSE.total_seconds()
    assert await one(database, "SELECT attempts FROM set_aside") == 9


async def test_what_was_set_aside_comes_again_from_kafka_and_changes_nothing(
    database: Database,
) -> None:
    """The process was killed after the record was set aside and before its offset was stored."""
    log = Log()
    batch = [log.record(case) for case in (ONE, TWO, ONE)]
    handler = Handler(for_ever={ids(batch[0])[0]: TimeoutError("too slow")})
    assert await poll(reader(database, handler), batch, times=4)
    before = await aside(database)
    fresh = reader(database, handler)
    for _ in range(3):
        assert await poll(fresh, batch)
    assert await aside(database) == before == ids(batch[0], batch[2])
    handler.for_ever.clear()
    await take_up(fresh, database)
    assert await poll(fresh, batch)
    assert await handled(database) == ids(batch[1], batch[0], batch[2])


@pytest.mark.parametrize("first", ["handles", "sets aside"])
async def test_two_processes_with_the_same_record_never_both_handle_it_and_set_it_aside(
    database: Database, first: str
) -> None:
    """After a rebalance the one before may still be at it. Whoever claims first decides."""
    log = Log()
    record = log.record(ONE)
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(session: AsyncSession, events: list[CaseReported]) -> None:
        in_hand.set()
        await go_on.wait()
        await execute(session, _SEEN, {"id": events[0].id})

    handling = reader(database, slowly)
    if first == "handles":
        one_handles = asyncio.create_task(handling.handle_batch([record]))
        await in_hand.wait()
        other = asyncio.create_task(set_aside.put(database, CONSUMER, [record], "TimeoutError"))
        await until_one_waits(database)
        go_on.set()
        await one_handles
        assert await other == set()
        assert await aside(database) == []
        assert await handled(database) == ids(record)
    else:
        go_on.set()
        async with database.transaction() as session:
            await inbox.claim(session, CONSUMER, ids(record))
            one_handles = asyncio.create_task(handling.handle_batch([record]))
            await until_one_waits(database)
            await set_aside._put(session, CONSUMER, [record], error="TimeoutError")
        await one_handles
        assert await aside(database) == ids(record)
        assert await handled(database) == []


async def until_one_waits(database: Database) -> None:
    """Until another transaction waits for a lock of one of ours."""
    waiting = """SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    async with asyncio.timeout(60):
        while not await one(database, waiting):
            pass


async def test_two_processes_take_up_different_cases_and_none_twice(database: Database) -> None:
    log = Log()
    batch = [log.record(UUID(int=number)) for number in range(1, 9) for _ in range(3)]
    failing = {id_: TimeoutError("too slow") for id_ in ids(*batch[::3])}
    handler = Handler(for_ever=dict(failing))
    assert await poll(reader(database, handler), batch, times=8)
    assert len(await aside(database)) == len(batch)
    handler.for_ever.clear()
    await all_due(database)

    async def work() -> None:
        consumer = reader(database, handler)
        while await one(database, "SELECT count(*) FROM set_aside"):
            await consumer.take_up_one()

    await asyncio.gather(work(), work(), work())
    found = await handled(database)
    assert sorted(found) == sorted(ids(*batch))
    for case in range(8):
        mine = ids(*batch[case * 3 : case * 3 + 3])
        assert [id_ for id_ in found if id_ in mine] == mine


async def test_a_person_lets_all_be_tried_at_once(database: Database) -> None:
    log = Log()
    record = log.record(ONE)
    handler = Handler(for_ever={ids(record)[0]: TimeoutError("too slow")})
    consumer = reader(database, handler)
    assert await poll(consumer, [record], times=4)
    await run(database, "UPDATE set_aside SET next_try_at = now() + interval '1 hour'")
    assert not await consumer.take_up_one()
    async with database.transaction() as session:
        assert await set_aside.retry_now(session) == 1
    handler.for_ever.clear()
    assert await consumer.take_up_one()
    assert await handled(database) == ids(record)


async def test_a_discarded_record_that_waits_is_let_go_and_those_behind_it_go_on(
    database: Database,
) -> None:
    log = Log()
    batch = [log.record(ONE), log.record(ONE)]
    consumer = reader(database, Handler(for_ever={ids(batch[0])[0]: TimeoutError("too slow")}))
    assert await poll(consumer, batch, times=4)
    async with database.transaction() as session:
        letter = await set_aside.give_up(session, CONSUMER, ONE)
        assert letter is not None
        assert letter.event_id == ids(batch[0])[0]
    await take_up(consumer, database)
    assert await handled(database) == ids(batch[1])
    async with database.transaction() as session:
        assert await dead_letters.open_per_consumer(session) == {CONSUMER: 1}


async def test_a_small_batch_costs_one_question_more_than_the_claim(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = database_module()._fetch

    async def counted(connection: Any, statement: Any, values: Any, **options: Any) -> Any:
        asked.append(statement.numbered)
        return await fetch(connection, statement, values, **options)

    monkeypatch.setattr(database_module(), "_fetch", counted)
    log = Log()
    batch = [log.record(case) for case in (ONE, TWO, THREE)]

    async def nothing(_session: AsyncSession, _events: list[CaseReported]) -> None:
        return None

    await reader(database, nothing).handle_batch(batch)
    assert len(asked) == 2  # the claim, and whether a case of the batch waits


def database_module() -> Any:
    from shared import database as module

    return module


# --- whatever happens -----------------------------------------------------------------------------

Fault = tuple[str, int]
FAULTS = st.one_of(
    st.just(("none", 0)),
    st.just(("none", 0)),
    st.just(("permanent", 0)),
    st.tuples(st.just("passes"), st.integers(1, 6)),
    st.just(("for ever", 0)),
)
RECORDS = st.lists(st.tuples(st.integers(1, 4), FAULTS), min_size=1, max_size=10)
KINDS: tuple[Callable[[], Exception], ...] = (
    lambda: TimeoutError("too slow"),
    lambda: ConnectionResetError("of the handler's own"),
)


@dataclass
class Story:
    """What was sent and what may befall it."""

    records: list[Received]
    faults: dict[UUID, Fault]
    handler: Handler

    def case_of(self, id_: UUID) -> UUID:
        (case,) = [r.event.subject for r in self.records if r.event and r.event.id == id_]
        return case

    def of_case(self, case: UUID) -> list[UUID]:
        return [r.event.id for r in self.records if r.event and r.event.subject == case]


def story(drawn: list[tuple[int, Fault]], kind: int) -> Story:
    log = Log()
    records = [log.record(UUID(int=number)) for number, _ in drawn]
    faults = dict(zip(ids(*records), (fault for _, fault in drawn), strict=True))
    handler = Handler()
    for id_, (name, times) in faults.items():
        if name == "permanent":
            handler.for_ever[id_] = KeyError("19.05")
        elif name == "for ever":
            handler.for_ever[id_] = KINDS[kind]()
        elif name == "passes":
            handler.fails[id_] = [KINDS[kind]() for _ in range(times)]
    return Story(records, faults, handler)


@asynccontextmanager
async def emptied(database: Database) -> AsyncIterator[None]:
    await run(database, "TRUNCATE inbox, set_aside, dead_letters, effects")
    yield


async def check(told: Story, database: Database) -> None:
    """Every record is handled once, set aside, or parked; each case in the order of the log."""
    done, waits = await handled(database), await aside(database)
    parked = [r.event_id for r in await rows(database, "SELECT event_id FROM dead_letters")]
    assert sorted(done + waits + parked) == sorted(told.faults), "each exactly once"
    claimed = [r.event_id for r in await rows(database, "SELECT event_id FROM inbox")]
    assert sorted(claimed) == sorted(done), "handled and in the inbox are the same"
    for case in {r.event.subject for r in told.records if r.event}:
        order = told.of_case(case)
        assert [id_ for id_ in done if id_ in order] == [id_ for id_ in order if id_ in done]
        assert [id_ for id_ in waits if id_ in order] == [id_ for id_ in order if id_ in waits]
        first_that_waits = min((order.index(id_) for id_ in waits if id_ in order), default=99)
        assert all(order.index(id_) < first_that_waits for id_ in done if id_ in order)


@settings(
    max_examples=40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=RECORDS, kind=st.integers(0, 1), seed=st.integers(0, 2**16), away=st.booleans())
async def test_whatever_fails_each_is_handled_once_or_waits_or_is_parked_in_the_order_of_its_case(
    database: Database, drawn: list[tuple[int, Fault]], kind: int, seed: int, away: bool
) -> None:
    rng = random.Random(seed)
    told = story(drawn, kind)
    async with emptied(database):
        consumer = reader(database, told.handler, max_parked_in_a_row=50)
        # A neighbour that nothing befalls: with it in the batch, others can go on.
        log = Log()
        left = told.records
        while left:
            size = rng.randint(1, len(left))
            batch, left = left[:size], left[size:]
            if away:
                waited = await aside(database)
                told.handler.away = True
                assert not await poll(consumer, batch, times=6) or set(ids(*batch)) <= {
                    *await aside(database)
                }, "of a case that waits, what comes is put behind it whatever the handler does"
                told.handler.away = False
                new = set(await aside(database)) - set(waited)
                cases = {told.case_of(id_) for id_ in waited}
                assert {told.case_of(id_) for id_ in new} <= cases, "nothing is set aside anew"
            neighbour = log.record(UUID(int=99))
            told.records = [*told.records, neighbour]
            told.faults[ids(neighbour)[0]] = ("none", 0)
            if rng.random() < 0.3:
                consumer = reader(database, told.handler, max_parked_in_a_row=50)  # killed
            assert await poll(consumer, [neighbour, *batch], times=60), "neighbours always finish"
            if rng.random() < 0.5:
                await take_up(consumer, database)
        await check(told, database)
        for _ in range(8):
            await take_up(consumer, database)
        await check(told, database)
        stuck = {id_ for id_, (name, _) in told.faults.items() if name == "for ever"}
        waits = await aside(database)
        for case in {r.event.subject for r in told.records if r.event}:
            mine = [id_ for id_ in told.of_case(case) if id_ in waits]
            assert not mine or mine[0] in stuck, "only what never goes on still waits"
        told.handler.for_ever = {
            id_: e for id_, e in told.handler.for_ever.items() if isinstance(e, KeyError)
        }
        for _ in range(8):
            await take_up(consumer, database)
        assert await aside(database) == [], "and when it can, all go on"
        await check(told, database)
