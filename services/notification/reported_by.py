"""Who reported which case: known from the report, for when they write again."""

import json
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import Row, execute, sql
from shared.events import CaseReported

# Somebody who has reported more than that is found by the newest.
REPORTS_AT_MOST = 20

_REMEMBER = sql("""
    INSERT INTO reported_by
        (case_id, code, district, subdistrict, phone, email, language, drill, reported_at)
    SELECT * FROM jsonb_to_recordset(CAST(:reporters AS jsonb)) AS r
        (case_id uuid, code text, district text, subdistrict text, phone text, email text,
         language text, drill boolean, reported_at timestamptz)
    ON CONFLICT (case_id) DO NOTHING
""")
_OF = sql("""
    SELECT case_id, code, district, subdistrict, language, drill, reported_at
    FROM reported_by WHERE phone = :address OR lower(email) = lower(:address)
    -- What is no drill first, then the newest.
    ORDER BY drill, reported_at DESC LIMIT CAST(:most AS int)
""")
_FORGET = sql("DELETE FROM reported_by WHERE kept_at < now() - CAST(:older_than AS interval)")


async def remember(session: AsyncSession, reported: Sequence[CaseReported]) -> None:
    """Keep who reported these cases, if they left a number or an address."""
    rows: dict[UUID, dict[str, object]] = {}
    for event in reported:
        reporter = event.data.reporter
        if reporter is not None and (reporter.phone or reporter.email):
            rows[event.subject] = {
                "case_id": str(event.subject),
                "code": event.data.code,
                "district": event.district,
                "subdistrict": event.data.place.subdistrict,
                "phone": reporter.phone,
                "email": reporter.email,
                "language": reporter.language,
                "drill": event.drill,
                "reported_at": event.data.reported_at.isoformat(),
            }
    if rows:
        await execute(session, _REMEMBER, {"reporters": json.dumps(list(rows.values()))})


async def of(session: AsyncSession, address: str) -> Sequence[Row]:
    """What was reported from a number (E.164) or an e-mail address, the likeliest first."""
    return await execute(session, _OF, {"address": address, "most": REPORTS_AT_MOST})


async def forget(session: AsyncSession, *, older_than: timedelta) -> None:
    """Delete who reported what long ago."""
    await execute(session, _FORGET, {"older_than": older_than})
