"""The outbox: events stored in the same transaction as their cause, then published to Kafka.

One relay round is one transaction under an advisory lock, so that of several replicas one
publishes at a time and the order within a case holds. A crash anywhere publishes again; it never
loses. Published rows stay as a journal from which a lost Kafka can be filled again.

What Kafka would not take is refused before it is stored. Should a row be too large all the same, it
is set aside as a dead letter, and the rows behind it go on, of its own case too (docs/adr/0022).
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
from shared.database import Database, Row, execute, sql, wakes
from shared.events import Event
from shared.health import Loop
from shared.telemetry import EVENTS_PARKED, OUTBOX_PUBLISHED

log = structlog.get_logger("outbox")

WORK = "outbox"  # what wakes the relay
ROUND_SIZE = 500
# Behind the wake-up after each local commit: finds rows that another process has written.
POLL = timedelta(seconds=1)
# Another replica is in its round; ours begins when it has committed.
LOCK_RETRY = timedelta(milliseconds=5)
PUBLISH_TIMEOUT = timedelta(seconds=20)
RELAY_LOCK = 0x4A414E474B4155  # "JANGKAU"; one per database
# Bytes of one event. Kafka takes 1 MiB by default, with the key, the headers and the frame around
# it, both at the producer (max.request.size) and at the broker (message.max.bytes); the largest
# event that our bounds allow has a tenth of this.
LARGEST_EVENT = 900_000
# How many go out one by one after Kafka has refused a round; the connection is then made anew.
CAREFUL_ROUND = 50


class EventTooLarge(ValueError):
    """An event that Kafka would not take, with a sentence. Nothing is stored of it."""


class RefusedAsTooLarge(Exception):
    """Kafka takes none of this size: it is set lower there than here."""


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


def payload_of(event: Event[Any]) -> str:
    """What goes over the wire.

    Raises:
        EventTooLarge: it has more bytes than Kafka takes.
    """
    payload = event.to_json()
    # No character has more than four bytes: hardly any has to be counted.
    if len(payload) * 4 > LARGEST_EVENT and (size := len(payload.encode())) > LARGEST_EVENT:
        raise EventTooLarge(
            f"{event.type} about {event.subject} has {size:,} bytes; an event has at most "
            f"{LARGEST_EVENT:,}, as Kafka takes no more"
        )
    return payload


async def publish(session: AsyncSession, events: Sequence[Event[Any]]) -> None:
    """Store events, to be published after this transaction has committed.

    Raises:
        EventTooLarge: Kafka would not take one of them; none is stored.
    """
    if not events:
        return
    await execute(
        session,
        _INSERT,
        {
            "ids": [event.id for event in events],
            "topics": [topics.TOPIC_OF[type(event)].name for event in events],
            "keys": [str(event.subject) for event in events],
            "payloads": [payload_of(event) for event in events],
        },
    )
    wakes(session, WORK)


@dataclass(frozen=True)
class OutgoingRecord:
    """What the relay hands to Kafka."""

    topic: str
    key: bytes
    value: bytes


# Publishes all and returns when Kafka has acknowledged all (acks=all), or raises; RefusedAsTooLarge
# if one of them never will be.
Publish = Callable[[Sequence[OutgoingRecord]], Awaitable[None]]

# A statement of its own: the rows must be read by a snapshot that is younger than the lock, or what
# another replica has just published would go out again.
_LOCK = sql("SELECT pg_try_advisory_xact_lock(:lock)")
# What is too large is not even read.
_UNPUBLISHED = sql("""
    SELECT id, topic, key,
           CASE WHEN octet_length(payload) <= :largest THEN payload END AS payload
    FROM outbox
    WHERE published_at IS NULL ORDER BY id LIMIT :limit
""")
# As a dead letter of the relay: seen, kept, and sent again once it is repaired.
_SET_ASIDE = sql("""
    WITH gone AS (
        DELETE FROM outbox WHERE id = ANY (CAST(:ids AS bigint[]))
        RETURNING id, event_id, topic, key, payload
    )
    INSERT INTO dead_letters AS known
        (consumer, record_id, event_id, topic, partition, record_offset, key, payload, headers,
         error, attempts, state)
    SELECT :consumer, CAST(event_id AS text), event_id, topic, -1, id, convert_to(key, 'UTF8'),
           convert_to(payload, 'UTF8'), '',
           format('EventTooLarge: %s bytes; Kafka takes fewer', octet_length(payload)), 1, 'parked'
    FROM gone
    ON CONFLICT (consumer, record_id) DO UPDATE
    SET attempts = known.attempts + 1, last_failed_at = now(), error = excluded.error,
        payload = excluded.payload,
        state = CASE known.state WHEN 'discarded' THEN 'discarded' ELSE 'parked' END
    RETURNING event_id, topic
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
            limits = {"limit": ROUND_SIZE, "largest": LARGEST_EVENT}
            rows = await execute(session, _UNPUBLISHED, limits)
            if not rows:
                return 0
            fitting = [row for row in rows if row.payload is not None]
            refused: list[Row] = []
            try:
                async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds()):
                    if fitting:
                        await self._publish([_record(row) for row in fitting])
                published = fitting
            except RefusedAsTooLarge:
                published, refused = await self._one_by_one(fitting[:CAREFUL_ROUND])
            await mark_published(session, [row.id for row in published])
            too_large = [row.id for row in rows if row.payload is None]
            await self._set_aside(session, [*too_large, *(row.id for row in refused)])
        OUTBOX_PUBLISHED.labels(self.service).inc(len(published))
        return len(rows)

    async def _one_by_one(self, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Publish in order and find out which of them Kafka does not take; whatever it has taken
        just now goes out a second time, with the same id."""
        published, refused = [], []
        async with asyncio.timeout(PUBLISH_TIMEOUT.total_seconds()):
            for row in rows:
                try:
                    await self._publish([_record(row)])
                    published.append(row)
                except RefusedAsTooLarge:
                    refused.append(row)
        return published, refused

    async def _set_aside(self, session: AsyncSession, ids: Sequence[int]) -> None:
        if not ids:
            return
        consumer = letters_of(self.service)
        for row in await execute(session, _SET_ASIDE, {"ids": ids, "consumer": consumer}):
            EVENTS_PARKED.labels(consumer).inc()
            log.error("event.set_aside", topic=row.topic, event_id=str(row.event_id))


def _record(row: Row) -> OutgoingRecord:
    return OutgoingRecord(topic=row.topic, key=row.key.encode(), value=row.payload.encode())


def letters_of(service: str) -> str:
    """Under which name the dead letters of a service's relay are kept, beside its consumers'."""
    return f"{service}.outbox"


def in_words(too_large: int) -> list[str]:
    """What a person is told of events that were set aside and nobody has looked at."""
    if not too_large:
        return []
    return [
        f"{too_large} events were too large for Kafka and did not go out; look at them with "
        "`jangkau dead-letters list`"
    ]


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
