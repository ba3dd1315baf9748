"""Records that cannot go on now: set aside, each with what follows of its case; all others go on.

A record that fails again and again for a reason that should pass, while others succeed, is set
aside, and what comes later of its case is put behind it. The first of each case is tried again by
itself, longer apart each time; once it is handled, those behind it follow in their order. Nothing
is decided here about records that can never be handled: these are dead letters.

Handled and set aside exclude each other: what is set aside was claimed in the inbox and given back
in one transaction, so that another process with the same record waits for the claim, and then sees
the row here (docs/adr/0020).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
)
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from shared import dead_letters, inbox
from shared.database import Database, Row, column, execute, is_away, sql
from shared.dead_letters import DeadLetter
from shared.records import Received, as_text

FIRST_PAUSE = timedelta(seconds=1)
# Whoever mends the cause need not wait longer than this to see it go on.
LONGEST_PAUSE = timedelta(seconds=60)


class NotNow(Exception):
    """What a handler raises for a record that cannot be handled until a person has mended
    something outside of it: it is set aside at once and says nothing about us or the record."""


class SetAside(SQLModel, table=True):
    """One record that waits: the first of its case for its next try, the others for the first."""

    __tablename__ = "set_aside"
    __table_args__ = (
        UniqueConstraint("consumer", "event_id", name="set_aside_once_per_event"),
        Index("set_aside_cases", "consumer", "case_id", "id"),
    )

    # Their order within a case.
    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    consumer: str = Field(sa_type=Text)
    case_id: UUID = Field(description="the subject of the event")
    event_id: UUID
    topic: str = Field(sa_type=Text)
    partition: int
    record_offset: int = Field(sa_type=BigInteger)
    key: bytes | None = Field(default=None, sa_type=LargeBinary)
    payload: bytes = Field(sa_type=LargeBinary)
    headers: str = Field(sa_type=Text)
    error: str | None = Field(
        default=None, sa_type=Text, description="the last one, in a few words; none: not tried yet"
    )
    attempts: int = 0
    set_aside_at: datetime | None = Field(
        default=None,
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now()),
    )
    next_try_at: datetime | None = Field(
        default=None,
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


# --- what may be set aside ------------------------------------------------------------------------


def may_go_aside(
    stuck: Mapping[UUID, BaseException], *, others_went_on: bool, in_a_row: int, most_in_a_row: int
) -> list[UUID]:
    """Of the cases whose record has failed on its own, those that may be set aside.

    Where the database as a whole is away, nothing may: what says so counts against a record only
    when others went on meanwhile. Where no other goes on, so many in a row at most: past this we
    are broken, not the records, and they stay where they are.
    """
    may = [case for case, error in stuck.items() if others_went_on or not is_away(error)]
    return may if others_went_on else may[: max(most_in_a_row - in_a_row, 0)]


def pause_after(attempts: int) -> timedelta:
    """How long a record rests that has failed so often since it was set aside."""
    doubled: timedelta = FIRST_PAUSE * 2 ** min(attempts, 16)
    return min(doubled, LONGEST_PAUSE)


# --- in the unit of work --------------------------------------------------------------------------

_WAITING = sql("""
    SELECT DISTINCT case_id FROM set_aside
    WHERE consumer = :consumer AND case_id = ANY (CAST(:cases AS uuid[]))
""")
# The order of the arrays is the order of the ids.
_PUT = sql("""
    INSERT INTO set_aside
        (consumer, case_id, event_id, topic, partition, record_offset, key, payload, headers,
         error, attempts, next_try_at)
    SELECT :consumer, case_id, event_id, topic, partition, record_offset, key, payload, headers,
           CASE n WHEN 1 THEN CAST(:error AS text) END, 0,
           now() + CASE WHEN n = 1 AND CAST(:error AS text) IS NOT NULL
                        THEN CAST(:pause AS interval) ELSE interval '0' END
    FROM unnest(CAST(:cases AS uuid[]), CAST(:events AS uuid[]), CAST(:topics AS text[]),
                CAST(:partitions AS int[]), CAST(:offsets AS bigint[]), CAST(:keys AS bytea[]),
                CAST(:payloads AS bytea[]), CAST(:headers AS text[])) WITH ORDINALITY
         AS r (case_id, event_id, topic, partition, record_offset, key, payload, headers, n)
    ORDER BY n
    ON CONFLICT DO NOTHING
""")


async def put_behind(
    session: AsyncSession, consumer: str, claimed: Sequence[Received]
) -> set[UUID]:
    """Of records that this transaction has claimed, put those aside whose case has some aside
    already; returns their event ids.

    Only after the claim: what another process has set aside by then is seen.
    """
    cases = {one.event.subject for one in claimed if one.event}
    if not cases:
        return set()
    values = {"consumer": consumer, "cases": list(cases)}
    waiting = set(column(await execute(session, _WAITING, values)))
    behind = [one for one in claimed if one.event and one.event.subject in waiting]
    return await _put(session, consumer, behind)


async def put(
    database: Database, consumer: str, records: Sequence[Received], error: str
) -> set[UUID]:
    """Set records of one case aside, of which the first cannot go on; returns their event ids.

    Those that were handled meanwhile, by another process, are none of them.
    """
    by_id = {one.event.id: one for one in records if one.event}
    async with database.transaction() as session:
        claimed = await inbox.claim(session, consumer, list(by_id))
        mine = [one for id_, one in by_id.items() if id_ in claimed]
        return await _put(session, consumer, mine, error=error)


async def _put(
    session: AsyncSession, consumer: str, records: Sequence[Received], *, error: str | None = None
) -> set[UUID]:
    events = [one.event for one in records if one.event]
    if not events:
        return set()
    ids = [event.id for event in events]
    values = {
        "consumer": consumer,
        "cases": [event.subject for event in events],
        "events": ids,
        "topics": [one.topic for one in records],
        "partitions": [one.partition for one in records],
        "offsets": [one.offset for one in records],
        "keys": [one.key for one in records],
        "payloads": [one.payload or b"" for one in records],
        "headers": [one.headers for one in records],
        "error": error,
        "pause": FIRST_PAUSE,
    }
    await execute(session, _PUT, values)
    await inbox.give_back(session, consumer, ids)
    return set(ids)


# --- taken up again -------------------------------------------------------------------------------

# The first of a case only, and none that another process has in hand.
_NEXT = sql("""
    SELECT id, consumer, case_id, event_id, topic, partition, record_offset, key, payload, headers,
           attempts
    FROM set_aside AS waits
    WHERE consumer = :consumer AND next_try_at <= now()
      AND NOT EXISTS (SELECT 1 FROM set_aside AS earlier
                      WHERE earlier.consumer = waits.consumer
                        AND earlier.case_id = waits.case_id AND earlier.id < waits.id)
    ORDER BY next_try_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
""")


async def next_due(session: AsyncSession, consumer: str) -> Row | None:
    """The record to be tried next, locked for this transaction; None if none is due."""
    rows = await execute(session, _NEXT, {"consumer": consumer})
    return rows[0] if rows else None


async def remove(session: AsyncSession, number: int) -> bool:
    """Take a record out, as it is handled or parked; returns whether it was there."""
    statement = sql("DELETE FROM set_aside WHERE id = :id RETURNING id")
    return bool(await execute(session, statement, {"id": number}))


async def failed_again(database: Database, record: Row, error: str) -> None:
    """Let a record rest that has failed once more."""
    await database.statement(
        sql("""
            UPDATE set_aside SET attempts = attempts + 1, error = :error,
                   next_try_at = now() + CAST(:pause AS interval)
            WHERE id = :id
        """),
        {"id": record.id, "error": error, "pause": pause_after(record.attempts + 1)},
    )


def letter_of(record: Row, error: BaseException) -> DeadLetter:
    """The dead letter of a record that was set aside and can never be handled."""
    return DeadLetter(
        consumer=record.consumer,
        record_id=str(record.event_id),
        event_id=record.event_id,
        topic=record.topic,
        partition=record.partition,
        record_offset=record.record_offset,
        key=record.key,
        payload=record.payload,
        headers=record.headers,
        error=as_text(error),
    )


async def due_consumers(database: Database) -> set[str]:
    """The consumers of this service of which some record may be due: one cheap question."""
    statement = sql("SELECT DISTINCT consumer FROM set_aside WHERE next_try_at <= now()")
    return set(column(await database.statement(statement)))


# --- seen by people -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aside:
    """One case that waits: since when, behind what, and how much of it."""

    consumer: str
    case_id: UUID
    records: int
    attempts: int
    error: str
    since: datetime


_LISTED = sql("""
    SELECT consumer, case_id, count(*) AS records, min(set_aside_at) AS since,
           (array_agg(attempts ORDER BY id))[1] AS attempts,
           coalesce((array_agg(error ORDER BY id))[1], 'its turn comes next') AS error
    FROM set_aside GROUP BY consumer, case_id ORDER BY since, case_id
""")


async def listed(session: AsyncSession) -> list[Aside]:
    """The cases that wait, the oldest first."""
    return [Aside(**dict(row)) for row in await execute(session, _LISTED)]


def in_words(waiting: Sequence[Aside]) -> list[str]:
    """What waits, one sentence for each consumer; without personal data."""
    sentences = []
    for consumer in sorted({one.consumer for one in waiting}):
        mine = [one for one in waiting if one.consumer == consumer]
        cases, records = len(mine), sum(one.records for one in mine)
        oldest = min(mine, key=lambda one: one.since)
        who = f"1 case of {consumer} waits" if cases == 1 else f"{cases} cases of {consumer} wait"
        behind = "a record" if cases == 1 else "records"
        sentences.append(
            f"{who} behind {behind} that cannot go on: {oldest.error} "
            f"({records} set aside, the oldest since {oldest.since:%Y-%m-%d %H:%M} UTC)"
        )
    return sentences


async def retry_now(session: AsyncSession) -> int:
    """Let every case be tried at once, as a person has mended the cause; returns how many."""
    rows = await execute(
        session, sql("UPDATE set_aside SET next_try_at = now() RETURNING consumer, case_id")
    )
    return len({(row.consumer, row.case_id) for row in rows})


async def give_up(session: AsyncSession, consumer: str, case_id: UUID) -> DeadLetter | None:
    """Make the first record of a case a dead letter, as a person has decided; those behind it go
    on. Returns the letter; None if nothing of this case waits."""
    rows = await execute(
        session,
        sql("""
            DELETE FROM set_aside
            WHERE id = (SELECT id FROM set_aside
                        WHERE consumer = :consumer AND case_id = :case_id ORDER BY id LIMIT 1)
            RETURNING id, consumer, case_id, event_id, topic, partition, record_offset,
                      key, payload, headers, attempts, error
        """),
        {"consumer": consumer, "case_id": case_id},
    )
    if not rows:
        return None
    letter = letter_of(rows[0], RuntimeError(f"given up by hand: {rows[0].error}"))
    await dead_letters.park(session, letter)
    return letter
