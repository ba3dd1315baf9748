"""The pure search: where a case is looked for next, and who is asked for which case."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assignment import search
from services.assignment.search import (
    Candidate,
    Choice,
    Contact,
    Found,
    Need,
    Stage,
    choose,
    find,
    is_surge,
    narrow,
    plan,
    widen,
)
from shared.districts import District
from tests.factories import NOON
from tests.integration.cases import with_policy

Situation = tuple[list[Need], dict[UUID, list[Candidate]]]

STAGES = (
    Stage(5_000, ("psm", "tksk")),
    Stage(15_000, ("psm", "tksk")),
    Stage(15_000),
    Stage(15_000, neighbours=True),
)


def volunteer(number: int) -> Contact:
    return Contact(UUID(int=number + 1), f"Volunteer {number}", "+62811")


def need(number: int = 0, *, minute: int = 0, **values: Any) -> Need:
    return Need(
        **{
            "case_id": UUID(int=number + 1),
            "district": "19.04",
            "neighbours": ("19.71",),
            "category": "homeless",
            "needed_roles": (),
            "needed_trainings": (),
            "pressing": False,
            "latitude": 0.0,
            "longitude": 0.0,
            "reported_at": NOON + timedelta(minutes=minute),
            "stages": (Stage(40_000),),
            "quota": 1000,
            **values,
        }
    )


def candidates(*distances: float, free: int = 1) -> list[Candidate]:
    """Volunteers 0, 1, 2 … at these distances in metres."""
    return [
        Candidate(volunteer(number), distance_m=distance, free=free)
        for number, distance in enumerate(distances)
    ]


def ids(choices: Sequence[Choice]) -> list[UUID]:
    return [choice.candidate.volunteer.id for choice in choices]


# --- the plan -------------------------------------------------------------------------------------


def test_the_plan_goes_from_near_field_roles_to_everybody_to_the_neighbours(
    districts: dict[str, District],
) -> None:
    changed = with_policy(
        districts,
        steps_m=(5_000.0, 15_000.0),
        first_roles=("psm", "tksk"),
        neighbours=("19.71",),
    )
    assert plan(changed["19.04"].policy) == STAGES


def test_a_policy_that_names_every_role_first_has_no_stage_for_others(
    districts: dict[str, District],
) -> None:
    for roles in ((), ("psm", "tksk", "pensosmas", "pkh")):
        changed = with_policy(districts, first_roles=roles)
        assert len(plan(changed["19.04"].policy)) == 1


def test_a_stage_is_left_when_as_many_were_asked_as_its_rounds_allow() -> None:
    asked = need(stages=STAGES, quota=4, asked=4)
    assert (widen(asked).stage, widen(asked).asked) == (1, 0)
    assert widen(need(stages=STAGES, quota=4, asked=3)).stage == 0


def test_the_last_stage_is_never_left_but_it_is_known_to_be_gone_through() -> None:
    last = need(stages=STAGES, quota=4, asked=9, stage=3)
    assert widen(last) == last
    assert last.gone_through
    assert not need(stages=STAGES, quota=4, asked=9, stage=2).gone_through


def test_the_first_radius_that_holds_anybody_counts() -> None:
    at, near = narrow(need(stages=STAGES), candidates(6_000, 9_000, 20_000))
    assert at.stage == 1
    assert [one.distance_m for one in near] == [6_000, 9_000]


def test_a_lane_that_holds_nobody_leads_to_the_next() -> None:
    at, near = narrow(need(stages=STAGES), candidates(20_000))
    assert (at.stage, near) == (2, [])
    at, near = narrow(need(stages=STAGES, stage=3), [])
    assert at.exhausted


def test_the_neighbours_are_looked_at_beside_our_own() -> None:
    assert need(stages=STAGES, stage=2).districts == ("19.04",)
    assert need(stages=STAGES, stage=3).districts == ("19.04", "19.71")


def test_one_look_serves_all_radii_of_a_lane() -> None:
    assert need(stages=STAGES).reach_m == 15_000


# --- whom to ask rather ---------------------------------------------------------------------------


def test_who_is_busy_counts_as_farther_away() -> None:
    busy, idle = candidates(1_000, 4_000)
    busy = Candidate(busy.volunteer, 1_000, free=1, busy=1)
    _, order = narrow(need(busy_counts_m=5_000), [busy, idle])
    assert [one.volunteer.id for one in order] == [idle.volunteer.id, busy.volunteer.id]
    _, order = narrow(need(busy_counts_m=2_000), [busy, idle])
    assert [one.volunteer.id for one in order] == [busy.volunteer.id, idle.volunteer.id]


def test_of_those_as_near_as_each_other_whoever_was_asked_least_comes_first() -> None:
    often = Candidate(volunteer(0), 1_100, free=1, recent=3)
    seldom = Candidate(volunteer(1), 1_900, free=1, recent=1)
    _, order = narrow(need(same_distance_m=1_000), [often, seldom])
    assert order == [seldom, often]
    _, order = narrow(need(same_distance_m=500), [often, seldom])
    assert order == [often, seldom]


# --- the choice -----------------------------------------------------------------------------------


def test_the_nearest_volunteer_is_asked() -> None:
    one = need()
    (choice,) = choose([one], {one.case_id: candidates(100.0, 200.0)})[one.case_id]
    assert (choice.candidate.volunteer, choice.rank) == (volunteer(0), 1)


def test_a_case_that_wants_three_gets_three_different_ones() -> None:
    one = need(wanted=3)
    chosen = choose([one], {one.case_id: candidates(1.0, 2.0, 3.0, 4.0, free=5)})
    assert ids(chosen[one.case_id]) == [volunteer(n).id for n in range(3)]


def test_every_case_gets_one_before_any_gets_two() -> None:
    first, second = need(0, wanted=3), need(1, minute=1)
    near = candidates(1.0, 2.0, 3.0)
    chosen = choose([first, second], {first.case_id: near, second.case_id: near})
    assert ids(chosen[first.case_id]) == [volunteer(0).id, volunteer(2).id]
    assert ids(chosen[second.case_id]) == [volunteer(1).id]


def test_a_pressing_case_chooses_before_an_older_one() -> None:
    older, pressing = need(0), need(1, minute=5, pressing=True)
    both = {older.case_id: candidates(10.0, 20.0), pressing.case_id: candidates(30.0, 40.0)}
    chosen = choose([older, pressing], both)
    assert ids(chosen[pressing.case_id]) == [volunteer(0).id]
    assert ids(chosen[older.case_id]) == [volunteer(1).id]
    assert chosen[older.case_id][0].rank == 2


def test_in_a_surge_the_last_free_volunteer_goes_where_they_are_nearest() -> None:
    older, nearer = need(0), need(1, minute=5)
    both = {older.case_id: candidates(9_000.0), nearer.case_id: candidates(500.0)}
    assert set(choose([older, nearer], both)) == {nearer.case_id}


def test_in_a_surge_a_pressing_case_still_goes_first() -> None:
    pressing, nearer = need(0, pressing=True), need(1)
    both = {pressing.case_id: candidates(9_000.0), nearer.case_id: candidates(500.0)}
    assert set(choose([pressing, nearer], both)) == {pressing.case_id}


def test_a_case_without_candidates_gets_nobody() -> None:
    assert choose([need()], {}) == {}


# --- properties -----------------------------------------------------------------------------------


@st.composite
def situations(draw: st.DrawFn, *, cases: int = 12, most_free: int = 3) -> Situation:
    free = draw(st.lists(st.integers(1, most_free), min_size=1, max_size=6))
    needs = [
        need(
            number,
            pressing=draw(st.booleans()),
            minute=draw(st.integers(0, 3)),
            wanted=draw(st.integers(1, 3)),
        )
        for number in range(draw(st.integers(0, cases)))
    ]
    reach = {}
    for one in needs:
        within = draw(st.lists(st.sampled_from(range(len(free))), unique=True))
        distances = sorted(float(draw(st.integers(0, 40_000))) for _ in within)
        reach[one.case_id] = [
            Candidate(volunteer(who), distance_m=distance, free=free[who])
            for who, distance in zip(within, distances, strict=True)
        ]
    return needs, reach


def given_away(chosen: Mapping[UUID, Sequence[Choice]]) -> Counter[UUID]:
    """How often each volunteer is asked."""
    return Counter(id_ for choices in chosen.values() for id_ in ids(choices))


@given(situations())
def test_no_choice_breaks_a_hard_filter(situation: Situation) -> None:
    """Nobody beyond their places, nobody who is no candidate, nobody twice for one case, no case
    more than it wants."""
    needs, reach = situation
    room = {c.volunteer.id: c.free for near in reach.values() for c in near}
    chosen = choose(needs, reach)
    assert all(count <= room[id_] for id_, count in given_away(chosen).items())
    for one in needs:
        mine = ids(chosen.get(one.case_id, []))
        assert set(mine) <= {c.volunteer.id for c in reach[one.case_id]}
        assert len(set(mine)) == len(mine) <= one.wanted


@given(situations())
def test_a_case_goes_empty_only_if_all_its_candidates_are_given_away(situation: Situation) -> None:
    needs, reach = situation
    chosen = choose(needs, reach)
    counts = given_away(chosen)
    for one in needs:
        if one.case_id not in chosen:
            assert all(counts[c.volunteer.id] >= c.free for c in reach[one.case_id])


def by_hand(needs: Sequence[Need], reach: Mapping[UUID, Sequence[Candidate]]) -> dict[UUID, Any]:
    """The calm rule as its sentence says it: turn by turn, the first in line takes the best."""
    taken: list[tuple[UUID, UUID]] = []
    in_line = sorted(needs, key=lambda n: (0 if n.pressing else 1, n.reported_at, n.case_id))
    for turn in range(3):
        for one in in_line:
            if turn >= one.wanted:
                continue
            for candidate in reach[one.case_id]:
                id_ = candidate.volunteer.id
                if [v for _, v in taken].count(id_) < candidate.free:
                    if (one.case_id, id_) in taken:
                        continue
                    taken.append((one.case_id, id_))
                    break
    result: dict[UUID, Any] = {}
    for case_id, id_ in taken:
        result.setdefault(case_id, []).append(id_)
    return result


@given(situations(), st.randoms(use_true_random=False))
def test_calm_the_choice_is_the_rule_by_hand_in_whatever_order_cases_come(
    situation: Situation, random: Random
) -> None:
    needs, reach = situation
    if is_surge(needs, reach):
        return
    shuffled = list(needs)
    random.shuffle(shuffled)
    chosen = choose(shuffled, reach)
    assert {case_id: ids(choices) for case_id, choices in chosen.items()} == by_hand(needs, reach)


def brute_force(
    group: Sequence[Need], reach: Mapping[UUID, Sequence[Candidate]], free: Mapping[UUID, int]
) -> tuple[int, float]:
    """The most cases that can get somebody, and the least sum of distances for so many."""
    options: list[list[Candidate | None]] = [[None, *reach[one.case_id]] for one in group]
    best = (0, 0.0)
    for chosen in itertools.product(*options):
        some = [candidate for candidate in chosen if candidate is not None]
        counts = Counter(candidate.volunteer.id for candidate in some)
        if any(count > free[id_] for id_, count in counts.items()):
            continue
        best = min(best, (-len(some), sum(candidate.distance_m for candidate in some)))
    return -best[0], best[1]


@given(situations(cases=6, most_free=2))
def test_in_a_surge_the_choice_is_the_optimum_by_brute_force(situation: Situation) -> None:
    needs, reach = situation
    if not is_surge(needs, reach):
        return
    free = {c.volunteer.id: c.free for near in reach.values() for c in near}
    chosen = choose(needs, reach)
    assert all(len(choices) == 1 for choices in chosen.values())
    for pressing in (True, False):
        group = [one for one in needs if one.pressing is pressing]
        mine = [chosen[one.case_id][0].candidate for one in group if one.case_id in chosen]
        expected = brute_force(group, reach, free)
        assert (len(mine), sum(c.distance_m for c in mine)) == pytest.approx(expected)
        for candidate in mine:
            free[candidate.volunteer.id] -= 1


# --- the loop -------------------------------------------------------------------------------------


class Town:
    """Volunteers in memory, as the database would show them."""

    def __init__(self, people: Mapping[int, tuple[float, int]]) -> None:
        self.distance = {volunteer(n).id: d for n, (d, _) in people.items()}
        self.free = {volunteer(n).id: free for n, (_, free) in people.items()}
        self.names = {volunteer(n).id: volunteer(n) for n in people}
        self.codes = itertools.count(1)
        self.looks = 0

    async def look(self, needs: Sequence[Need]) -> dict[UUID, Found]:
        self.looks += 1
        near = sorted(self.distance, key=lambda id_: self.distance[id_])
        return {
            one.case_id: Found(
                [
                    Candidate(self.names[id_], self.distance[id_], self.free[id_])
                    for id_ in near
                    if self.free[id_] > 0 and self.distance[id_] <= one.reach_m
                ]
            )
            for one in needs
        }

    async def claim(self, counts: Mapping[UUID, int]) -> dict[UUID, list[int]]:
        for id_, count in counts.items():
            self.free[id_] -= count
            assert self.free[id_] >= 0
        return {id_: [next(self.codes) for _ in range(count)] for id_, count in counts.items()}


async def test_the_search_widens_to_fill_all_that_are_wanted() -> None:
    town = Town({0: (1_000, 1), 1: (9_000, 1), 2: (30_000, 1)})
    one = need(wanted=3, stages=STAGES)
    match = (await find([one], look=town.look, claim=town.claim))[one.case_id]
    assert [c.volunteer for c in match.chosen] == [volunteer(0), volunteer(1)]
    assert [c.stage for c in match.chosen] == [0, 1]
    assert match.need.wanted == 1


async def test_who_is_found_counts_for_the_stage_in_which_they_were_found() -> None:
    town = Town({0: (1_000, 1), 1: (2_000, 1), 2: (3_000, 1)})
    one = need(wanted=3, stages=STAGES, quota=2)
    match = (await find([one], look=town.look, claim=town.claim))[one.case_id]
    assert [c.stage for c in match.chosen] == [0, 0, 1]
    assert (match.need.stage, match.need.asked) == (1, 1)


async def test_a_search_that_finds_nobody_leaves_the_case_where_it_was() -> None:
    one = need(stages=STAGES, asked=1, quota=4)
    match = (await find([one], look=Town({}).look, claim=Town({}).claim))[one.case_id]
    assert (match.chosen, match.need) == ([], one)


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 3)), max_size=8),
    st.lists(st.integers(1, 4), max_size=8),
)
async def test_a_search_takes_no_place_that_is_not_there_and_ends(
    people: list[tuple[int, int]], wanted: list[int]
) -> None:
    town = Town({n: (float(d), free) for n, (d, free) in enumerate(people)})
    needs = [need(n, wanted=count, stages=STAGES, quota=2) for n, count in enumerate(wanted)]
    before = sum(town.free.values())
    matches = await find(needs, look=town.look, claim=town.claim)
    taken = [c for one in matches.values() for c in one.chosen]
    assert before - sum(town.free.values()) == len(taken)
    assert len({c.code_number for c in taken}) == len(taken)
    for one in matches.values():
        people_asked = [c.volunteer.id for c in one.chosen]
        assert len(set(people_asked)) == len(people_asked)
    assert town.looks <= 10 * (len(needs) + 1)


def test_nobody_is_named_as_nearer_who_is_not() -> None:
    found = Found(candidates(100, 200, 300))
    choice = Choice(found.candidates[1], rank=2)
    named = search._nearer(found, choice, beside=[choice], counts={volunteer(0).id: 1})
    assert [(one["distance_m"], one["why_not"]) for one in named] == [
        (100, "taken_by_another_case")
    ]
    named = search._nearer(found, choice, beside=[choice], counts={})
    assert [one["why_not"] for one in named] == ["others_rather"]
    both = [choice, Choice(found.candidates[0], rank=1)]
    assert search._nearer(found, choice, beside=both, counts={}) == []
