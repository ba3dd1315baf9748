"""The inbox: which events a consumer has handled. At least once, made once."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Column, DateTime, Index, Text, func
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import column, execute, sql


class InboxRow(SQLModel, table=True):
    """One event that one consumer has handled: written in the same transaction as its effect."""

    __tablename__ = "inbox"
    __table_args__ = (Index("inbox_handled_at", "handled_at"),)

    consumer: str = Field(primary_key=True, sa_type=Text)
    event_id: UUID = Field(primary_key=True)
    handled_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now())
    )


# Sorted ids: two processes with overlapping batches wait for each other instead of deadlocking.
# What is handled, now or before, has no open dead letter any more: the two are kept together.
_CLAIM = sql("""
    WITH claimed AS (
        INSERT INTO inbox (consumer, event_id)
        SELECT :consumer, event_id FROM unnest(CAST(:ids AS uuid[])) AS event_id ORDER BY event_id
        ON CONFLICT DO NOTHING
        RETURNING event_id
    ), resolved AS (
        UPDATE dead_letters SET state = 'resolved'
        WHERE consumer = :consumer AND state IN ('parked', 'replaying')
          AND record_id IN (SELECT CAST(id AS text) FROM unnest(CAST(:ids AS uuid[])) AS id)
    )
    SELECT event_id FROM claimed
""")


async def claim(session: AsyncSession, consumer: str, event_ids: Sequence[UUID]) -> set[UUID]:
    """Claim events for this transaction; returns those that were not handled before."""
    rows = await execute(session, _CLAIM, {"consumer": consumer, "ids": list(event_ids)})
    return set(column(rows))


async def give_back(session: AsyncSession, consumer: str, event_ids: Sequence[UUID]) -> None:
    """Undo what this transaction has claimed and does not handle."""
    await execute(
        session,
        sql("""
            DELETE FROM inbox
            WHERE consumer = :consumer AND event_id = ANY (CAST(:ids AS uuid[]))
        """),
        {"consumer": consumer, "ids": list(event_ids)},
    )


async def purge(session: AsyncSession, *, older_than: timedelta) -> None:
    """Forget events that can no longer come again."""
    await execute(
        session,
        sql("DELETE FROM inbox WHERE handled_at < now() - CAST(:age AS interval)"),
        {"age": older_than},
    )
