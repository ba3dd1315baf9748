"""SMS budgets: how many segments a district may send a day, and who is told before it is spent.

What is under way counts, so that several processes together never exceed it. What is urgent goes
out all the same and counts too, up to a ceiling; the rest goes by another channel, or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from zoneinfo import ZoneInfo

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import messages, texts
from services.notification.letters import of_policy, to_coordinator
from services.notification.routes import Routes
from shared import outbox
from shared.database import execute, sql
from shared.districts import District
from shared.events import RunLowBudget, SmsBudgetRunLow

log = structlog.get_logger("budget")

# The row is locked until the end of the transaction: whoever else takes messages of this district
# waits and then sees what we have spent.
_SPENT = sql("""
    INSERT INTO spending AS s (district, day, segments) VALUES (:district, :day, 0)
    ON CONFLICT (district, day) DO UPDATE SET segments = s.segments
    RETURNING segments, warned_at, ceiling_told_at
""")
_SPEND = sql("""
    UPDATE spending SET segments = :segments,
        warned_at = CASE WHEN CAST(:warned AS boolean) THEN clock_timestamp() ELSE warned_at END,
        ceiling_told_at = CASE WHEN CAST(:reached AS boolean) THEN clock_timestamp()
                               ELSE ceiling_told_at END
    WHERE district = :district AND day = :day
""")
_GIVE_BACK = sql("""
    UPDATE spending SET segments = greatest(segments - :segments, 0)
    WHERE district = :district AND day = :day
""")


@dataclass(frozen=True)
class Admitted:
    """Which of the messages that are due may go by SMS now, and which may not."""

    taken: list[Any]
    refused: list[Any]


# That the money is spent has to be said by what is left of it: once a day to each coordinator.
ABOUT_MONEY = ("budget", "ceiling")


async def admit(session: AsyncSession, due: Sequence[Any], *, routes: Routes) -> Admitted:
    """Spend what these messages cost: rows of id, district, segments, urgent, purpose
    and now (the database's clock)."""
    taken: list[Any] = []
    refused: list[Any] = []
    # Sorted, so that two processes wait for each other instead of deadlocking.
    for code in sorted({row.district for row in due}):
        mine = [row for row in due if row.district == code]
        if code not in routes.districts:
            taken += mine
            continue
        policy = routes.policy(code)
        # Without a budget there is the ceiling alone.
        limit = policy.urgent_sms_a_day if policy.sms_a_day is None else policy.sms_a_day
        district = routes.districts[code]
        day = _day(district, mine[0].now)
        (spent,) = await execute(session, _SPENT, {"district": code, "day": day})
        used, reached, short = spent.segments, False, False
        for row in mine:
            beyond = used + row.segments > policy.urgent_sms_a_day
            if row.purpose in ABOUT_MONEY or (
                not beyond and (row.urgent or used + row.segments <= limit)
            ):
                used += row.segments
                taken.append(row)
            else:
                reached, short = reached or beyond, True
                refused.append(row)
        low = policy.sms_a_day is not None and (used >= limit * policy.warn_at or short)
        warn = low and spent.warned_at is None
        reached = reached and spent.ceiling_told_at is None
        values = {
            "district": code, "day": day, "segments": used, "warned": warn, "reached": reached,
        }  # fmt: skip
        await execute(session, _SPEND, values)
        if warn:
            await _warn(session, district, day, used, limit, routes)
        if reached:
            most = policy.urgent_sms_a_day
            await _warn(session, district, day, used, most, routes, ceiling=True)
    return Admitted(taken, refused)


async def give_back(session: AsyncSession, rows: Sequence[Any], *, routes: Routes) -> None:
    """What the provider did not take costs nothing: rows of district, segments and the moment
    (``at``) at which they were spent."""
    back: dict[tuple[str, date], int] = {}
    for row in rows:
        if row.district in routes.districts:
            key = row.district, _day(routes.districts[row.district], row.at)
            back[key] = back.get(key, 0) + row.segments
    for (code, day), segments in sorted(back.items()):
        values = {"district": code, "day": day, "segments": segments}
        await execute(session, _GIVE_BACK, values)


def _day(district: District, moment: datetime) -> date:
    return moment.astimezone(ZoneInfo(district.timezone)).date()


async def _warn(
    session: AsyncSession,
    district: District,
    day: date,
    used: int,
    limit: int,
    routes: Routes,
    *,
    ceiling: bool = False,
) -> None:
    """Say so before only what is urgent goes out, and when nothing does any more (``ceiling``):
    once a day each."""
    (row,) = await execute(session, sql("SELECT clock_timestamp() AS at"), {})
    event: SmsBudgetRunLow = SmsBudgetRunLow.of(
        RunLowBudget(day=day.isoformat(), used=used, budget=limit, ceiling=ceiling),
        # It is about no case; the same district stays in order.
        case_id=uuid5(NAMESPACE_URL, f"jangkau:district:{district.code}"),
        district=district.code,
        time=row.at,
    )
    await outbox.publish(session, [event])
    write = texts.ceiling if ceiling else texts.budget
    log.warning(
        "budget.ceiling" if ceiling else "budget.low",
        district=district.code,
        used=used,
        budget=limit,
    )
    # Of the whole district; every policy has one.
    told = of_policy(one for one in district.policy.coordinators if one.subdistrict is None)
    written = [
        to_coordinator(
            one,
            about=event,
            purpose="ceiling" if ceiling else "budget",
            written=write(district.name, used, limit, one),
        )
        for one in told
    ]
    await messages.queue(session, written, routes=routes)
