"""Dead letters: records that cannot be handled, kept until a person has decided.

A table, not a topic: it can be queried, it outlives the retention, and it is written in a
transaction. A record is parked once however often it comes; if it is handled after all (a replay,
a redelivery after a fix) its letter is resolved by itself.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import outbox, topics
from shared.database import execute, sql, wakes
from shared.telemetry import EVENTS_PARKED


class LetterState(StrEnum):
    """``parked`` waits for a person; ``replaying`` is on its way back; the others are done."""

    PARKED = "parked"
    REPLAYING = "replaying"
    RESOLVED = "resolved"
    DISCARDED = "discarded"


class DeadLetter(SQLModel, table=True):
    """One record that one consumer could not handle, as it came from Kafka."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        UniqueConstraint("consumer", "record_id", name="dead_letters_once_per_record"),
        Index("dead_letters_open", "consumer", postgresql_where=text("state = 'parked'")),
    )

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    consumer: str = Field(sa_type=Text)
    record_id: str = Field(sa_type=Text, description="event id, or a fingerprint if it has none")
    event_id: UUID | None = None
    topic: str = Field(sa_type=Text)
    partition: int
    record_offset: int = Field(sa_type=BigInteger)
    key: bytes | None = Field(default=None, sa_type=LargeBinary)
    payload: bytes | None = Field(default=None, sa_type=LargeBinary)
    headers: str = Field(default="", sa_type=Text)
    error: str = Field(sa_type=Text)
    attempts: int = 1
    state: str = Field(default=LetterState.PARKED, sa_type=Text)
    first_failed_at: datetime | None = Field(
        default=None,
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now()),
    )
    last_failed_at: datetime | None = Field(
        default=None,
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


class UnknownLetter(LookupError):
    """No dead letter has this number."""


class NotReplayable(ValueError):
    """The stored payload is no event; it has to be repaired first."""


def fingerprint(topic: str, partition: int, offset: int, timestamp_ms: int, payload: bytes) -> str:
    """What identifies a record that has no readable event id."""
    digest = hashlib.sha256(payload).hexdigest()[:16]
    return f"{topic}/{partition}/{offset}@{timestamp_ms}/{digest}"


_PARK = sql("""
    INSERT INTO dead_letters
        (consumer, record_id, event_id, topic, partition, record_offset, key, payload, headers,
         error, attempts, state)
    VALUES
        (:consumer, :record_id, :event_id, :topic, :partition, :record_offset, :key, :payload,
         :headers, :error, 1, 'parked')
    ON CONFLICT (consumer, record_id) DO UPDATE
    SET attempts = dead_letters.attempts + 1, last_failed_at = now(), error = excluded.error,
        state = CASE dead_letters.state WHEN 'discarded' THEN 'discarded' ELSE 'parked' END
    RETURNING xmax = 0 AS fresh
""")


async def park(session: AsyncSession, letter: DeadLetter) -> bool:
    """Put a record aside; a second time for the same record only counts the attempt.

    Returns whether it is the first time.
    """
    (parked,) = await execute(
        session,
        _PARK,
        letter.model_dump(
            include={
                "consumer",
                "record_id",
                "event_id",
                "topic",
                "partition",
                "record_offset",
                "key",
                "payload",
                "headers",
                "error",
            }
        ),
    )
    EVENTS_PARKED.labels(letter.consumer).inc()
    return bool(parked.fresh)


async def listed(session: AsyncSession, *, every: bool = False) -> Sequence[DeadLetter]:
    """The letters that wait for a person, oldest first; or every one there is."""
    query = select(DeadLetter).order_by(col(DeadLetter.id))
    if not every:
        query = query.where(col(DeadLetter.state).in_([LetterState.PARKED, LetterState.REPLAYING]))
    return (await session.exec(query)).all()


async def get(session: AsyncSession, letter_id: int) -> DeadLetter:
    """One letter, locked for this transaction.

    Raises:
        UnknownLetter: there is none with this number.
    """
    letter = await session.get(DeadLetter, letter_id, with_for_update=True)
    if letter is None:
        raise UnknownLetter(f"There is no dead letter {letter_id}.")
    return letter


async def replay(session: AsyncSession, letter: DeadLetter, *, payload: str | None = None) -> None:
    """Send a letter again through the outbox, with its original id and key.

    ``payload`` is a repaired event in place of the stored one. Whoever has handled the event drops
    it, so that a replay may be repeated.

    Raises:
        NotReplayable: it is still no event of its topic, and says why.
    """
    raw = letter.payload if payload is None else payload.encode()
    if len(raw or b"") > outbox.LARGEST_EVENT:
        raise NotReplayable(
            f"Dead letter {letter.id} has {len(raw or b''):,} bytes; an event has at most "
            f"{outbox.LARGEST_EVENT:,}, as Kafka takes no more. Give a shorter one."
        )
    try:
        event = topics.named(letter.topic).decode(raw)
    except topics.UndecodableRecord as error:
        raise NotReplayable(
            f"Dead letter {letter.id} is no event that can be replayed ({error}). "
            "Repair it and give the repaired event."
        ) from error
    await execute(
        session,
        sql("""
            INSERT INTO outbox (event_id, topic, key, payload)
            VALUES (:event_id, :topic, :key, :payload)
            ON CONFLICT (event_id) DO UPDATE
            SET published_at = NULL, payload = excluded.payload
        """),
        {
            "event_id": event.id,
            "topic": letter.topic,
            "key": str(event.subject),
            "payload": (raw or b"").decode(),
        },
    )
    # From now on this letter is about that event: handled, it is resolved; failed, it is parked.
    wakes(session, outbox.WORK)
    letter.event_id, letter.record_id = event.id, str(event.id)
    # One that never reached Kafka is with the outbox again, as any other event.
    was_set_aside = letter.consumer.endswith(outbox.letters_of(""))
    letter.state = LetterState.RESOLVED if was_set_aside else LetterState.REPLAYING
    session.add(letter)


async def discard(session: AsyncSession, letter: DeadLetter) -> None:
    """Decide that a record is never handled, not even when it comes again."""
    if letter.event_id is not None:
        await execute(
            session,
            sql("""
                INSERT INTO inbox (consumer, event_id) VALUES (:consumer, :event_id)
                ON CONFLICT DO NOTHING
            """),
            {"consumer": letter.consumer, "event_id": letter.event_id},
        )
    letter.state = LetterState.DISCARDED
    session.add(letter)


async def purge(session: AsyncSession, *, older_than: timedelta) -> None:
    """Delete letters that are done: they hold what came, and that may be personal."""
    await execute(
        session,
        sql("""
            DELETE FROM dead_letters
            WHERE state IN ('resolved', 'discarded')
              AND last_failed_at < now() - CAST(:age AS interval)
        """),
        {"age": older_than},
    )


async def open_per_consumer(session: AsyncSession) -> dict[str, int]:
    """How many letters wait for a person, by consumer."""
    rows = await execute(
        session,
        sql("SELECT consumer, count(*) AS n FROM dead_letters WHERE state = 'parked' GROUP BY 1"),
    )
    return {row.consumer: row.n for row in rows}
