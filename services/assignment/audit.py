"""What must hold for the volunteers at every moment, asked of the tables themselves."""

from collections.abc import Sequence

from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import Row, execute, sql

MISCOUNTED = """
    SELECT v.id, v.name, v.capacity, v.open_cases, v.open_offers, v.open_drills,
           counted.cases, counted.offers, counted.drills
    FROM volunteers v
    LEFT JOIN (
        SELECT volunteer_id,
               count(*) FILTER (WHERE state <> 'offered' AND NOT drill) AS cases,
               count(*) FILTER (WHERE state = 'offered' AND NOT drill) AS offers,
               count(*) FILTER (WHERE drill) AS drills
        FROM offers WHERE state IN ('offered', 'accepted', 'arrived') GROUP BY volunteer_id
    ) AS counted ON counted.volunteer_id = v.id
    WHERE (v.open_cases, v.open_offers, v.open_drills)
          <> (coalesce(counted.cases, 0), coalesce(counted.offers, 0), coalesce(counted.drills, 0))
       OR v.open_cases > v.capacity
    ORDER BY v.id
"""
_MISCOUNTED = sql(MISCOUNTED)


async def miscounted(session: AsyncSession) -> Sequence[Row]:
    """Volunteers whose counts are not what the offers table says, or who have more cases in hand
    than they can take. There should be none, whatever has happened."""
    return await execute(session, _MISCOUNTED)
