"""One PostgreSQL database per service, and one transaction per request or batch.

A transaction is committed at the edge (:meth:`Database.transaction`) and nowhere else. Two ways
lead into it: the SQLModel session, where reading objects reads best, and :func:`execute` for the
statements that work on whole sets, which go straight to asyncpg: a third of the CPU.
"""

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

# What a database call can raise, beside what is transient anyway (OSError, TimeoutError).
DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    DBAPIError,
    PoolTimeoutError,
)

# SQLSTATE classes that pass by themselves: connection, rollback (serialization, deadlock),
# resources (disk, memory, connections), lock not available, operator intervention, system error.
# https://www.postgresql.org/docs/18/errcodes-appendix.html
TRANSIENT_CLASSES = ("08", "40", "53", "55", "57", "58")
# Of these, what is about the record or the moment, while the server itself is well: serialization
# and deadlock, a lock that is held, a statement or a transaction that took too long.
MET_CLASSES = ("40", "55")
QUERY_CANCELED = "57014"
IDLE_IN_TRANSACTION_TIMEOUT = "25P03"
MET_STATES = (QUERY_CANCELED, IDLE_IN_TRANSACTION_TIMEOUT)
READ_ONLY_TRANSACTION = "25006"  # a standby that is about to be promoted

# What the network, or a host that is out of descriptors or memory, says. A file that is missing or
# may not be read says something else, and waiting does not mend it.
NETWORK_ERRNOS = frozenset({
    errno.EADDRNOTAVAIL, errno.EAGAIN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EINTR, errno.EMFILE, errno.ENETDOWN,
    errno.ENETRESET, errno.ENETUNREACH, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOTCONN,
    errno.EPIPE, errno.ESHUTDOWN, errno.ETIMEDOUT,
})  # fmt: skip

COMMAND_TIMEOUT_S = 30.0
# Longer than one of our transactions holds a row or a district (a burst of 500 events takes a
# second or two), shorter than what a partition may wait for one record.
LOCK_TIMEOUT_S = 5.0
NO_LIMIT_S = 86_400.0

_RAW = "asyncpg connection"


def is_transient(error: BaseException) -> bool:
    """Whether waiting can help: the database or broker is away, or two transactions met."""
    if isinstance(error, TimeoutError | PoolTimeoutError):
        return True
    if isinstance(error, OSError):
        return _is_network(error)
    if is_outdated_plan(error):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        sqlstate = getattr(error.orig, "sqlstate", None)
        if sqlstate is None:
            return isinstance(error, OperationalError | InterfaceError)
        return _passes(sqlstate)
    if isinstance(error, asyncpg.PostgresError):
        return _passes(error.sqlstate)
    # A connection that was ended between two messages of the server leaves asyncpg's protocol in a
    # state from which it cannot go on ("cannot switch to state 11"); `_fetch` throws it away.
    if isinstance(error, asyncpg.InternalClientError):
        return True
    # asyncpg's word for a connection that has gone; its other InterfaceErrors are our mistakes.
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)


def is_away(error: BaseException) -> bool:
    """Of a transient error: whether it says that the database or the broker as a whole is away or
    full, rather than that this record or this moment had bad luck."""
    if isinstance(error, PoolTimeoutError):
        return True
    if isinstance(error, TimeoutError) or is_outdated_plan(error) or not is_transient(error):
        return False
    sqlstate = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
    if sqlstate is None:
        return True  # of the network, or of a connection that has gone
    return sqlstate[:2] not in MET_CLASSES and sqlstate not in MET_STATES


def is_outdated_plan(error: BaseException) -> bool:
    """Whether a statement was prepared before a table changed (0A000): asyncpg can prepare it again
    only outside a transaction. Of the same class are features that PostgreSQL does not have."""
    raised = getattr(error, "orig", None) or error
    return any(
        isinstance(one, asyncpg.InvalidCachedStatementError) for one in (raised, raised.__cause__)
    )


def _is_network(error: OSError) -> bool:
    if isinstance(error, ConnectionError | socket.gaierror | socket.herror | ssl.SSLError):
        return True
    # asyncio's connect sums up several addresses in a bare OSError without a number.
    several = type(error) is OSError and str(error).startswith("Multiple exceptions")
    return several or error.errno in NETWORK_ERRNOS


def brief(error: BaseException) -> str:
    """An error in a few words for a log line, without values: they may be personal."""
    cause = getattr(error, "orig", None) or error
    sqlstate = getattr(cause, "sqlstate", None)
    if sqlstate:
        return f"{type(cause).__name__} {sqlstate}"
    return repr(error)[:200] if isinstance(error, OSError) else type(error).__name__


def _passes(sqlstate: str | None) -> bool:
    return str(sqlstate)[:2] in TRANSIENT_CLASSES or sqlstate in (
        READ_ONLY_TRANSACTION,
        IDLE_IN_TRANSACTION_TIMEOUT,
    )


class Row(asyncpg.Record):  # type: ignore[misc]
    """A row whose columns are attributes."""

    def __getattr__(self, name: str) -> Any:
        """The column of this name."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Statement:
    """SQL with named parameters (``:name``), made ready for PostgreSQL's numbered ones."""

    numbered: str
    names: tuple[str, ...]

    def arguments(self, values: Mapping[str, Any] | None) -> list[Any]:
        """The values in the order of the numbers.

        Raises:
            KeyError: a parameter has no value.
        """
        return [(values or {})[name] for name in self.names]


# A name behind one colon; two are a cast.
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")


@cache
def sql(text: str) -> Statement:
    """Prepare SQL with named parameters."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text)
    return Statement(numbered, names)


async def execute(
    session: AsyncSession,
    statement: Statement,
    values: Mapping[str, Any] | None = None,
    *,
    timeout_s: float | None = COMMAND_TIMEOUT_S,
) -> list[Row]:
    """Run SQL within the session's transaction, past the ORM; returns its rows.

    Raises:
        TimeoutError: it took longer than ``timeout_s`` seconds (None waits for ever).
    """
    return await _fetch(session.info[_RAW], statement, values, timeout_s=timeout_s)


async def _fetch(
    connection: Any,
    statement: Statement,
    values: Mapping[str, Any] | None,
    *,
    timeout_s: float | None = COMMAND_TIMEOUT_S,
) -> list[Row]:
    arguments = statement.arguments(values)
    # asyncpg takes None for the connection's own limit, so that no limit is a very high one.
    limit = NO_LIMIT_S if timeout_s is None else timeout_s
    try:
        rows: list[Row] = await connection.fetch(
            statement.numbered, *arguments, timeout=limit, record_class=Row
        )
    except asyncpg.InternalClientError:
        connection.terminate()
        raise
    except asyncpg.PostgresError as error:
        error.detail = None  # quotes the row, which may be personal, and errors are logged
        raise
    return rows


class Database:
    """The connections of one process to its service's database.

    Loops that wait for work (the outbox relay, the delivery) are woken by the commit that makes
    it, instead of at their next poll: :meth:`wake_on_commit` and :func:`wakes`.
    """

    def __init__(
        self,
        url: URL,
        *,
        pool_size: int = 8,
        application: str = "jangkau",
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self.engine: AsyncEngine = create_async_engine(
            url,
            # Transactions are begun and ended here, around both ways into the database.
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            # The connection used last has its statements prepared and its server process warm.
            pool_use_lifo=True,
            pool_timeout=10,
            pool_reset_on_return=None,  # a transaction that was begun here is ended here
            hide_parameters=True,  # they may be personal, and errors are logged
            connect_args={
                "timeout": 5,
                "command_timeout": COMMAND_TIMEOUT_S,
                # Not with each call alone: asyncpg forgets it when it prepares a statement anew.
                "record_class": Row,
                "server_settings": {
                    "application_name": application,
                    # A process that was stopped in the middle must not hold its locks for ever.
                    "idle_in_transaction_session_timeout": "30s",
                    # A waiting row lock ends, and its transaction with it: others wait behind it.
                    "lock_timeout": f"{lock_timeout_s * 1000:.0f}",
                    "jit": "off",
                    # Our statements take arrays, whose values do not change the plan; making a new
                    # plan for each run costs as much as the run.
                    "plan_cache_mode": "force_generic_plan",
                },
            },
        )
        # How often a table was found changed under a prepared statement.
        self._outdated = 0
        event.listen(self.engine.sync_engine, "checkout", self._only_usable_connections)
        self._wakers: dict[str, list[asyncio.Event]] = {}

    def wake_on_commit(self, work: str) -> asyncio.Event:
        """An event that is set when a transaction of this process has made such work."""
        waker = asyncio.Event()
        self._wakers.setdefault(work, []).append(waker)
        return waker

    def wake(self, work: str) -> None:
        """Wake the loops that wait for such work."""
        for waker in self._wakers.get(work, ()):
            waker.set()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end, rolled back if the body raises."""
        async with self.engine.connect() as connection:
            pooled = await connection.get_raw_connection()
            raw = pooled.driver_connection
            assert raw is not None  # noqa: S101 - it is connected
            session = AsyncSession(bind=connection, expire_on_commit=False)
            session.info[_RAW] = raw
            transaction, ended = raw.transaction(), False
            try:
                await transaction.start()
                try:
                    yield session
                    await session.flush()
                except BaseException as error:
                    if is_outdated_plan(error) and pooled.info["outdated"] == self._outdated:
                        self._outdated += 1  # else another has said so since this one was made
                    await transaction.rollback()
                    ended = True
                    raise
                await transaction.commit()
                ended = True
            finally:
                # Cancelled or timed out while it begins or ends, a transaction may stay open
                # unnoticed, and what came after on this connection would be rolled back with it.
                if not ended:
                    raw.terminate()
        for work in session.info.get("wakes", ()):
            self.wake(work)

    async def statement(
        self, statement: Statement, values: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """One statement that is a transaction of its own: one round trip instead of three."""
        async with self.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            return await _fetch(raw, statement, values)

    async def once_more(
        self, statement: Statement, values: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """One statement, and a second time if the server has gone meanwhile.

        The first may have been committed before the answer got lost, so the statement must do
        nothing twice.
        """
        try:
            return await self.statement(statement, values)
        except Exception as error:
            if not is_transient(error):
                raise
        return await self.statement(statement, values)

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    def _only_usable_connections(self, connection: Any, record: Any, proxy: Any) -> None:
        """Hand out no connection that has gone or is in a transaction (asyncpg knows both), or was
        made before a table changed: a fresh one comes in its place.

        All of them hold statements prepared for the old table, and each would fail once with it.
        """
        raw = connection.driver_connection
        made = record.info.setdefault("outdated", self._outdated)
        if raw.is_closed() or raw.is_in_transaction() or made < self._outdated:
            raise DisconnectionError


def wakes(session: AsyncSession, work: str) -> None:
    """Say that this transaction makes work for a loop, to be woken after the commit."""
    session.info.setdefault("wakes", set()).add(work)


def column(rows: Sequence[Row]) -> list[Any]:
    """The first column of each row."""
    return [row[0] for row in rows]


async def clock(session: AsyncSession) -> datetime:
    """The database's clock at this moment, in UTC; :func:`now` is older by what the transaction has
    waited for since."""
    (row,) = await execute(session, sql("SELECT clock_timestamp()"))
    moment: datetime = row[0]
    return moment.astimezone(UTC)


async def now(session: AsyncSession) -> datetime:
    """The database's clock, the only one that counts: the start of this transaction, in UTC."""
    (row,) = await execute(session, sql("SELECT now()"))
    moment: datetime = row[0]
    return moment.astimezone(UTC)
