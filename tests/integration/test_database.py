"""The transaction at the edge: all or nothing, whatever happens to the task."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from asyncpg import UniqueViolationError
from asyncpg.transaction import Transaction
from sqlalchemy.exc import IntegrityError

from shared import dead_letters
from shared.database import Database, _fetch, execute, is_away, is_transient, sql
from shared.inbox import InboxRow
from tests.factories import case_reported

NOW = datetime.now(UTC)
ADD = sql("INSERT INTO inbox (consumer, event_id) VALUES (:consumer, gen_random_uuid())")
COUNT = sql("SELECT count(*) AS n FROM inbox WHERE consumer = :consumer")


async def count(database: Database, consumer: str) -> int:
    (row,) = await database.statement(COUNT, {"consumer": consumer})
    return int(row.n)


async def test_a_transaction_that_raises_leaves_nothing(intake_database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with intake_database.transaction() as session:
            await execute(session, ADD, {"consumer": "a"})
            session.add(InboxRow(consumer="a", event_id=case_reported().id, handled_at=NOW))
            await session.flush()
            raise RuntimeError
    assert await count(intake_database, "a") == 0


async def test_objects_and_statements_are_committed_together(intake_database: Database) -> None:
    async with intake_database.transaction() as session:
        await execute(session, ADD, {"consumer": "a"})
        session.add(InboxRow(consumer="a", event_id=case_reported().id, handled_at=NOW))
    assert await count(intake_database, "a") == 2


async def test_an_object_that_the_database_refuses_takes_the_statements_with_it(
    intake_database: Database,
) -> None:
    event_id = case_reported().id
    with pytest.raises(IntegrityError):
        async with intake_database.transaction() as session:
            await execute(session, ADD, {"consumer": "a"})
            session.add(InboxRow(consumer="a", event_id=event_id, handled_at=NOW))
            await session.flush()
            session.expunge_all()
            session.add(InboxRow(consumer="a", event_id=event_id, handled_at=NOW))
    assert await count(intake_database, "a") == 0


async def test_a_task_cancelled_at_any_moment_leaves_no_open_transaction(
    intake_database: Database,
) -> None:
    rng = random.Random(7)

    async def work() -> None:
        async with intake_database.transaction() as session:
            await execute(session, ADD, {"consumer": "cancelled"})
            await execute(session, sql("SELECT pg_sleep(0.001)"))

    for _ in range(150):
        task = asyncio.create_task(work())
        await asyncio.sleep(rng.uniform(0, 0.006))
        task.cancel()
        await asyncio.wait([task])
        # What is stored next must not hang on a transaction that somebody has left behind.
        await intake_database.statement(ADD, {"consumer": "next"})
    await intake_database.engine.dispose()
    assert await count(intake_database, "next") == 150


_OTHERS = sql("""
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
""")


async def test_connections_of_a_restarted_server_are_not_handed_out(
    intake_database: Database,
) -> None:
    async def hold() -> None:
        async with intake_database.transaction() as session:
            await execute(session, sql("SELECT pg_sleep(0.05)"))

    await asyncio.gather(*(hold() for _ in range(5)))
    other = Database(intake_database.engine.url, pool_size=1)
    await other.statement(
        sql("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
        """)
    )
    async with asyncio.timeout(60):
        while await other.statement(_OTHERS):  # noqa: ASYNC110 - it is the server that acts
            await asyncio.sleep(0.01)
    await other.close()
    # Their farewells are here by now; they are read at the next turn of the event loop.
    await asyncio.sleep(0.1)
    for _ in range(8):
        assert await count(intake_database, "anybody") == 0


async def test_an_error_that_passes_is_told_from_one_that_stays(intake_database: Database) -> None:
    with pytest.raises(Exception, match="division by zero") as stays:
        await intake_database.statement(sql("SELECT 1 / 0"))
    assert not is_transient(stays.value)
    with pytest.raises(Exception, match="terminating connection") as passes:
        await intake_database.statement(sql("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert is_transient(passes.value)


async def test_a_commit_without_an_answer_takes_nobody_else_with_it(
    intake_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_answers(self: Transaction) -> None:
        raise TimeoutError

    with monkeypatch.context() as broken, pytest.raises(TimeoutError):
        broken.setattr(Transaction, "commit", never_answers)
        async with intake_database.transaction() as session:
            await execute(session, ADD, {"consumer": "unanswered"})
    await intake_database.statement(ADD, {"consumer": "next"})
    async with intake_database.transaction() as session:
        await execute(session, ADD, {"consumer": "next"})
    await intake_database.engine.dispose()
    assert await count(intake_database, "next") == 2


async def test_an_error_keeps_the_row_it_is_about_to_itself(intake_database: Database) -> None:
    twice = sql("INSERT INTO inbox (consumer, event_id) VALUES (:consumer, CAST(:id AS uuid))")
    values = {"consumer": "Canary Kenari", "id": "01980c5f-8a10-7c3e-9b1d-5f2a6c7e8d01"}
    await intake_database.statement(twice, values)
    with pytest.raises(UniqueViolationError) as refused:
        await intake_database.statement(twice, values)
    assert "Canary" not in str(refused.value)


async def test_a_connection_that_asyncpg_can_no_longer_use_is_thrown_away_and_passes() -> None:
    """The server ended it between two messages: "cannot switch to state 11"."""

    class Broken:
        terminated = False

        async def fetch(self, *_: Any, **__: Any) -> None:
            raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) …")

        def terminate(self) -> None:
            self.terminated = True

    connection = Broken()
    with pytest.raises(asyncpg.InternalClientError) as broken:
        await _fetch(connection, sql("SELECT 1"), None)
    assert connection.terminated
    assert is_transient(broken.value)


# --- a table that changes while we run ------------------------------------------------------------

READ = sql("SELECT attempts FROM dead_letters")


async def test_a_table_that_changed_is_read_again_on_a_fresh_connection(
    intake_database: Database,
) -> None:
    """Each connection has the statement prepared; one of them finds out for all."""

    async def read(ready: asyncio.Barrier) -> None:
        async with intake_database.transaction() as session:
            await execute(session, READ)
            await ready.wait()  # so that each has a connection of its own

    together = asyncio.Barrier(4)
    await asyncio.gather(*(read(together) for _ in range(4)))
    await intake_database.statement(sql("ALTER TABLE dead_letters ALTER attempts TYPE bigint"))

    failures = []
    for _ in range(8):
        try:
            async with intake_database.transaction() as session:
                await execute(session, READ)
        except asyncpg.InvalidCachedStatementError as error:
            failures.append(error)
    assert [is_transient(error) for error in failures] == [True]
    assert not is_away(failures[0]), "the server is well: such a batch may be taken apart"


async def test_a_statement_alone_is_prepared_anew_and_its_rows_are_ours(
    intake_database: Database,
) -> None:
    parked = sql("""
        INSERT INTO dead_letters (consumer, record_id, topic, partition, record_offset, headers,
                                  error, attempts, state)
        VALUES ('a', 'b', 'c', 0, 0, '', '', 7, 'parked') RETURNING id
    """)
    await intake_database.statement(parked)
    await intake_database.statement(READ)
    await intake_database.statement(sql("ALTER TABLE dead_letters ALTER attempts TYPE bigint"))
    (row,) = await intake_database.statement(READ)
    assert row.attempts == 7


async def test_objects_are_read_again_after_their_table_has_changed(
    intake_database: Database,
) -> None:
    async def read() -> None:
        async with intake_database.transaction() as session:
            await dead_letters.listed(session)

    await read()
    await intake_database.statement(sql("ALTER TABLE dead_letters ALTER attempts TYPE bigint"))
    failures = []
    for _ in range(4):
        try:
            await read()
        except Exception as error:
            failures.append(error)
    assert [is_transient(error) for error in failures] in ([], [True])


def test_a_feature_that_there_is_not_is_not_transient() -> None:
    assert not is_transient(asyncpg.FeatureNotSupportedError("0A000"))
