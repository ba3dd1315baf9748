"""The fake phones of the sandbox: what arrived on them, what was answered, what can be answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import get_args
from uuid import UUID
from zlib import crc32

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.notification import answers, inbound
from services.notification.handlers import Office
from shared.database import Row, execute, sql
from shared.districts import District
from shared.events import Answer, Outcome
from shared.words import one_line, storable

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
# What a text that was typed freely was taken for.
TAKEN_FOR: dict[str, str] = {
    "accept": "menerima",
    "decline": "menolak",
    "arrived": "sudah tiba",
    "done": "selesai",
    "obstacle": "ada kendala",
    "ask": "ditanyakan lagi",
    "stop": "berhenti",
    "start": "mulai lagi",
    "off_duty": "libur",
    "duty_page": "minta jadwal",
    "forwarded": "diteruskan ke petugas",
    "kept": "disimpan",
    "sign_of_life": "tanda terima",
    "ignored": "diabaikan",
}
# Who has a phone and is no volunteer, by the beginning of what their messages are addressed to.
ROLES = {"coordinator": "koordinator", "reporter": "pelapor"}


@dataclass(frozen=True)
class Line:
    """One message of a conversation; ``mine``: from the phone's owner, ``taken_for`` what it was
    read as where they have written freely."""

    mine: bool
    body: str
    at: datetime
    taken_for: str | None = None


@dataclass(frozen=True)
class LiveOffer:
    """An offer, or a test of reachability (``kind`` ping), that can be answered.

    ``pending``: an answer is on its way to be judged.
    """

    offer_id: UUID
    kind: str
    answer_code: str | None
    state: str
    pending: bool


@dataclass
class Phone:
    """A fake phone with its newest lines, whose it is, and what its owner can answer."""

    address: str
    lines: list[Line]
    offers: list[LiveOffer] = field(default_factory=list)
    owner: str | None = None
    role: str | None = None

    @property
    def hue(self) -> int:
        """A colour to know the phone by, in degrees: the same for the same address."""
        return crc32(self.address.encode()) % 360


_CONVERSATIONS = sql("""
    WITH newest AS (
        SELECT address, max(at) AS last_at
        FROM (SELECT address, received_at AS at FROM sandbox_messages
              UNION ALL SELECT address, given_at FROM sandbox_answers
              UNION ALL SELECT sender, received_at FROM inbound WHERE channel = 'sandbox') AS line
        WHERE CAST(:address AS text) IS NULL OR address = :address
        GROUP BY address ORDER BY last_at DESC LIMIT :phones
    )
    SELECT newest.address, line.mine, line.body, line.at, line.meaning, line.code
    FROM newest CROSS JOIN LATERAL (
        SELECT mine, body, at, meaning, code FROM (
            (SELECT false AS mine, body, received_at AS at, NULL AS meaning, NULL AS code
             FROM sandbox_messages
             WHERE address = newest.address ORDER BY received_at DESC LIMIT :lines)
            UNION ALL
            (SELECT true, body, given_at, NULL, NULL FROM sandbox_answers
             WHERE address = newest.address ORDER BY given_at DESC LIMIT :lines)
            UNION ALL
            (SELECT true, i.body, i.received_at, i.meaning, a.answer_code
             FROM inbound i LEFT JOIN asked a USING (offer_id)
             WHERE i.sender = newest.address AND i.channel = 'sandbox'
             ORDER BY i.received_at DESC LIMIT :lines)
        ) AS either ORDER BY at DESC LIMIT :lines
    ) AS line
    ORDER BY newest.last_at DESC, newest.address, line.at
""")
_LIVE_OFFERS = sql("""
    SELECT address, offer_id, kind, answer_code, state, pending FROM (
        SELECT DISTINCT ON (m.offer_id)
            s.address, m.offer_id, coalesce(a.kind, 'offer') AS kind, m.answer_code,
            CASE WHEN a.kind = 'ping' AND a.respond_by <= now() THEN 'ended'
                 ELSE coalesce(known.state, 'open') END AS state,
            EXISTS (SELECT FROM sandbox_answers given
                    WHERE given.offer_id = m.offer_id
                      AND given.given_at > coalesce(known.heard_at, '-infinity'))
            OR EXISTS (SELECT FROM inbound i
                       WHERE i.sender = s.address AND i.offer_id = m.offer_id
                         AND i.meaning = ANY (CAST(:answers AS text[]))
                         AND i.received_at > coalesce(known.heard_at, '-infinity')) AS pending
        FROM sandbox_messages s
        JOIN messages m ON m.id = s.idempotency_key
        LEFT JOIN asked a ON a.offer_id = m.offer_id
        LEFT JOIN offer_states known ON known.offer_id = m.offer_id
        WHERE s.address = ANY (CAST(:addresses AS text[]))
          AND m.purpose IN ('offer', 'assigned', 'ping')
        ORDER BY m.offer_id DESC, s.received_at DESC
    ) AS live WHERE state <> 'ended' ORDER BY offer_id DESC
""")
_OWNERS = sql("""
    SELECT address, (
        SELECT made -> 'volunteer' ->> 'name' FROM (
            (SELECT made, asked_at FROM asked WHERE phone = address
             ORDER BY asked_at DESC LIMIT 1)
            UNION ALL
            (SELECT made, asked_at FROM asked WHERE lower(email) = lower(address)
             ORDER BY asked_at DESC LIMIT 1)
        ) AS either ORDER BY asked_at DESC LIMIT 1
    ) AS name, (
        SELECT split_part(m.recipient, ':', 1)
        FROM sandbox_messages s JOIN messages m ON m.id = s.idempotency_key
        WHERE s.address = addresses.address ORDER BY s.received_at DESC LIMIT 1
    ) AS role
    FROM unnest(CAST(:addresses AS text[])) AS addresses (address)
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


async def conversations(
    session: AsyncSession,
    *,
    districts: Mapping[str, District],
    only: str | None = None,
    lines: int = LINES_SHOWN,
) -> list[Phone]:
    """The phones on which something happened last, newest first; or ``only`` this one."""
    rows = await execute(
        session, _CONVERSATIONS, {"address": only, "phones": PHONES_SHOWN, "lines": lines}
    )
    phones = {
        address: Phone(address, [_line(row) for row in lines])
        for address, lines in groupby(rows, key=lambda row: row.address)
    }
    values = {"addresses": list(phones), "answers": list(get_args(Answer))}
    for row in await execute(session, _LIVE_OFFERS, values):
        phones[row.address].offers.append(
            LiveOffer(row.offer_id, row.kind, row.answer_code, row.state, row.pending)
        )
    coordinators = {
        address: one.name
        for district in districts.values()
        for one in district.policy.coordinators
        for address in (one.phone, one.email)
        if address
    }
    for row in await execute(session, _OWNERS, {"addresses": list(phones)}):
        phone = phones[row.address]
        phone.owner = row.name or coordinators.get(row.address)
        phone.role = "relawan" if row.name else ROLES.get(row.role or "")
    for phone in phones.values():
        # What its owner has on hand first, then what they were asked last.
        phone.offers.sort(key=lambda live: live.state == "open")
        del phone.offers[OFFERS_SHOWN:]
    return list(phones.values())


def _line(row: Row) -> Line:
    taken_for = TAKEN_FOR.get(row.meaning) if row.meaning else None
    if taken_for and row.code:
        taken_for = f"{taken_for} · {row.code}"
    return Line(row.mine, row.body, row.at, taken_for)


async def address_of(session: AsyncSession, offer_id: UUID) -> str:
    """The phone on which an offer arrived.

    Raises:
        answers.UnknownOffer: nobody was asked with this offer.
    """
    asked = await answers.asked_for(session, offer_id)
    return asked.phone or asked.email or ""


async def write(
    session: AsyncSession, *, address: str, text: str, key: str | None, office: Office
) -> str:
    """Write freely from a fake phone: from here on it is a text like any other that comes in.

    The same ``key`` is the same text. Returns the phone's address as it is known here.
    """
    heard = inbound.Heard(
        channel="sandbox",
        kind="sms",
        provider_id=key or f"typed-{uuid7()}",
        sender=storable(address),
        text=storable(text),
        raw=text,
    )
    await inbound.take(session, heard, office=office)
    sender = inbound.sender_of(heard)
    return sender.address if sender else ""


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
