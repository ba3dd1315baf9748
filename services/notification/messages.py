"""Messages: stored once, with the routes by which they go, before any provider is called."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import offers, texts
from services.notification.letters import Letter
from services.notification.offers import OVER
from services.notification.routes import TRIED, Routes, Stopped, stopped
from shared.database import execute, sql, wakes

WORK = "messages"  # what wakes the delivery

# The same text to the same person so often within so long is a loop, of ours or of a machine that
# answers us: it goes no further. A person who says "YA" three times gets three answers.
SAME_TEXT_AT_MOST = 3
SAME_TEXT_WITHIN = timedelta(hours=1)

_QUEUE = sql(f"""
    WITH stored AS (
        INSERT INTO messages
            (id, event_id, case_id, offer_id, recipient, purpose, answer_code, district, drill,
             phone, email, short_text, subject, long_text, routes, urgent, segments, channel,
             attempts, reported_at, send_before, created_at, state, error)
        SELECT m.id, m.event_id, m.case_id, m.offer_id, m.recipient, m.purpose, m.answer_code,
               m.district, m.drill, m.phone, m.email, m.short_text, m.subject, m.long_text,
               string_to_array(m.routes, ','), m.urgent, m.segments,
               split_part(nullif(m.routes, ''), ',', 1), 0, m.reported_at, m.send_before,
               m.created_at,
               CASE WHEN m.over OR m.loops THEN 'withdrawn' WHEN m.routes = '' THEN 'failed'
                    ELSE 'queued' END,
               CASE WHEN m.over THEN NULL
                    WHEN m.loops THEN 'the same text has gone to this person several times'
                    WHEN m.routes = '' THEN 'no channel has an address of this person' END
        FROM (
            SELECT m.id, m.event_id, m.case_id, m.offer_id, m.recipient, m.purpose, m.answer_code,
                   m.district, m.drill, m.phone, m.email, m.short_text, m.subject, m.long_text,
                   m.routes, m.urgent, m.segments, m.reported_at, m.send_before, m.created_at,
                   {OVER} AS over, m.purpose <> 'offer' AND (
                SELECT count(*) FROM messages earlier
                WHERE earlier.recipient = m.recipient
                  AND earlier.created_at > now() - CAST(:within AS interval)
                  AND earlier.short_text = m.short_text AND earlier.state <> 'withdrawn'
            ) >= CAST(:at_most AS int) AS loops
            FROM (
                -- Later than what was heard before in the same transaction.
                SELECT id, event_id, case_id, offer_id, recipient, purpose, answer_code, district,
                       drill, phone, email, short_text, subject, long_text, routes, urgent,
                       segments, reported_at, send_before, clock_timestamp() AS created_at
                FROM unnest(
                    CAST(:ids AS uuid[]), CAST(:event_ids AS uuid[]), CAST(:case_ids AS uuid[]),
                    CAST(:offer_ids AS uuid[]), CAST(:recipients AS text[]),
                    CAST(:purposes AS text[]), CAST(:answer_codes AS text[]),
                    CAST(:districts AS text[]), CAST(:drills AS bool[]), CAST(:phones AS text[]),
                    CAST(:emails AS text[]), CAST(:short_texts AS text[]),
                    CAST(:subjects AS text[]), CAST(:long_texts AS text[]),
                    CAST(:routes AS text[]), CAST(:urgents AS bool[]), CAST(:segments AS int[]),
                    CAST(:reported_at AS timestamptz[]), CAST(:send_before AS timestamptz[]))
                AS written (id, event_id, case_id, offer_id, recipient, purpose, answer_code,
                            district, drill, phone, email, short_text, subject, long_text, routes,
                            urgent, segments, reported_at, send_before)
            ) AS m
        ) AS m
        ON CONFLICT (event_id, recipient, purpose) DO NOTHING
        RETURNING case_id, offer_id, district, drill, purpose, state
    )
    SELECT case_id, offer_id, district, drill, purpose, now() AS at
    FROM stored WHERE state = 'failed'
""")  # noqa: S608 - our own text, no value in it


async def queue(session: AsyncSession, letters: Sequence[Letter], *, routes: Routes) -> None:
    """Store messages in one statement; the delivery loops send them after the commit.

    An offer to somebody whom no channel can reach is given up here: ``offer.unreachable``.
    """
    if not letters:
        return
    barred = await stopped(session, (a for each in letters for a in (each.phone, each.email)))
    rows = [_row(letter, routes, barred) for letter in letters]
    columns = {
        "ids": "id", "event_ids": "event_id", "case_ids": "case_id", "offer_ids": "offer_id",
        "recipients": "recipient", "purposes": "purpose", "answer_codes": "answer_code",
        "districts": "district", "drills": "drill", "phones": "phone", "emails": "email",
        "short_texts": "short_text", "subjects": "subject", "long_texts": "long_text",
        "routes": "routes", "urgents": "urgent", "segments": "segments",
        "reported_at": "reported_at", "send_before": "send_before",
    }  # fmt: skip
    values = {array: [row[column] for row in rows] for array, column in columns.items()}
    nobody = await execute(
        session, _QUEUE, values | {"within": SAME_TEXT_WITHIN, "at_most": SAME_TEXT_AT_MOST}
    )
    await offers.give_up(session, nobody, reason="no_address")
    wakes(session, WORK)


async def heed_stop(
    session: AsyncSession, addresses: Sequence[str], kind: str, *, routes: Routes
) -> None:
    """What waits to go by a kind of channel that its person has just stopped goes by their next
    one, or not at all."""
    of_the_kind = [channel.name for channel in routes.channels if channel.kind == kind]
    waiting = await execute(session, _WAITING, {"addresses": addresses, "channels": of_the_kind})
    if not waiting:
        return
    left = [[way for way in row.routes if way not in of_the_kind] for row in waiting]
    values = {
        "ids": [row.id for row in waiting],
        # No way is not the same as none known.
        "routes": [",".join(ways or ["none"]) for ways in left],
        "waits": [row.state == "queued" and row.channel in of_the_kind for row in waiting],
        "next": [
            # By where it stood: what was before it has had its turn.
            routes.after(row.routes, row.channel, tried={*row.tried, *of_the_kind})
            for row in waiting
        ],
    }
    moved = await execute(session, _STOP_WAYS, values)
    await offers.give_up(session, [row for row in moved if row.state == "failed"], reason="stopped")
    wakes(session, WORK)


_WAITING = sql(f"""
    SELECT m.id, m.state, m.channel, m.routes, {TRIED} AS tried FROM messages m
    WHERE m.state IN ('queued', 'sending', 'sent', 'unknown')
      AND m.routes && CAST(:channels AS text[]) AND m.send_before > now()
      AND (m.phone = ANY (CAST(:addresses AS text[]))
           OR m.email = ANY (CAST(:addresses AS text[])))
    ORDER BY m.id FOR UPDATE
""")  # noqa: S608 - our own text, no value in it
_STOP_WAYS = sql(f"""
    UPDATE messages m
    SET routes = string_to_array(o.routes, ','),
        -- What is under way, or has gone out, only loses the ways that are stopped.
        state = CASE WHEN NOT o.waits OR o.next IS NOT NULL THEN m.state
                     WHEN {offers.may_have_arrived()} THEN 'unknown' ELSE 'failed' END,
        channel = CASE WHEN o.waits THEN coalesce(o.next, m.channel) ELSE m.channel END,
        error = CASE WHEN o.waits THEN 'they want no more messages by this channel'
                     ELSE m.error END,
        next_attempt_at = CASE WHEN o.waits THEN now() ELSE m.next_attempt_at END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:routes AS text[]), CAST(:waits AS boolean[]),
                CAST(:next AS text[])) AS o (id, routes, waits, next)
    WHERE m.id = o.id
    RETURNING m.case_id, m.offer_id, m.district, m.drill, m.purpose, m.state, now() AS at
""")  # noqa: S608 - our own text, no value in it


def _row(letter: Letter, routes: Routes, barred: Stopped) -> dict[str, Any]:
    ways = routes.of(
        district=letter.district,
        phone=letter.phone,
        email=letter.email,
        preferred=letter.preferred,
        stopped=barred if letter.heeds_stop else (),
    )
    return {
        "id": uuid7(),
        "event_id": letter.event_id,
        "case_id": letter.subject,
        "offer_id": letter.offer_id,
        "recipient": letter.recipient,
        "purpose": letter.purpose,
        "answer_code": letter.answer_code,
        "district": letter.district,
        "drill": letter.drill,
        "phone": letter.phone,
        "email": letter.email,
        "short_text": letter.texts.short_text,
        "subject": letter.texts.subject,
        "long_text": letter.texts.long_text,
        "routes": ",".join(ways),
        "urgent": letter.urgent,
        "segments": texts.segments(letter.texts.short_text),
        "reported_at": letter.reported_at,
        "send_before": letter.send_before,
    }
