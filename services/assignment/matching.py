"""Candidates and claims: the part of the search that only the database can do.

What makes, answers or ends offers takes the district's lock first (:func:`hold`), since the counts
of their volunteers change with them: transactions of one district then come one after the other
instead of deadlocking over volunteers.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import search
from services.assignment.search import Candidate, Contact, Found, Match, Need
from shared.database import column, execute, sql
from shared.districts import District
from shared.policy import OPEN_OFFERS

_HOLD = sql("""
    SELECT pg_advisory_xact_lock(hashtextextended('jangkau.places.' || district, 0))
    FROM unnest(CAST(:districts AS text[])) AS district
""")


async def hold(session: AsyncSession, districts: Iterable[str]) -> None:
    """Wait for the turn to change what volunteers of these districts have open, until the commit.

    After the cases' own locks and before any volunteer's.
    """
    await execute(session, _HOLD, {"districts": sorted(set(districts))})


@dataclass
class Promised:
    """The offers that one search is about to make: they are not in the table yet.

    ``districts`` say by their policy how many offers each of their volunteers may have; those who
    have come to that are ``exhausted``.
    """

    districts: Mapping[str, District]
    offers: Counter[UUID] = field(default_factory=Counter)
    homes: dict[UUID, str] = field(default_factory=dict)
    exhausted: set[UUID] = field(default_factory=set)

    def most_offers(self, district: str) -> int:
        """How many unanswered offers a volunteer of the district may have."""
        known = self.districts.get(district)
        return known.policy.open_offers if known else OPEN_OFFERS


async def match(
    session: AsyncSession, needs: Sequence[Need], *, districts: Mapping[str, District]
) -> dict[UUID, Match]:
    """Find and claim volunteers for each case, all in this transaction, whose turn it must be in
    all the districts concerned (:func:`hold`).

    Drills are looked for apart and last: they compete with no real case.
    """
    matches: dict[UUID, Match] = {}
    asked: set[UUID] = set()
    for drill in (False, True):
        if some := [need for need in needs if need.drill is drill]:
            promised = Promised(districts, exhausted=asked)
            matches |= await _match(session, some, promised, drill=drill)
            asked = set(promised.offers)
    nobody = [one.need for one in matches.values() if not one.chosen]
    for case_id in await _somebody_later(session, nobody):
        matches[case_id].somebody_later = True
    return matches


async def _match(
    session: AsyncSession, needs: Sequence[Need], promised: Promised, *, drill: bool
) -> dict[UUID, Match]:
    async def look(wanting: Sequence[Need]) -> dict[UUID, Found]:
        return await candidates(session, wanting, promised)

    async def claim(counts: Mapping[UUID, int]) -> dict[UUID, list[int]]:
        rows = await execute(
            session,
            _CLAIM,
            {
                "ids": list(counts),
                "counts": list(counts.values()),
                "promised": [promised.offers[id_] for id_ in counts],
                "most_offers": [promised.most_offers(promised.homes[id_]) for id_ in counts],
                "drill": drill,
            },
        )
        promised.offers.update({row.id: counts[row.id] for row in rows})
        promised.exhausted |= {row.id for row in rows if row.exhausted}
        return {row.id: list(row.code_numbers) for row in rows}

    return await search.find(needs, look=look, claim=claim)


def _arrays(
    needs: Sequence[tuple[Need, str]], promised: Promised | None = None, *, reach: bool = True
) -> dict[str, Any]:
    return {
        "drills": [need.drill for need, _ in needs],
        "most_offers": [promised.most_offers(code) if promised else 0 for _, code in needs],
        "case_ids": [need.case_id for need, _ in needs],
        "districts": [district for _, district in needs],
        "categories": [need.category for need, _ in needs],
        # PostgreSQL takes no arrays of unequal arrays.
        "roles": [",".join(need.now_at.roles if reach else ()) for need, _ in needs],
        "needed_roles": [",".join(need.needed_roles) for need, _ in needs],
        "trainings": [",".join(need.needed_trainings) for need, _ in needs],
        "latitudes": [need.latitude for need, _ in needs],
        "longitudes": [need.longitude for need, _ in needs],
        "radii": [
            need.reach_m if reach else max(stage.radius_m for stage in need.stages)
            for need, _ in needs
        ],
    }


# ll_to_earth, earth_box and earth_distance of `earthdistance`, written out: they are functions
# written in SQL, and so many of their calls cost a third of a whole look.
_PLACE = """
    cube(ARRAY[earth() * cos(radians(latitude)) * cos(radians(longitude)),
               earth() * cos(radians(latitude)) * sin(radians(longitude)),
               earth() * sin(radians(latitude))])
"""
_BOX = f"""
    cube_enlarge({_PLACE}, 2 * earth() * sin(least(radius_m / (2 * earth()), pi() / 2)), 3)
"""
_DISTANCE_M = "2 * earth() * asin(least((v.home <-> need.place) / (2 * earth()), 1))"

# With OFFSET 0 the arrays, the place and the box are made once per case, not once per volunteer.
_NEEDS = f"""
    (SELECT case_id, district, category, string_to_array(roles, ',') AS roles,
            string_to_array(needed_roles, ',') AS needed_roles,
            string_to_array(trainings, ',') AS trainings,
            {_PLACE} AS place, {_BOX} AS reach, radius_m, drill, most_offers
     FROM unnest(CAST(:case_ids AS uuid[]), CAST(:districts AS text[]), CAST(:categories AS text[]),
                 CAST(:roles AS text[]), CAST(:needed_roles AS text[]), CAST(:trainings AS text[]),
                 CAST(:latitudes AS float8[]), CAST(:longitudes AS float8[]),
                 CAST(:radii AS float8[]), CAST(:drills AS bool[]), CAST(:most_offers AS int[]))
          AS n (case_id, district, category, roles, needed_roles, trainings, latitude, longitude,
                radius_m, drill, most_offers)
     OFFSET 0) AS need
"""  # noqa: S608 - composed of constants

# Who may be asked for a case at all. A role of this stage, or trained for what the case needs; and
# what the case needs, a role or a training.
_SUITS = """
    (v.categories = '{}' OR need.category = ANY (v.categories))
    AND (need.needed_roles = '{}' AND need.trainings = '{}'
         OR v.role = ANY (need.needed_roles) OR v.trainings && need.trainings)
"""
_OF_THIS_STAGE = """
    (need.roles = '{}' OR v.role = ANY (need.roles) OR v.trainings && need.trainings)
"""
_ASKED_BEFORE = """
    EXISTS (SELECT 1 FROM offers o WHERE o.case_id = need.case_id AND o.volunteer_id = v.id
            -- Nothing of it was sent, or their hands were full before they answered.
            AND o.state NOT IN ('unsent', 'called_off'))
"""
# For how many more cases somebody with a place left may be asked: `search.room`.
_ROOM = f"""
    CASE WHEN NOT need.drill THEN need.most_offers - v.open_offers
         WHEN v.open_cases + v.open_offers = 0 THEN {search.DRILLS_AT_ONCE} - v.open_drills
         ELSE 0 END
"""
# Time has passed since the sweep last looked: what has ended counts at once.
_READY_NOW = "(v.ready_changes_at IS NULL OR v.ready_changes_at > now())"

# The nearest available volunteers of every case, by great circle, straight from the GiST index.
# Hard filters are part of the query, and so is a box around the radius: where few suit, the index
# is walked no farther. The radius itself is cut afterwards, as the order is by distance.
# `available >= true` instead of `available`: PostgreSQL 15 finds only this in the index.
# Beside them, of the very nearest, those who cannot be asked, and why: the reasons of an offer,
# with the first row of each case and district only, as reading them costs more than finding them.
_CANDIDATES = sql(f"""
    SELECT need.case_id, near.id, near.district, near.role, near.name, near.phone, near.email,
           near.language, near.channel, near.free, near.busy, near.distance_m, near.recent,
           CASE WHEN near.place IS NULL OR near.place = 1 THEN passed_over.by END AS by
    FROM {_NEEDS}
    CROSS JOIN LATERAL (
        SELECT coalesce(
                   jsonb_agg(jsonb_build_object(
                       'volunteer', nearest.id, 'distance_m', nearest.distance_m,
                       'why_not', nearest.why_not) ORDER BY nearest.distance_m)
                   FILTER (WHERE nearest.why_not IS NOT NULL), '[]') AS by
        FROM (
            SELECT v.id, round({_DISTANCE_M}) AS distance_m,
                   CASE WHEN {_ASKED_BEFORE} THEN 'asked_before'
                        WHEN NOT v.on_duty THEN 'off_duty'
                        WHEN NOT v.reachable THEN 'wants_no_messages'
                        WHEN v.rest_until > now() THEN 'resting'
                        WHEN NOT v.ready OR NOT {_READY_NOW} THEN 'off_duty'
                        WHEN NOT ({_SUITS}) THEN 'not_trained'
                        WHEN NOT v.available THEN 'full'
                        WHEN {_ROOM} <= 0 OR v.id = ANY (CAST(:exhausted AS uuid[]))
                        THEN CASE WHEN need.drill THEN 'busy_for_a_drill' ELSE 'many_offers' END
                        WHEN NOT {_OF_THIS_STAGE} THEN 'other_role' END AS why_not
            FROM volunteers v
            WHERE v.district = need.district
            ORDER BY v.home <-> need.place
            LIMIT :named
        ) AS nearest
    ) AS passed_over
    LEFT JOIN LATERAL (
        SELECT nearest.id, nearest.district, nearest.role, nearest.name, nearest.phone,
               nearest.email, nearest.language, nearest.channel, nearest.free, nearest.busy,
               nearest.distance_m, row_number() OVER (ORDER BY nearest.distance_m) AS place,
               (SELECT count(*) FROM offers o
                WHERE o.volunteer_id = nearest.id AND NOT o.drill
                  AND o.made_at > now() - CAST(:recent AS interval)) AS recent
        FROM (
            SELECT v.id, v.district, v.role, v.name, v.phone, v.email, v.language, v.channel,
                   {_ROOM} AS free, v.open_cases AS busy, {_DISTANCE_M} AS distance_m
            FROM volunteers v
            WHERE v.district = need.district AND v.home <@ need.reach
              AND v.available >= true AND {_READY_NOW} AND {_SUITS} AND {_OF_THIS_STAGE}
              AND {_ROOM} > 0 AND NOT {_ASKED_BEFORE}
              -- Promised to others as often as may be, in this search.
              AND v.id <> ALL (CAST(:exhausted AS uuid[]))
            ORDER BY v.home <-> need.place
            LIMIT :limit
        ) AS nearest
    ) AS near ON near.distance_m <= need.radius_m
    ORDER BY need.case_id, near.distance_m, near.id
""")  # noqa: S608 - composed of constants


async def candidates(
    session: AsyncSession, needs: Sequence[Need], promised: Promised
) -> dict[UUID, Found]:
    """Who could be asked for each case now, and who of the nearest not."""
    rows = await execute(
        session,
        _CANDIDATES,
        _arrays([(need, code) for need in needs for code in need.districts], promised)
        | {
            "exhausted": list(promised.exhausted),
            "limit": max(need.candidates for need in needs),
            "named": search.NEARER_NAMED,
            "recent": max(need.recent for need in needs),
        },
    )
    found: dict[UUID, Found] = {need.case_id: Found() for need in needs}
    for row in rows:
        about = found[row.case_id]
        # One row per candidate, the first of each district with its list.
        about.passed_over += [one for one in row.by or () if one not in about.passed_over]
        if row.id is not None:
            volunteer = Contact(row.id, row.name, row.phone, row.email, row.language, row.channel)
            promised.homes[row.id] = row.district
            candidate = Candidate(
                volunteer,
                row.distance_m,
                free=row.free - promised.offers[row.id],
                busy=row.busy,
                recent=row.recent,
                role=row.role,
                district=row.district,
            )
            about.candidates.append(candidate)
    return found


# Locked in the order of ids. The conditions are checked again on the rows as they are now: a
# transaction that does not take the district's turn (somebody goes off duty) may have been faster.
# Nothing is written: the offers themselves are counted when they are made, in this transaction.
_CLAIM = sql(f"""
    WITH locked AS (
        SELECT v.id, v.available, need.cases, need.promised, {_ROOM} AS room
        FROM volunteers v
        JOIN (SELECT id, cases, promised, most_offers, CAST(:drill AS bool) AS drill
              FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS int[]), CAST(:promised AS int[]),
                          CAST(:most_offers AS int[])) AS w (id, cases, promised, most_offers)
             ) AS need ON need.id = v.id
        ORDER BY v.id FOR NO KEY UPDATE OF v
    )
    SELECT id, promised + cases = room AS exhausted,
           ARRAY(SELECT nextval('offer_codes') FROM generate_series(1, cases)) AS code_numbers
    FROM locked WHERE available AND promised + cases <= room
""")  # noqa: S608 - composed of constants


# The nearest who suits decides, found in the order of the index: EXISTS would first collect all who
# live within the radius.
_SOMEBODY_LATER = sql(f"""
    SELECT DISTINCT need.case_id
    FROM {_NEEDS}
    CROSS JOIN LATERAL (
        SELECT {_DISTANCE_M} AS distance_m
        FROM volunteers v
        WHERE v.district = need.district AND v.home <@ need.reach AND {_SUITS}
          AND NOT {_ASKED_BEFORE}
        ORDER BY v.home <-> need.place
        LIMIT 1
    ) AS nearest
    WHERE nearest.distance_m <= need.radius_m
""")  # noqa: S608 - composed of constants


async def _somebody_later(session: AsyncSession, needs: Sequence[Need]) -> list[UUID]:
    """Of these cases, those for whom somebody exists who was not asked: busy, off duty, resting."""
    if not needs:
        return []
    everywhere = [(need, code) for need in needs for code in (need.district, *need.neighbours)]
    return column(await execute(session, _SOMEBODY_LATER, _arrays(everywhere, reach=False)))
