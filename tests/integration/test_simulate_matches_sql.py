"""The simulator's volunteers in memory and the SQL of matching.py: the same people, the same order.

The two say the same filters in two languages. Whoever changes one of them finds out here.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from ops.simulate import Volunteers
from services.assignment import duty, matching, search, volunteers
from services.assignment.matching import Promised
from services.assignment.search import Found, Match, Need, Stage
from shared.database import Database, now
from shared.districts import District
from shared.policy import OPEN_OFFERS
from tests.factories import KOBA, case_reported
from tests.integration.cases import Districts, in_hand, report, with_policy
from tests.integration.conftest import rows, run

NEIGHBOUR = "19.05"
ROLES = ("psm", "psm", "psm", "tksk", "pensosmas", "pkh")
CATEGORIES = ("homeless", "beggar", "mental_illness")
STAGES = (
    Stage(5_000.0, ("psm", "tksk")),
    Stage(15_000.0, ("psm", "tksk")),
    Stage(40_000.0),
    Stage(40_000.0, neighbours=True),
)
TIMEZONE = "Asia/Jakarta"
TIMEZONES = {"19.04": TIMEZONE, NEIGHBOUR: TIMEZONE}


def a_volunteer(luck: random.Random, number: int, district: str) -> dict[str, Any]:
    """Somebody around Koba, with any of the reasons for which one is passed over."""
    hour = luck.randrange(24)
    window = duty.window(range(7), f"{hour:02}:00", f"{(hour + 12) % 24:02}:00")
    return {
        "id": uuid7(), "district": district, "name": f"Relawan {number}",
        "role": luck.choice(ROLES), "phone": f"+62890{number:08}", "email": None, "village": None,
        "latitude": luck.gauss(KOBA[0], 0.12), "longitude": luck.gauss(KOBA[1], 0.12),
        "categories": luck.sample(CATEGORIES, luck.choice((0, 0, 0, 1, 2))),
        "capacity": luck.randint(1, 3),
        "trainings": ["mental_health"] if luck.random() < 0.2 else [],
        "language": "id", "on_duty": luck.random() < 0.85,
        "duty": [window] if luck.random() < 0.4 else [], "off_until": None,
    }  # fmt: skip


def a_need(luck: random.Random, case_id: UUID) -> Need:
    """A case around Koba, anywhere in its search."""
    special = luck.random() < 0.3
    return Need(
        case_id=case_id,
        district="19.04",
        neighbours=(NEIGHBOUR,),
        category="mental_illness" if special else luck.choice(CATEGORIES[:2]),
        needed_roles=("tksk",) if special else (),
        needed_trainings=("mental_health",) if special else (),
        pressing=luck.random() < 0.3,
        latitude=luck.gauss(KOBA[0], 0.1),
        longitude=luck.gauss(KOBA[1], 0.1),
        reported_at=datetime.fromisoformat("2026-03-01T05:00:00+00:00"),
        stages=STAGES,
        quota=4,
        wanted=luck.randint(1, 3),
        stage=luck.randrange(len(STAGES)),
        same_distance_m=1000.0,
        busy_counts_m=5000.0,
        drill=luck.random() < 0.25,
    )


async def settle_in(
    database: Database, districts: Districts, luck: random.Random
) -> Sequence[dict[str, Any]]:
    """A hundred volunteers in two districts: some rest, some are full, some were asked of late."""
    people: list[dict[str, Any]] = []
    for code, count in (("19.04", 70), (NEIGHBOUR, 30)):
        own = [a_volunteer(luck, len(people) + number, code) for number in range(count)]
        async with database.transaction() as session:
            await volunteers.store(session, own, district=replace(districts["19.04"], code=code))
        people += own
    for person in luck.sample(people, 20):
        person["rest_until"] = datetime.now().astimezone() + timedelta(hours=luck.uniform(-3, 3))
        await run(
            database,
            "UPDATE volunteers SET rest_until = :until WHERE id = :id",
            id=person["id"],
            until=person["rest_until"],
        )
    async with database.transaction() as session:
        await duty.recompute(session, [p["id"] for p in people], timezones=TIMEZONES)
    return people


async def in_memory(
    database: Database, people: Sequence[dict[str, Any]], moment: datetime
) -> Volunteers:
    """The same people for the simulator, with the offers and the places that the database has."""
    memory = Volunteers(people, timezones=TIMEZONES, moment=moment)
    by_id = {contact.id: number for number, contact in enumerate(memory.contacts)}
    for row in await rows(database, "SELECT * FROM volunteers"):
        n = by_id[row.id]
        memory.open_cases[n], memory.open_offers[n] = row.open_cases, row.open_offers
        memory.open_drills[n] = row.open_drills
    for row in await rows(database, "SELECT * FROM offers ORDER BY made_at"):
        memory.ask(row.case_id, row.volunteer_id, row.made_at, drill=row.drill)
    return memory


def told(found: Found) -> list[tuple[UUID, int, int, int]]:
    return [(one.volunteer.id, one.free, one.busy, one.recent) for one in found.candidates]


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts, parallel={"normal": 3, "urgent": 3}, open_offers=OPEN_OFFERS)


@pytest.mark.parametrize("seed", range(5))
async def test_the_simulator_finds_whom_the_database_finds(
    assignment_database: Database, policy: Districts, seed: int
) -> None:
    database, luck = assignment_database, random.Random(seed)
    people = await settle_in(database, policy, luck)
    reports = [
        case_reported(luck.gauss(KOBA[0], 0.1), luck.gauss(KOBA[1], 0.1), drill=luck.random() < 0.2)
        for _ in range(40)
    ]
    await report(database, policy, *reports)  # asks, so that there are open offers
    for id_, full in (await in_hands(database, luck)).items():
        await in_hand(database, id_, full)
    await run(
        database,
        "UPDATE offers SET made_at = made_at - random() * interval '28 days' WHERE NOT drill",
    )
    asked = [UUID(str(one.subject)) for one in reports]
    needs = [a_need(luck, id_) for id_ in asked] + [a_need(luck, uuid7()) for _ in range(25)]
    async with database.transaction() as session:
        moment = await now(session)
        memory = await in_memory(database, people, moment)
        by_sql = await matching.candidates(session, needs, Promised(policy))
        by_numpy = memory.look(needs, moment)
        assert {id_: told(one) for id_, one in by_numpy.items()} == {
            id_: told(one) for id_, one in by_sql.items()
        }
        for id_, found in by_sql.items():
            assert [one.distance_m for one in by_numpy[id_].candidates] == pytest.approx(
                [one.distance_m for one in found.candidates], abs=0.001
            )
        later = {need.case_id for need in needs if memory.somebody_later(need)}
        assert later == set(await matching._somebody_later(session, needs))
    # Not one that finds nothing, or everything.
    assert any(found.candidates for found in by_sql.values())
    assert later


@pytest.mark.parametrize("seed", range(3))
async def test_the_simulator_claims_whom_the_database_claims(
    assignment_database: Database, policy: Districts, seed: int
) -> None:
    database, luck = assignment_database, random.Random(100 + seed)
    people = await settle_in(database, policy, luck)
    needs = [a_need(luck, uuid7()) for _ in range(30)]
    async with database.transaction() as session:
        moment = await now(session)
        memory = await in_memory(database, people, moment)
        matches = await matching.match(session, needs, districts=policy)

    async def look(wanting: Sequence[Need]) -> dict[UUID, Found]:
        return memory.look(wanting, moment)

    found: dict[UUID, Match] = {}
    for drill in (False, True):

        async def claim(counts: Any, drill: bool = drill) -> dict[UUID, list[int]]:
            return memory.claim(counts, drill=drill)

        some = [need for need in needs if need.drill is drill]
        found |= await search.find(some, look=look, claim=claim)
    assert chosen(found) == chosen(matches)
    assert (memory.open_offers <= memory.most_offers).all()
    assert (memory.open_drills <= search.DRILLS_AT_ONCE).all()
    assert {need.drill for need in needs if matches[need.case_id].chosen} == {False, True}


async def in_hands(database: Database, luck: random.Random) -> dict[UUID, int]:
    """Some with cases in hand: one, or as many as they can take."""
    people = await rows(database, "SELECT id, capacity FROM volunteers ORDER BY id")
    return {row.id: luck.choice((1, row.capacity)) for row in luck.sample(people, 20)}


def chosen(matches: dict[UUID, Match]) -> str:
    return json.dumps(
        {
            str(id_): [(str(one.volunteer.id), one.stage) for one in match.chosen]
            for id_, match in sorted(matches.items())
        },
        indent=1,
    )


async def test_equally_near_ones_come_in_the_order_of_their_ids(
    assignment_database: Database, policy: Districts
) -> None:
    luck = random.Random(7)
    here = {"latitude": KOBA[0], "longitude": KOBA[1], "on_duty": True, "duty": [], "role": "psm"}
    people = [a_volunteer(luck, number, "19.04") | here | {"categories": []} for number in range(6)]
    luck.shuffle(people)
    async with assignment_database.transaction() as session:
        await volunteers.store(session, people, district=policy["19.04"])
        need = replace(
            a_need(luck, uuid7()), stage=0, category="homeless", needed_roles=(), drill=False,
            needed_trainings=(), latitude=KOBA[0], longitude=KOBA[1],
        )  # fmt: skip
        moment = await now(session)
        memory = Volunteers(people, timezones=TIMEZONES, moment=moment)
        by_sql = await matching.candidates(session, [need], Promised(policy))
        assert told(memory.look([need], moment)[need.case_id]) == told(by_sql[need.case_id])
    assert len(by_sql[need.case_id].candidates) == 6
