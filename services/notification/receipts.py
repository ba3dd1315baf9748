"""Receipts: what a provider tells later about a message. A state only moves forward.

They come repeated, out of order, and before the call that handed over the message has returned:
each is stored once, and what cannot be matched yet is looked at again when that call ends.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from prometheus_client import Counter
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import offers
from services.notification.channels import Receipt
from services.notification.messages import WORK
from services.notification.routes import TRIED, Routes
from shared.database import execute, sql, wakes

log = structlog.get_logger("receipts")

RECEIPTS = Counter(
    "jangkau_receipts_total",
    "What providers told of messages. Rising `undelivered`: dead numbers, or a route that is down.",
    ["channel", "state"],
)

# An "undelivered" after a "delivered" is wrong; the other way round the person has it after all.
RANK = {"sent": 1, "undelivered": 2, "delivered": 3}

_STORE = sql("""
    INSERT INTO receipts (id, channel, provider_id, message_id, state, error)
    VALUES (:id, :channel, :provider_id, :message_id, :state, :error)
    ON CONFLICT DO NOTHING
    RETURNING id
""")
# The message first: whoever settles a call goes the same way, so nobody deadlocks.
_LOCK = sql("""
    SELECT m.id FROM messages m
    WHERE m.id IN (
        SELECT a.message_id FROM attempts a
        WHERE a.channel = :channel AND a.provider_id = :provider_id AND a.provider_id <> ''
        UNION ALL SELECT CAST(:message_id AS uuid))
    FOR UPDATE
""")
_MATCH = sql(f"""
    SELECT a.id AS attempt_id, a.state AS attempt_state, a.channel AS called, a.receipt,
           m.id, m.state, m.routes, m.channel, m.case_id, m.offer_id, m.district, m.drill,
           m.phone, m.email, m.purpose, {TRIED} AS tried, m.send_before > now() AS in_time,
           now() AS at,
           NOT EXISTS (SELECT FROM attempts later
                       WHERE later.message_id = m.id AND later.started_at > a.started_at) AS newest
    FROM attempts a JOIN messages m ON m.id = a.message_id
    WHERE a.channel = :channel AND m.id = ANY (CAST(:messages AS uuid[]))
      AND (CAST(:provider_id AS text) IS NULL OR a.provider_id = :provider_id
           OR a.message_id = :message_id)
    -- The attempt that has the provider's id, else the last one.
    ORDER BY (a.provider_id = :provider_id) DESC NULLS LAST, a.started_at DESC LIMIT 1
""")  # noqa: S608 - our own text, no value in it
_NOTE = sql("""
    UPDATE attempts SET receipt = :state, receipt_at = clock_timestamp(),
        state = CASE WHEN state = 'unknown' THEN 'sent' ELSE state END,
        error = coalesce(CAST(:error AS text), error)
    WHERE id = :attempt
""")
_DELIVERED = sql("""
    UPDATE messages SET state = 'delivered', delivered_at = clock_timestamp(), error = NULL,
        sent_at = coalesce(sent_at, clock_timestamp()), receipt_by = NULL, look_up_at = NULL
    WHERE id = :message
""")
# The provider has it after all: not once more.
_SENT = sql("""
    UPDATE messages SET state = 'sent', sent_at = coalesce(sent_at, clock_timestamp()),
        channel = :channel, look_up_at = NULL
    WHERE id = :message AND state IN ('unknown', 'queued')
""")
_ELSEWHERE = sql(f"""
    UPDATE messages m
    SET state = CASE WHEN {offers.OVER} THEN 'withdrawn'
                     WHEN :state = 'failed' AND {offers.may_have_arrived()} THEN 'unknown'
                     ELSE :state END,
        channel = coalesce(CAST(:channel AS text), m.channel), error = :error,
        next_attempt_at = now(), receipt_by = NULL, look_up_at = NULL
    WHERE m.id = :message
    RETURNING m.state
""")  # noqa: S608 - our own text, no value in it
# What came before the call had returned the provider's id.
_EARLY = sql("""
    SELECT r.channel, r.provider_id, r.message_id, r.state, r.error
    FROM (SELECT id, channel, provider_id, message_id, state, error, received_at FROM receipts
          WHERE channel = :channel AND provider_id = ANY (CAST(:provider_ids AS text[]))
          UNION
          SELECT id, channel, provider_id, message_id, state, error, received_at FROM receipts
          WHERE channel = :channel AND message_id = ANY (CAST(:message_ids AS uuid[]))) AS r
    ORDER BY r.received_at
""")


async def take(
    session: AsyncSession, channel: str, receipts: Sequence[Receipt], *, routes: Routes
) -> None:
    """Store receipts, each once, and let each have its effect as far as its message is known."""
    for receipt in receipts:
        RECEIPTS.labels(channel, receipt.state).inc()
        values = {
            "id": uuid7(),
            "channel": channel,
            "provider_id": receipt.provider_id,
            "message_id": receipt.message_id,
            "state": receipt.state,
            "error": receipt.error,
        }
        if await execute(session, _STORE, values):
            await _apply(session, channel, receipt, routes)


async def catch_up(
    session: AsyncSession, channel: str, sent: Sequence[tuple[Any, str | None]], *, routes: Routes
) -> None:
    """Let receipts have their effect that came before the calls had returned: ``sent`` are the
    messages' ids with the providers'."""
    rows = await execute(
        session,
        _EARLY,
        {
            "channel": channel,
            "provider_ids": [provider_id for _, provider_id in sent if provider_id],
            "message_ids": [message_id for message_id, _ in sent],
        },
    )
    for row in rows:
        receipt = Receipt(row.provider_id, row.message_id, row.state, row.error)
        await _apply(session, channel, receipt, routes)


async def _apply(session: AsyncSession, channel: str, receipt: Receipt, routes: Routes) -> None:
    about = {
        "channel": channel,
        "provider_id": receipt.provider_id,
        "message_id": receipt.message_id,
    }
    locked = await execute(session, _LOCK, about)
    values = about | {"messages": [row.id for row in locked]}
    for row in await execute(session, _MATCH, values):
        if RANK[receipt.state] <= RANK.get(row.receipt or "", 0):
            return
        if row.attempt_state == "sending" and receipt.state != "delivered":
            return  # the call has not returned: it is looked at again when it has
        note = {"attempt": row.attempt_id, "state": receipt.state, "error": receipt.error}
        await execute(session, _NOTE, note)
        await _move(session, row, receipt, routes)


async def _move(session: AsyncSession, row: Any, receipt: Receipt, routes: Routes) -> None:
    if row.state == "delivered":
        return
    if receipt.state == "delivered":
        await execute(session, _DELIVERED, {"message": row.id})
    elif receipt.state == "sent":
        await execute(session, _SENT, {"message": row.id, "channel": row.called})
    elif row.newest and row.state in ("sent", "unknown"):
        await _undelivered(session, row, receipt.error, routes)


async def _undelivered(session: AsyncSession, row: Any, error: str | None, routes: Routes) -> None:
    """It has not arrived: by the next channel at once; without one somebody else is asked."""
    ways = routes.of_message(row)
    other = routes.after(ways, row.called, tried=row.tried) if row.in_time else None
    values = {
        "message": row.id,
        "state": "queued" if other else "failed",
        "channel": other,
        "error": f"undelivered: {error or 'the provider does not say why'}",
    }
    (moved,) = await execute(session, _ELSEWHERE, values)
    wakes(session, WORK)
    if moved.state == "failed":
        await offers.give_up(session, [row], reason="undelivered")
