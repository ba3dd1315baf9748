"""Delivery: a message is stored before anybody is called, and each call before it is made.

What a provider may have taken is never blindly sent again: after a crash the attempt is repeated
only where the provider knows our id; elsewhere it is ``unknown`` and the next channel is tried.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import texts
from services.notification.channels import (
    Channel,
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from shared.database import Database, execute
from shared.events import OfferMade
from shared.health import Loop

log = structlog.get_logger("delivery")

ATTEMPTS = Counter(
    "jangkau_attempts_total",
    "Calls to providers by what came of them. Rising failures: look at the provider.",
    ["channel", "outcome"],
)

POLL = timedelta(seconds=1)
FIRST_RETRY = timedelta(seconds=2)
LONGEST_RETRY = timedelta(minutes=2)

_QUEUE = text("""
    INSERT INTO messages
        (id, event_id, case_id, offer_id, recipient, purpose, district, drill, phone, email,
         short_text, subject, long_text, state, channel, error, attempts, reported_at, send_before)
    SELECT *
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:event_ids AS uuid[]), CAST(:case_ids AS uuid[]),
        CAST(:offer_ids AS uuid[]), CAST(:recipients AS uuid[]), CAST(:purposes AS text[]),
        CAST(:districts AS text[]), CAST(:drills AS bool[]), CAST(:phones AS text[]),
        CAST(:emails AS text[]), CAST(:short_texts AS text[]), CAST(:subjects AS text[]),
        CAST(:long_texts AS text[]), CAST(:states AS text[]), CAST(:channels AS text[]),
        CAST(:errors AS text[]), CAST(:attempts AS int[]), CAST(:reported_at AS timestamptz[]),
        CAST(:send_before AS timestamptz[]))
    ON CONFLICT (event_id, recipient, purpose) DO NOTHING
""")


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


async def queue_offers(
    session: AsyncSession, offers: Sequence[OfferMade], *, channels: Sequence[Channel]
) -> None:
    """Store one message for each offer; the delivery loops send it after the commit."""
    rows = [_message(offer, channels) for offer in offers]
    columns = {
        "ids": "id", "event_ids": "event_id", "case_ids": "case_id", "offer_ids": "offer_id",
        "recipients": "recipient", "purposes": "purpose", "districts": "district",
        "drills": "drill", "phones": "phone", "emails": "email", "short_texts": "short_text",
        "subjects": "subject", "long_texts": "long_text", "states": "state",
        "channels": "channel", "errors": "error", "attempts": "attempts",
        "reported_at": "reported_at", "send_before": "send_before",
    }  # fmt: skip
    await execute(
        session, _QUEUE, {array: [row[column] for row in rows] for array, column in columns.items()}
    )


def _message(event: OfferMade, channels: Sequence[Channel]) -> dict[str, Any]:
    offer = event.data
    written = texts.offer(offer, drill=event.drill)
    channel = next_channel(channels, phone=offer.volunteer.phone, email=offer.volunteer.email)
    return {
        "id": uuid7(),
        "event_id": event.id,
        "case_id": UUID(event.subject),
        "offer_id": offer.offer_id,
        "recipient": offer.volunteer.id,
        "purpose": "offer",
        "district": event.district,
        "drill": event.drill,
        "phone": offer.volunteer.phone,
        "email": offer.volunteer.email,
        "short_text": written.short_text,
        "subject": written.subject,
        "long_text": written.long_text,
        "state": "queued" if channel else "failed",
        "channel": channel,
        "error": None if channel else "no channel has an address of this volunteer",
        "attempts": 0,
        "reported_at": offer.reported_at,
        "send_before": offer.respond_by,
    }


@dataclass(frozen=True)
class Due:
    """A message that is about to be sent, with the attempt that has been stored for it."""

    message_id: UUID
    attempt_id: UUID
    attempts: int
    phone: str | None
    email: str | None
    outgoing: Outgoing


@dataclass(frozen=True)
class Outcome:
    """What came of one call: ``state`` of the attempt, and how the message goes on."""

    due: Due
    state: str
    provider_id: str | None = None
    error: str | None = None
    retry_in: timedelta | None = None


# Past its deadline nothing is sent any more; the database's clock decides, right before the call.
_EXPIRE = text("""
    UPDATE messages SET state = 'expired', error = 'its deadline passed before it could be sent'
    WHERE id IN (
        SELECT id FROM messages
        WHERE state = 'queued' AND channel = :channel AND send_before <= now()
        LIMIT 500 FOR UPDATE SKIP LOCKED)
""")
_TAKE = text("""
    WITH due AS (
        SELECT id FROM messages
        WHERE state = 'queued' AND channel = :channel AND next_attempt_at <= now()
          AND send_before > now()
        ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE messages m SET state = 'sending', attempts = m.attempts + 1
    FROM due WHERE m.id = due.id
    RETURNING m.id, m.attempts, m.phone, m.email, m.short_text, m.subject, m.long_text
""")
_ANNOUNCE = text("""
    INSERT INTO attempts (id, message_id, channel, state, lease_until)
    SELECT id, message_id, :channel, 'sending', now() + CAST(:lease AS interval)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:message_ids AS uuid[])) AS a (id, message_id)
""")
# Only an attempt that is still ours: another process may have given it up as unknown meanwhile.
_END_ATTEMPTS = text("""
    UPDATE attempts a
    SET state = o.state, provider_id = o.provider_id, error = o.error, ended_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:provider_ids AS text[]),
                CAST(:errors AS text[])) AS o (id, state, provider_id, error)
    WHERE a.id = o.id AND a.state IN ('sending', 'unknown')
""")
_MOVE = text("""
    UPDATE messages m
    SET state = o.state, channel = coalesce(o.channel, m.channel), error = o.error,
        next_attempt_at = now() + CAST(o.retry_in AS interval),
        sent_at = CASE o.state WHEN 'sent' THEN clock_timestamp() ELSE m.sent_at END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:channels AS text[]),
                CAST(:errors AS text[]), CAST(:retries AS interval[]))
         AS o (id, state, channel, error, retry_in)
    WHERE m.id = o.id AND m.state = 'sending'
""")
_ABANDONED = text("""
    SELECT a.id, a.message_id, m.attempts, m.phone, m.email
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
        self._wake = database.wake_on_commit()

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
        outcomes = await asyncio.gather(*(self._call(one) for one in due))
        await self._settle(outcomes)
        return len(due)

    async def _take(self) -> list[Due]:
        async with self.database.transaction(wake=False) as session:
            rows = (
                await execute(
                    session, _TAKE, {"channel": self.channel.name, "limit": self.concurrency}
                )
            ).all()
            if not rows:
                return []
            due = [self._due(row) for row in rows]
            await execute(
                session,
                _ANNOUNCE,
                {
                    "channel": self.channel.name,
                    "lease": self.lease,
                    "ids": [one.attempt_id for one in due],
                    "message_ids": [one.message_id for one in due],
                },
            )
        return due

    def _due(self, row: Any) -> Due:
        return Due(
            message_id=row.id,
            attempt_id=uuid7(),
            attempts=row.attempts,
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
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                provider_id = await self.channel.send(due.outgoing)
        except PermanentFailure as error:
            return Outcome(due, "failed", error=str(error))
        except TransientFailure as error:
            retry_in = max(error.retry_after or timedelta(0), backoff(due.attempts))
            return Outcome(due, "failed", error=str(error), retry_in=retry_in)
        except (UnknownOutcome, TimeoutError) as error:
            return Outcome(due, "unknown", error=str(error) or "no answer in time")
        return Outcome(due, "sent", provider_id=provider_id)

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        async with self.database.transaction() as session:
            await execute(
                session,
                _END_ATTEMPTS,
                {
                    "ids": [o.due.attempt_id for o in outcomes],
                    "states": [o.state for o in outcomes],
                    "provider_ids": [o.provider_id for o in outcomes],
                    "errors": [o.error for o in outcomes],
                },
            )
            await self._move(session, outcomes)
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

    async def _move(self, session: AsyncSession, outcomes: Sequence[Outcome]) -> None:
        moves = [self._next_step(outcome) for outcome in outcomes]
        await execute(
            session,
            _MOVE,
            {
                "ids": [o.due.message_id for o in outcomes],
                "states": [move["state"] for move in moves],
                "channels": [move["channel"] for move in moves],
                "errors": [o.error for o in outcomes],
                "retries": [o.retry_in or timedelta(0) for o in outcomes],
            },
        )

    def _next_step(self, outcome: Outcome) -> Mapping[str, str | None]:
        """Sent; or again on this channel; or on the next one; or the end of the road."""
        if outcome.state == "sent":
            return {"state": "sent", "channel": None}
        again_is_safe = outcome.state == "unknown" and self.channel.supports_idempotency
        if outcome.retry_in is not None or again_is_safe:
            return {"state": "queued", "channel": None}
        other = next_channel(
            self.channels,
            phone=outcome.due.phone,
            email=outcome.due.email,
            after=self.channel.name,
        )
        if other is not None:
            return {"state": "queued", "channel": other}
        return {"state": outcome.state, "channel": None}

    async def reconcile(self) -> None:
        """Give up attempts whose process has died, and let messages expire."""
        async with self.database.transaction() as session:
            rows = (await execute(session, _ABANDONED, {"channel": self.channel.name})).all()
            if rows:
                outcomes = [
                    Outcome(
                        Due(
                            row.message_id,
                            row.id,
                            row.attempts,
                            row.phone,
                            row.email,
                            Outgoing(row.message_id, "", "", "", ""),
                        ),
                        "unknown",
                        error="the process died before the provider had answered",
                    )
                    for row in rows
                ]
                await execute(
                    session,
                    _END_ATTEMPTS,
                    {
                        "ids": [row.id for row in rows],
                        "states": ["unknown"] * len(rows),
                        "provider_ids": [None] * len(rows),
                        "errors": [outcome.error for outcome in outcomes],
                    },
                )
                await self._move(session, outcomes)
                log.warning("attempts.abandoned", channel=self.channel.name, count=len(rows))
            await execute(session, _EXPIRE, {"channel": self.channel.name})


def backoff(attempts: int) -> timedelta:
    """How long to wait after this many attempts: 2 s, 4 s, 8 s … at most 2 min."""
    doubled: timedelta = FIRST_RETRY * 2 ** min(attempts - 1, 10)
    return min(doubled, LONGEST_RETRY)
