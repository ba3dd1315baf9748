"""The life of a case until a volunteer is asked: opened, offered, or waiting and tried again."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from uuid_utils.compat import uuid7

from services.assignment import matching
from services.assignment.matching import Choice, Match, Need
from services.assignment.models import Case
from shared import codes, outbox
from shared.database import execute, now, sql
from shared.districts import District, Policy
from shared.events import (
    CaseReported,
    Event,
    MadeOffer,
    OfferMade,
    Place,
    PublicCase,
    PublicCaseOffered,
    PublicCaseOpened,
    PublicCaseWaiting,
    PublicSubdistrict,
)

# How many due cases one sweep takes; the next follows at once if there are more.
SWEEP_SIZE = 200


class UnknownDistrict(LookupError):
    """A case of a district that has no folder here."""


async def open_cases(
    session: AsyncSession, reports: Sequence[CaseReported], *, districts: Mapping[str, District]
) -> None:
    """Open a case for each report and look for a volunteer at once.

    Raises:
        UnknownDistrict: one of them is of a district that this service does not know.
    """
    for report in reports:
        if report.district not in districts:
            known = ", ".join(districts)
            raise UnknownDistrict(f"District {report.district} is not known; known are {known}.")
    cases = await _insert_cases(session, reports)
    if not cases:
        return
    opened = [_public(PublicCaseOpened, case) for case in cases]
    sought = await seek(session, cases, districts=districts, moment=cases[0].changed_at)
    await outbox.publish(session, [*opened, *sought])


async def retry_waiting(session: AsyncSession, *, districts: Mapping[str, District]) -> int:
    """Look again for the waiting cases whose time has come; returns how many there were."""
    moment = await now(session)
    query = (
        select(Case)
        .where(
            col(Case.state) == "waiting",
            col(Case.next_action_at) <= moment,
            # A case whose district was taken away waits until it is back.
            col(Case.district).in_(list(districts)),
        )
        .order_by(col(Case.urgency) != "urgent", col(Case.next_action_at), col(Case.id))
        .limit(SWEEP_SIZE)
        .with_for_update(skip_locked=True)
    )
    cases = list((await session.exec(query)).all())
    session.expunge_all()  # from here on they are plain values; the statements below write them
    if cases:
        events = await seek(session, cases, districts=districts, moment=moment)
        await outbox.publish(session, events)
    return len(cases)


async def seek(
    session: AsyncSession,
    cases: Sequence[Case],
    *,
    districts: Mapping[str, District],
    moment: datetime,
) -> list[Event[Any]]:
    """Ask the nearest available volunteer of each case, or let the case wait.

    Returns the events of what has happened, to be published in this transaction.
    """
    needs = [_need(case, districts[case.district].policy) for case in cases]
    match = await matching.match(session, needs)
    offered = await _make_offers(session, cases, match, districts=districts, moment=moment)
    waiting = await _let_wait(session, cases, match, districts=districts, moment=moment)
    return [*offered, *waiting]


_INSERT_CASES = sql("""
    INSERT INTO cases
        (id, code, district, category, urgency, people, latitude, longitude, approximate,
         subdistrict, subdistrict_name, village, village_name, centre_latitude, centre_longitude,
         drill, traceparent, reported_at, state, version)
    SELECT *, 'searching', 1
    FROM jsonb_to_recordset(CAST(:cases AS jsonb)) AS reported
        (id uuid, code text, district text, category text, urgency text, people int,
         latitude float8, longitude float8, approximate bool, subdistrict text,
         subdistrict_name text, village text, village_name text, centre_latitude float8,
         centre_longitude float8, drill bool, traceparent text, reported_at timestamptz)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id, changed_at
""")


async def _insert_cases(session: AsyncSession, reports: Sequence[CaseReported]) -> list[Case]:
    cases = {
        report.subject: Case(
            id=report.subject,
            district=report.district,
            drill=report.drill,
            traceparent=report.traceparent,
            state="searching",
            version=1,
            **report.data.model_dump(include={"code", "category", "urgency", "people"}),
            **report.data.place.model_dump(),
            reported_at=report.data.reported_at,
        )
        for report in reports
    }
    rows = [
        case.model_dump(
            mode="json",
            exclude={"state", "version", "changed_at", "waiting_for", "next_action_at"},
        )
        for case in cases.values()
    ]
    inserted = await execute(session, _INSERT_CASES, {"cases": json.dumps(rows)})
    for row in inserted:
        cases[row.id].changed_at = row.changed_at.astimezone(UTC)
    return [cases[row.id] for row in inserted]


def _need(case: Case, policy: Policy) -> Need:
    return Need(
        case_id=case.id,
        district=case.district,
        category=case.category,
        urgent=case.urgency == "urgent",
        latitude=case.latitude,
        longitude=case.longitude,
        radius_m=policy.radius_m,
        reported_at=case.reported_at,
    )


# The offer and the move of its case in one statement.
_OFFER = sql("""
    WITH made AS (
        INSERT INTO offers
            (id, case_id, volunteer_id, district, answer_code, state, distance_m, reasons, made_at,
             respond_by)
        SELECT id, case_id, volunteer_id, district, answer_code, 'offered', distance_m, reasons,
               CAST(:moment AS timestamptz), respond_by
        FROM jsonb_to_recordset(CAST(:offers AS jsonb)) AS made
            (id uuid, case_id uuid, volunteer_id uuid, district text, answer_code text,
             distance_m float8, reasons jsonb, respond_by timestamptz)
        RETURNING case_id, respond_by
    )
    UPDATE cases c
    SET state = 'offered', waiting_for = NULL, next_action_at = made.respond_by,
        version = version + 1, changed_at = CAST(:moment AS timestamptz)
    FROM made WHERE c.id = made.case_id
""")


async def _make_offers(
    session: AsyncSession,
    cases: Sequence[Case],
    match: Match,
    *,
    districts: Mapping[str, District],
    moment: datetime,
) -> list[Event[Any]]:
    """One offer for each case that has found somebody; returns its events."""
    offered = [case for case in cases if case.id in match.chosen]
    if not offered:
        return []
    offers = [
        _offer(case, match, district=districts[case.district], moment=moment) for case in offered
    ]
    rows = [
        {
            "id": str(offer.offer_id),
            "case_id": str(case.id),
            "volunteer_id": str(offer.volunteer.id),
            "district": case.district,
            "answer_code": offer.answer_code,
            "distance_m": offer.distance_m,
            "reasons": _reasons(match.chosen[case.id], match.nearer[case.id]),
            "respond_by": offer.respond_by.isoformat(),
        }
        for case, offer in zip(offered, offers, strict=True)
    ]
    await execute(session, _OFFER, {"offers": json.dumps(rows), "moment": moment})
    events: list[Event[Any]] = []
    for case, offer in zip(offered, offers, strict=True):
        case.state, case.waiting_for = "offered", None
        case.version, case.changed_at = case.version + 1, moment
        events += [_offer_made(case, offer), _public(PublicCaseOffered, case)]
    return events


def _offer(case: Case, match: Match, *, district: District, moment: datetime) -> MadeOffer:
    candidate = match.chosen[case.id].candidate
    return MadeOffer.model_validate(
        {
            "offer_id": uuid7(),
            "answer_code": codes.numbered_code(match.code_numbers[case.id]),
            "respond_by": moment + district.policy.respond_within,
            "volunteer": candidate.volunteer,
            "distance_m": round(candidate.distance_m, 1),
            "category": case.category,
            "urgency": case.urgency,
            "people": case.people,
            "place": _place(case),
            "utc_offset_minutes": _utc_offset_minutes(district, moment),
            "reported_at": case.reported_at,
        }
    )


def _utc_offset_minutes(district: District, moment: datetime) -> int:
    offset = moment.astimezone(ZoneInfo(district.timezone)).utcoffset() or timedelta()
    return int(offset.total_seconds() // 60)


def _place(case: Case) -> Place:
    return Place(
        latitude=case.latitude,
        longitude=case.longitude,
        approximate=case.approximate,
        subdistrict=case.subdistrict,
        subdistrict_name=case.subdistrict_name,
        village=case.village,
        village_name=case.village_name,
        centre_latitude=case.centre_latitude,
        centre_longitude=case.centre_longitude,
    )


def _reasons(choice: Choice, nearer: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "distance_m": round(choice.candidate.distance_m, 1),
        "rank": choice.rank,
        "free_places": choice.candidate.free,
        "nearer": nearer,
    }


_LET_WAIT = sql("""
    UPDATE cases c
    SET state = 'waiting', waiting_for = parked.waiting_for, next_action_at = parked.next_at,
        version = c.version + parked.step,
        changed_at = CASE parked.step WHEN 1 THEN CAST(:moment AS timestamptz) ELSE changed_at END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:waiting_for AS text[]),
                CAST(:next_at AS timestamptz[]), CAST(:steps AS int[]))
         AS parked (id, waiting_for, next_at, step)
    WHERE c.id = parked.id
""")


async def _let_wait(
    session: AsyncSession,
    cases: Sequence[Case],
    match: Match,
    *,
    districts: Mapping[str, District],
    moment: datetime,
) -> list[Event[Any]]:
    """Nobody suitable is free: say so once, and set the timer for the next try."""
    waiting = [case for case in cases if case.id in match.waiting]
    if not waiting:
        return []
    changed = [
        case
        for case in waiting
        if (case.state, case.waiting_for) != ("waiting", match.waiting[case.id])
    ]
    await execute(
        session,
        _LET_WAIT,
        {
            "ids": [case.id for case in waiting],
            "waiting_for": [match.waiting[case.id] for case in waiting],
            "next_at": [moment + districts[case.district].policy.retry_after for case in waiting],
            "steps": [int(case in changed) for case in waiting],
            "moment": moment,
        },
    )
    for case in changed:
        case.state, case.waiting_for = "waiting", match.waiting[case.id]
        case.version, case.changed_at = case.version + 1, moment
    return [_public(PublicCaseWaiting, case) for case in changed]


async def wake_waiting(session: AsyncSession, *, district: str) -> None:
    """Somebody has become available in a district: its waiting cases look again now."""
    await execute(
        session,
        sql("""
            UPDATE cases SET next_action_at = now()
            WHERE state = 'waiting' AND district = :district
        """),
        {"district": district},
    )


def _offer_made(case: Case, offer: MadeOffer) -> OfferMade:
    made: OfferMade = OfferMade.of(
        offer,
        case_id=case.id,
        district=case.district,
        time=case.changed_at,
        drill=case.drill,
        traceparent=case.traceparent,
    )
    return made


def _public(event: type[Event[PublicCase]], case: Case) -> Event[PublicCase]:
    """The public event of a case as it is now.

    No place but the subdistrict's centre, and no trace: the reporter may have chosen it.
    """
    data = PublicCase.model_validate(
        {
            "version": case.version,
            "state": case.state,
            "category": case.category,
            "urgency": case.urgency,
            "subdistrict": PublicSubdistrict(
                code=case.subdistrict,
                name=case.subdistrict_name,
                latitude=case.centre_latitude,
                longitude=case.centre_longitude,
            ),
            "reported_at": case.reported_at,
            "waiting_for": case.waiting_for,
        }
    )
    made: Event[PublicCase] = event.of(
        data,
        case_id=case.id,
        district=case.district,
        time=case.changed_at,
        drill=case.drill,
    )
    return made
