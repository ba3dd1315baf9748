"""How a search goes on: where to look, whom to ask. Pure: the simulator runs the same rules.

A policy becomes a plan of stages, each wider than the one before: the field roles within the first
radius, the next, the last; then every role; then the neighbour districts. Behind the last stage
stands the coordinator.
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, get_args
from uuid import UUID

import numpy
from scipy.optimize import linear_sum_assignment

from shared.events import OfferedVolunteer, Role
from shared.policy import Policy

# Of a pair that must not be: far more than all distances of a batch together, and still exact.
IMPOSSIBLE = 1e12
# How many of the nearest are looked at for a case beside those it wants; at each further look twice
# as many, for a whole batch may come from one place, where all have the same neighbours.
CANDIDATES = 8
MOST_DOUBLINGS = 6
# How many of those who were nearer are named in an offer's reasons.
NEARER_NAMED = 5
# A drill asks only those who have nothing else open, and for one drill at a time: a rehearsal must
# not be mistaken for the case in hand, nor bury anybody in messages.
DRILLS_AT_ONCE = 1


def room(
    *, drill: bool, most_offers: int, open_cases: int, open_offers: int, open_drills: int
) -> int:
    """For how many more cases somebody with a place left may be asked: as many as their open offers
    leave of ``most_offers``. Drills take nothing from it; `matching._ROOM` says the same in SQL."""
    if not drill:
        return most_offers - open_offers
    return DRILLS_AT_ONCE - open_drills if open_cases + open_offers == 0 else 0


@dataclass(frozen=True)
class Stage:
    """Where to look: ``radius_m`` in metres, ``roles`` (none named: every role), and whether in the
    neighbour districts too."""

    radius_m: float
    roles: tuple[str, ...] = ()
    neighbours: bool = False

    @property
    def lane(self) -> tuple[tuple[str, ...], bool]:
        """Stages of one lane differ by their radius only: one look serves them all."""
        return self.roles, self.neighbours


def plan(policy: Policy) -> tuple[Stage, ...]:
    """The stages of a policy, in the order in which they are gone through."""
    first = tuple(Stage(radius_m, policy.first_roles) for radius_m in policy.steps_m)
    everybody = set(policy.first_roles) >= set(get_args(Role)) or not policy.first_roles
    others = () if everybody else (Stage(policy.radius_m),)
    neighbours = (Stage(policy.radius_m, neighbours=True),) if policy.neighbours else ()
    return first + others + neighbours


@dataclass(frozen=True)
class Need:
    """A case that wants ``wanted`` more volunteers to be asked now.

    ``stage`` is its place in ``stages``, ``asked`` how many were asked there, ``quota`` after how
    many the stage is exhausted. ``pressing`` cases choose first, those ``behind`` get what all
    others have left. ``passed`` cannot be asked again.
    """

    case_id: UUID
    district: str
    neighbours: tuple[str, ...]
    category: str
    needed_roles: tuple[str, ...]
    needed_trainings: tuple[str, ...]
    pressing: bool
    latitude: float
    longitude: float
    reported_at: datetime
    stages: tuple[Stage, ...]
    quota: int
    wanted: int = 1
    stage: int = 0
    asked: int = 0
    same_distance_m: float = 1.0
    busy_counts_m: float = 0.0
    recent: timedelta = timedelta(days=14)
    drill: bool = False
    passed: frozenset[UUID] = frozenset()
    looks: int = 0
    behind: bool = False

    @property
    def candidates(self) -> int:
        """How many of the nearest are to be looked at now."""
        return (CANDIDATES + self.wanted) << min(self.looks, MOST_DOUBLINGS)

    @property
    def exhausted(self) -> bool:
        """Whether every stage has been gone through."""
        return self.stage >= len(self.stages)

    @property
    def now_at(self) -> Stage:
        """The stage it is in."""
        return self.stages[self.stage]

    @property
    def districts(self) -> tuple[str, ...]:
        """Whose volunteers may be asked in this stage."""
        return (self.district, *(self.neighbours if self.now_at.neighbours else ()))

    @property
    def gone_through(self) -> bool:
        """Whether as many were asked, in every stage, as the policy wants before a coordinator is
        told. The search goes on behind that."""
        return self.stage >= len(self.stages) - 1 and self.asked >= self.quota

    @property
    def reach_m(self) -> float:
        """The widest radius of this stage's lane, in metres."""
        lane = self.now_at.lane
        return max(stage.radius_m for stage in self.stages[self.stage :] if stage.lane == lane)


class Contact(NamedTuple):
    """Whom one could ask. Light, as many are looked at for each who is asked."""

    id: UUID
    name: str
    phone: str | None = None
    email: str | None = None
    language: str = "id"
    channel: str | None = None

    def offered(self) -> OfferedVolunteer:
        """The same as an offer carries it."""
        return OfferedVolunteer.model_construct(**self._asdict())


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volunteer who could be asked.

    ``free`` is for how many more cases they may be asked, ``busy`` how many they have in hand,
    ``recent`` how often they were asked of late.
    """

    volunteer: Contact
    distance_m: float
    free: int
    busy: int = 0
    recent: int = 0
    role: str = ""
    district: str = ""


@dataclass(frozen=True)
class Choice:
    """A volunteer who has been chosen for a case. ``rank`` 1 is the nearest of the candidates."""

    candidate: Candidate
    rank: int


def widen(need: Need) -> Need:
    """The need in the stage that is not exhausted yet; before anybody is looked for."""
    while not need.exhausted and need.asked >= need.quota and need.stage < len(need.stages) - 1:
        need = replace(need, stage=need.stage + 1, asked=0)
    return need


def asked_one(need: Need, volunteer: UUID) -> Need:
    """The need after one volunteer has been asked in its stage."""
    return replace(
        need,
        wanted=need.wanted - 1,
        asked=need.asked + 1,
        passed=need.passed | {volunteer},
    )


def _within_its_round(need: Need) -> Need:
    """Wants no more than its stage still allows; the last one allows any number."""
    if need.stage == len(need.stages) - 1:
        return need
    return replace(need, wanted=min(need.wanted, need.quota - need.asked))


def narrow(need: Need, candidates: Sequence[Candidate]) -> tuple[Need, list[Candidate]]:
    """Who of a lane's candidates can be asked now, and the stage in which they are found.

    The first radius that holds anybody counts. If none does, the need moves on to the next lane
    (or is exhausted) with nobody.
    """
    lane = need.now_at.lane
    while not need.exhausted and need.now_at.lane == lane:
        near = [
            candidate
            for candidate in candidates
            if candidate.distance_m <= need.now_at.radius_m
            and candidate.volunteer.id not in need.passed
        ]
        if near:
            return need, sorted(near, key=lambda one: preference(need, one))
        need = replace(need, stage=need.stage + 1, asked=0)
    return need, []


def preference(need: Need, candidate: Candidate) -> tuple[float, int, float, UUID]:
    """Whom to ask rather: nearer first, where one who is busy counts as farther away; of those who
    are as near as each other whoever was asked least of late."""
    counted_m = candidate.distance_m + candidate.busy * need.busy_counts_m
    return (
        math.floor(counted_m / need.same_distance_m),
        candidate.recent,
        candidate.distance_m,
        candidate.volunteer.id,
    )


def choose(
    needs: Iterable[Need], candidates: Mapping[UUID, Sequence[Candidate]]
) -> dict[UUID, list[Choice]]:
    """Whom to ask for each case: as many as it wants, nobody for more than they may be asked.

    Candidates come in the order of preference. Calm, each case takes its best ones: pressing cases
    first, then those reported first. In a surge, when more are wanted than are free, each case gets
    one at most, so that the sum of the distances is the least.
    """
    ordered = sorted(needs, key=lambda n: (not n.pressing, n.reported_at, n.case_id))
    free = _free_places(ordered, candidates)
    chosen: dict[UUID, list[Choice]] = {}
    # Those behind are no surge to the others, and take nothing that they could have had.
    for group in in_front(ordered), [need for need in ordered if need.behind]:
        choice = _least_distance if is_surge(group, candidates) else _best_first
        chosen |= choice(group, candidates, free)
    return chosen


def in_front(needs: Iterable[Need]) -> list[Need]:
    """The needs that are not behind all others."""
    return [need for need in needs if not need.behind]


def is_surge(needs: Sequence[Need], candidates: Mapping[UUID, Sequence[Candidate]]) -> bool:
    """Whether there are more cases than free places among their candidates."""
    return len(needs) > 1 and len(needs) > sum(_free_places(needs, candidates).values())


def _free_places(
    needs: Sequence[Need], candidates: Mapping[UUID, Sequence[Candidate]]
) -> dict[UUID, int]:
    """For how many cases each of the candidates may be asked."""
    return {
        candidate.volunteer.id: candidate.free
        for need in needs
        for candidate in candidates.get(need.case_id, ())
    }


def _best_first(
    needs: Sequence[Need], candidates: Mapping[UUID, Sequence[Candidate]], free: dict[UUID, int]
) -> dict[UUID, list[Choice]]:
    """One volunteer for every case first, then the parallel ones from what is left."""
    chosen: dict[UUID, list[Choice]] = {}
    taken: dict[UUID, set[UUID]] = {}
    for turn in range(max((need.wanted for need in needs), default=0)):
        for need in needs:
            if need.wanted <= turn:
                continue
            mine = taken.setdefault(need.case_id, set())
            open_ones = (
                one
                for one in candidates.get(need.case_id, ())
                if free[one.volunteer.id] > 0 and one.volunteer.id not in mine
            )
            for candidate in islice(open_ones, 1):
                free[candidate.volunteer.id] -= 1
                mine.add(candidate.volunteer.id)
                rank = _rank(candidate, candidates[need.case_id])
                chosen.setdefault(need.case_id, []).append(Choice(candidate, rank))
    return chosen


def _least_distance(
    needs: Sequence[Need], candidates: Mapping[UUID, Sequence[Candidate]], free: dict[UUID, int]
) -> dict[UUID, list[Choice]]:
    """As many cases as possible get somebody, with the least sum of distances; pressing first.

    The assignment problem, solved by scipy (Crouse 2016, a variant of Jonker-Volgenant).
    """
    chosen: dict[UUID, list[Choice]] = {}
    for pressing in (True, False):
        group = [need for need in needs if need.pressing is pressing]
        # A volunteer with several free places is several columns.
        places = [id_ for id_, count in free.items() for _ in range(min(count, len(group)))]
        if not group or not places:
            continue
        columns: dict[UUID, list[int]] = {}
        for column, id_ in enumerate(places):
            columns.setdefault(id_, []).append(column)
        costs = numpy.full((len(group), len(places)), IMPOSSIBLE)
        by_id = [
            {one.volunteer.id: one for one in candidates.get(need.case_id, ())} for need in group
        ]
        for row, near in enumerate(by_id):
            for id_, candidate in near.items():
                costs[row, columns.get(id_, [])] = candidate.distance_m
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            if costs[row, column] >= IMPOSSIBLE:
                continue
            need, candidate = group[row], by_id[row][places[column]]
            free[candidate.volunteer.id] -= 1
            rank = _rank(candidate, candidates[need.case_id])
            chosen[need.case_id] = [Choice(candidate, rank)]
    return chosen


def _rank(candidate: Candidate, candidates: Sequence[Candidate]) -> int:
    """1 for the nearest; whoever is as far as another shares the better rank."""
    return 1 + sum(one.distance_m < candidate.distance_m for one in candidates)


# --- the loop -------------------------------------------------------------------------------------


@dataclass
class Found:
    """Who could be asked for a case, nearest first, and who of the nearest could not."""

    candidates: list[Candidate] = field(default_factory=list)
    passed_over: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Match:
    """What came of the search for one case: where the search now is, and whom it has found."""

    need: Need  # where the search stood when somebody was last found
    chosen: list["Claimed"] = field(default_factory=list)
    # Nobody was found: whether somebody suitable exists who is busy, off duty or resting.
    somebody_later: bool = False


@dataclass(frozen=True)
class Claimed:
    """A volunteer who is to be asked for a case.

    ``code_number`` makes the answer code and is never the same twice; ``nearer`` tells who was
    nearer, and why they are not asked.
    """

    choice: Choice
    stage: int
    code_number: int
    nearer: list[dict[str, Any]]

    @property
    def volunteer(self) -> Contact:
        """Who is asked."""
        return self.choice.candidate.volunteer


# Looks for the candidates of each case in its present stage.
Look = Callable[[Sequence[Need]], Awaitable[Mapping[UUID, Found]]]
# Keeps so many of the offers that each volunteer may have, all or none; returns an answer code's
# number for each.
Claim = Callable[[Mapping[UUID, int]], Awaitable[Mapping[UUID, list[int]]]]


async def find(needs: Sequence[Need], *, look: Look, claim: Claim) -> dict[UUID, Match]:
    """Find and claim volunteers for each case.

    Whoever finds nobody in a stage goes on to the next; whoever loses a claim looks again. Each
    round claims somebody, widens, or meets a change that somebody else has made, so it ends.
    """
    matches = {need.case_id: Match(need) for need in needs}
    wanting = {need.case_id: widen(need) for need in needs if need.wanted > 0}
    while wanting:
        found = await look(list(wanting.values()))
        usable: dict[UUID, list[Candidate]] = {}
        for id_, need in wanting.items():
            wanting[id_], usable[id_] = narrow(need, found[id_].candidates)
        ready = [_within_its_round(need) for id_, need in wanting.items() if usable[id_]]
        surge = is_surge(in_front(ready), usable)
        chosen = choose(ready, usable)
        counts = Counter(one.candidate.volunteer.id for all_ in chosen.values() for one in all_)
        codes = await claim(counts) if counts else {}
        for id_, choice in ((id_, one) for id_, all_ in chosen.items() for one in all_):
            numbers = codes.get(choice.candidate.volunteer.id)
            if numbers:
                nearer = _nearer(found[id_], choice, beside=chosen[id_], counts=counts)
                claimed = Claimed(choice, wanting[id_].stage, numbers.pop(), nearer)
                matches[id_].chosen.append(claimed)
                wanting[id_] = asked_one(wanting[id_], claimed.volunteer.id)
                matches[id_].need = wanting[id_]
        wanting = {
            id_: replace(widen(need), looks=need.looks + 1)
            for id_, need in wanting.items()
            if not need.exhausted
            and need.wanted > 0
            # In a surge one is enough: others have nobody.
            and not (surge and matches[id_].chosen)
        }
    return matches


def _nearer(
    found: Found, choice: Choice, *, beside: Sequence[Choice], counts: Mapping[UUID, int]
) -> list[dict[str, Any]]:
    """Who was nearer than the volunteer who is asked, and why they are not asked.

    ``beside`` are all who are asked for this case now, ``counts`` how many places were wanted of
    each volunteer in this round.
    """
    distance_m = choice.candidate.distance_m
    asked = {one.candidate.volunteer.id for one in beside}
    others = [
        {
            "volunteer": str(candidate.volunteer.id),
            "distance_m": round(candidate.distance_m),
            "why_not": "taken_by_another_case"
            if counts.get(candidate.volunteer.id, 0) >= candidate.free
            else "others_rather",
        }
        for candidate in found.candidates
        if candidate.distance_m < distance_m and candidate.volunteer.id not in asked
    ]
    passed = [one for one in found.passed_over if one["distance_m"] < distance_m]
    return sorted(passed + others, key=lambda one: float(one["distance_m"]))[:NEARER_NAMED]
