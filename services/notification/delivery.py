"""Delivery: a message is stored before anybody is called, and each call before it is made.

What a provider may have taken is never blindly sent again. It is ``unknown``: asked about where the
provider can be asked, repeated where the provider knows our id, and else the next channel is tried.
What a provider refuses for now is tried again, later and later; what it refuses for good, and what
it cannot deliver, goes by the next channel.

What is over is not sent (``offers.OVER``), up to the moment at which a message is taken, and once
more before the call if a second or more has passed since. What remains is that second and the call
itself: a message can go out although its offer was closed while the provider took it.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import budget, offers, receipts
from services.notification.channels import (
    Channel,
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.messages import WORK
from services.notification.offers import BROUGHT, OVER
from services.notification.routes import TRIED, Routes, is_metered
from shared.database import Database, brief, execute, is_transient, sql, wakes
from shared.health import Loop
from shared.words import storable

log = structlog.get_logger("delivery")

ATTEMPTS = Counter(
    "jangkau_attempts_total",
    "Calls to providers by what came of them. Rising failures: look at the provider.",
    ["channel", "outcome"],
)

POLL = timedelta(seconds=1)
# So long between taking a message and calling its provider that it is looked at once more.
HELD_UP = timedelta(seconds=1)
FIRST_RETRY = timedelta(seconds=2)
LONGEST_RETRY = timedelta(minutes=2)
# After so many refusals for now (half a minute) another channel is the better way, if there is one.
REFUSALS = 4
# A provider that wants to be left alone is, but not for longer than this without another look.
LONGEST_PAUSE = timedelta(minutes=2)
# A provider lists what it has taken a little later; so often it is asked.
FIRST_LOOK_UP = timedelta(seconds=2)
LOOK_UPS = 5
# Calls that end within this are stored together.
GATHER_S = 0.003
# When we are told to stop: well within the time that a service has for it.
FINISH_S = 5
# Of what a provider answers: ids are shorter, and an index takes no more.
ID_AT_MOST = 200
ERROR_AT_MOST = 500
# Who must have been reached: without a receipt in time the next channel is tried.
WATCHED = ("offer", "assigned", "escalation", "ping")


@dataclass(frozen=True)
class Due:
    """A message that is about to be sent, with the attempt that has been stored for it.

    ``left`` is how long it is still worth sending; ``started_at`` is that of the attempt.
    """

    message_id: UUID
    attempt_id: UUID
    attempts: int
    look_ups: int
    taken_at: float
    left: timedelta
    started_at: datetime
    routes: tuple[str, ...]
    tried: tuple[str, ...]
    outgoing: Outgoing


@dataclass(frozen=True)
class Outcome:
    """What came of one call: ``state`` of the attempt, and how the message goes on.

    ``end`` is the message's own end where no provider was called any more; ``look_up_in`` is when
    the provider is asked what became of it. With ``leave`` another channel is the better way, and
    ``retry_in`` is for where there is none.
    """

    due: Due
    state: str
    provider_id: str | None = None
    error: str | None = None
    retry_in: timedelta | None = None
    look_up_in: timedelta | None = None
    leave: bool = False
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
    SELECT case_id, offer_id, district, drill, purpose, now() AS at
    FROM expired WHERE purpose IN ('offer', 'ping') AND attempts = 0
""")
# What a call needs to know of its message ``m``.
_MESSAGE = """m.id, m.district, m.phone, m.email, m.short_text, m.subject, m.long_text, m.routes,
              m.attempts, m.look_ups, m.send_before"""
# What is over is looked at here too: a call that failed can put a message back after its end.
_DUE = f"""
    SELECT m.id, m.district, m.segments, m.urgent, m.purpose, now() AS now FROM messages m
    WHERE m.state = 'queued' AND m.channel = :channel AND m.next_attempt_at <= now()
      AND m.send_before > now() AND NOT {OVER}
      -- Somebody may have stopped a way meanwhile; before routes were, there are none.
      AND (m.routes = '{{}}' OR m.channel = ANY (m.routes))
      -- Whatever put it here: what may have brought it is not called again, except where the
      -- provider knows our id and nobody has heard the end of the call.
      AND (m.attempts = 0 OR NOT EXISTS (
          SELECT FROM attempts earlier
          WHERE earlier.message_id = m.id AND earlier.channel = :channel AND {BROUGHT}
            AND NOT (CAST(:repeats AS boolean) AND earlier.receipt IS NULL
                     AND earlier.state = 'unknown')))
    ORDER BY m.next_attempt_at LIMIT :limit FOR UPDATE OF m SKIP LOCKED
"""  # noqa: S608 - our own text, no value in it
# Taken and announced in one statement: no provider is called for a message whose attempt is not
# stored, and no attempt is stored for a message that another process has taken.
_ANNOUNCE = f"""
    WITH due AS (<due>), taken AS (
        UPDATE messages m SET state = 'sending', attempts = m.attempts + 1
        FROM due WHERE m.id = due.id
        RETURNING {_MESSAGE}, m.segments
    ), announced AS (
        INSERT INTO attempts (id, message_id, channel, state, lease_until, started_at, segments)
        SELECT gen_random_uuid(), id, :channel, 'sending',
               -- The moment at which a budget was spent, so that it is given back to the same day.
               clock_timestamp() + CAST(:lease AS interval), now(),
               CASE WHEN CAST(:costs AS boolean) THEN segments ELSE 0 END
        FROM taken
        RETURNING id, message_id, started_at
    )
    SELECT {_MESSAGE}, {TRIED} AS tried, announced.id AS attempt_id, announced.started_at,
           m.send_before - now() AS left
    FROM taken m JOIN announced ON announced.message_id = m.id
"""  # noqa: S608 - our own text, no value in it
_TAKE = sql(_ANNOUNCE.replace("<due>", _DUE))
_TAKE_THESE = sql(_ANNOUNCE.replace("<due>", "SELECT unnest(CAST(:ids AS uuid[])) AS id"))
_WITHIN_BUDGET = sql(_DUE)
# The day's budget is spent: by another channel, or not at all.
_REFUSE = sql(f"""
    UPDATE messages m
    SET state = CASE WHEN o.channel IS NOT NULL THEN 'queued'
                     WHEN {offers.may_have_arrived()} THEN 'unknown' ELSE 'failed' END,
        channel = coalesce(o.channel, m.channel), error = 'the SMS budget of today is spent',
        next_attempt_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:channels AS text[])) AS o (id, channel)
    WHERE m.id = o.id
    RETURNING m.id, m.case_id, m.offer_id, m.district, m.drill, m.purpose, m.state, now() AS at
""")  # noqa: S608 - our own text, no value in it
# Between taking a message and calling its provider lie microseconds, unless this process was held
# up; then its deadline or the end of its offer may have come meanwhile.
_STILL_DUE = sql(f"""
    SELECT m.send_before > now() AS in_time, {OVER} AS over FROM messages m WHERE m.id = :message
""")  # noqa: S608 - our own text, no value in it
# Where a message can go on to, read under its lock: a way may have been stopped meanwhile
# (:func:`messages.heed_stop`), or called by a process that we know nothing of.
_HOLD = sql(f"""
    SELECT m.id, m.routes, m.district, m.phone, m.email, {TRIED} AS tried
    FROM messages m WHERE m.id = ANY (CAST(:ids AS uuid[])) ORDER BY m.id FOR UPDATE
""")  # noqa: S608 - our own text, no value in it
# The attempt ends if it is still ours: another process may have given it up as unknown meanwhile.
# The message moves on only if this is still its newest attempt: a process that was stopped past its
# lease must not undo what another has done since. Returned are the messages that have just ended
# and have reached nobody, and what calls would have cost that were not taken.
_SETTLE = sql(f"""
    WITH outcome AS (
        SELECT o.attempt_id, o.message_id, o.attempt_state, o.provider_id, o.error, o.state,
               o.channel, o.retry_in, o.look_up_in, o.attempts
        FROM unnest(
            CAST(:attempt_ids AS uuid[]), CAST(:message_ids AS uuid[]),
            CAST(:attempt_states AS text[]), CAST(:provider_ids AS text[]),
            CAST(:errors AS text[]), CAST(:states AS text[]), CAST(:channels AS text[]),
            CAST(:retries AS interval[]), CAST(:look_ups AS interval[]), CAST(:attempts AS int[]))
        AS o (attempt_id, message_id, attempt_state, provider_id, error, state, channel, retry_in,
              look_up_in, attempts)
    ), held AS (
        -- The message first, as receipts do, so that nobody deadlocks.
        SELECT m.id FROM messages m JOIN outcome o ON o.message_id = m.id
        ORDER BY m.id FOR UPDATE OF m
    ), ended AS (
        UPDATE attempts a
        SET state = o.attempt_state, provider_id = coalesce(o.provider_id, a.provider_id),
            error = o.error, ended_at = clock_timestamp(),
            segments = CASE o.attempt_state WHEN 'failed' THEN 0 ELSE a.segments END
        FROM outcome o JOIN held ON held.id = o.message_id
             JOIN attempts before ON before.id = o.attempt_id
        WHERE a.id = o.attempt_id AND a.state IN ('sending', 'unknown') AND a.receipt IS NULL
        RETURNING a.message_id, a.state, a.started_at, before.segments
    ), noted AS (
        UPDATE attempts a SET provider_id = o.provider_id, state = 'sent'
        FROM outcome o JOIN held ON held.id = o.message_id
        -- The receipt was faster than the answer.
        WHERE a.id = o.attempt_id AND a.receipt IS NOT NULL AND a.provider_id IS NULL
    ), moved AS (
        UPDATE messages m
        SET state = CASE
                WHEN o.state = 'queued' AND {OVER} THEN 'withdrawn'
                WHEN o.state = 'failed' AND {offers.may_have_arrived(but="o.attempt_id")}
                THEN 'unknown'
                ELSE o.state END,
            -- It may have been on its way to another channel meanwhile.
            channel = CASE WHEN o.state = 'sent' THEN :channel
                           ELSE coalesce(o.channel, m.channel) END,
            error = o.error,
            next_attempt_at = now() + o.retry_in,
            look_up_at = now() + o.look_up_in,
            receipt_by = CASE WHEN o.state = 'sent' AND m.purpose = ANY (CAST(:watched AS text[]))
                              THEN now() + CAST(:receipt_within AS interval) END,
            sent_at = CASE o.state WHEN 'sent' THEN clock_timestamp() ELSE m.sent_at END
        FROM outcome o JOIN held ON held.id = o.message_id
        WHERE m.id = o.message_id
          AND ((m.state = 'sending' AND m.attempts = o.attempts)
               OR (m.state = 'unknown' AND m.look_up_at IS NOT NULL AND m.attempts = o.attempts)
               -- It has gone out after all: not once more.
               OR (o.state = 'sent' AND m.state IN ('queued', 'unknown', 'withdrawn')))
        RETURNING m.case_id, m.offer_id, m.district, m.drill, m.purpose, m.state
    )
    SELECT 'reached nobody' AS what, case_id, offer_id, district, drill, purpose, now() AS at,
           0 AS segments
    FROM moved WHERE state = 'failed'
    UNION ALL
    SELECT 'cost nothing', m.case_id, m.offer_id, m.district, m.drill, m.purpose,
           ended.started_at, ended.segments
    FROM ended JOIN messages m ON m.id = ended.message_id
    WHERE ended.state = 'failed' AND ended.segments > 0
""")  # noqa: S608 - our own text, no value in it
_ATTEMPT = f"""
    SELECT {_MESSAGE}, {TRIED} AS tried, a.id AS attempt_id, a.started_at,
           m.send_before - now() AS left
    FROM attempts a JOIN messages m ON m.id = a.message_id
"""  # noqa: S608 - our own text, no value in it
_ABANDONED = sql(f"""
    {_ATTEMPT}
    WHERE a.state = 'sending' AND a.channel = :channel AND a.lease_until < now()
    -- The message first, as everybody does, so that nobody deadlocks.
    ORDER BY m.id LIMIT 500 FOR UPDATE OF m SKIP LOCKED
""")
# Claimed for the time of a lease, so that no other process asks the same at the same time.
_LOOK_UP = sql(f"""
    WITH claimed AS (
        UPDATE messages m
        SET look_ups = m.look_ups + 1, look_up_at = now() + CAST(:lease AS interval)
        WHERE m.id IN (
            SELECT id FROM messages
            WHERE state = 'unknown' AND channel = :channel AND look_up_at <= now()
            LIMIT 50 FOR UPDATE SKIP LOCKED)
        RETURNING {_MESSAGE}
    )
    SELECT DISTINCT ON (m.id) {_MESSAGE}, {TRIED} AS tried, a.id AS attempt_id, a.started_at,
           m.send_before - now() AS left
    FROM claimed m JOIN attempts a ON a.message_id = m.id AND a.channel = :channel
    ORDER BY m.id, a.started_at DESC
""")  # noqa: S608 - our own text, no value in it
_NO_RECEIPT = sql(f"""
    SELECT m.id, m.routes, m.channel, m.district, m.phone, m.email, {TRIED} AS tried
    FROM messages m
    WHERE m.state = 'sent' AND m.channel = :channel AND m.receipt_by <= now()
    ORDER BY m.receipt_by LIMIT 500 FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - our own text, no value in it
_MOVE_ON = sql(f"""
    UPDATE messages m
    SET receipt_by = NULL,
        state = CASE WHEN o.channel IS NULL OR m.send_before <= now() OR {OVER} THEN m.state
                     ELSE 'queued' END,
        channel = CASE WHEN o.channel IS NULL OR m.send_before <= now() OR {OVER} THEN m.channel
                       ELSE o.channel END,
        error = 'no receipt in time', next_attempt_at = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:channels AS text[])) AS o (id, channel)
    WHERE m.id = o.id
""")  # noqa: S608 - our own text, no value in it


class Delivery:
    """Sends the messages of one channel; each channel has its own, so none holds up another.

    ``timeout`` is for one call; ``lease`` is when an attempt that nobody has finished is given up;
    ``receipt_within`` is how long a receipt is waited for.
    """

    def __init__(
        self,
        database: Database,
        channel: Channel,
        routes: Routes,
        *,
        timeout: timedelta,
        lease: timedelta,
        receipt_within: timedelta = timedelta(minutes=2),
    ) -> None:
        self.database = database
        self.channel = channel
        self.routes = routes
        self.timeout = timeout
        self.lease = lease
        self.receipt_within = receipt_within
        self._pace = Pace(channel.rate_per_second)
        self._wake = database.wake_on_commit(WORK)
        # They outlive a turn that fails because the database is away.
        self._calls: set[asyncio.Task[Outcome]] = set()
        self._unsettled: list[Outcome] = []

    async def run(self, loop: Loop) -> None:
        """Send what is due, until cancelled; woken by local commits.

        As soon as one call has ended the next is begun: a slow one holds up no other.
        """
        swept_at = 0.0
        try:
            while True:
                loop.beat()
                self._wake.clear()
                if time.monotonic() - swept_at >= POLL.total_seconds():
                    await self.reconcile()
                    swept_at = time.monotonic()
                room = min(self.channel.concurrency - len(self._calls), self._pace.room())
                taken = await self._take(room) if room > 0 else []
                self._calls |= {asyncio.create_task(self._call(one)) for one in taken}
                if len(taken) < room or room <= 0:
                    await self._wait()
                await self._settle_ended()
        except asyncio.CancelledError:
            await self._finish()
            raise

    async def _wait(self) -> None:
        """Until a call has ended, there may be more to send, or a second has passed."""
        woken = asyncio.create_task(self._wake.wait())
        limit = min(POLL.total_seconds(), self._pace.next_s())
        ended, _ = await asyncio.wait(
            {*self._calls, woken}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
        )
        woken.cancel()
        if ended - {woken} and len(self._calls) > 1:
            await asyncio.sleep(GATHER_S)

    async def _settle_ended(self) -> None:
        """Store what came of the calls that have ended. What cannot be stored now, because the
        database is away, is kept for the next turn."""
        ended = {call for call in self._calls if call.done()}
        self._calls -= ended
        for call in ended:
            self._unsettled.append(call.result())
        if self._unsettled:
            await self._settle(self._unsettled)
            self._unsettled = []

    async def _finish(self) -> None:
        """Let the calls under way end, for a while: what is cut off now would be unknown."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=FINISH_S)
        await self._settle_ended()
        for call in self._calls:
            call.cancel()

    async def send_due(self) -> int:
        """Take what is due, call the provider for each, store what came of it; returns how many."""
        due = await self._take(self.channel.concurrency)
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

    # --- taking -----------------------------------------------------------------------------------

    async def _take(self, limit: int) -> list[Due]:
        taken_at = time.monotonic()
        if is_metered(self.channel) and self.routes.districts:
            rows = await self._take_within_budget(limit)
        else:
            rows = await self.database.statement(_TAKE, {"limit": limit, **self._announcing()})
        self._pace.spend(len(rows))
        return [self._due(row, taken_at=taken_at) for row in rows]

    def _announcing(self) -> dict[str, Any]:
        return {
            "channel": self.channel.name,
            "repeats": self.channel.supports_idempotency,
            "lease": self.lease,
            "costs": self.channel.kind == "sms",
        }

    async def _take_within_budget(self, limit: int) -> Sequence[Any]:
        """As many as the districts' budgets allow; the others go on to their next channel."""
        async with self.database.transaction() as session:
            values = {"limit": limit, **self._announcing()}
            due = await execute(session, _WITHIN_BUDGET, values)
            if not due:
                return []
            admitted = await budget.admit(session, due, routes=self.routes)
            if admitted.refused:
                await self._refuse(session, [row.id for row in admitted.refused])
            ids = [row.id for row in admitted.taken]
            return await execute(session, _TAKE_THESE, {"ids": ids, **self._announcing()})

    async def _refuse(self, session: AsyncSession, ids: list[UUID]) -> None:
        rows = await execute(session, _HOLD, {"ids": ids})
        others = [self._after(row) for row in rows]
        ended = await execute(
            session, _REFUSE, {"ids": [row.id for row in rows], "channels": others}
        )
        nobody = [row for row in ended if row.state == "failed"]
        await offers.give_up(session, nobody, reason="budget_spent")
        wakes(session, WORK)

    def _due(self, row: Any, *, taken_at: float) -> Due:
        return Due(
            message_id=row.id,
            attempt_id=row.attempt_id,
            attempts=row.attempts,
            look_ups=row.look_ups,
            taken_at=taken_at,
            left=row.left,
            started_at=row.started_at,
            routes=tuple(self.routes.of_message(row)),
            tried=tuple(row.tried),
            outgoing=Outgoing(
                idempotency_key=row.id,
                address=self.channel.address_of(phone=row.phone, email=row.email) or "",
                short_text=row.short_text,
                subject=row.subject,
                long_text=row.long_text,
            ),
        )

    # --- calling ----------------------------------------------------------------------------------

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
            return self._later(due, error)
        except (UnknownOutcome, TimeoutError) as error:
            return self._unknown(due, str(error) or "no answer in time")
        except Exception as error:
            # What a channel chokes on must not take down the messages that are sent beside it.
            log.exception("channel.failed", channel=self.channel.name)
            return self._unknown(due, f"{type(error).__name__}: {error}"[:500])
        return Outcome(due, "sent", provider_id=provider_id)

    def _later(self, due: Due, error: TransientFailure) -> Outcome:
        """Refused for now: again after a while, or by another channel if that is the better way."""
        retry_in = backoff(due.attempts) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        if error.retry_after:
            # It means all of us, not this message alone.
            self._pace.pause(min(error.retry_after, LONGEST_PAUSE))
            retry_in = max(retry_in, error.retry_after)
        leave = due.attempts % REFUSALS == 0 or retry_in >= due.left
        return Outcome(due, "failed", error=str(error), retry_in=retry_in, leave=leave)

    def _unknown(self, due: Due, error: str) -> Outcome:
        """Nobody knows whether it went out: again only where the provider knows our id."""
        left = self._other(due) is not None and due.attempts % REFUSALS == 0
        if self.channel.supports_idempotency and not left:
            return Outcome(due, "unknown", error=error, retry_in=backoff(due.attempts))
        if self.channel.supports_lookup:
            lag = timedelta(seconds=self.channel.lookup_after_s)
            return Outcome(due, "unknown", error=error, look_up_in=max(FIRST_LOOK_UP, lag))
        return Outcome(due, "unknown", error=error)

    def _other(self, due: Due) -> str | None:
        """Where it could go as it was when it was taken; :meth:`_after` decides."""
        return self.routes.after(due.routes, self.channel.name, tried=due.tried)

    def _after(self, held: Any) -> str | None:
        """Where a message that we hold the lock of goes on from this channel."""
        ways = self.routes.of_message(held)
        return self.routes.after(ways, self.channel.name, tried=held.tried)

    # --- what came of it --------------------------------------------------------------------------

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if self.channel.supports_receipts or {each.state for each in outcomes} != {"sent"}:
            # The end of an offer and the event about it, a call and what it cost: both or neither.
            async with self.database.transaction() as session:
                await self._store(session, outcomes)
        else:
            await self.database.statement(_SETTLE, self._settlement(outcomes, {}))
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

    async def _store(self, session: AsyncSession, outcomes: Sequence[Outcome]) -> None:
        going_on = [each.due.message_id for each in outcomes if each.state != "sent"]
        held = await execute(session, _HOLD, {"ids": going_on}) if going_on else []
        settlement = self._settlement(outcomes, {row.id: row for row in held})
        rows = await execute(session, _SETTLE, settlement)
        nobody = [row for row in rows if row.what == "reached nobody"]
        await offers.give_up(session, nobody, reason="no_channel_left")
        # A message that goes on to another channel wakes that channel's loop.
        if going_on:
            wakes(session, WORK)
        if self.channel.supports_receipts:
            called = [(each.due.message_id, each.provider_id) for each in outcomes]
            await receipts.catch_up(session, self.channel.name, called, routes=self.routes)
        if is_metered(self.channel):
            spared = [row for row in rows if row.what == "cost nothing"]
            await budget.give_back(session, spared, routes=self.routes)

    def _settlement(self, outcomes: Sequence[Outcome], held: Mapping[UUID, Any]) -> dict[str, Any]:
        """``held`` are the messages that may go on, by id, with their locks."""
        steps = [self._next_step(each, held.get(each.due.message_id)) for each in outcomes]
        return {
            "attempt_ids": [outcome.due.attempt_id for outcome in outcomes],
            "message_ids": [outcome.due.message_id for outcome in outcomes],
            "attempt_states": [outcome.state for outcome in outcomes],
            # Whatever a provider has answered must be storable, or nothing of this turn is.
            "provider_ids": [_cut(outcome.provider_id, ID_AT_MOST) for outcome in outcomes],
            "errors": [_cut(outcome.error, ERROR_AT_MOST) for outcome in outcomes],
            "channel": self.channel.name,
            "states": [state for state, _, _ in steps],
            "channels": [channel for _, channel, _ in steps],
            "attempts": [outcome.due.attempts for outcome in outcomes],
            "retries": [wait for _, _, wait in steps],
            "look_ups": [outcome.look_up_in for outcome in outcomes],
            "watched": list(WATCHED) if self.channel.supports_receipts else [],
            "receipt_within": self.receipt_within,
        }

    def _next_step(self, outcome: Outcome, held: Any | None) -> tuple[str, str | None, timedelta]:
        """Sent; or over; or again on this channel; or on the next one; or the end of the road.

        Returns the message's new state, the channel if it is another one, and how long to wait.
        """
        at_once = timedelta(0)
        if outcome.state == "sent" or outcome.end is not None or held is None:
            return outcome.end or outcome.state, None, at_once
        other = self._after(held)
        if outcome.retry_in is not None and not (outcome.leave and other):
            # Somebody may have stopped this channel during the call.
            if self.channel.name in self.routes.of_message(held):
                return "queued", None, outcome.retry_in
        elif outcome.look_up_in is not None:
            return "unknown", None, at_once
        return ("queued", other, at_once) if other else (outcome.state, None, at_once)

    # --- what time brings -------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Give up attempts whose process has died, ask what became of unknown ones, go on where no
        receipt has come, and let messages expire."""
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
                await self._store(session, outcomes)
                wakes(session, WORK)
                log.warning("attempts.abandoned", channel=self.channel.name, count=len(rows))
            unsent = await execute(session, _EXPIRE)
            await offers.give_up(session, unsent, reason="not_sent_in_time")
            if self.channel.supports_receipts:
                await self._without_receipt(session)
        if self.channel.supports_lookup:
            await self.look_up()

    async def _without_receipt(self, session: AsyncSession) -> None:
        late = await execute(session, _NO_RECEIPT, {"channel": self.channel.name})
        if late:
            others = [self._after(row) for row in late]
            await execute(session, _MOVE_ON, {"ids": [row.id for row in late], "channels": others})
            wakes(session, WORK)

    async def look_up(self) -> None:
        """Ask the provider what became of calls that nobody knows the end of."""
        rows = await self.database.statement(
            _LOOK_UP, {"channel": self.channel.name, "lease": self.lease}
        )
        due = [self._due(row, taken_at=time.monotonic()) for row in rows]
        if due:
            await self._settle(await asyncio.gather(*map(self._look_up, due)))

    async def _look_up(self, due: Due) -> Outcome:
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                provider_id = await self.channel.lookup(due.outgoing, since=due.started_at)
        except (TransientFailure, TimeoutError) as error:
            again = backoff(due.look_ups) if due.look_ups < LOOK_UPS else None
            return Outcome(
                due, "unknown", error=str(error) or "no answer in time", look_up_in=again
            )
        except Exception as error:
            # As in a call: what a channel chokes on must not take down the service.
            log.exception("channel.failed", channel=self.channel.name)
            again = backoff(due.look_ups) if due.look_ups < LOOK_UPS else None
            return Outcome(due, "unknown", error=type(error).__name__, look_up_in=again)
        if provider_id is not None:
            return Outcome(due, "sent", provider_id=provider_id)
        retry_in = backoff(due.attempts)
        return Outcome(due, "failed", error="the provider never had it", retry_in=retry_in)


class Pace:
    """How many calls a provider takes now: a second's worth at most at once.

    For this process: with several replicas each gets its share of the provider's limit in settings.
    """

    def __init__(self, rate_per_second: float | None) -> None:
        self.rate = rate_per_second
        self._saved = self._most = max(rate_per_second or 0, 1)
        self._at = time.monotonic()
        self._paused_until = 0.0

    def room(self) -> int:
        """How many calls may begin now."""
        now = time.monotonic()
        if now < self._paused_until:
            return 0
        if self.rate is None:
            return 1_000_000
        self._saved = min(self._saved + (now - self._at) * self.rate, self._most)
        self._at = now
        return int(self._saved)

    def spend(self, calls: int) -> None:
        """So many calls begin."""
        self._saved -= calls

    def pause(self, length: timedelta) -> None:
        """The provider wants to be left alone."""
        self._paused_until = max(self._paused_until, time.monotonic() + length.total_seconds())

    def next_s(self) -> float:
        """Seconds until there is room again; as long as one likes if there is."""
        now = time.monotonic()
        if now < self._paused_until:
            return self._paused_until - now
        if self.rate is None or self._saved >= 1:
            return POLL.total_seconds()
        return (1 - self._saved) / self.rate


def _cut(text: str | None, at_most: int) -> str | None:
    return storable(text)[:at_most] if text is not None else None


def backoff(attempts: int) -> timedelta:
    """How long to wait after this many attempts: 2 s, 4 s, 8 s … at most 2 min."""
    doubled: timedelta = FIRST_RETRY * 2 ** min(max(attempts, 1) - 1, 10)
    return min(doubled, LONGEST_RETRY)
