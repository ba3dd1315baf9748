"""Words that are about no offer: whose they are, and how they reach the duty officer.

What a reporter or a stranger writes is handed to the officer as a quotation, so often an hour from
one sender and so often in all; what is more is kept, and the officer hears once how much it was.
"""

import asyncio
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from prometheus_client import Counter
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import letters, reported_by, texts
from services.notification.handlers import Office
from shared import policy
from shared.database import Database, Row, execute, now, sql
from shared.districts import District
from shared.health import Loop
from shared.words import one_line

NOT_FORWARDED = Counter(
    "jangkau_words_not_forwarded_total",
    "Texts from reporters and strangers that were kept and not handed to an officer, as there were "
    "too many in the hour. Any rise: look into the table inbound, meaning kept.",
    ["district"],
)

Role = Literal["coordinator", "reporter", "volunteer", "stranger"]

WITHIN = timedelta(hours=1)
# A volunteer who writes without an offer means the case that they reported for so long.
REPORT_IS_MEANT = timedelta(days=7)
# Of the words, in an e-mail; an SMS takes what fits one segment.
WORDS_AT_MOST = 1_000
# How long after its end an hour is counted: longer than any transaction that began in it.
COUNTED_AFTER = timedelta(minutes=5)

_LOCK = sql("SELECT pg_advisory_xact_lock(hashtextextended('jangkau.forwarded.' || :district, 0))")
_FORWARDED = sql("""
    SELECT count(*) FILTER (WHERE sender = :sender) AS theirs, count(*) AS all
    FROM inbound
    WHERE district = :district AND meaning = 'forwarded'
      AND received_at > now() - CAST(:within AS interval)
""")
_CROWDED = sql("""
    INSERT INTO crowded_hours (district, hour) VALUES (:district, date_trunc('hour', now()))
    ON CONFLICT DO NOTHING
""")
_COUNT_HOURS = sql("""
    WITH due AS (
        SELECT district, hour FROM crowded_hours
        -- A district whose folder is refused has no officers until it is mended.
        WHERE told_at IS NULL AND district = ANY (CAST(:districts AS text[]))
          AND hour + interval '1 hour' + CAST(:after AS interval) <= now()
        ORDER BY hour, district LIMIT 50 FOR UPDATE SKIP LOCKED
    ), told AS (
        UPDATE crowded_hours c SET told_at = now() FROM due
        WHERE c.district = due.district AND c.hour = due.hour
        RETURNING c.district, c.hour
    )
    SELECT told.district, told.hour, count(i.id) AS texts, count(DISTINCT i.sender) AS senders
    FROM told JOIN inbound i ON i.district = told.district AND i.meaning = 'kept'
         AND i.received_at >= told.hour AND i.received_at < told.hour + interval '1 hour'
    GROUP BY told.district, told.hour ORDER BY told.hour, told.district
""")


@dataclass(frozen=True)
class Writer:
    """Who writes without an offer that waits for them; ``report`` is what they have reported
    (reported_by.of), if that is what they write about."""

    role: Role
    district: str
    language: str
    report: Row | None = None
    # The officer's number, for who is not forwarded.
    call: str | None = None

    @property
    def forwarded(self) -> bool:
        """Whether their words are an officer's business."""
        return self.role in ("reporter", "stranger")


async def who_writes(
    session: AsyncSession,
    address: str,
    text: str,
    *,
    volunteer: Row | None,
    office: Office,
) -> Writer:
    """Whose words these are, by the number or address that they come from.

    ``volunteer`` is what they were asked last (models.Asked), however long ago. Somebody of whom
    nothing is known belongs to the installation's first district, or to the one that is set.
    """
    districts = office.routes.districts
    found = _coordinator(address, districts)
    if found is not None:
        return Writer("coordinator", *found)
    report = _meant(await reported_by.of(session, address), text)
    moment = await now(session)
    recently = report is not None and report.reported_at > moment - REPORT_IS_MEANT
    if volunteer is not None and not recently:
        officers = officers_of(districts.get(volunteer.district))
        call = next((one.phone for one in officers if one.phone), None)
        return Writer("volunteer", volunteer.district, volunteer.language, call=call)
    if report is not None:
        return Writer("reporter", report.district, report.language, report)
    return Writer("stranger", office.home, texts.LANGUAGES[0])


def _coordinator(address: str, districts: Mapping[str, District]) -> tuple[str, str] | None:
    for code in sorted(districts):
        for one in districts[code].policy.coordinators:
            if address == one.phone or address.lower() == (one.email or "").lower():
                return code, one.language
    return None


def _meant(reports: Sequence[Row], text: str) -> Row | None:
    """The report that a text names by its code; else the likeliest."""
    named = {word.strip(".,:;!?()").upper() for word in text[:2000].split()}
    return next((row for row in reports if row.code in named), reports[0] if reports else None)


def officers_of(district: District | None, subdistrict: str | None = None) -> list[Any]:
    """Whom words are handed to: of a case those who coordinate its place, else the duty officers.

    A district that has named coordinators for its subdistricts only has no other officer.
    """
    if district is None:
        return []
    found: Iterable[policy.Coordinator] = district.policy.coordinators_of(subdistrict or "")
    return letters.of_policy(list(found) or district.policy.coordinators)


async def may_forward(
    session: AsyncSession, address: str, writer: Writer, *, office: Office
) -> bool:
    """Whether the officers are handed one more text; until the commit nobody else is counted."""
    await execute(session, _LOCK, {"district": writer.district})
    values = {"sender": address, "district": writer.district, "within": WITHIN}
    (count,) = await execute(session, _FORWARDED, values)
    within: bool = count.theirs < office.forwarded_each and count.all < office.forwarded_in_all
    if not within:
        await execute(session, _CROWDED, {"district": writer.district})
        NOT_FORWARDED.labels(writer.district).inc()
    return within


async def forward(
    session: AsyncSession,
    *,
    inbound_id: UUID,
    subject: UUID,
    address: str,
    text: str,
    writer: Writer,
    office: Office,
) -> None:
    """Hand words to the officers of their place, as a quotation with who wrote them."""
    report = writer.report
    officers = officers_of(
        office.routes.districts.get(writer.district), report.subdistrict if report else None
    )
    words, moment = quoted(text), await now(session)
    await office.send(
        session,
        [
            letters.to_officer(
                officer,
                event_id=inbound_id,
                subject=report.case_id if report else subject,
                district=writer.district,
                drill=bool(report and report.drill),
                purpose="forwarded",
                written=texts.forwarded(
                    words,
                    address,
                    officer,
                    code=report.code if report else None,
                    drill=bool(report and report.drill),
                ),
                moment=moment,
                # A stranger spends no district's budget by writing to it.
                urgent=report is not None,
            )
            for officer in officers
        ],
    )


def quoted(text: str) -> str:
    """Words on one line, without what cannot be seen or would end the quotation."""
    seen = "".join("" if unicodedata.category(c) in ("Cf", "Co", "Cs", "Cn") else c for c in text)
    return one_line(seen).replace('"', "'")[:WORDS_AT_MOST]


class CrowdedHours:
    """Tells officers, once an hour is over, how many texts in it were too many to hand on."""

    EVERY_S = 10.0

    def __init__(self, database: Database, office: Office) -> None:
        self.database = database
        self.office = office

    async def run(self, turns: Loop) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            turns.beat()
            async with self.database.transaction() as session:
                await tell_of_crowded_hours(session, office=self.office)
            await asyncio.sleep(self.EVERY_S)


async def tell_of_crowded_hours(session: AsyncSession, *, office: Office) -> int:
    """Tell officers how many texts were kept in each hour that is over; returns how many hours."""
    values = {"after": COUNTED_AFTER, "districts": list(office.routes.districts)}
    hours = await execute(session, _COUNT_HOURS, values)
    moment = await now(session)
    for row in hours:
        event_id = uuid5(NAMESPACE_URL, f"jangkau:crowded:{row.district}:{row.hour.isoformat()}")
        await office.send(session, _summaries(row, event_id, moment, office))
    return len(hours)


def _summaries(row: Row, event_id: UUID, moment: datetime, office: Office) -> list[letters.Letter]:
    district = office.routes.districts.get(row.district)
    return [
        letters.to_officer(
            officer,
            event_id=event_id,
            subject=event_id,
            district=row.district,
            drill=False,
            purpose="not_forwarded",
            written=texts.not_forwarded(row.texts, row.senders, officer),
            moment=moment,
            urgent=False,
        )
        for officer in officers_of(district)
    ]
