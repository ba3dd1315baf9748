"""Delivery: a message is stored before anybody is called, and each call before it is made.

What a provider may have taken is never blindly sent again: after a crash the attempt is repeated
only where the provider knows our id; elsewhere it is ``unknown`` and the next channel is tried.

What is over is not sent (``offers.OVER``), up to the moment at which a message is taken, and once
more before the call if a second or more has passed since. What remains is that second and the call
itself: a message can go out although its offer was closed while the provider took it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import offers
from services.notification.channels import (
    Channel,
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.letters import Letter
from services.notification.offers import OVER
from shared.database import Database, brief, execute, is_transient, sql, wakes
from shared.health import Loop

log = structlog.get_logger("delivery")

ATTEMPTS = Counter(
    "jangkau_attempts_total",
    "Calls to providers by what came of them. Rising failures: look at the provider.",
    ["channel", "outcome"],
)

WORK = "messages"  # what wakes the delivery
POLL = timedelta(seconds=1)
# So long between taking a message and calling its provider that it is looked at once more.
HELD_UP = timedelta(seconds=1)
FIRST_RETRY = timedelta(seconds=2)
LONGEST_RETRY = timedelta(minutes=2)

_QUEUE = sql(f"""
    WITH stored AS (
        INSERT INTO messages
            (id, event_id, case_id, offer_id, recipient, purpose, answer_code, district, drill,
             phone, email, short_text, subject, long_text, channel, error, attempts, reported_at,
             send_before, created_at, state)
        SELECT m.id, m.event_id, m.case_id, m.offer_id, m.recipient, m.purpose, m.answer_code,
               m.district, m.drill, m.phone, m.email, m.short_text, m.subject, m.long_text,
               m.channel, m.error, 0, m.reported_at, m.send_before, m.created_at,
               CASE WHEN {OVER} THEN 'withdrawn' WHEN m.channel IS NULL THEN 'failed'
                    ELSE 'queued' END
        FROM (
            -- Later than what was heard before in the same transaction.
            SELECT written.*, clock_timestamp() AS created_at
            FROM unnest(
                CAST(:ids AS uuid[]), CAST(:event_ids AS uuid[]), CAST(:case_ids AS uuid[]),
                CAST(:offer_ids AS uuid[]), CAST(:recipients AS text[]), CAST(:purposes AS text[]),
                CAST(:answer_codes AS text[]), CAST(:districts AS text[]), CAST(:drills AS bool[]),
                CAST(:phones AS text[]), CAST(:emails AS text[]), CAST(:short_texts AS text[]),
                CAST(:subjects AS text[]), CAST(:long_texts AS text[]), CAST(:channels AS text[]),
                CAST(:errors AS text[]), CAST(:reported_at AS timestamptz[]),
                CAST(:send_before AS timestamptz[]))
            AS written (id, event_id, case_id, offer_id, recipient, purpose, answer_code, district,
                        drill, phone, email, short_text, subject, long_text, channel, error,
                        reported_at, send_before)
        ) AS m
        ON CONFLICT (event_id, recipient, purpose) DO NOTHING
        RETURNING case_id, offer_id, district, drill, purpose, state
    )
    SELECT case_id, offer_id, district, drill, now() AS at
    FROM stored WHERE state = 'failed' AND purpose IN ('offer', 'assigned')
""")  # noqa: S608 - our own text, no value in it


def next_channel(
    channels: Sequence[Channel], *, phone: str | None, email: str | None, after: str | None = None
) -> str | None:
    """The first channel behind ``after`` that can reach the person; None if none is left."""
    names = [channel.name for channel in channels]
    rest = channels[names.index(after) + 1 :] if after in names else channels
    for channel in rest:
        if channel.address_of(phone=phone, email=email):
            return channel.name
    return None


async def queue(
    session: AsyncSession, letters: Sequence[Letter], *, channels: Sequence[Channel]
) -> None:
    """Store messages in one statement; the delivery loops send them after the commit.

    An offer to somebody whom no channel can reach is given up here: ``offer.unreachable``.
    """
    if not letters:
        return
    rows = [_row(letter, channels) for letter in letters]
    columns = {
        "ids": "id", "event_ids": "event_id", "case_ids": "case_id", "offer_ids": "offer_id",
        "recipients": "recipient", "purposes": "purpose", "answer_codes": "answer_code",
        "districts": "district", "drills": "drill", "phones": "phone", "emails": "email",
        "short_texts": "short_text", "subjects": "subject", "long_texts": "long_text",
        "channels": "channel", "errors": "error", "reported_at": "reported_at",
        "send_before": "send_before",
    }  # fmt: skip
    nobody = await execute(
        session, _QUEUE, {array: [row[column] for row in rows] for array, column in columns.items()}
    )
    await offers.give_up(session, nobody, reason="no_address")
    wakes(session, WORK)


def _row(letter: Letter, channels: Sequence[Channel]) -> dict[str, Any]:
    channel = next_channel(channels, phone=letter.phone, email=letter.email)
    return {
        "id": uuid7(),
        "event_id": letter.event.id,
        "case_id": letter.event.subject,
        "offer_id": letter.offer_id,
        "recipient": letter.recipient,
        "purpose": letter.purpose,
        "answer_code": letter.answer_code,
        "district": letter.event.district,
        "drill": letter.event.drill,
        "phone": letter.phone,
        "email": letter.email,
        "short_text": letter.texts.short_text,
        "subject": letter.texts.subject,
        "long_text": letter.texts.long_text,
        "channel": channel,
        "error": None if channel else "no channel has an address of this person",
        "reported_at": letter.reported_at,
        "send_before": letter.send_before,
    }


@dataclass(frozen=True)
class Due:
    """A message that is about to be sent, with the attempt that has been stored for it."""

    message_id: UUID
    attempt_id: UUID
    attempts: int
    taken_at: float
    phone: str | None
    email: str | None
    outgoing: Outgoing


@dataclass(frozen=True)
class Outcome:
    """What came of one call: ``state`` of the attempt, and how the message goes on.

    ``end`` is the message's own end where no provider was called any more.
    """

    due: Due
    state: str
    provider_id: str | None = None
    error: str | None = None
    retry_in: timedelta | None = None
    end: str | None = None


# Past its deadline nothing is sent any more; the database's clock decides, right before the call.
# An offer that was not even tried was never asked: assignment may ask that volunteer later.
_EXPIRE = sql("""
    WITH expired AS (
        UPDATE messages SET state = 'expired', error = 'its deadline passed before it could be sent'
        WHERE id IN (
            SELECT id FROM messages
            WHERE state = 'queued' AND send_before <= now()
            LIMIT 500 FOR UPDATE SKIP LOCKED)
        RETURNING case_id, offer_id, district, drill, purpose, attempts
    )
    SELECT case_id, offer_id, district, drill, now() AS at
    FROM expired WHERE purpose = 'offer' AND attempts = 0
""")
# Taken and announced in one statement: no provider is called for a message whose attempt is not
# stored, and no attempt is stored for a message that another process has taken. What is over is
# looked at here too: a call that failed can put a message back after its withdrawal.
_TAKE = sql(f"""
    WITH due AS (
        SELECT m.id FROM messages m
        WHERE m.state = 'queued' AND m.channel = :channel AND m.next_attempt_at <= now()
          AND m.send_before > now() AND NOT {OVER}
        ORDER BY m.next_attempt_at LIMIT :limit FOR UPDATE OF m SKIP LOCKED
    ), taken AS (
        UPDATE messages m SET state = 'sending', attempts = m.attempts + 1
        FROM due WHERE m.id = due.id
        RETURNING m.id, m.attempts, m.phone, m.email, m.short_text, m.subject, m.long_text
    ), announced AS (
        INSERT INTO attempts (id, message_id, channel, state, lease_until)
        SELECT gen_random_uuid(), id, :channel, 'sending', now() + CAST(:lease AS interval)
        FROM taken
        RETURNING id, message_id
    )
    SELECT taken.*, announced.id AS attempt_id
    FROM taken JOIN announced ON announced.message_id = taken.id
""")  # noqa: S608 - our own text, no value in it
# Between taking a message and calling its provider lie microseconds, unless this process was held
# up; then its deadline or the end of its offer may have come meanwhile.
_STILL_DUE = sql(f"""
    SELECT m.send_before > now() AS in_time, {OVER} AS over FROM messages m WHERE m.id = :message
""")  # noqa: S608 - our own text, no value in it
# The attempt ends if it is still ours: another process may have given it up as unknown meanwhile.
# The message moves on only if this is still its newest attempt: a process that was stopped past its
# lease must not undo what another has done since. What an earlier call may have delivered is
# unknown, not failed. Returned are the offers that have just ended without having reached anybody.
_SETTLE = sql(f"""
    WITH outcome AS (
        SELECT * FROM unnest(
            CAST(:attempt_ids AS uuid[]), CAST(:message_ids AS uuid[]),
            CAST(:attempt_states AS text[]), CAST(:provider_ids AS text[]),
            CAST(:errors AS text[]), CAST(:states AS text[]), CAST(:channels AS text[]),
            CAST(:retries AS interval[]), CAST(:attempts AS int[]))
        AS o (attempt_id, message_id, attempt_state, provider_id, error, state, channel, retry_in,
              attempts)
    ), ended AS (
        UPDATE attempts a
        SET state = o.attempt_state, provider_id = o.provider_id, error = o.error,
            ended_at = clock_timestamp()
        FROM outcome o
        WHERE a.id = o.attempt_id AND a.state IN ('sending', 'unknown')
    ), moved AS (
        UPDATE messages m
        SET state = CASE
                WHEN o.state = 'queued' AND {OVER} THEN 'withdrawn'
                WHEN o.state = 'failed' AND EXISTS (
                    SELECT FROM attempts earlier
                    WHERE earlier.message_id = m.id AND earlier.id <> o.attempt_id
                      AND earlier.state = 'unknown') THEN 'unknown'
                ELSE o.state END,
            channel = coalesce(o.channel, m.channel), error = o.error,
            next_attempt_at = now() + o.retry_in,
            sent_at = CASE o.state WHEN 'sent' THEN clock_timestamp() ELSE m.sent_at END
        FROM outcome o
        WHERE m.id = o.message_id
          AND ((m.state = 'sending' AND m.attempts = o.attempts)
               -- It has gone out after all: not once more.
               OR (o.state = 'sent' AND m.state IN ('queued', 'unknown', 'withdrawn')))
        RETURNING m.case_id, m.offer_id, m.district, m.drill, m.purpose, m.state
    )
    SELECT case_id, offer_id, district, drill, now() AS at
    FROM moved WHERE state = 'failed' AND purpose IN ('offer', 'assigned')
""")  # noqa: S608 - our own text, no value in it
_ABANDONED = sql("""
    SELECT m.id, m.attempts, m.phone, m.email, m.short_text, m.subject, m.long_text,
           a.id AS attempt_id
    FROM attempts a JOIN messages m ON m.id = a.message_id
    WHERE a.state = 'sending' AND a.channel = :channel AND a.lease_until < now()
    ORDER BY a.id LIMIT 500 FOR UPDATE OF a SKIP LOCKED
""")


class Delivery:
    """Sends the messages of one channel; each channel has its own, so none holds up another."""

    def __init__(
        self,
        database: Database,
        channel: Channel,
        channels: Sequence[Channel],
        *,
        concurrency: int,
        timeout: timedelta,
        lease: timedelta,
    ) -> None:
        self.database = database
        self.channel = channel
        self.channels = channels
        self.concurrency = concurrency
        self.timeout = timeout
        self.lease = lease
        self._wake = database.wake_on_commit(WORK)

    async def run(self, loop: Loop) -> None:
        """Send what is due, until cancelled; woken by local commits."""
        swept_at = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            loop.beat()
            self._wake.clear()
            if clock() - swept_at >= POLL.total_seconds():
                await self.reconcile()
                swept_at = clock()
            sent = await self.send_due()
            if sent < self.concurrency:
                try:
                    async with asyncio.timeout(POLL.total_seconds()):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def send_due(self) -> int:
        """Take what is due, call the provider for each, store what came of it; returns how many."""
        due = await self._take()
        if not due:
            return 0
        pending = {asyncio.create_task(self._call(one)) for one in due}
        try:
            while pending:
                # Stored as they end: a slow one must not leave the others unknown if we die now.
                ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                await self._settle([call.result() for call in ended])
        finally:
            for call in pending:
                call.cancel()
        return len(due)

    async def _take(self) -> list[Due]:
        taken_at = time.monotonic()
        rows = await self.database.statement(
            _TAKE,
            {"channel": self.channel.name, "limit": self.concurrency, "lease": self.lease},
        )
        return [self._due(row, taken_at=taken_at) for row in rows]

    def _due(self, row: Any, *, taken_at: float) -> Due:
        return Due(
            message_id=row.id,
            attempt_id=row.attempt_id,
            attempts=row.attempts,
            taken_at=taken_at,
            phone=row.phone,
            email=row.email,
            outgoing=Outgoing(
                idempotency_key=row.id,
                address=self.channel.address_of(phone=row.phone, email=row.email) or "",
                short_text=row.short_text,
                subject=row.subject,
                long_text=row.long_text,
            ),
        )

    async def _call(self, due: Due) -> Outcome:
        held_up_s = time.monotonic() - due.taken_at
        if held_up_s > (self.lease - self.timeout).total_seconds():
            # We were stopped in between; others may have given this attempt up already.
            return Outcome(
                due, "failed", error="too late for its lease", retry_in=backoff(due.attempts)
            )
        if held_up_s > HELD_UP.total_seconds():
            overtaken = await self._overtaken(due)
            if overtaken is not None:
                return overtaken
        return await self._send(due)

    async def _overtaken(self, due: Due) -> Outcome | None:
        """The end of a message whose deadline, or the end of its offer, came before the call."""
        try:
            (row,) = await self.database.statement(_STILL_DUE, {"message": due.message_id})
        except Exception as error:
            if not is_transient(error):
                raise
            return Outcome(due, "failed", error=brief(error), retry_in=backoff(due.attempts))
        if row.over:
            return Outcome(due, "failed", error="its offer is over", end="withdrawn")
        if not row.in_time:
            return Outcome(due, "failed", error="its deadline has passed", end="expired")
        return None

    async def _send(self, due: Due) -> Outcome:
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                provider_id = await self.channel.send(due.outgoing)
        except PermanentFailure as error:
            return Outcome(due, "failed", error=str(error))
        except TransientFailure as error:
            retry_in = max(error.retry_after or timedelta(0), backoff(due.attempts))
            return Outcome(due, "failed", error=str(error), retry_in=retry_in)
        except (UnknownOutcome, TimeoutError) as error:
            return self._unknown(due, str(error) or "no answer in time")
        except Exception as error:
            # What a channel chokes on must not take down the messages that are sent beside it.
            log.exception("channel.failed", channel=self.channel.name)
            return self._unknown(due, f"{type(error).__name__}: {error}"[:500])
        return Outcome(due, "sent", provider_id=provider_id)

    def _unknown(self, due: Due, error: str) -> Outcome:
        """Nobody knows whether it went out: again only where the provider knows our id."""
        again = backoff(due.attempts) if self.channel.supports_idempotency else None
        return Outcome(due, "unknown", error=error, retry_in=again)

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        settlement = self._settlement(outcomes)
        if "failed" in settlement["states"]:
            # The end of an offer and the event about it: both or neither.
            async with self.database.transaction() as session:
                await self._store(session, settlement)
        else:
            await self.database.statement(_SETTLE, settlement)
        # A message that goes on to another channel wakes that channel's loop.
        if any(settlement["channels"]):
            self.database.wake(WORK)
        for outcome in outcomes:
            ATTEMPTS.labels(self.channel.name, outcome.state).inc()
            if outcome.state != "sent":
                log.warning(
                    "attempt.failed",
                    channel=self.channel.name,
                    state=outcome.state,
                    message=str(outcome.due.message_id),
                    attempts=outcome.due.attempts,
                )

    async def _store(self, session: AsyncSession, settlement: dict[str, Any]) -> None:
        nobody = await execute(session, _SETTLE, settlement)
        await offers.give_up(session, nobody, reason="no_channel_left")

    def _settlement(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        steps = [self._next_step(outcome) for outcome in outcomes]
        return {
            "attempt_ids": [outcome.due.attempt_id for outcome in outcomes],
            "message_ids": [outcome.due.message_id for outcome in outcomes],
            "attempt_states": [outcome.state for outcome in outcomes],
            "provider_ids": [outcome.provider_id for outcome in outcomes],
            "errors": [outcome.error for outcome in outcomes],
            "states": [state for state, _ in steps],
            "channels": [channel for _, channel in steps],
            "attempts": [outcome.due.attempts for outcome in outcomes],
            "retries": [outcome.retry_in or timedelta(0) for outcome in outcomes],
        }

    def _next_step(self, outcome: Outcome) -> tuple[str, str | None]:
        """Sent; or over; or again on this channel; or on the next one; or the end of the road.

        Returns the message's new state, and the channel if it is another one.
        """
        if outcome.state == "sent" or outcome.end is not None:
            return outcome.end or "sent", None
        if outcome.retry_in is not None:
            return "queued", None
        other = next_channel(
            self.channels,
            phone=outcome.due.phone,
            email=outcome.due.email,
            after=self.channel.name,
        )
        return ("queued", other) if other is not None else (outcome.state, None)

    async def reconcile(self) -> None:
        """Give up attempts whose process has died, and let messages expire."""
        async with self.database.transaction() as session:
            rows = await execute(session, _ABANDONED, {"channel": self.channel.name})
            if rows:
                outcomes = [
                    self._unknown(
                        self._due(row, taken_at=0),
                        "the process died before the provider had answered",
                    )
                    for row in rows
                ]
                await self._store(session, self._settlement(outcomes))
                wakes(session, WORK)
                log.warning("attempts.abandoned", channel=self.channel.name, count=len(rows))
            unsent = await execute(session, _EXPIRE)
            await offers.give_up(session, unsent, reason="not_sent_in_time")


def backoff(attempts: int) -> timedelta:
    """How long to wait after this many attempts: 2 s, 4 s, 8 s … at most 2 min."""
    doubled: timedelta = FIRST_RETRY * 2 ** min(attempts - 1, 10)
    return min(doubled, LONGEST_RETRY)
