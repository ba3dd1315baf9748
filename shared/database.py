"""One PostgreSQL database per service, and one transaction per request or batch.

A transaction is committed at the edge (:meth:`Database.transaction`) and nowhere else.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CursorResult, TextClause, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

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
            pool_pre_ping=True,
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
            yield session
        if wake:
            for waker in self._wakers:
                waker.set()

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


async def execute(
    session: AsyncSession, statement: TextClause, values: Mapping[str, Any] | None = None
) -> CursorResult[Any]:
    """Run SQL within the session's transaction, past the ORM: for the statements that sets need."""
    connection = await session.connection()
    return await connection.execute(statement, values)


async def now(session: AsyncSession) -> datetime:
    """The database's clock, the only one that counts: the start of this transaction, in UTC."""
    result = await execute(session, text("SELECT now()"))
    moment: datetime = result.scalar_one()
    return moment.astimezone(UTC)
