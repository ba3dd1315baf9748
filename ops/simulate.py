"""What a policy would have done: past reports, the real rules, and a simulated clock and people.

The rules are those of the services (:mod:`services.assignment.loop`, ``answers``, ``search``,
``duty``); here are only the clock, the volunteers in memory and the people who answer. Their luck
depends on the seed, the case and the volunteer alone, so that policies are compared on the same
luck (common random numbers).
"""

import asyncio
import heapq
import math
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from itertools import groupby
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any, Literal, cast
from uuid import UUID

import numpy
from numpy.typing import NDArray

from services.assignment import answers, duty, loop, search, transitions
from services.assignment.search import Candidate, Contact, Found, Need
from services.assignment.turn import HELD, OPEN, UNSERVED, Asked, Case, Freed, Hands, Turn
from services.notification.letters import SILENT_REASONS
from shared.districts import District
from shared.events import (
    Answer,
    CaseEscalated,
    Category,
    Event,
    GivenAnswer,
    OfferAnswered,
    OfferClosed,
    OfferMade,
    PublicCase,
    PublicCaseReopened,
    Urgency,
)
from shared.places import EARTH_RADIUS_M, Place
from shared.policy import OPEN_OFFERS

# After so long without a volunteer the coordinator, told long before, has settled the case.
OBSERVED = timedelta(hours=24)
# How often the caller hears where the run is, in cases that have ended.
WATCHED_EVERY = 50

Act = Callable[[datetime], Awaitable[None]]
Watch = Callable[[int], None]


# --- people ---------------------------------------------------------------------------------------

# Of those who answer at all; the rest says no.
YES = 0.7
ANSWER_MEDIAN = timedelta(minutes=3)
# Lognormal: with 1, one answer in ten takes longer than 11 minutes, one in a hundred 31.
ANSWER_SIGMA = 1.0
SPEED_KMH = 30  # by motorcycle on the island's roads, along the great circle
GET_GOING = timedelta(minutes=10)
VISIT_MEAN = timedelta(minutes=45)
OBSTACLE = 0.03
HAND_BACK = 0.03


@dataclass(frozen=True)
class Luck:
    """What one volunteer does about one case, whenever they are asked for it.

    ``answer`` None: stays silent. ``visit`` is the time from arrival to done.
    """

    answer: Literal["accept", "decline"] | None
    after: timedelta
    trouble: Literal["obstacle", "hand_back"] | None
    visit: timedelta


@dataclass(frozen=True)
class People:
    """How volunteers behave: ``answer_rate`` is the share of offers that is answered at all.

    17 to 47 % of alerts are answered in studies of comparable systems.
    """

    answer_rate: float = 0.3
    seed: int = 1

    def luck(self, case: int, volunteer: UUID) -> Luck:
        """The luck of a volunteer with the case of this number."""
        digest = blake2b(f"{self.seed}/{case}/{volunteer.int}".encode(), digest_size=40).digest()
        answers_, says_yes, delay, visit, trouble = (
            # 52 bits are exact in a float; the half keeps clear of 0 and 1.
            ((int.from_bytes(digest[start : start + 8], "big") >> 12) + 0.5) / 2**52
            for start in range(0, 40, 8)
        )
        if answers_ >= self.answer_rate:
            return Luck(None, timedelta(0), None, timedelta(0))
        return Luck(
            "accept" if says_yes < YES else "decline",
            ANSWER_MEDIAN * math.exp(ANSWER_SIGMA * _NORMAL.inv_cdf(delay)),
            "obstacle"
            if trouble < OBSTACLE
            else "hand_back"
            if trouble < OBSTACLE + HAND_BACK
            else None,
            VISIT_MEAN * -math.log(visit),
        )


_NORMAL = NormalDist()


def travel_time(distance_m: float) -> timedelta:
    """From the acceptance to the arrival."""
    return GET_GOING + timedelta(hours=distance_m / 1000 / SPEED_KMH)


# --- volunteers in memory -------------------------------------------------------------------------


class Volunteers:
    """The volunteers as matching.py's SQL sees them, in numpy: the same hard filters, same order.

    tests/integration/test_simulate_matches_sql.py holds the two together.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        timezones: Mapping[str, str],
        moment: datetime,
        most_offers: Mapping[str, int] | None = None,
    ) -> None:
        """``rows`` as services.assignment.volunteer_files makes them; each has an id.

        ``most_offers`` says how many unanswered offers a volunteer of a district may have.
        """
        rows = sorted(rows, key=lambda row: UUID(str(row["id"])))
        self.contacts = [
            Contact(
                row["id"], row["name"], row.get("phone"), row.get("email"),
                row.get("language", "id"),
            )
            for row in rows
        ]  # fmt: skip
        self._position = {contact.id: n for n, contact in enumerate(self.contacts)}
        self._rows = rows
        self._zones = [timezones[row["district"]] for row in rows]
        self._homes = _on_earth(
            numpy.array([row["latitude"] for row in rows], dtype=float),
            numpy.array([row["longitude"] for row in rows], dtype=float),
        )
        self._of_district: dict[str, NDArray[numpy.intp]] = {
            code: numpy.array([n for n, row in enumerate(rows) if row["district"] == code])
            for code in {row["district"] for row in rows}
        }
        self.capacity = numpy.array([row["capacity"] for row in rows], dtype=int)
        limits = most_offers or {}
        self.most_offers = numpy.array(
            [limits.get(row["district"], OPEN_OFFERS) for row in rows], dtype=int
        )
        # As the triggers on `offers` count them.
        self.open_cases = numpy.zeros(len(rows), dtype=int)
        self.open_offers = numpy.zeros(len(rows), dtype=int)
        self.open_drills = numpy.zeros(len(rows), dtype=int)
        self.on_duty = numpy.array([row.get("on_duty", True) for row in rows], dtype=bool)
        self.ready = numpy.ones(len(rows), dtype=bool)
        # Seconds since 1970; never is infinitely late.
        self.changes_at = numpy.full(len(rows), -math.inf)
        self._rest_until: list[datetime | None] = [row.get("rest_until") for row in rows]
        self._asked_at: list[list[datetime]] = [[] for _ in rows]
        self._asked: dict[UUID, set[int]] = defaultdict(set)
        self._near_of: dict[tuple[UUID, str], _Near] = {}
        self._masks: dict[tuple[Any, ...], NDArray[numpy.bool_]] = {}
        self._ready_at: dict[tuple[Any, ...], tuple[bool, datetime | None]] = {}
        self._codes = 0
        # When somebody's duty or rest begins or ends next, in seconds since 1970.
        self.next_change = -math.inf
        self.refresh(moment)

    # --- the search's two doors, as matching.py has them

    def look(self, needs: Sequence[Need], moment: datetime) -> dict[UUID, Found]:
        """The nearest who could be asked for each case now, as `matching._candidates` finds."""
        limit = max(need.candidates for need in needs)
        since = moment - max(need.recent for need in needs)
        on_hand = self._available() & (self.changes_at > moment.timestamp())
        room = {
            drill: numpy.where(on_hand, self.room(drill=drill), 0)
            for drill in {need.drill for need in needs}
        }
        return {
            need.case_id: Found(self._candidates(need, room[need.drill], limit, since))
            for need in needs
        }

    def claim(self, counts: Mapping[UUID, int], *, drill: bool = False) -> dict[UUID, list[int]]:
        """Let so many offers be made to each volunteer, all or none, as `matching._CLAIM` does;
        they count at once, as there is no transaction in which they are still to be made."""
        claimed: dict[UUID, list[int]] = {}
        available, room = self._available(), self.room(drill=drill)
        for id_, cases in counts.items():
            n = self._position[id_]
            if available[n] and cases <= room[n]:
                (self.open_drills if drill else self.open_offers)[n] += cases
                claimed[id_] = [self._codes + each for each in range(cases)]
                self._codes += cases
        return claimed

    def somebody_later(self, need: Need) -> bool:
        """Whether somebody suitable exists who was not asked, as `matching._somebody_later`."""
        asked = self._asked[need.case_id]
        return any(
            n not in asked
            for district in (need.district, *need.neighbours)
            for n in self._near(need, district).who
        )

    def _candidates(
        self, need: Need, room: NDArray[numpy.int_], limit: int, since: datetime
    ) -> list[Candidate]:
        asked = self._asked[need.case_id]
        found = []
        for district in need.districts:
            near = self._near(need, district)
            reach = int(numpy.searchsorted(near.distance_m, need.reach_m, side="right"))
            who = near.who[:reach]
            could = numpy.flatnonzero((room[who] > 0) & self._of_this_stage(need)[who])
            first = could[: limit + len(asked)]
            nearest = zip(near.distance_m[first].tolist(), who[first].tolist(), strict=True)
            found += [one for one in nearest if one[1] not in asked][:limit]
        return [
            Candidate(
                self.contacts[n],
                distance_m,
                free=int(room[n]),
                busy=int(self.open_cases[n]),
                recent=len(self._asked_at[n]) - bisect_right(self._asked_at[n], since),
                role=self._rows[n]["role"],
                district=self._rows[n]["district"],
            )
            for distance_m, n in sorted(found)
        ]

    def room(self, *, drill: bool) -> NDArray[numpy.int_]:
        """For how many more cases each may be asked, as `matching._ROOM`."""
        if not drill:
            return self.most_offers - self.open_offers
        nothing_open = self.open_cases + self.open_offers == 0
        return numpy.where(nothing_open, search.DRILLS_AT_ONCE - self.open_drills, 0)

    def hands(self, volunteer: UUID) -> Hands:
        """What a volunteer has in hand, as `turn._HANDS` reads it."""
        n = self._position[volunteer]
        return Hands(int(self.open_cases[n]), int(self.capacity[n]))

    def _available(self) -> NDArray[numpy.bool_]:
        return self.on_duty & self.ready & (self.open_cases < self.capacity)

    def _near(self, need: Need, district: str) -> "_Near":
        """Who suits the case at all, nearest first, within the policy's widest radius."""
        key = need.case_id, district
        if key not in self._near_of:
            there = self._of_district.get(district, numpy.array([], dtype=int))
            who = there[self._suits(need)[there]]
            place = _on_earth(need.latitude, need.longitude)
            # As earthdistance has it: the straight line through the earth, then the arc over it.
            chord = numpy.sqrt(((self._homes[who] - place) ** 2).sum(axis=1))
            ratio = numpy.minimum(chord / (2 * EARTH_RADIUS_M), 1.0)
            distance_m = 2 * EARTH_RADIUS_M * numpy.arcsin(ratio)
            within = distance_m <= max(stage.radius_m for stage in need.stages)
            who, distance_m = who[within], distance_m[within]
            order = numpy.argsort(distance_m, kind="stable")
            self._near_of[key] = _Near(who[order], distance_m[order])
        return self._near_of[key]

    def _suits(self, need: Need) -> NDArray[numpy.bool_]:
        roles, trainings = set(need.needed_roles), set(need.needed_trainings)

        def suits(row: Mapping[str, Any]) -> bool:
            serves = not row["categories"] or need.category in row["categories"]
            special = not roles and not trainings
            return serves and (special or row["role"] in roles or _trained(row, trainings))

        return self._mask(("suits", need.category, need.needed_roles, need.needed_trainings), suits)

    def _of_this_stage(self, need: Need) -> NDArray[numpy.bool_]:
        roles, trainings = need.now_at.roles, set(need.needed_trainings)

        def of_this_stage(row: Mapping[str, Any]) -> bool:
            return not roles or row["role"] in roles or _trained(row, trainings)

        return self._mask(("stage", roles, need.needed_trainings), of_this_stage)

    def _mask(
        self, key: tuple[Any, ...], fits: Callable[[Mapping[str, Any]], bool]
    ) -> NDArray[numpy.bool_]:
        if key not in self._masks:
            self._masks[key] = numpy.fromiter(map(fits, self._rows), dtype=bool)
        return self._masks[key]

    # --- what changes

    def ask(self, case_id: UUID, volunteer: UUID, moment: datetime, *, drill: bool = False) -> None:
        """Remember an offer: nobody is asked twice, and whoever was asked of late comes later; a
        drill does not count for that."""
        n = self._position[volunteer]
        self._asked[case_id].add(n)
        if not drill:
            self._asked_at[n].append(moment)

    def count(self, moves: Iterable[tuple[UUID, UUID, str, str]]) -> set[UUID]:
        """Count offers that have gone from one state to another, as the triggers do: case,
        volunteer, the state before and after. Returns whose hands are full by it."""
        filled: set[UUID] = set()
        for case_id, id_, before, after in moves:
            n = self._position[id_]
            self.open_offers[n] += (after in OPEN) - (before in OPEN)
            self.open_cases[n] += (after in HELD) - (before in HELD)
            if after == "called_off":  # may be asked again
                self._asked[case_id].discard(n)
            if after in HELD and self.open_cases[n] >= self.capacity[n]:
                filled.add(id_)
        return filled

    def free(self, freed: Mapping[UUID, Freed]) -> None:
        """Let those rest who have earned it, as `turn._FREE` does."""
        for id_, change in freed.items():
            n = self._position[id_]
            if change.rest_until is not None:
                self.rest(n, change.rest_until)

    def rest(self, n: int, until: datetime) -> None:
        """Leave the n-th volunteer alone until then."""
        self._rest_until[n], self.ready[n] = until, False
        self.changes_at[n] = min(self.changes_at[n], until.timestamp())
        self.next_change = min(self.next_change, float(self.changes_at[n]))

    def forget(self, case_id: UUID, districts: Iterable[str]) -> None:
        """A case has ended: what was worked out for it is not needed any more."""
        self._asked.pop(case_id, None)
        for district in districts:
            self._near_of.pop((case_id, district), None)

    def refresh(self, moment: datetime) -> set[str]:
        """Let duty and rest begin and end, as `duty.refresh`; returns where somebody became
        available."""
        if self.next_change > moment.timestamp():
            return set()
        before = self._available()
        for n in numpy.flatnonzero(self.changes_at <= moment.timestamp()):
            self.ready[n], changes_at = self._ready(int(n), moment)
            self.changes_at[n] = changes_at.timestamp() if changes_at else math.inf
        self.next_change = float(self.changes_at.min(initial=math.inf))
        opened = numpy.flatnonzero(self._available() & ~before)
        return {self._rows[n]["district"] for n in opened}

    def _ready(self, n: int, moment: datetime) -> tuple[bool, datetime | None]:
        row, rest_until = self._rows[n], self._rest_until[n]
        if rest_until is not None and rest_until <= moment:
            rest_until = None
        times = row.get("duty", ())
        # Many have the same hours, and they all change at the same moment.
        key = moment, repr(times), row.get("off_until"), rest_until, self._zones[n]
        if key not in self._ready_at:
            if self._ready_at and next(iter(self._ready_at))[0] != moment:
                self._ready_at.clear()
            self._ready_at[key] = duty.ready_at(
                duty_times=times,
                off_until=row.get("off_until"),
                rest_until=rest_until,
                moment=moment,
                timezone=self._zones[n],
            )
        return self._ready_at[key]


@dataclass(frozen=True)
class _Near:
    who: NDArray[numpy.intp]
    distance_m: NDArray[numpy.float64]


def _trained(row: Mapping[str, Any], trainings: set[str]) -> bool:
    return not trainings.isdisjoint(row.get("trainings", ()))


def _on_earth(latitude: Any, longitude: Any) -> NDArray[numpy.float64]:
    """A point on the surface, or a row for each, as PostgreSQL's `ll_to_earth`; in metres."""
    phi, theta = numpy.radians(latitude), numpy.radians(longitude)
    return EARTH_RADIUS_M * numpy.stack(
        [numpy.cos(phi) * numpy.cos(theta), numpy.cos(phi) * numpy.sin(theta), numpy.sin(phi)],
        axis=-1,
    )


# --- what is counted ------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of one case. ``distance_m`` is that of the first who accepted."""

    urgent: bool = False
    offers: int = 0
    sms: int = 0
    escalations: list[str] = field(default_factory=list)
    accepted_after: timedelta | None = None
    distance_m: float | None = None


@dataclass
class CountingTurn(Turn):
    """A turn whose rules are untouched; what they say is counted instead of made into events."""

    tallies: Mapping[UUID, Tally] = field(default_factory=dict)
    reopened: list[Case] = field(default_factory=list)
    moved: list[tuple[UUID, UUID, str, str]] = field(default_factory=list)

    def tell(self, case: Case, event: type[Event[PublicCase]]) -> None:
        """The next version of the case, for nobody to read."""
        case.version, case.changed_at = case.version + 1, self.moment
        if event is PublicCaseReopened:
            self.reopened.append(case)

    def say(self, event: type[Event[Any]], case: Case, data: Any) -> None:
        """Count the messages that notification would make of it."""
        tally = self.tallies[case.id]
        if event is OfferMade:
            tally.offers += 1
            tally.sms += 1
        elif event is OfferClosed:
            tally.sms += data.reason not in SILENT_REASONS
        elif event is CaseEscalated:
            tally.escalations.append(data.reason)
            tally.sms += len(data.coordinators)

    def log(self, case: Case, what: str, **_: Any) -> None:
        """Nobody reads it."""

    def moves(self, offer: Asked, state: str) -> None:
        """Keep what the triggers of the database would count."""
        self.moved.append((offer.case_id, offer.volunteer.id, offer.state, state))
        super().moves(offer, state)

    def give_back(self, volunteers: Volunteers) -> tuple[set[str], set[UUID]]:
        """Count what has changed; returns the districts where somebody can be asked again, and
        those volunteers whose hands are full now."""
        filled = volunteers.count(self.moved)
        volunteers.free(self._freed)
        self.moved.clear()
        self._freed.clear()
        opened, self._openings = self._openings, set()
        return opened, filled


# --- the clock ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """A past report: when it came, where, and what it was about."""

    at: datetime
    place: Place
    category: str
    urgency: str
    people: int = 1


@dataclass(frozen=True)
class Outcome:
    """One policy on one luck: what came of each case, and how often each volunteer accepted.

    ``seconds`` is what the run took.
    """

    tallies: Sequence[Tally]
    accepted: Sequence[int]
    seconds: float


class Run:
    """One policy, played over some reports.

    ``retries``: also look again whenever the policy's timer says so. It is off because the timer is
    the safety net behind openings, of which none is lost here: it finds nobody, thousands of times.
    """

    def __init__(
        self,
        reports: Sequence[Report],
        volunteers: Sequence[Mapping[str, Any]],
        *,
        districts: Mapping[str, District],
        people: People,
        retries: bool = False,
    ) -> None:
        self.people, self.districts, self.retries = people, districts, retries
        self.reports = sorted(reports, key=lambda report: report.at)
        self.moment = self.reports[0].at
        zones = {code: district.timezone for code, district in districts.items()}
        limits = {code: district.policy.open_offers for code, district in districts.items()}
        self.volunteers = Volunteers(
            volunteers, timezones=zones, moment=self.moment, most_offers=limits
        )
        self.tallies: dict[UUID, Tally] = {}
        self.accepted: Counter[UUID] = Counter()
        self._closed: set[UUID] = set()
        self._offers: dict[UUID, list[Asked]] = {}
        self._unserved: dict[UUID, Case] = {}
        self._due: dict[UUID, Case] = {}
        self._openings: set[str] = set()
        # The cases for which a volunteer has an open offer.
        self._open_of: dict[UUID, set[UUID]] = defaultdict(set)
        self._cases: dict[UUID, Case] = {}
        self._agenda: list[tuple[datetime, int, Act]] = []
        self._entries = 0

    async def play(self, watch: Watch = lambda ended: None) -> Outcome:
        """Go from moment to moment until every case has ended; ``watch`` hears how many have."""
        started = time.perf_counter()
        for at, together in groupby(self.reports, key=lambda report: report.at):
            self._at(at, partial(self._report, list(together)))
        watched = 0
        while len(self._closed) < len(self.reports):
            moment = self._next_moment()
            while self._agenda and self._agenda[0][0] <= moment:
                await heapq.heappop(self._agenda)[2](moment)
            await self._sweep(moment)
            if len(self._closed) >= watched + WATCHED_EVERY:
                watched = len(self._closed)
                watch(watched)
                await asyncio.sleep(0)  # so that Ctrl-C is heard
        watch(len(self._closed))
        accepted = [self.accepted[one.id] for one in self.volunteers.contacts]
        return Outcome(list(self.tallies.values()), accepted, time.perf_counter() - started)

    def _at(self, moment: datetime, act: Act) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (moment, self._entries, act))

    def _next_moment(self) -> datetime:
        """When anything happens next. Every open case has an entry, or the loop has ended."""
        agenda, change = self._agenda[0][0], self.volunteers.next_change
        if change < agenda.timestamp():
            return datetime.fromtimestamp(change, UTC)
        return agenda

    def _turn(self, moment: datetime, cases: Sequence[Case]) -> CountingTurn:
        turn = CountingTurn(
            moment, self.districts, {case.id: case for case in cases}, tallies=self.tallies
        )
        for case in cases:
            for offer in self._offers[case.id]:
                turn.add(offer)
                if offer.state in OPEN:
                    turn.hands[offer.volunteer.id] = self.volunteers.hands(offer.volunteer.id)
        return turn

    # --- what happens

    async def _report(self, reports: Sequence[Report], moment: datetime) -> None:
        cases = [self._case(report, moment) for report in reports]
        turn = self._turn(moment, cases)
        for case in cases:
            loop.begin(turn, case)
            self._observe(case, moment)
        await self._finish(turn)

    def _case(self, report: Report, moment: datetime) -> Case:
        number = len(self.tallies) + 1
        # A place has the names of the case's columns, and radius_m.
        place = {name: value for name, value in asdict(report.place).items() if name != "radius_m"}
        case = Case(
            id=UUID(int=number),
            code=str(number),
            category=cast(Category, report.category),
            urgency=cast(Urgency, report.urgency),
            people=report.people,
            drill=False,
            traceparent=None,
            reported_at=report.at,
            state="searching",
            version=1,
            changed_at=moment,
            **place,
        )
        self.tallies[case.id] = Tally(urgent=case.urgency == "urgent")
        self._offers[case.id] = []
        self._cases[case.id] = case
        return case

    async def _answer(
        self, case: Case, offer: Asked, luck: Luck, word: Answer, moment: datetime
    ) -> None:
        """A volunteer says something. Whoever was told that they need not come says nothing."""
        if offer.state in ("withdrawn", "lapsed", "called_off"):
            return
        turn = self._turn(moment, [case])
        verdict = answers.judge(turn, _said(case, offer, word))
        self.tallies[case.id].sms += 1  # every answer gets a sentence back
        if verdict == "recorded":
            self._then(case, offer, luck, word, moment)
        await self._finish(turn)

    def _then(self, case: Case, offer: Asked, luck: Luck, word: Answer, moment: datetime) -> None:
        """What a volunteer does after an answer that counted."""
        say = partial(partial, self._answer, case, offer, luck)
        if word == "accept":
            self._accepted(case, offer, moment)
            on_the_way = travel_time(offer.distance_m)
            if luck.trouble is not None:
                self._at(moment + on_the_way / 2, say(luck.trouble))
            if luck.trouble != "hand_back":
                self._at(moment + on_the_way, say("arrived"))
        elif word == "arrived":
            self._at(moment + luck.visit, say("done"))

    def _accepted(self, case: Case, offer: Asked, moment: datetime) -> None:
        self.accepted[offer.volunteer.id] += 1
        tally = self.tallies[case.id]
        if tally.accepted_after is None:
            tally.accepted_after = moment - case.reported_at
            tally.distance_m = offer.distance_m

    async def _sweep(self, moment: datetime) -> None:
        """As the sweep of handlers.py: duty begins and ends, openings wake cases, due ones act."""
        self._openings |= self.volunteers.refresh(moment)
        while self._openings or self._due:
            self._wake(moment)
            due = sorted(self._due.values(), key=_first)[: loop.SWEEP_SIZE]
            for case in due:
                del self._due[case.id]
            turn = self._turn(moment, due)
            for case in due:
                loop.come_due(turn, case)
            await self._finish(turn)

    def _wake(self, moment: datetime) -> None:
        """As loop.wake: where somebody has become available, cases that wait look again."""
        opened, self._openings = self._openings, set()
        if not opened:
            return
        for id_, case in self._unserved.items():
            district = self.districts[case.district]
            if case.district in opened or opened.intersection(district.policy.neighbours):
                case.next_action_at = moment
                self._due[id_] = case

    async def _becomes_due(self, case: Case, moment: datetime) -> None:
        # An entry for a moment that was put off since is stale.
        if case.next_action_at is not None and case.next_action_at <= moment:
            self._due[case.id] = case

    def _observe(self, case: Case, moment: datetime) -> None:
        self._at(moment + OBSERVED, partial(self._settle, case, case.escalate_at))

    async def _settle(self, case: Case, search: datetime | None, moment: datetime) -> None:
        """Nobody was found in all this time: the coordinator has settled it by other means."""
        # Another search has another moment of escalation.
        if case.state in (*UNSERVED, "offered") and case.escalate_at == search:
            turn = self._turn(moment, [case])
            transitions.close(turn, case, "referred", who="coordinator")
            await self._finish(turn)

    # --- the end of a turn

    async def _finish(self, turn: CountingTurn) -> None:
        """As loop.seek and Turn.write, with the volunteers in memory."""
        needs = loop.needs_of(turn)
        for case_id, who, _, _ in turn.moved:  # whatever has moved is open no longer
            self._open_of[who].discard(case_id)
        opened, filled = turn.give_back(self.volunteers)
        self._openings |= opened
        for who in filled:  # as loop._FULL finds them
            self._due |= {id_: self._cases[id_] for id_ in self._open_of[who]}
        if needs:
            await self._seek(turn, needs)
        for case in turn.reopened:
            self._observe(case, turn.moment)
        for case in turn.cases.values():
            self._keep(turn, case)

    async def _seek(self, turn: CountingTurn, needs: Sequence[Need]) -> None:
        async def look(wanting: Sequence[Need]) -> dict[UUID, Found]:
            return self.volunteers.look(wanting, turn.moment)

        async def claim(counts: Mapping[UUID, int]) -> dict[UUID, list[int]]:
            return self.volunteers.claim(counts)

        matches = await search.find(needs, look=look, claim=claim)
        for match in matches.values():
            if not match.chosen:
                match.somebody_later = self.volunteers.somebody_later(match.need)
        for offer, _ in loop.settle(turn, matches):
            self._ask(turn, offer)

    def _ask(self, turn: CountingTurn, offer: Asked) -> None:
        case = turn.cases[offer.case_id]
        self._offers[case.id].append(offer)
        self._open_of[offer.volunteer.id].add(case.id)
        self.volunteers.ask(case.id, offer.volunteer.id, turn.moment)
        luck = self.people.luck(case.id.int, offer.volunteer.id)
        if luck.answer is not None:
            answer = partial(self._answer, case, offer, luck, luck.answer)
            self._at(turn.moment + luck.after, answer)

    def _keep(self, turn: CountingTurn, case: Case) -> None:
        """Enter into the agenda when the case acts next."""
        self._due.pop(case.id, None)
        if case.state in UNSERVED:
            self._unserved[case.id] = case
        else:
            self._unserved.pop(case.id, None)
        if case.state == "closed":
            self._end(case)
            return
        when = case.next_action_at
        if case.state in UNSERVED and not self.retries:
            when = case.escalate_at if case.escalated_at is None else None
        if when is not None:
            self._at(when, partial(self._becomes_due, case))

    def _end(self, case: Case) -> None:
        # Whoever answers late may come to a case that ended long ago.
        if case.id not in self._closed:
            self._closed.add(case.id)
            self._cases.pop(case.id)
            neighbours = self.districts[case.district].policy.neighbours
            self.volunteers.forget(case.id, (case.district, *neighbours))


def _first(case: Case) -> tuple[bool, bool, datetime | None, UUID]:
    """The order in which a sweep takes cases (`loop._DUE`)."""
    return case.state not in OPEN, case.urgency != "urgent", case.next_action_at, case.id


def _said(case: Case, offer: Asked, word: Answer) -> OfferAnswered:
    # Who says that it is done says so plainly, and how it ended.
    data = GivenAnswer.model_construct(
        offer_id=offer.id,
        answer=word,
        outcome="resolved" if word == "done" else None,
        channel="simulated",
        form="button",
    )
    # All that a judge reads of the envelope.
    return cast(OfferAnswered, SimpleNamespace(subject=case.id, data=data))


# --- the measures ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measures:
    """What came of a policy. Shares are 0 to 1.

    Times are minutes from the report to the first acceptance, over all cases: None says that so
    many were never accepted. ``urgent_p90`` is that of the urgent cases, ``p90_of_runs`` the lowest
    and the highest of the single runs. Distances are kilometres of the first who accepted. ``gini``
    is 0 if all volunteers accepted equally often and near 1 if one accepted all; ``busiest_tenth``
    is the share of the accepted cases that a tenth of the volunteers carried. ``seconds`` is what
    all of it took.
    """

    cases: int
    urgent: int
    accepted: float
    minutes_p50: float | None
    minutes_p90: float | None
    urgent_p90: float | None
    p90_of_runs: tuple[float | None, float | None]
    offers_per_case: float
    sms_per_case: float
    distance_mean_km: float | None
    distance_p90_km: float | None
    escalated: float
    escalations: Mapping[str, int]
    gini: float
    busiest_tenth: float
    seconds: float
    # The share accepted within so many minutes: (minutes, share).
    curve: Sequence[tuple[float, float]]
    # The share of the cases that such a share of the volunteers carried, the busiest first.
    load: Sequence[tuple[float, float]]


CURVE_MINUTES = (*range(0, 60, 2), *range(60, 185, 5))


def measure(outcomes: Sequence[Outcome]) -> Measures:
    """The measures of one policy over all its runs."""
    tallies = [tally for outcome in outcomes for tally in outcome.tallies]
    minutes = _minutes(tallies)
    distances = [t.distance_m / 1000 for t in tallies if t.distance_m is not None]
    p90s = [percentile(_minutes(outcome.tallies), 0.9) for outcome in outcomes]
    return Measures(
        cases=len(tallies),
        urgent=sum(tally.urgent for tally in tallies),
        accepted=sum(map(math.isfinite, minutes)) / len(tallies),
        minutes_p50=finite(percentile(minutes, 0.5)),
        minutes_p90=finite(percentile(minutes, 0.9)),
        urgent_p90=finite(percentile(_minutes(t for t in tallies if t.urgent), 0.9)),
        p90_of_runs=(finite(min(p90s)), finite(max(p90s))),
        offers_per_case=sum(tally.offers for tally in tallies) / len(tallies),
        sms_per_case=sum(tally.sms for tally in tallies) / len(tallies),
        distance_mean_km=sum(distances) / len(distances) if distances else None,
        distance_p90_km=percentile(distances, 0.9) if distances else None,
        escalated=sum(bool(tally.escalations) for tally in tallies) / len(tallies),
        escalations=dict(Counter(why for tally in tallies for why in tally.escalations)),
        gini=_mean([gini(outcome.accepted) for outcome in outcomes]),
        busiest_tenth=_mean([carried_by(outcome.accepted, 0.1) for outcome in outcomes]),
        seconds=sum(outcome.seconds for outcome in outcomes),
        curve=[(m, bisect_right(minutes, m) / len(minutes)) for m in CURVE_MINUTES],
        load=[
            (part / 20, _mean([carried_by(outcome.accepted, part / 20) for outcome in outcomes]))
            for part in range(21)
        ],
    )


def _minutes(tallies: Iterable[Tally]) -> list[float]:
    """Minutes to the acceptance, ascending; infinite where nobody accepted."""
    return sorted(
        tally.accepted_after / timedelta(minutes=1) if tally.accepted_after else math.inf
        for tally in tallies
    )


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank).

    Of nothing it is infinite.
    """
    ordered = sorted(values) or [math.inf]
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def finite(value: float) -> float | None:
    """None for what never came."""
    return value if math.isfinite(value) else None


def gini(values: Sequence[float]) -> float:
    """The Gini coefficient: 0 if all have the same, (n - 1) / n if one has all; 0 of nothing.

    Half of the mean absolute difference over the mean (C. Gini, Variabilità e mutabilità, 1912).
    """
    total, count = sum(values), len(values)
    if not total:
        return 0.0
    ranked = sum(rank * value for rank, value in enumerate(sorted(values), start=1))
    return 2 * ranked / (count * total) - (count + 1) / count


def carried_by(values: Sequence[float], share: float) -> float:
    """The share of the total that this share of the values has, the highest first; 0 of nothing.

    A part of a value counts in part: a tenth of 115 volunteers are eleven and a half.
    """
    total, left, carried = sum(values), share * len(values), 0.0
    for value in sorted(values, reverse=True):
        carried += value * min(left, 1.0)
        left -= min(left, 1.0)
    return carried / total if total else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
