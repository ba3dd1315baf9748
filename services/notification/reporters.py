"""How often we write to somebody who is said to have reported: anybody's number can be given.

What counts is the address, not the case: a joker who reports 25 times with a stranger's number has
that number written to as often as a policy allows in a day, and no more.
"""

from collections import Counter
from collections.abc import Sequence

import structlog
from prometheus_client import Counter as Metric
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification.letters import Letter
from services.notification.routes import Routes
from shared.database import execute, sql

log = structlog.get_logger("reporters")

LEFT_OUT = Metric(
    "jangkau_reporter_messages_left_out_total",
    "Messages that a reporter did not get, as there had been enough for a day. A rise: reports "
    "with a stranger's number.",
    ["kind"],
)
ACKNOWLEDGED = "acknowledged"
NEWS = "news"

# Of two processes that write to the same person one waits for the other, and then sees its own.
_HOLD = sql("""
    SELECT pg_advisory_xact_lock(hashtextextended('jangkau.reporter.' || address, 0))
    FROM unnest(CAST(:addresses AS text[])) AS address
""")
# A statement of its own, as it must see what was committed before the lock was ours.
_WRITTEN = sql("""
    SELECT a.address, m.purpose = 'acknowledged' AS acknowledged, count(*) AS messages
    FROM unnest(CAST(:addresses AS text[])) AS a (address)
    CROSS JOIN LATERAL (
        SELECT purpose, state, drill, created_at FROM messages
        WHERE phone = a.address AND purpose IN ('acknowledged', 'news_accepted', 'news_closed')
        UNION ALL
        SELECT purpose, state, drill, created_at FROM messages
        WHERE lower(email) = a.address
          AND purpose IN ('acknowledged', 'news_accepted', 'news_closed')
    ) AS m
    WHERE m.created_at > now() - interval '1 day' AND m.state <> 'withdrawn' AND NOT m.drill
    GROUP BY 1, 2
""")


async def within_limits(
    session: AsyncSession, letters: Sequence[Letter], *, routes: Routes
) -> list[Letter]:
    """Those of these letters to reporters that may still be written today, the first ones first.

    Drills are the agency's own, and have no limit.
    """
    addresses = sorted({a for each in letters if not each.drill for a in _addresses(each)})
    if not addresses:
        return list(letters)
    await execute(session, _HOLD, {"addresses": addresses})
    written: Counter[tuple[str, str]] = Counter()
    for row in await execute(session, _WRITTEN, {"addresses": addresses}):
        written[row.address, ACKNOWLEDGED if row.acknowledged else NEWS] += row.messages
    allowed = []
    for letter in letters:
        kind = ACKNOWLEDGED if letter.purpose == ACKNOWLEDGED else NEWS
        policy = routes.policy(letter.district)
        most = policy.acknowledgements_a_day if kind == ACKNOWLEDGED else policy.news_a_day
        theirs = [(address, kind) for address in _addresses(letter)]
        if letter.drill or all(written[each] < most for each in theirs):
            allowed.append(letter)
            written.update(theirs)
        else:
            LEFT_OUT.labels(kind).inc()
            log.info("reporter.left_alone", kind=kind, case=str(letter.subject))
    return allowed


def _addresses(letter: Letter) -> set[str]:
    """All that a letter may go to: whoever gives another mail address with a number each time is
    still writing to that number."""
    return {address for address in (letter.phone, (letter.email or "").lower()) if address}
