"""The offer loop: a case is opened, volunteers are asked, deadlines pass, others are asked.

Nothing lives in memory only: `next_action_at` of each case says when the sweep looks at it again.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.assignment import held, matching, search, transitions
from services.assignment.search import Claimed, Match, Need
from services.assignment.turn import (
    HELD,
    OPEN,
    Asked,
    Case,
    Turn,
    place,
    public,
    row_of,
    utc_offset_minutes,
)
from shared import codes, topics
from shared.database import column, execute, sql
from shared.districts import District, why_not
from shared.events import (
    CaseReported,
    MadeOffer,
    OfferMade,
    PublicCaseOffered,
    PublicCaseOpened,
    PublicCaseWaiting,
)
from shared.hearing import ALL, HeardUntil
from shared.set_aside import NotNow

# How many due cases one sweep takes; the next follows at once if there are more.
SWEEP_SIZE = 200
# Whoever must act instead of us hears of it when answers have not been read for so long: longer
# than a restart, a rebalance or a locked row, shorter than a person can wait.
UNREAD_PATIENCE = timedelta(minutes=5)
ANSWERS_UNREAD = "answers_unread"
# What has no deadline of its own (an offer is called off) waits while more than this is unread.
NEARLY_NOW = timedelta(seconds=10)
# Whose records, when they are set aside, are answers.
ANSWERS = topics.group_of("assignment", topics.NOTIFICATION_ANSWERS)


NEVER = datetime.min.replace(tzinfo=UTC)


class UnknownDistrict(NotNow):
    """A case of a district that has no folder here, or whose folder is refused now."""


# --- opening --------------------------------------------------------------------------------------


async def open_cases(
    session: AsyncSession, reports: Sequence[CaseReported], *, districts: Mapping[str, District]
) -> None:
    """Open a case for each report and look for volunteers at once.

    Raises:
        UnknownDistrict: one of them is of a district that this service does not know.
    """
    for report in reports:
        if report.district not in districts:
            raise UnknownDistrict(why_not(districts, report.district))
    cases = await _insert_cases(session, reports)
    if not cases:
        return
    turn = Turn(cases[0].changed_at, districts, {case.id: case for case in cases})
    reviews = {report.subject: report.data.review for report in reports if report.data.review}
    for case in cases:
        if case.id in reviews:
            held.hold_back(turn, case, reviews[case.id])
        else:
            begin(turn, case)
    await held.keep(session, turn, (case for case in cases if case.held))
    await seek(session, turn)
    await turn.write(session)


def begin(turn: Turn, case: Case) -> None:
    """What a new case gets from its district's policy; its search begins."""
    policy = turn.district(case).policy
    case.parallel = policy.parallel[case.urgency]
    case.escalate_at = turn.moment + policy.escalate_after[case.urgency]
    turn.events.append(public(PublicCaseOpened, case))
    turn.log(case, "reported")
    turn.seeking.add(case.id)


_INSERT_CASES = sql("""
    INSERT INTO cases
        (id, code, district, category, urgency, people, latitude, longitude, approximate,
         subdistrict, subdistrict_name, village, village_name, centre_latitude, centre_longitude,
         drill, traceparent, reported_at, state, version)
    SELECT id, code, district, category, urgency, people, latitude, longitude, approximate,
           subdistrict, subdistrict_name, village, village_name, centre_latitude, centre_longitude,
           drill, traceparent, reported_at, 'searching', 1
    FROM jsonb_to_recordset(CAST(:cases AS jsonb)) AS reported
        (id uuid, code text, district text, category text, urgency text, people int,
         latitude float8, longitude float8, approximate bool, subdistrict text,
         subdistrict_name text, village text, village_name text, centre_latitude float8,
         centre_longitude float8, drill bool, traceparent text, reported_at timestamptz)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id, changed_at
""")
_KEEP_REPORTERS = sql("""
    INSERT INTO reporters (case_id, contact)
    SELECT case_id, contact
    FROM jsonb_to_recordset(CAST(:reporters AS jsonb)) AS r (case_id uuid, contact jsonb)
""")
_REPORTED = (
    "id", "code", "district", "category", "urgency", "people", "latitude", "longitude",
    "approximate", "subdistrict", "subdistrict_name", "village", "village_name",
    "centre_latitude", "centre_longitude", "drill", "traceparent", "reported_at",
)  # fmt: skip


async def _insert_cases(session: AsyncSession, reports: Sequence[CaseReported]) -> list[Case]:
    cases = {
        report.subject: Case(
            id=report.subject,
            district=report.district,
            drill=report.drill,
            traceparent=report.traceparent,
            state="searching",
            version=1,
            changed_at=report.time,
            code=report.data.code,
            category=report.data.category,
            urgency=report.data.urgency,
            people=report.data.people,
            reported_at=report.data.reported_at,
            reporter=report.data.reporter,
            **vars(report.data.place),
        )
        for report in reports
    }
    rows = [row_of(case, _REPORTED) for case in cases.values()]
    inserted = await execute(session, _INSERT_CASES, {"cases": json.dumps(rows)})
    for row in inserted:
        cases[row.id].changed_at = row.changed_at.astimezone(UTC)
    opened = [cases[row.id] for row in inserted]
    reporters = [
        {"case_id": str(case.id), "contact": case.reporter.model_dump(mode="json")}
        for case in opened
        if case.reporter
    ]
    if reporters:
        await execute(session, _KEEP_REPORTERS, {"reporters": json.dumps(reporters)})
    return opened


# --- looking for volunteers -----------------------------------------------------------------------


async def seek(session: AsyncSession, turn: Turn) -> None:
    """Ask as many volunteers as each seeking case still wants; let it wait, or tell a coordinator,
    if there is nobody."""
    needs = needs_of(turn)
    if not needs:
        return
    await turn.hold(session)
    await turn.write_offers(session)
    matches = await matching.match(session, needs, districts=turn.districts)
    rows = [_offer_row(turn, offer, claimed) for offer, claimed in settle(turn, matches)]
    if rows:
        await execute(session, _MAKE, {"offers": json.dumps(rows), "moment": turn.moment})


def needs_of(turn: Turn) -> list[Need]:
    """What the seeking cases of a turn want now. Where the policy's rounds have been gone through,
    the coordinator is told first; the search goes on behind that."""
    needs = []
    for case_id in turn.seeking:
        case = turn.cases[case_id]
        need = _need(turn, case)
        if need.gone_through and not _is_known(case):
            turn.escalate(case, "nobody_accepted_in_time")
        needs.append(need)
    turn.seeking.clear()
    return needs


def settle(turn: Turn, matches: Mapping[UUID, Match]) -> list[tuple[Asked, Claimed]]:
    """What follows from a search: offers, or waiting; returns the offers, which are new."""
    made: list[tuple[Asked, Claimed]] = []
    for case_id, match in matches.items():
        case = turn.cases[case_id]
        if match.chosen:
            made += _ask(turn, case, match)
        _move_on(turn, case, somebody_later=match.somebody_later)
    return made


def _need(turn: Turn, case: Case) -> Need:
    policy = turn.district(case).policy
    needed = policy.needs.get(case.category)
    stages = search.plan(policy)
    # The policy may have got fewer steps meanwhile: then the last one is gone through anew.
    beyond = case.stage >= len(stages)
    overdue = case.escalate_at is not None and case.escalate_at <= turn.moment
    return Need(
        case_id=case.id,
        district=case.district,
        neighbours=policy.neighbours,
        category=case.category,
        needed_roles=needed.roles if needed else (),
        needed_trainings=needed.trainings if needed else (),
        # In a surge the least distance must not let anybody wait for ever.
        pressing=case.urgency == "urgent" or overdue,
        behind=case.behind,
        latitude=case.latitude,
        longitude=case.longitude,
        reported_at=case.reported_at,
        stages=stages,
        quota=policy.rounds * case.parallel,
        wanted=case.parallel - len(turn.offers_of(case, *OPEN)),
        stage=len(stages) - 1 if beyond else case.stage,
        asked=0 if beyond else case.asked_in_stage,
        same_distance_m=policy.same_distance_m,
        busy_counts_m=policy.busy_counts_m,
        recent=policy.recent,
        drill=case.drill,
    )


_MAKE = sql("""
    INSERT INTO offers
        (id, case_id, volunteer_id, district, answer_code, state, distance_m, reasons, made_at,
         respond_by, slot, slots, drill)
    SELECT id, case_id, volunteer_id, district, answer_code, 'offered', distance_m, reasons,
           CAST(:moment AS timestamptz), respond_by, slot, slots, drill
    FROM jsonb_to_recordset(CAST(:offers AS jsonb)) AS made
        (id uuid, case_id uuid, volunteer_id uuid, district text, answer_code text,
         distance_m float8, reasons jsonb, respond_by timestamptz, slot int, slots int, drill bool)
    -- There is one of a case and a volunteer only if it was never sent, or was called off because
    -- their hands were full: it begins anew.
    ON CONFLICT (case_id, volunteer_id) DO UPDATE
    SET id = excluded.id, answer_code = excluded.answer_code, state = excluded.state,
        distance_m = excluded.distance_m, reasons = excluded.reasons, made_at = excluded.made_at,
        respond_by = excluded.respond_by, slot = excluded.slot, slots = excluded.slots,
        ended_at = NULL, answered_at = NULL, words = NULL
    WHERE offers.state IN ('unsent', 'called_off')
""")


def _ask(turn: Turn, case: Case, match: Match) -> list[tuple[Asked, Claimed]]:
    case.stage, case.asked_in_stage = match.need.stage, match.need.asked
    case.state, case.waiting_for = "offered", None
    taken = {offer.slot for offer in turn.offers_of(case, *OPEN)}
    slots = (slot for slot in range(1, case.parallel + 1) if slot not in taken)
    made = []
    for claimed, slot in zip(match.chosen, slots, strict=False):
        offer = _offer(turn, case, claimed, slot=slot)
        turn.add(offer)
        made.append((offer, claimed))
        turn.say(OfferMade, case, made_offer(turn, case, offer))
        turn.log(case, "offered", offer=offer.id)
    turn.tell(case, PublicCaseOffered)
    return made


def _offer(turn: Turn, case: Case, claimed: Claimed, *, slot: int) -> Asked:
    district = turn.district(case)
    local = turn.moment.astimezone(ZoneInfo(district.timezone)).time()
    return Asked(
        id=uuid7(),
        case_id=case.id,
        volunteer=claimed.volunteer.offered(),
        role=claimed.choice.candidate.role,
        home_district=claimed.choice.candidate.district,
        answer_code=codes.numbered_code(claimed.code_number),
        state="offered",
        distance_m=claimed.choice.candidate.distance_m,
        slot=slot,
        made_at=turn.moment,
        respond_by=turn.moment + district.policy.respond_within(case.urgency, local),
    )


def _offer_row(turn: Turn, offer: Asked, claimed: Claimed) -> dict[str, Any]:
    case = turn.cases[offer.case_id]
    candidate = claimed.choice.candidate
    return {
        "id": str(offer.id),
        "case_id": str(case.id),
        "volunteer_id": str(offer.volunteer.id),
        "district": case.district,
        "answer_code": offer.answer_code,
        "distance_m": offer.distance_m,
        "reasons": {
            "distance_m": round(candidate.distance_m, 1),
            "rank": claimed.choice.rank,
            "stage": claimed.stage,
            "free_offers": candidate.free,
            "open_cases": candidate.busy,
            "asked_of_late": candidate.recent,
            "nearer": claimed.nearer,
        },
        "respond_by": offer.respond_by.isoformat(),
        "slot": offer.slot,
        "slots": case.parallel,
        "drill": case.drill,
    }


def made_offer(turn: Turn, case: Case, offer: Asked) -> MadeOffer:
    """What an offer says to whoever brings it to the volunteer: nothing of the reporter, whose
    contact is for whoever has the case."""
    return MadeOffer.model_construct(
        offer_id=offer.id,
        answer_code=offer.answer_code,
        respond_by=offer.respond_by,
        volunteer=offer.volunteer,
        distance_m=round(offer.distance_m, 1),
        category=case.category,
        urgency=case.urgency,
        people=case.people,
        place=place(case),
        utc_offset_minutes=utc_offset_minutes(turn.district(case), turn.moment),
        reported_at=case.reported_at.astimezone(UTC),
    )


def _move_on(turn: Turn, case: Case, *, somebody_later: bool) -> None:
    """What follows for a case that has been looked for: it waits for answers, or for people."""
    if turn.offers_of(case, *OPEN):
        case.state = "offered"
    else:
        _wait(turn, case, "all_volunteers_busy" if somebody_later else "no_volunteer_in_reach")
    case.next_action_at = _next_action(turn, case)


def _wait(turn: Turn, case: Case, reason: str) -> None:
    """Nobody can be asked now: say so once. If nobody is left, a coordinator has to know."""
    state = "waiting" if case.escalated_at is None else "escalated"
    news = (case.state, case.waiting_for) != (state, reason)
    case.state, case.waiting_for = state, reason
    # Also to those who were told before that the search goes on.
    if reason == "no_volunteer_in_reach" and case.escalated_for != "nobody_left_to_ask":
        turn.escalate(case, "nobody_left_to_ask")
    elif news:
        turn.tell(case, PublicCaseWaiting)
        turn.log(case, "waiting", why=reason)


def _next_action(turn: Turn, case: Case) -> datetime:
    retry = turn.moment + turn.district(case).policy.retry_after
    moments = [offer.respond_by for offer in turn.offers_of(case, *OPEN)] or [retry]
    if case.escalate_at is not None and not _is_known(case):
        moments.append(case.escalate_at)
    return min(moments)


def _is_known(case: Case) -> bool:
    """Whether a coordinator knows that the search has not found anybody: that answers could not be
    read was another matter."""
    return case.escalated_at is not None and case.escalated_for != ANSWERS_UNREAD


# --- when a moment has come -----------------------------------------------------------------------

_DUE = sql("""
    SELECT id, EXISTS (SELECT 1 FROM set_aside AS aside
                       WHERE aside.consumer = :answers AND aside.case_id = cases.id) AS unread
    FROM cases
    WHERE next_action_at <= now() AND district = ANY (CAST(:districts AS text[]))
      AND (CAST(:only AS uuid) IS NULL OR id = :only)
      AND (next_action_at <= now() - CAST(:behind AS interval)
               AND NOT EXISTS (SELECT 1 FROM set_aside AS aside
                               WHERE aside.consumer = :answers AND aside.case_id = cases.id)
           -- Its answers may be unread, for so long that a person has to know.
           OR next_action_at <= now() - CAST(:patience AS interval)
               AND state <> 'closed' AND escalated_for IS DISTINCT FROM :answers_unread
               AND (:deaf OR EXISTS (SELECT 1 FROM set_aside AS aside
                                     WHERE aside.consumer = :answers AND aside.case_id = cases.id
                                       AND aside.set_aside_at
                                           <= now() - CAST(:patience AS interval))))
    -- Whoever waits for an answer that will not come goes first, then the urgent.
    ORDER BY state <> 'offered', urgency <> 'urgent', next_action_at, id
    LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")


async def sweep(
    session: AsyncSession,
    *,
    districts: Mapping[str, District],
    heard: HeardUntil = ALL,
    only: UUID | None = None,
) -> list[UUID]:
    """Act on the cases whose moment has come, as far as answers have been ``heard``; returns which
    they were.

    Cases of a district that was taken away rest until it is back.
    """
    cases = await due(session, districts=districts, heard=heard, only=only)
    if cases:
        turn = await Turn.take(session, cases, districts=districts)
        await turn.hold(session)
        # After the turn has got its moment, so that the time in between counts as not heard.
        heard_until = turn.moment - heard.behind()
        for case in turn.cases.values():
            come_due(turn, case, heard_until=NEVER if cases[case.id] else heard_until)
        await seek(session, turn)
        await turn.write(session)
    return list(cases)


# Whoever has accepted as many cases as they can take is not asked for others any more: those cases
# ask the next one. Most often nobody is so, and no case is looked at.
_FULL = sql("""
    SELECT id FROM cases
    WHERE id IN (SELECT o.case_id FROM offers o JOIN volunteers v ON v.id = o.volunteer_id
                 WHERE o.state = 'offered' AND v.open_cases >= v.capacity)
      AND state = 'offered' AND district = ANY (CAST(:districts AS text[]))
      AND (CAST(:only AS uuid) IS NULL OR id = :only)
      -- Their yes may be among what waits.
      AND NOT EXISTS (SELECT 1 FROM set_aside AS aside
                      WHERE aside.consumer = :answers AND aside.case_id = cases.id)
    ORDER BY urgency <> 'urgent', reported_at, id
    LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")


async def due(
    session: AsyncSession,
    *,
    districts: Mapping[str, District],
    heard: HeardUntil = ALL,
    only: UUID | None = None,
) -> dict[UUID, bool]:
    """Lock the cases on which the sweep has to act, as many as it takes: their moment has come, or
    a volunteer who was asked has accepted so many others that their hands are full. Case id ->
    whether answers of it are set aside."""
    behind = heard.behind()
    values = {"districts": list(districts), "only": only, "answers": ANSWERS}
    found: dict[UUID, bool] = {}
    if behind <= NEARLY_NOW:
        # Half of the room at most: what cannot be called off must not keep deadlines from passing.
        rows = await execute(session, _FULL, values | {"limit": SWEEP_SIZE // 2})
        found = {row.id: False for row in rows}
    if len(found) < SWEEP_SIZE:
        left = values | {
            "limit": SWEEP_SIZE - len(found),
            "answers_unread": ANSWERS_UNREAD,
            "behind": behind,
            "deaf": heard.deaf_for() >= UNREAD_PATIENCE,
            "patience": UNREAD_PATIENCE,
        }
        found |= {row.id: row.unread for row in await execute(session, _DUE, left)}
    return found


def come_due(turn: Turn, case: Case, *, heard_until: datetime | None = None) -> None:
    """What a passed moment means for a case, by what was heard until then (None: until now).

    What has not been heard leaves everything as it is, but a coordinator is told in the end.
    """
    if case.state == "closed":
        case.next_action_at = None
        return
    moment = turn.moment if heard_until is None else heard_until
    nearly_all = turn.moment - moment <= NEARLY_NOW
    due_at = case.next_action_at
    if due_at is not None and moment < due_at <= turn.moment:
        if due_at <= turn.moment - UNREAD_PATIENCE and case.escalated_for != ANSWERS_UNREAD:
            turn.escalate(case, ANSWERS_UNREAD)
        return
    if case.state in HELD:
        if due_at is not None and due_at <= turn.moment:
            _silent_holder(turn, case)
        return
    for offer in turn.offers_of(case, *OPEN):
        if offer.respond_by <= moment:
            turn.close_offer(offer, "expired", "expired")
            turn.log(case, "expired", offer=offer.id)
        elif turn.hands_full(offer) and nearly_all:
            turn.close_offer(offer, "called_off", "hands_full")
            turn.log(case, "called_off", offer=offer.id)
    escalate_at = None if _is_known(case) else case.escalate_at
    if escalate_at is not None and escalate_at <= moment:
        turn.escalate(case, "nobody_accepted_in_time")
    turn.seeking.add(case.id)


def _silent_holder(turn: Turn, case: Case) -> None:
    """Whoever has the case has not been heard of for too long."""
    (holder,) = turn.offers_of(case, *HELD)
    if holder.state == "accepted":
        turn.close_offer(holder, "lapsed", "lapsed")
        turn.log(case, "lapsed", offer=holder.id)
        transitions.reopen(turn, case)
    else:
        turn.escalate(case, "no_news_after_arrival")
        # And again, as long as nobody says how it ended.
        case.next_action_at = turn.moment + turn.district(case).policy.report_within


# --- what nobody has looked at --------------------------------------------------------------------


async def begin_overlooked(
    session: AsyncSession, *, districts: Mapping[str, District]
) -> list[UUID]:
    """Begin the search for cases that were held back and that nobody has looked at in time, a few
    at once; returns which they were. A transaction of its own: they are behind all others."""
    cases = await held.overlooked(session, districts=districts)
    if not cases:
        return []
    turn = await Turn.take(session, cases, districts=districts)
    # A coordinator may have been faster.
    begun = [turn.cases[id_] for id_ in cases if turn.cases[id_].held]
    for case in begun:
        held.let_in(turn, case)
    await held.note_begun(session, begun)
    await seek(session, turn)
    await turn.write(session)
    return [case.id for case in begun]


# --- when somebody has become available -----------------------------------------------------------

_OPENED = sql("""
    DELETE FROM openings WHERE district = ANY (CAST(:districts AS text[])) RETURNING district
""")
_WAKE = sql("""
    UPDATE cases SET next_action_at = now()
    WHERE id IN (
        SELECT id FROM cases
        WHERE id IN (
            SELECT id FROM cases
            WHERE state IN ('searching', 'waiting', 'escalated')
              AND district = ANY (CAST(:districts AS text[])) AND next_action_at > now()
            -- As many as one sweep takes: the timer of the others comes soon enough.
            ORDER BY urgency <> 'urgent', reported_at, id LIMIT :limit)
        ORDER BY id FOR NO KEY UPDATE)
""")


async def wake(session: AsyncSession, *, districts: Mapping[str, District]) -> None:
    """Where somebody has become available, cases that wait look again now: those of the district,
    and of those that may ask it as a neighbour. A transaction of its own: it waits for cases."""
    opened = set(column(await execute(session, _OPENED, {"districts": _known(districts)})))
    helped = {
        code
        for code, district in districts.items()
        if code in opened or opened.intersection(district.policy.neighbours)
    }
    if helped:
        await execute(session, _WAKE, {"districts": list(helped), "limit": SWEEP_SIZE})


def _known(districts: Mapping[str, District]) -> list[str]:
    """The districts and whom they may ask: openings elsewhere are for others to take."""
    return sorted({*districts, *(n for d in districts.values() for n in d.policy.neighbours)})
