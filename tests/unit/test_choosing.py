"""The pure choice of matching: who is asked for which case."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.assignment.matching import Candidate, Choice, Need, choose
from shared.events import OfferedVolunteer
from tests.factories import NOON


def volunteer(number: int) -> OfferedVolunteer:
    return OfferedVolunteer(id=UUID(int=number + 1), name=f"Volunteer {number}", phone="+62811")


def need(number: int, *, urgent: bool = False, minute: int = 0) -> Need:
    return Need(
        case_id=UUID(int=number + 1),
        district="19.04",
        category="homeless",
        urgent=urgent,
        latitude=0.0,
        longitude=0.0,
        radius_m=40_000.0,
        reported_at=NOON + timedelta(minutes=minute),
    )


def candidates(*distances: float, free: int = 1) -> list[Candidate]:
    """Volunteers 0, 1, 2 … at these distances."""
    return [
        Candidate(volunteer(number), distance_m=distance, free=free)
        for number, distance in enumerate(distances)
    ]


def test_the_nearest_volunteer_is_asked() -> None:
    one = need(0)
    chosen = choose([one], {one.case_id: candidates(100.0, 200.0)})
    assert chosen[one.case_id].candidate.volunteer == volunteer(0)
    assert chosen[one.case_id].rank == 1


def test_an_urgent_case_chooses_before_an_older_one() -> None:
    older, urgent = need(0, minute=0), need(1, urgent=True, minute=5)
    both = {older.case_id: candidates(10.0, 20.0), urgent.case_id: candidates(30.0, 40.0)}
    chosen = choose([older, urgent], both)
    assert chosen[urgent.case_id].candidate.volunteer == volunteer(0)
    assert chosen[older.case_id].candidate.volunteer == volunteer(1)
    assert chosen[older.case_id].rank == 2


def test_of_equally_urgent_cases_the_older_one_chooses_first() -> None:
    younger, older = need(0, minute=5), need(1, minute=0)
    both = {younger.case_id: candidates(10.0), older.case_id: candidates(20.0)}
    assert set(choose([younger, older], both)) == {older.case_id}


def test_a_volunteer_with_room_for_two_gets_two_cases() -> None:
    needs = [need(0), need(1), need(2)]
    nearby = {one.case_id: candidates(10.0, free=2) for one in needs}
    assert len(choose(needs, nearby)) == 2


def test_a_case_without_candidates_gets_nobody() -> None:
    assert choose([need(0)], {}) == {}


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Need], dict[UUID, list[Candidate]]]:
    free = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
    needs = [
        need(number, urgent=draw(st.booleans()), minute=draw(st.integers(0, 3)))
        for number in range(draw(st.integers(0, 12)))
    ]
    reach = {}
    for one in needs:
        within = draw(st.lists(st.sampled_from(range(len(free))), unique=True))
        distances = sorted(draw(st.floats(0, 40_000)) for _ in within)
        reach[one.case_id] = [
            Candidate(volunteer(who), distance_m=distance, free=free[who])
            for who, distance in zip(within, distances, strict=True)
        ]
    return needs, reach


def asked(choices: Mapping[UUID, Choice]) -> dict[UUID, int]:
    """How often each volunteer is asked."""
    counts: dict[UUID, int] = {}
    for choice in choices.values():
        id_ = choice.candidate.volunteer.id
        counts[id_] = counts.get(id_, 0) + 1
    return counts


def by_hand(
    needs: Sequence[Need], reach: Mapping[UUID, Sequence[Candidate]]
) -> dict[UUID, tuple[UUID, int]]:
    """The rule as its sentence says it: again and again, the first in line takes the nearest."""
    given_away: list[UUID] = []
    result = {}
    waiting = list(needs)
    while waiting:
        first = min(waiting, key=lambda n: (0 if n.urgent else 1, n.reported_at, n.case_id))
        waiting.remove(first)
        still_free = [
            (rank, candidate)
            for rank, candidate in enumerate(reach[first.case_id], start=1)
            if given_away.count(candidate.volunteer.id) < candidate.free
        ]
        if still_free:
            rank, nearest = still_free[0]
            given_away.append(nearest.volunteer.id)
            result[first.case_id] = (nearest.volunteer.id, rank)
    return result


@given(situations())
def test_nobody_is_asked_for_more_cases_than_they_have_room_for(
    situation: tuple[list[Need], dict[UUID, list[Candidate]]],
) -> None:
    needs, reach = situation
    room = {c.volunteer.id: c.free for near in reach.values() for c in near}
    assert all(count <= room[id_] for id_, count in asked(choose(needs, reach)).items())


@given(situations())
def test_a_case_goes_empty_only_if_all_its_candidates_are_full(
    situation: tuple[list[Need], dict[UUID, list[Candidate]]],
) -> None:
    needs, reach = situation
    chosen = choose(needs, reach)
    counts = asked(chosen)
    for one in needs:
        if one.case_id not in chosen:
            assert all(counts.get(c.volunteer.id, 0) >= c.free for c in reach[one.case_id])


@given(situations(), st.randoms(use_true_random=False))
def test_the_choice_follows_the_rule_in_whatever_order_cases_come(
    situation: tuple[list[Need], dict[UUID, list[Candidate]]], random: object
) -> None:
    needs, reach = situation
    shuffled = list(needs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    chosen = choose(shuffled, reach)
    assert {
        case_id: (choice.candidate.volunteer.id, choice.rank) for case_id, choice in chosen.items()
    } == by_hand(needs, reach)
