"""One PostgreSQL database per service, and one transaction per request or batch.

A transaction is committed at the edge (:meth:`Database.transaction`) and nowhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import CursorResult, Row, TextClause, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)
from sqlmodel.ext.asyncio.session import AsyncSession

T = TypeVar("T")
_CONNECTION = "connection"

# SQLSTATE classes that pass by themselves: connection, rollback (serialization, deadlock),
# resources (disk, memory, connections), lock not available, operator intervention, system error.
# https://www.postgresql.org/docs/18/errcodes-appendix.html
TRANSIENT_CLASSES = ("08", "40", "53", "55", "57", "58")
READ_ONLY_TRANSACTION = "25006"  # a standby that is about to be promoted
IDLE_IN_TRANSACTION_TIMEOUT = "25P03"


def is_transient(error: BaseException) -> bool:
    """Whether waiting can help: the database or broker is away, or two transactions met."""
    if isinstance(error, OSError | TimeoutError | PoolTimeoutError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        sqlstate = getattr(error.orig, "sqlstate", None)
        if sqlstate is None:
            return isinstance(error, OperationalError | InterfaceError)
        return str(sqlstate)[:2] in TRANSIENT_CLASSES or sqlstate in (
            READ_ONLY_TRANSACTION,
            IDLE_IN_TRANSACTION_TIMEOUT,
        )
    return False


class Database:
    """The connections of one process to its service's database.

    ``committed`` is set after every local commit: the outbox relay and the delivery loop wait on
    their own copies of it (:meth:`wake_on_commit`), so that work starts at once instead of at the
    next poll.
    """

    def __init__(self, url: URL, *, pool_size: int = 8, application: str = "jangkau") -> None:
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            # No ping before each use: it costs as much as the statement itself. When the server has
            # gone, the first error empties the pool, and whoever met it tries again.
            hide_parameters=True,  # they may be personal, and errors are logged
            connect_args={
                "timeout": 5,
                "command_timeout": 30,
                "server_settings": {
                    "application_name": application,
                    # A process that was stopped in the middle must not hold its locks for ever.
                    "idle_in_transaction_session_timeout": "30s",
                    "lock_timeout": "10s",
                    "jit": "off",
                },
            },
        )
        self._sessions = async_sessionmaker(
            self.engine, class_=AsyncSession, expire_on_commit=False
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._wakers: list[asyncio.Event] = []

    def wake_on_commit(self) -> asyncio.Event:
        """An event that is set after each commit of this process."""
        waker = asyncio.Event()
        self._wakers.append(waker)
        return waker

    @asynccontextmanager
    async def transaction(self, *, wake: bool = True) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end, rolled back if the body raises."""
        async with self._sessions() as session, session.begin():
            session.info[_CONNECTION] = await session.connection()
            yield session
        if wake:
            self._wake_all()

    def _wake_all(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def once_more(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """One transaction around ``work``, and a second one if the server has gone meanwhile.

        The first may have been committed before the answer got lost, so ``work`` must do nothing
        twice. The connections of a server that was restarted are found dead only by using them.
        """
        try:
            async with self.transaction() as session:
                return await work(session)
        except Exception as error:
            if not is_transient(error):
                raise
        async with self.transaction() as session:
            return await work(session)

    async def statement(
        self, statement: TextClause, values: Mapping[str, Any] | None = None, *, wake: bool = False
    ) -> Sequence[Row[Any]]:
        """One statement that is a transaction of its own: one round trip instead of four."""
        async with self._autocommit.connect() as connection:
            result = await connection.execute(statement, values)
            rows = result.all() if result.returns_rows else []
        if wake:
            self._wake_all()
        return rows

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


async def execute(
    session: AsyncSession, statement: TextClause, values: Mapping[str, Any] | None = None
) -> CursorResult[Any]:
    """Run SQL within the session's transaction, past the ORM: for the statements that sets need."""
    connection: AsyncConnection = session.info[_CONNECTION]
    return await connection.execute(statement, values)


async def now(session: AsyncSession) -> datetime:
    """The database's clock, the only one that counts: the start of this transaction, in UTC."""
    result = await execute(session, text("SELECT now()"))
    moment: datetime = result.scalar_one()
    return moment.astimezone(UTC)
