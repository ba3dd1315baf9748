"""The outbox: events stored in the same transaction as their cause, then published to Kafka.

One relay round is one transaction under an advisory lock, so that of several replicas one
publishes at a time and the order within a case holds. A crash anywhere publishes again; it never
loses. Published rows stay as a journal from which a lost Kafka can be filled again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Text, func, text
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import topics
from shared.database import Database, execute, sql, wakes
from shared.events import Event
from shared.health import Loop
from shared.telemetry import OUTBOX_PUBLISHED

log = structlog.get_logger("outbox")

WORK = "outbox"  # what wakes the relay
ROUND_SIZE = 500
# Behind the wake-up after each local commit: finds rows that another process has written.
POLL = timedelta(seconds=1)
# Another replica is in its round; ours begins when it has committed.
LOCK_RETRY = timedelta(milliseconds=5)
PUBLISH_TIMEOUT = timedelta(seconds=20)
RELAY_LOCK = 0x4A414E474B4155  # "JANGKAU"; one per database


class OutboxRow(SQLModel, table=True):
    """One event on its way to Kafka, and afterwards a line of the journal."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("outbox_unpublished", "id", postgresql_where=text("published_at IS NULL")),
        Index(
            "outbox_published_at", "published_at", postgresql_where=text("published_at IS NOT NULL")
        ),
    )

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    event_id: UUID = Field(unique=True)
    topic: str = Field(sa_type=Text)
    key: str = Field(sa_type=Text)
    payload: str = Field(sa_type=Text)
    created_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now())
    )
    published_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


# By array, so that one statement serves any number of events; WITH ORDINALITY keeps their order.
_INSERT = sql("""
    INSERT INTO outbox (event_id, topic, key, payload)
    SELECT event_id, topic, key, payload
    FROM unnest(CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:keys AS text[]),
                CAST(:payloads AS text[]))
         WITH ORDINALITY AS row (event_id, topic, key, payload, place)
    ORDER BY place
""")


async def publish(session: AsyncSession, events: Sequence[Event[Any]]) -> None:
    """Store events, to be published after this transaction has committed."""
    if not events:
        return
    await execute(
        session,
        _INSERT,
        {
            "ids": [event.id for event in events],
            "topics": [topics.TOPIC_OF[type(event)].name for event in events],
            "keys": [str(event.subject) for event in events],
            "payloads": [event.to_json() for event in events],
        },
    )
    wakes(session, WORK)


@dataclass(frozen=True)
class OutgoingRecord:
    """What the relay hands to Kafka."""

    topic: str
    key: bytes
    value: bytes


# Publishes all and returns when Kafka has acknowledged all (acks=all), or raises.
Publish = Callable[[Sequence[OutgoingRecord]], Awaitable[None]]

# A statement of its own: the rows must be read by a snapshot that is younger than the lock, or what
# another replica has just published would go out again.
_LOCK = sql("SELECT pg_try_advisory_xact_lock(:lock)")
_UNPUBLISHED = sql("""
    SELECT id, topic, key, payload FROM outbox
    WHERE published_at IS NULL ORDER BY id LIMIT :limit
""")
# Losing this commit in a crash publishes once more, so it need not wait for the disk.
_PUBLISHED = sql("""
    WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    UPDATE outbox SET published_at = now() FROM quick WHERE id = ANY (CAST(:ids AS bigint[]))
""")


# The journal of the public feed is kept for good, so this may take long; ages begin anew.
_REPUBLISH = sql("""
    WITH again AS (
        UPDATE outbox SET published_at = NULL, created_at = now()
        WHERE published_at IS NOT NULL RETURNING 1
    )
    SELECT count(*) AS n FROM again
""")
_PURGE = sql("""
    DELETE FROM outbox
    WHERE topic = :topic AND published_at < now() - CAST(:age AS interval)
""")


class Relay:
    """Publishes the outbox of one database, for as long as :meth:`run` runs."""

    def __init__(self, database: Database, publish: Publish, *, service: str) -> None:
        self.database = database
        self.service = service
        self._publish = publish
        self._wake = database.wake_on_commit(WORK)

    async def run(self, loop: Loop) -> None:
        """Round after round; woken by local commits, and at the latest after a second."""
        while True:
            loop.beat()
            self._wake.clear()
            published = await self.round()
            if published is None:
                await asyncio.sleep(LOCK_RETRY.total_seconds())
            elif published < ROUND_SIZE:
                try:
                    async with asyncio.timeout(POLL.total_seconds()):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def round(self) -> int | None:
        """Publish up to 500 events; returns how many, or None if another replica has its turn.

        Raises:
            TimeoutError: Kafka did not acknowledge in time; the rows stay unpublished.
        """
        async with self.database.transaction() as session:
            (turn,) = await execute(session, _LOCK, {"lock": RELAY_LOCK})
            if not turn[0]:
                return None
            rows = await execute(session, _UNPUBLISHED, {"limit": ROUND_SIZE})
            if not rows:
                return 0
            records = [
                OutgoingRecord(topic=row.topic, key=row.key.encode(), value=row.payload.encode())
                for row in rows
            ]
            async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds()):
                await self._publish(records)
            await mark_published(session, [row.id for row in rows])
        OUTBOX_PUBLISHED.labels(self.service).inc(len(rows))
        return len(rows)


async def mark_published(session: AsyncSession, ids: Sequence[int]) -> None:
    """Move rows from the outbox into the journal."""
    await execute(session, _PUBLISHED, {"ids": list(ids)})


async def republish_journal(session: AsyncSession) -> int:
    """Publish everything of the journal again, in order; returns how many events.

    For a Kafka that has lost its records. Subscribers drop by event id what they have handled.
    """
    (again,) = await execute(session, _REPUBLISH, timeout_s=None)
    wakes(session, WORK)
    return int(again.n)


async def purge_journal(session: AsyncSession) -> None:
    """Delete published events that their topic would no longer keep either.

    Personal data goes within a week here too; the public feed can be rebuilt from its first day.
    """
    for topic in topics.ALL:
        if topic.retention is not None:
            await execute(session, _PURGE, {"topic": topic.name, "age": topic.retention})


async def unpublished(session: AsyncSession) -> tuple[int, float]:
    """How many events are not yet in Kafka, and the age of the oldest in seconds (0 if none)."""
    (row,) = await execute(
        session,
        sql("""
                SELECT count(*) AS size,
                       coalesce(extract(epoch FROM now() - min(created_at)), 0)::float AS age
                FROM outbox WHERE published_at IS NULL
            """),
    )
    return row.size, row.age
