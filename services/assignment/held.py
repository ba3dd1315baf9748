"""Cases that the duty officer looks at before volunteers are asked: too many came at once.

They wait beside the search, not in it: no flood of them is ahead of anybody. A person may be in
need all the same, so what nobody has looked at in time is searched for, a few at a time and behind
all others. See docs/adr/0024.
"""

import json
from collections.abc import Iterable, Mapping
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment.turn import Case, Turn, public
from services.assignment.turn import utc_offset_minutes as offset_minutes
from shared import outbox
from shared.database import clock, column, execute, sql
from shared.districts import District
from shared.events import CasesHeld, Coordinator, HeldCases, PublicCaseEscalated, PublicCaseOpened

# --- what happens to a case -----------------------------------------------------------------------


def hold_back(turn: Turn, case: Case, reason: str) -> None:
    """A new case that is looked at first. Coordinators are told of all such cases together."""
    case.parallel = turn.district(case).policy.parallel[case.urgency]
    turn.events.append(public(PublicCaseOpened, case))
    turn.log(case, "reported")
    case.state, case.escalated_at, case.escalated_for = "escalated", turn.moment, reason
    turn.tell(case, PublicCaseEscalated)
    turn.log(case, "held", why=reason)
    case.held = True


def let_in(turn: Turn, case: Case, *, who: str | None = None, why: str | None = None) -> None:
    """Its search begins: a coordinator wants it (``who``), or nobody has looked in time."""
    case.held, case.behind = False, who is None
    case.state = "searching"
    case.escalated_at = case.escalated_for = None
    case.escalate_at = turn.moment + turn.district(case).policy.escalate_after[case.urgency]
    turn.log(case, "let_in" if who else "not_looked_at", who=who, why=why)
    turn.seeking.add(case.id)


# --- where they wait ------------------------------------------------------------------------------

_KEEP = sql("""
    INSERT INTO held_cases (case_id, district, reason, urgent, look_by)
    SELECT * FROM jsonb_to_recordset(CAST(:held AS jsonb)) AS h
        (case_id uuid, district text, reason text, urgent bool, look_by timestamptz)
    ORDER BY case_id
""")
_FORGET = sql("DELETE FROM held_cases WHERE case_id = ANY (CAST(:ids AS uuid[]))")
_BEGUN = sql("""
    UPDATE held_cases SET begun_at = now() WHERE case_id = ANY (CAST(:ids AS uuid[]))
""")
_ENDED = sql("""
    DELETE FROM held_cases h USING cases c
    WHERE c.id = h.case_id AND c.state = 'closed' AND h.begun_at IS NOT NULL
""")
# The urgent first, then those that have waited longest. A place is taken by what is being searched
# for, and for a while by what has just begun: where nobody suits, one would follow the other at
# once, and each would be an escalation.
_OVERLOOKED = sql("""
    SELECT next.case_id
    FROM unnest(CAST(:districts AS text[]), CAST(:at_once AS int[]), CAST(:pauses AS interval[]))
         AS d (district, at_once, pause)
    CROSS JOIN LATERAL (
        SELECT h.case_id FROM held_cases h
        WHERE h.district = d.district AND h.begun_at IS NULL AND h.look_by <= now()
        ORDER BY h.urgent DESC, h.look_by, h.case_id
        LIMIT greatest(d.at_once - (
            SELECT count(*) FROM held_cases b JOIN cases c ON c.id = b.case_id
            WHERE b.district = d.district AND b.begun_at IS NOT NULL
              AND (c.state IN ('searching', 'waiting', 'offered')
                   OR b.begun_at > now() - d.pause)), 0)
    ) AS next
""")


async def keep(session: AsyncSession, turn: Turn, cases: Iterable[Case]) -> None:
    """Let new cases wait until somebody looks, or until their time has come."""
    rows = [
        {
            "case_id": str(case.id),
            "district": case.district,
            "reason": case.escalated_for,
            "urgent": case.urgency == "urgent",
            "look_by": (
                turn.moment + turn.district(case).policy.reports.look_within[case.urgency]
            ).isoformat(),
        }
        for case in cases
    ]
    if rows:
        await execute(session, _KEEP, {"held": json.dumps(rows)})


async def forget(session: AsyncSession, case: Case) -> None:
    """Somebody has decided about it."""
    await execute(session, _FORGET, {"ids": [case.id]})


async def note_begun(session: AsyncSession, cases: Iterable[Case]) -> None:
    """Their search has begun by itself: they stay behind all others."""
    await execute(session, _BEGUN, {"ids": [case.id for case in cases]})


async def overlooked(session: AsyncSession, *, districts: Mapping[str, District]) -> list[UUID]:
    """The cases whose search is to begin now, as nobody has looked at them in time."""
    await execute(session, _ENDED)
    policies = [district.policy.reports for district in districts.values()]
    values = {
        "districts": list(districts),
        "at_once": [policy.at_once for policy in policies],
        "pauses": [policy.tell_every for policy in policies],
    }
    return column(await execute(session, _OVERLOOKED, values))


# --- telling the coordinators ---------------------------------------------------------------------

# Only what waits: a case that was let in meanwhile must not use up the turn of the next one.
_UNTOLD = sql("""
    SELECT DISTINCT district FROM held_cases
    WHERE NOT told AND begun_at IS NULL AND district = ANY (CAST(:districts AS text[]))
    ORDER BY district
""")
# Of several replicas one tells.
_TURN_TO_TELL = sql("""
    INSERT INTO held_told AS t (district, told_at) VALUES (:district, now())
    ON CONFLICT (district) DO UPDATE SET told_at = excluded.told_at
    WHERE t.told_at <= excluded.told_at - CAST(:every AS interval)
    RETURNING district
""")
_TOLD = sql("UPDATE held_cases SET told = true WHERE district = :district AND NOT told")
_WAITING = sql("""
    SELECT count(*) AS cases, count(*) FILTER (WHERE urgent) AS urgent, min(look_by) AS look_by,
           array_agg(DISTINCT reason) AS reasons
    FROM held_cases WHERE district = :district AND begun_at IS NULL
""")


async def tell(session: AsyncSession, *, districts: Mapping[str, District]) -> None:
    """Tell each district's coordinators what waits for them: once for all, and not too often."""
    for code in column(await execute(session, _UNTOLD, {"districts": list(districts)})):
        district = districts[code]
        every = district.policy.reports.tell_every
        if not await execute(session, _TURN_TO_TELL, {"district": code, "every": every}):
            continue
        await execute(session, _TOLD, {"district": code})
        (waiting,) = await execute(session, _WAITING, {"district": code})
        if waiting.cases:
            data = HeldCases(
                district_name=district.name,
                cases=waiting.cases,
                urgent=waiting.urgent,
                reasons=waiting.reasons,
                look_by=waiting.look_by,
                utc_offset_minutes=offset_minutes(district, waiting.look_by),
                coordinators=[
                    Coordinator(name=c.name, phone=c.phone, email=c.email, language=c.language)
                    for c in district.policy.coordinators
                    if c.subdistrict is None
                ],
            )
            event: CasesHeld = CasesHeld.of(
                data,
                # It is about no single case; what is said of a district stays in order.
                case_id=uuid5(NAMESPACE_URL, f"jangkau:district:{code}"),
                district=code,
                time=await clock(session),
            )
            await outbox.publish(session, [event])
