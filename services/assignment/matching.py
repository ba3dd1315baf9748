"""Who is asked: candidates by distance, a pure choice, and a claim that the database guards."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import column, execute, sql
from shared.events import OfferedVolunteer

# How many of the nearest are fetched per case: if a whole batch comes from one place, whoever finds
# all of them taken asks again in the next round.
CANDIDATES = 8
# How many of those who were nearer are named in an offer's reasons.
NEARER_NAMED = 5


@dataclass(frozen=True)
class Need:
    """A case that wants a volunteer now. ``radius_m`` bounds how far away, in metres."""

    case_id: UUID
    district: str
    category: str
    urgent: bool
    latitude: float
    longitude: float
    radius_m: float
    reported_at: datetime


@dataclass(frozen=True)
class Candidate:
    """A volunteer who could be asked. ``free`` is how many more cases they can take."""

    volunteer: OfferedVolunteer
    distance_m: float
    free: int


@dataclass(frozen=True)
class Choice:
    """A volunteer who has been chosen for a case. ``rank`` 1 is the nearest of the candidates."""

    candidate: Candidate
    rank: int


@dataclass
class Match:
    """What came of a round of matching."""

    chosen: dict[UUID, Choice] = field(default_factory=dict)
    # Nobody suitable is free: case id -> what it waits for.
    waiting: dict[UUID, str] = field(default_factory=dict)
    # Per case: the number from which its answer code is made; never the same twice.
    code_numbers: dict[UUID, int] = field(default_factory=dict)
    # Per case: who was nearer than the one who is asked, and why not they.
    nearer: dict[UUID, list[dict[str, Any]]] = field(default_factory=dict)


def choose(
    needs: Iterable[Need], candidates: Mapping[UUID, Sequence[Candidate]]
) -> dict[UUID, Choice]:
    """Give every case the nearest candidate who is still free.

    Urgent cases choose first, then those reported first. Candidates come nearest first. A case
    whose candidates have all been given away is left out of the answer.
    """
    free: dict[UUID, int] = {}
    chosen: dict[UUID, Choice] = {}
    for need in sorted(needs, key=lambda n: (not n.urgent, n.reported_at, n.case_id)):
        for rank, candidate in enumerate(candidates.get(need.case_id, ()), start=1):
            left = free.setdefault(candidate.volunteer.id, candidate.free)
            if left > 0:
                free[candidate.volunteer.id] = left - 1
                chosen[need.case_id] = Choice(candidate, rank)
                break
    return chosen


async def match(session: AsyncSession, needs: Sequence[Need]) -> Match:
    """Find and claim a volunteer for each case, all in this transaction.

    Whoever loses a claim to another transaction is chosen again; each round claims somebody or
    ends, so the rounds are bounded by the number of free places.
    """
    result = Match()
    open_needs = {need.case_id: need for need in needs}
    while open_needs:
        found = await _candidates(session, list(open_needs.values()))
        for case_id in [case_id for case_id in open_needs if not found[case_id].candidates]:
            result.waiting[case_id] = "all_volunteers_busy"
            del open_needs[case_id]
        candidates = {case_id: found[case_id].candidates for case_id in open_needs}
        chosen = choose(open_needs.values(), candidates)
        claims = await _claim(session, chosen)
        for case_id, choice in chosen.items():
            if codes := claims.get(choice.candidate.volunteer.id):
                result.chosen[case_id] = choice
                result.code_numbers[case_id] = codes.pop()
                result.nearer[case_id] = _nearer(found[case_id], choice)
                del open_needs[case_id]
    by_id = {need.case_id: need for need in needs}
    for case_id in await _without_anybody(session, [by_id[id_] for id_ in result.waiting]):
        result.waiting[case_id] = "no_volunteer_in_reach"
    return result


def _arrays(needs: Sequence[Need]) -> dict[str, Any]:
    return {
        "case_ids": [need.case_id for need in needs],
        "districts": [need.district for need in needs],
        "categories": [need.category for need in needs],
        "latitudes": [need.latitude for need in needs],
        "longitudes": [need.longitude for need in needs],
        "radii": [need.radius_m for need in needs],
    }


_NEEDS = """
    unnest(CAST(:case_ids AS uuid[]), CAST(:districts AS text[]), CAST(:categories AS text[]),
           CAST(:latitudes AS float8[]), CAST(:longitudes AS float8[]), CAST(:radii AS float8[]))
    AS need (case_id, district, category, latitude, longitude, radius_m)
"""

# The nearest available volunteers of every case, by great circle, straight from the GiST index.
# Hard filters are part of the query; the radius is cut afterwards, as the order is by distance.
# Beside them, of the very nearest, those who cannot be asked, and why: the reasons of an offer.
_CANDIDATES = sql(f"""
    SELECT need.case_id, passed_over.by, near.*
    FROM {_NEEDS}
    CROSS JOIN LATERAL (
        SELECT coalesce(
                   jsonb_agg(jsonb_build_object(
                       'volunteer', nearest.id, 'distance_m', nearest.distance_m,
                       'why_not', nearest.why_not) ORDER BY nearest.distance_m)
                   FILTER (WHERE nearest.why_not IS NOT NULL), '[]') AS by
        FROM (
            SELECT v.id,
                   round(earth_distance(v.home, ll_to_earth(need.latitude, need.longitude)))
                       AS distance_m,
                   CASE WHEN NOT v.on_duty THEN 'off_duty'
                        WHEN v.categories <> '{{}}' AND NOT need.category = ANY (v.categories)
                            THEN 'not_trained'
                        WHEN NOT v.available THEN 'full'
                        WHEN EXISTS (SELECT 1 FROM offers o
                                     WHERE o.case_id = need.case_id AND o.volunteer_id = v.id)
                            THEN 'asked_before' END AS why_not
            FROM volunteers v
            WHERE v.district = need.district
            ORDER BY v.home <-> ll_to_earth(need.latitude, need.longitude)
            LIMIT :named
        ) AS nearest
    ) AS passed_over
    LEFT JOIN LATERAL (
        SELECT v.id, v.name, v.phone, v.email, v.language, v.capacity - v.open_cases AS free,
               earth_distance(v.home, ll_to_earth(need.latitude, need.longitude)) AS distance_m
        FROM volunteers v
        WHERE v.district = need.district
          AND v.available
          AND (v.categories = '{{}}' OR need.category = ANY (v.categories))
          AND NOT EXISTS (
              SELECT 1 FROM offers o WHERE o.case_id = need.case_id AND o.volunteer_id = v.id)
        ORDER BY v.home <-> ll_to_earth(need.latitude, need.longitude)
        LIMIT :limit
    ) AS near ON near.distance_m <= need.radius_m
    ORDER BY need.case_id, near.distance_m, near.id
""")  # noqa: S608 - composed of constants


@dataclass
class Found:
    """Who could be asked for a case, nearest first, and who of the nearest could not."""

    candidates: list[Candidate] = field(default_factory=list)
    passed_over: list[dict[str, Any]] = field(default_factory=list)


async def _candidates(session: AsyncSession, needs: Sequence[Need]) -> dict[UUID, Found]:
    rows = await execute(
        session, _CANDIDATES, {**_arrays(needs), "limit": CANDIDATES, "named": NEARER_NAMED}
    )
    found: dict[UUID, Found] = {need.case_id: Found() for need in needs}
    for row in rows:
        about = found[row.case_id]
        about.passed_over = row.by
        if row.id is not None:
            volunteer = OfferedVolunteer.model_construct(
                id=row.id, name=row.name, phone=row.phone, email=row.email, language=row.language
            )
            about.candidates.append(Candidate(volunteer, distance_m=row.distance_m, free=row.free))
    return found


def _nearer(found: Found, choice: Choice) -> list[dict[str, Any]]:
    """Who was nearer than the volunteer who is asked, and why they are not asked."""
    taken = [
        {
            "volunteer": str(candidate.volunteer.id),
            "distance_m": round(candidate.distance_m),
            "why_not": "taken_by_another_case",
        }
        for candidate in found.candidates[: choice.rank - 1]
    ]
    distance_m = choice.candidate.distance_m
    passed = [one for one in found.passed_over if one["distance_m"] < distance_m]
    return sorted(passed + taken, key=lambda one: float(one["distance_m"]))


# Locked in the order of ids, so that within a round two batches wait for each other instead of
# deadlocking (over several rounds they may; the database then ends one, which is retried). The
# condition is checked again on the row as it is now: another transaction may have been faster.
_CLAIM = sql("""
    WITH wanted AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS int[])) AS w (id, cases)
    ), locked AS (
        SELECT v.id FROM volunteers v JOIN wanted USING (id) ORDER BY v.id FOR NO KEY UPDATE OF v
    )
    UPDATE volunteers v
    SET open_cases = v.open_cases + wanted.cases, updated_at = now()
    FROM wanted JOIN locked USING (id)
    WHERE v.id = wanted.id AND v.on_duty AND v.open_cases + wanted.cases <= v.capacity
    RETURNING v.id, ARRAY(SELECT nextval('offer_codes')
                          FROM generate_series(1, wanted.cases)) AS code_numbers
""")


async def _claim(session: AsyncSession, chosen: Mapping[UUID, Choice]) -> dict[UUID, list[int]]:
    """Take the places of all who still have as many as are wanted of them.

    Returns for each of them the numbers of the answer codes, one a case.
    """
    counts: dict[UUID, int] = {}
    for choice in chosen.values():
        id_ = choice.candidate.volunteer.id
        counts[id_] = counts.get(id_, 0) + 1
    if not counts:
        return {}
    rows = await execute(session, _CLAIM, {"ids": list(counts), "counts": list(counts.values())})
    return {row.id: list(row.code_numbers) for row in rows}


_WITHOUT_ANYBODY = sql(f"""
    SELECT need.case_id
    FROM {_NEEDS}
    WHERE NOT EXISTS (
        SELECT 1 FROM volunteers v
        WHERE v.district = need.district
          AND (v.categories = '{{}}' OR need.category = ANY (v.categories))
          AND earth_distance(v.home, ll_to_earth(need.latitude, need.longitude)) <= need.radius_m)
""")  # noqa: S608 - composed of constants


async def _without_anybody(session: AsyncSession, needs: Sequence[Need]) -> list[UUID]:
    """Of these cases, those for whom nobody exists, busy or not."""
    if not needs:
        return []
    return column(await execute(session, _WITHOUT_ANYBODY, _arrays(needs)))
