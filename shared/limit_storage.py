"""Where the library `limits` keeps its counters: in PostgreSQL, shared by all replicas.

It ships no such storage, and its own in memory looks at every key it has with each hit.
"""

import math
from datetime import datetime, timedelta

import asyncpg
from limits.aio.storage import Storage
from sqlalchemy import Column, DateTime, Index, Text
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import Database, execute, sql


class LimitHits(SQLModel, table=True):
    """What was counted for one key of one limit, until its window is over."""

    __tablename__ = "limit_hits"
    __table_args__ = (Index("limit_hits_expires_at", "expires_at"),)

    key: str = Field(primary_key=True, sa_type=Text)
    hits: int
    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


# One statement, so that two replicas never lose a hit of each other. A window that is over begins
# anew, whether or not its row has been purged.
_HIT = sql("""
    INSERT INTO limit_hits AS l (key, hits, expires_at)
    VALUES (:key, :amount, now() + CAST(:window AS interval))
    ON CONFLICT (key) DO UPDATE
    SET hits = CASE WHEN l.expires_at <= now() THEN 0 ELSE l.hits END + excluded.hits,
        expires_at = CASE WHEN l.expires_at <= now() THEN excluded.expires_at
                          ELSE l.expires_at END
    RETURNING hits
""")
_NOW = sql("""
    SELECT hits, expires_at FROM limit_hits WHERE key = :key AND expires_at > now()
""")
_CLEAR = sql("DELETE FROM limit_hits WHERE key = :key")
_RESET = sql("DELETE FROM limit_hits RETURNING 1")
_PURGE = sql("DELETE FROM limit_hits WHERE expires_at <= now()")


async def purge(session: AsyncSession) -> None:
    """Forget the windows that are over; their keys hold addresses."""
    await execute(session, _PURGE)


class PostgresStorage(Storage):
    """Fixed windows of `limits`, counted in the table ``limit_hits``."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may be raised by the database."""
        return asyncpg.PostgresError  # type: ignore[no-any-return]

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; ``expiry`` is the length of a new window in seconds."""
        values = {"key": key, "amount": amount, "window": timedelta(seconds=expiry)}
        (row,) = await self.database.statement(_HIT, values)
        return int(row.hits)

    async def get(self, key: str) -> int:
        """How many were counted in the window that is open."""
        return next((row.hits for row in await self._open(key)), 0)

    async def get_expiry(self, key: str) -> float:
        """When the open window ends, in seconds since 1970; 0 if none is open."""
        return next((math.ceil(row.expires_at.timestamp()) for row in await self._open(key)), 0.0)

    async def now(self) -> float:
        """The clock that the windows go by, in seconds since 1970."""
        (row,) = await self.database.statement(sql("SELECT now()"))
        return float(row[0].timestamp())

    async def _open(self, key: str) -> list[LimitHits]:
        return await self.database.statement(_NOW, {"key": key})  # type: ignore[return-value]

    async def check(self) -> bool:
        """Whether the database answers."""
        await self.database.statement(sql("SELECT 1"))
        return True

    async def reset(self) -> int | None:
        """Forget everything; returns how many keys there were."""
        return len(await self.database.statement(_RESET))

    async def clear(self, key: str) -> None:
        """Forget one key."""
        await self.database.statement(_CLEAR, {"key": key})
