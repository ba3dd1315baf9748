"""The fake phones of the sandbox: what arrived on them, what was answered, what can be answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import answers
from shared.database import Row, execute, sql
from shared.events import Answer, Outcome
from shared.words import one_line

# Of each phone, and of all: what a page for people can show.
LINES_SHOWN = 12
PHONES_SHOWN = 60
OFFERS_SHOWN = 6

# An answer as it would be written in an SMS.
SPOKEN: dict[Answer, str] = {
    "accept": "YA",
    "decline": "TIDAK",
    "arrived": "TIBA",
    "done": "SELESAI",
    "obstacle": "KENDALA",
    "hand_back": "TIDAK JADI",
}
OUTCOMES: dict[Outcome, str] = {
    "resolved": "tertangani",
    "referred": "dirujuk",
    "not_found": "tidak ditemukan",
    "cancelled": "dibatalkan",
}


@dataclass(frozen=True)
class Line:
    """One message of a conversation; ``mine``: from the phone's owner."""

    mine: bool
    body: str
    at: datetime


@dataclass(frozen=True)
class LiveOffer:
    """An offer that can be answered. ``pending``: an answer is on its way to be judged."""

    offer_id: UUID
    answer_code: str | None
    state: str
    pending: bool


@dataclass
class Phone:
    """A fake phone with its newest lines, and the offers that its owner can answer."""

    address: str
    lines: list[Line]
    offers: list[LiveOffer] = field(default_factory=list)


_CONVERSATIONS = sql("""
    WITH newest AS (
        SELECT address, max(at) AS last_at
        FROM (SELECT address, received_at AS at FROM sandbox_messages
              UNION ALL SELECT address, given_at FROM sandbox_answers) AS line
        WHERE CAST(:address AS text) IS NULL OR address = :address
        GROUP BY address ORDER BY last_at DESC LIMIT :phones
    )
    SELECT newest.address, line.mine, line.body, line.at
    FROM newest CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT false AS mine, body, received_at AS at FROM sandbox_messages
             WHERE address = newest.address ORDER BY received_at DESC LIMIT :lines)
            UNION ALL
            (SELECT true, body, given_at FROM sandbox_answers
             WHERE address = newest.address ORDER BY given_at DESC LIMIT :lines)
        ) AS either ORDER BY at DESC LIMIT :lines
    ) AS line
    ORDER BY newest.last_at DESC, newest.address, line.at
""")
_LIVE_OFFERS = sql("""
    SELECT DISTINCT ON (m.offer_id)
        s.address, m.offer_id, m.answer_code, coalesce(known.state, 'open') AS state,
        EXISTS (SELECT FROM sandbox_answers a
                WHERE a.offer_id = m.offer_id
                  AND a.given_at > coalesce(known.heard_at, '-infinity')) AS pending
    FROM sandbox_messages s
    JOIN messages m ON m.id = s.idempotency_key
    LEFT JOIN offer_states known ON known.offer_id = m.offer_id
    WHERE s.address = ANY (CAST(:addresses AS text[])) AND m.purpose IN ('offer', 'assigned')
      AND coalesce(known.state, 'open') <> 'ended'
    ORDER BY m.offer_id DESC, s.received_at DESC
""")
_NOTE = sql("""
    INSERT INTO sandbox_answers (event_id, offer_id, address, body)
    VALUES (:event, :offer, :address, :body)
    ON CONFLICT (event_id) DO NOTHING
""")
# Only what is below the oldest transaction that still runs: whoever reads on behind the last number
# misses nothing that was begun before it and ends after it.
_ARRIVED = """
    SELECT s.arrival AS id, s.idempotency_key AS message_id, s.address, s.body, m.purpose,
           m.offer_id, m.case_id, m.answer_code, known.state AS offer_state, s.received_at
    FROM sandbox_messages s
    LEFT JOIN messages m ON m.id = s.idempotency_key
    LEFT JOIN offer_states known ON known.offer_id = m.offer_id
    WHERE s.arrival < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)
"""
_ARRIVED_AFTER = sql(f"{_ARRIVED} AND s.arrival > :after ORDER BY s.arrival LIMIT :limit")
_ARRIVED_LAST = sql(f"{_ARRIVED} ORDER BY s.arrival DESC LIMIT :limit")


async def conversations(session: AsyncSession, *, only: UUID | None = None) -> list[Phone]:
    """The phones on which something happened last, newest first; ``only`` the one of this offer.

    Raises:
        answers.UnknownOffer: nobody was asked with this offer.
    """
    asked = await answers.asked_for(session, only) if only else None
    rows = await execute(
        session,
        _CONVERSATIONS,
        {
            "address": (asked.phone or asked.email) if asked else None,
            "phones": PHONES_SHOWN,
            "lines": LINES_SHOWN,
        },
    )
    phones = {
        address: Phone(address, [Line(row.mine, row.body, row.at) for row in lines])
        for address, lines in groupby(rows, key=lambda row: row.address)
    }
    for row in await execute(session, _LIVE_OFFERS, {"addresses": list(phones)}):
        phones[row.address].offers.append(
            LiveOffer(row.offer_id, row.answer_code, row.state, row.pending)
        )
    for phone in phones.values():
        # What its owner has on hand first, then what they were asked last.
        phone.offers.sort(key=lambda live: live.state == "open")
        del phone.offers[OFFERS_SHOWN:]
    return list(phones.values())


async def arrived(session: AsyncSession, *, after: int | None, limit: int) -> Sequence[Row]:
    """Messages in the order of their arrival: behind number ``after``, or the newest."""
    if after is None:
        return (await execute(session, _ARRIVED_LAST, {"limit": limit}))[::-1]
    return await execute(session, _ARRIVED_AFTER, {"after": after, "limit": limit})


async def give(
    session: AsyncSession,
    *,
    offer_id: UUID,
    answer: Answer,
    outcome: Outcome | None,
    words: str | None,
    key: str | None,
) -> UUID:
    """Answer an offer from its fake phone; returns the event's id.

    Raises:
        answers.UnknownOffer, answers.KeyUsedForAnotherAnswer: see :func:`answers.give`.
    """
    asked = await answers.asked_for(session, offer_id)
    event_id = await answers.give(
        session, offer_id=offer_id, answer=answer, outcome=outcome, words=words, key=key
    )
    said = [asked.answer_code, SPOKEN[answer], OUTCOMES[outcome] if outcome else None, words]
    await execute(
        session,
        _NOTE,
        {
            "event": event_id,
            "offer": offer_id,
            "address": asked.phone or asked.email or "",
            "body": one_line(" ".join(part for part in said if part)),
        },
    )
    return event_id
