"""What notification knows of an offer: what was last heard of it, and what may still be said.

Between the note that an offer is over and a call to a provider there is a race that no database
can end: what a process has just taken may go out although its offer is closed meanwhile. It is kept
small (``Delivery`` looks once more if it was held up), and whoever may have been asked is told that
they need not come.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from shared import outbox
from shared.database import column, execute, sql
from shared.events import (
    AnswerJudged,
    OfferUnreachable,
    PingUnreachable,
    UnreachableOffer,
    UnreachedPing,
)

# What a recorded answer makes of an offer. An obstacle leaves the case with its volunteer.
RECORDED = {
    "accept": "accepted",
    "decline": "ended",
    "arrived": "arrived",
    "done": "ended",
    "hand_back": "ended",
}
# In these states the case is its volunteer's.
HELD = ("accepted", "arrived")
# After these there is nothing left to answer.
OVER_VERDICTS = ("too_late", "taken_by_another", "case_closed", "hands_full")
# What a recorded answer that ends an offer is called afterwards.
ENDINGS = {"decline": "declined", "done": "done", "hand_back": "handed_back"}

# Whether a message ``m`` may no longer be sent. An offer is not asked again after its answer, and a
# reply does not outlive what has ended its offer since.
OVER = """EXISTS (
    SELECT FROM offer_states s
    WHERE s.offer_id = m.offer_id
      AND CASE m.purpose
          WHEN 'offer' THEN s.state <> 'open'
          WHEN 'ping' THEN s.state = 'ended'
          WHEN 'assigned' THEN s.state = 'ended'
          WHEN 'reply' THEN s.state = 'ended' AND s.changed_at > m.created_at
          ELSE false END)"""


# Whether the call ``earlier`` may have brought its message.
BROUGHT = """(earlier.receipt IN ('sent', 'delivered')
              OR (earlier.receipt IS NULL AND earlier.state IN ('sending', 'sent', 'unknown')))"""


def may_have_arrived(*, but: str = "NULL") -> str:
    """Whether some call for message ``m`` may have brought it, in SQL; ``but`` is the id of a call
    that does not count. Such a message is never ``failed``: nobody knows."""
    return f"""EXISTS (
        SELECT FROM attempts earlier
        WHERE earlier.message_id = m.id AND earlier.id IS DISTINCT FROM {but} AND {BROUGHT})"""  # noqa: S608 - our own text


# Sorted, so that two processes wait for each other instead of deadlocking.
_HEAR = sql("""
    INSERT INTO offer_states AS old (offer_id, state, changed_at, heard_at)
    SELECT heard.offer_id, coalesce(heard.state, known.state, 'open'), clock_timestamp(),
           clock_timestamp()
    FROM unnest(CAST(:offers AS uuid[]), CAST(:states AS text[])) AS heard (offer_id, state)
         LEFT JOIN offer_states known USING (offer_id)
    ORDER BY heard.offer_id
    ON CONFLICT (offer_id) DO UPDATE
    SET state = excluded.state, heard_at = excluded.heard_at,
        changed_at = CASE WHEN old.state = excluded.state THEN old.changed_at
                          ELSE excluded.changed_at END
""")
_WITHDRAW = sql(f"""
    UPDATE messages m SET state = 'withdrawn'
    WHERE m.offer_id = ANY (CAST(:offers AS uuid[])) AND m.state = 'queued' AND {OVER}
""")  # noqa: S608 - our own text, no value in it
# Whoever may have heard of an offer. One that is queued after its withdrawal came back from a call
# at this very moment; it will not be sent again, but the call may have got through.
_TOLD = sql("""
    SELECT DISTINCT m.offer_id FROM messages m
    WHERE m.offer_id = ANY (CAST(:offers AS uuid[]))
      AND m.purpose IN ('offer', 'assigned', 'reply')
      AND (m.state IN ('queued', 'sending', 'sent', 'delivered', 'unknown')
           OR EXISTS (SELECT FROM attempts a
                      WHERE a.message_id = m.id AND a.state IN ('sending', 'sent', 'unknown')))
""")


async def hear(session: AsyncSession, heard: Mapping[UUID, str | None]) -> None:
    """Note the newest state of each offer (None: as it was), and withdraw what is over by it.

    Also of offers that nobody knows yet: should one come late, it is not sent.
    """
    if not heard:
        return
    await execute(session, _HEAR, {"offers": list(heard), "states": list(heard.values())})
    await execute(session, _WITHDRAW, {"offers": list(heard)})


async def told(session: AsyncSession, offers: Iterable[UUID]) -> set[UUID]:
    """Those of these offers whose volunteer has heard of them, or may have."""
    return set(column(await execute(session, _TOLD, {"offers": list(offers)})))


def judged(events: Iterable[AnswerJudged]) -> dict[UUID, str | None]:
    """What the verdicts say about their offers, the last one counts."""
    heard: dict[UUID, str | None] = {}
    for event in events:
        offer, state = event.data.offer_id, _state_after(event.data.answer, event.data.verdict)
        heard[offer] = state or heard.get(offer)
    return heard


def _state_after(answer: str, verdict: str) -> str | None:
    if verdict == "recorded":
        return RECORDED.get(answer)
    return "ended" if verdict in OVER_VERDICTS else None


def endings(events: Iterable[AnswerJudged]) -> dict[UUID, str]:
    """Why the offers that these verdicts end are over, the last one counts."""
    found: dict[UUID, str] = {}
    for event in events:
        verdict, answer = event.data.verdict, event.data.answer
        if verdict in OVER_VERDICTS:
            found[event.data.offer_id] = verdict
        elif verdict == "recorded" and answer in ENDINGS:
            found[event.data.offer_id] = ENDINGS[answer]
    return found


async def give_up(session: AsyncSession, rows: Sequence[Any], *, reason: str) -> None:
    """Publish that these messages reach nobody: ``rows`` of offer_id, case_id, district, drill,
    purpose, at. Only offers, assigned cases and tests of reachability are anybody's business.

    Only for rows that this very transaction has moved to ``failed``, so that it is said once.
    """
    await outbox.publish(session, [event for row in rows if (event := _unreachable(row, reason))])


def _unreachable(row: Any, reason: str) -> OfferUnreachable | PingUnreachable | None:
    about: dict[str, Any] = {
        "case_id": row.case_id, "district": row.district, "time": row.at, "drill": row.drill
    }  # fmt: skip
    event: OfferUnreachable | PingUnreachable | None = None
    if row.purpose in ("offer", "assigned"):
        event = OfferUnreachable.of(UnreachableOffer(offer_id=row.offer_id, reason=reason), **about)
    elif row.purpose == "ping":
        event = PingUnreachable.of(UnreachedPing(ping_id=row.offer_id, reason=reason), **about)
    return event
