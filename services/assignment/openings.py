"""Somebody has become available in a district: the sweep lets its waiting cases look again.

A row instead of an UPDATE of the cases: whoever has locked volunteers must not then wait for cases,
which others lock first.
"""

from collections.abc import Iterable

from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import execute, sql, wakes

# The loop that reads the openings.
WORK = "sweep"

_ANNOUNCE = sql("INSERT INTO openings (district) SELECT unnest(CAST(:districts AS text[]))")


async def announce(session: AsyncSession, districts: Iterable[str]) -> None:
    """Tell the sweep of openings in these districts, once each; it is woken by the commit."""
    codes = sorted(set(districts))
    if codes:
        await execute(session, _ANNOUNCE, {"districts": codes})
        wakes(session, WORK)
