"""One transaction's turn with some cases: locked, read, decided in memory, written set-based.

Everything that happens to a case goes through here: a report, an answer, a deadline, a coordinator.
The rules (:mod:`services.assignment.answers`, :mod:`services.assignment.loop`) change the objects
and say what happened; nothing is written before :meth:`Turn.write`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import matching, openings
from shared import outbox
from shared.database import clock, execute, sql
from shared.districts import District
from shared.events import (
    ASKED_AT_MOST,
    ASKED_WORDS_AT_MOST,
    WORDS_AT_MOST,
    AskedVolunteer,
    CaseEscalated,
    CaseProgressed,
    Category,
    ClosedOffer,
    Coordinator,
    EscalatedCase,
    Event,
    OfferClosed,
    OfferedVolunteer,
    Place,
    ProgressedCase,
    PublicCase,
    PublicCaseEscalated,
    PublicSubdistrict,
    Reporter,
    Urgency,
)
from shared.words import shortened

OPEN = ("offered",)
HELD = ("accepted", "arrived")  # somebody has the case
UNSERVED = ("searching", "waiting", "escalated")
OPEN_STATES = (*UNSERVED, "offered", *HELD)
STATES = (*OPEN_STATES, "closed")
# Whom no channel has reached is left alone for a while: the telephone is off, or the number dead.
UNREACHABLE_PAUSE = timedelta(minutes=15)


@dataclass
class Case:
    """A case as its row says, to be changed by the rules; see models.Case for the columns."""

    id: UUID
    code: str
    district: str
    category: Category
    urgency: Urgency
    people: int
    latitude: float
    longitude: float
    approximate: bool
    subdistrict: str
    subdistrict_name: str
    village: str | None
    village_name: str | None
    centre_latitude: float
    centre_longitude: float
    drill: bool
    traceparent: str | None
    reported_at: datetime
    state: str
    version: int
    changed_at: datetime
    waiting_for: str | None = None
    next_action_at: datetime | None = None
    parallel: int = 1
    stage: int = 0
    asked_in_stage: int = 0
    escalate_at: datetime | None = None
    escalated_at: datetime | None = None
    escalated_for: str | None = None
    outcome: str | None = None
    closed_at: datetime | None = None
    # Of the table `reporters`: for whoever has the case and for nobody else.
    reporter: Reporter | None = field(default=None, repr=False)
    told_of_help: bool = False
    # Of the table `held_cases`: it waits for the duty officer; or its search has begun without
    # one, and everybody else's comes first.
    held: bool = False
    behind: bool = False


@dataclass
class Asked:
    """An offer as it stands, with its volunteer."""

    id: UUID
    case_id: UUID
    volunteer: OfferedVolunteer
    home_district: str
    role: str
    answer_code: str
    state: str
    distance_m: float
    slot: int
    made_at: datetime
    respond_by: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    words: str | None = None
    assigned_by: str | None = None


@dataclass
class Hands:
    """How many cases a volunteer has accepted, of how many at most. Drills fill nobody's hands."""

    open_cases: int
    capacity: int


@dataclass
class Freed:
    """What changes for a volunteer: a rest, a sign of life."""

    rest_until: datetime | None = None
    reached: bool = False


@dataclass
class Turn:
    """Some cases and their offers, held by this transaction."""

    moment: datetime
    districts: Mapping[str, District]
    cases: dict[UUID, Case]
    offers: dict[UUID, Asked] = field(default_factory=dict)
    events: list[Event[Any]] = field(default_factory=list)
    # Cases for which somebody is to be looked for before this turn ends.
    seeking: set[UUID] = field(default_factory=set)
    # Of the volunteers with open offers here; read in their districts' turn (:meth:`hold`).
    hands: dict[UUID, Hands] = field(default_factory=dict)
    _by_case: dict[UUID, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    _changed_offers: dict[UUID, Asked] = field(default_factory=dict)
    _freed: dict[UUID, Freed] = field(default_factory=lambda: defaultdict(Freed))
    _log: list[dict[str, Any]] = field(default_factory=list)
    _openings: set[str] = field(default_factory=set)
    _told_of_help: set[UUID] = field(default_factory=set)
    _forgotten: set[UUID] = field(default_factory=set)

    @classmethod
    async def take(
        cls,
        session: AsyncSession,
        case_ids: Iterable[UUID],
        *,
        districts: Mapping[str, District],
    ) -> "Turn":
        """Lock these cases, as many as there are, and read their offers."""
        rows = await execute(session, _TAKE, {"ids": list(case_ids)})
        turn = cls(await clock(session), districts, {row.id: Case(**dict(row)) for row in rows})
        for row in await execute(session, _OFFERS, {"ids": list(turn.cases)}):
            volunteer = OfferedVolunteer.model_construct(
                id=row.volunteer_id, name=row.name, phone=row.phone, email=row.email,
                language=row.language, channel=row.channel,
            )  # fmt: skip
            offer = Asked(
                id=row.id, case_id=row.case_id, volunteer=volunteer, role=row.role,
                home_district=row.home_district,
                answer_code=row.answer_code, state=row.state, distance_m=row.distance_m,
                slot=row.slot, made_at=row.made_at, respond_by=row.respond_by,
                answered_at=row.answered_at, ended_at=row.ended_at, words=row.words,
                assigned_by=row.assigned_by,
            )  # fmt: skip
            turn.add(offer)
        # Read after the cases were locked, or another's change of a moment ago would be missed.
        for row in await execute(session, _BESIDE, {"ids": list(turn.cases)}):
            case = turn.cases[row.case_id]
            if row.contact is not None:
                case.reporter = Reporter.model_validate(row.contact)
                case.told_of_help = row.told_of_help
            case.held, case.behind = row.held, row.behind
        return turn

    def add(self, offer: Asked) -> None:
        """Make an offer known; in place of the one with its id, if there is one."""
        before = self.offers.get(offer.id)
        mine = self._by_case[offer.case_id]
        if before is not None:
            mine.remove(before)
        mine.append(offer)
        self.offers[offer.id] = offer

    def offers_of(self, case: Case, *states: str) -> list[Asked]:
        """The offers of a case, all or those in these states, in the order they were made."""
        return sorted(
            (o for o in self._by_case[case.id] if not states or o.state in states),
            key=lambda offer: (offer.made_at, offer.slot),
        )

    def district(self, case: Case) -> District:
        """The case's own district."""
        return self.districts[case.district]

    # --- what can happen ----------------------------------------------------------------------

    def tell(self, case: Case, event: type[Event[PublicCase]]) -> None:
        """Something public has happened: the next version of the case."""
        case.version, case.changed_at = case.version + 1, self.moment
        self.events.append(public(event, case))

    def say(self, event: type[Event[Any]], case: Case, data: Any) -> None:
        """Something internal has happened."""
        self.events.append(
            event.of(
                data,
                case_id=case.id,
                district=case.district,
                time=self.moment,
                drill=case.drill,
                traceparent=case.traceparent,
            )
        )

    def progress(self, case: Case, step: str, *, outcome: str | None = None) -> None:
        """Something has happened that the reporter may want to hear of."""
        reporter = case.reporter
        if reporter is not None and reporter.wants_news:
            data = ProgressedCase(code=case.code, step=step, outcome=outcome, reporter=reporter)
            self.say(CaseProgressed, case, data)

    def help_is_coming(self, case: Case) -> None:
        """Somebody has the case: the reporter hears it the first time."""
        if not case.told_of_help:
            self.progress(case, "accepted")
            case.told_of_help = True
            self._told_of_help.add(case.id)

    def forget_reporter(self, case: Case) -> None:
        """Nobody needs their contact any more."""
        case.reporter = None
        self._forgotten.add(case.id)

    def log(
        self,
        case: Case,
        what: str,
        *,
        who: str | None = None,
        offer: UUID | None = None,
        why: str | None = None,
    ) -> None:
        """A line of the case's story."""
        self._log.append(
            {
                "case_id": str(case.id),
                "what": what,
                "who": who,
                "offer_id": str(offer) if offer else None,
                "why": why,
            }
        )

    def change(self, offer: Asked, state: str, *, words: str | None = None) -> None:
        """An offer that lives on: accepted, arrived."""
        self.moves(offer, state)
        offer.state, offer.answered_at = state, self.moment
        offer.words = words or offer.words
        self._changed_offers[offer.id] = offer

    def end(
        self,
        offer: Asked,
        state: str,
        *,
        rest: timedelta = timedelta(0),
        words: str | None = None,
    ) -> None:
        """An offer that ends: its volunteer can be asked again, after ``rest``."""
        self.moves(offer, state)
        offer.state, offer.ended_at = state, self.moment
        offer.words = words or offer.words
        self._changed_offers[offer.id] = offer
        if rest:
            self._freed[offer.volunteer.id].rest_until = self.moment + rest
        else:
            self._openings.add(offer.home_district)

    def moves(self, offer: Asked, state: str) -> None:
        """An offer is about to be in this state: what its volunteer has in hand changes with it, as
        the database will count when it is written."""
        change = (state in HELD) - (offer.state in HELD)
        hands = self.hands.get(offer.volunteer.id)
        if hands is not None and not self.cases[offer.case_id].drill:
            hands.open_cases += change
        if change > 0:
            # An offer less that waits for an answer; or hands that are full, and other offers of
            # theirs that the sweep calls off.
            self._openings.add(offer.home_district)

    def hands_full(self, offer: Asked) -> bool:
        """Whether its volunteer has accepted as many cases as they can take."""
        hands = self.hands[offer.volunteer.id]
        return hands.open_cases >= hands.capacity

    def rest_after(self, offer: Asked) -> timedelta:
        """The rest that somebody who was with a person has earned; a drill is none."""
        case = self.cases[offer.case_id]
        return timedelta(0) if case.drill else self.district(case).policy.rest

    def rename(self, offer: Asked, state: str) -> None:
        """An offer that has ended, and why is now known better."""
        offer.state = state
        self._changed_offers[offer.id] = offer

    def close_offer(
        self, offer: Asked, state: str, reason: str, *, rest: timedelta = timedelta(0)
    ) -> None:
        """End an offer without its volunteer's own answer, and tell them."""
        self.end(offer, state, rest=rest)
        data = ClosedOffer(
            offer_id=offer.id,
            answer_code=offer.answer_code,
            reason=reason,
            volunteer=offer.volunteer,
        )
        self.say(OfferClosed, self.cases[offer.case_id], data)

    def heard_from(self, volunteer: UUID) -> None:
        """A sign of life."""
        self._freed[volunteer].reached = True

    def escalate(self, case: Case, reason: str, *, words: str | None = None) -> None:
        """Tell the coordinators: why, who was asked, and what came back."""
        case.escalated_at, case.escalated_for = self.moment, reason
        if case.state in UNSERVED:
            case.state = "escalated"
        self.tell(case, PublicCaseEscalated)
        self.say(CaseEscalated, case, self._escalated(case, reason, words))
        self.log(case, "escalated", why=reason)

    def _escalated(self, case: Case, reason: str, words: str | None) -> EscalatedCase:
        policy = self.district(case).policy
        asked = self.offers_of(case)
        told = asked[-ASKED_AT_MOST:]
        return EscalatedCase(
            code=case.code,
            reason=reason,
            words=words and shortened(words, WORDS_AT_MOST),
            coordinators=[
                Coordinator(name=c.name, phone=c.phone, email=c.email, language=c.language)
                for c in policy.coordinators_of(case.subdistrict)
            ],
            asked=[
                AskedVolunteer(
                    name=offer.volunteer.name,
                    phone=offer.volunteer.phone,
                    role=offer.role,
                    distance_m=round(offer.distance_m, 1),
                    state=offer.state,
                    words=offer.words and shortened(offer.words, ASKED_WORDS_AT_MOST),
                )
                for offer in told
            ],
            asked_left_out=len(asked) - len(told),
            category=case.category,
            urgency=case.urgency,
            people=case.people,
            place=place(case),
            utc_offset_minutes=utc_offset_minutes(self.district(case), self.moment),
            reported_at=case.reported_at,
        )

    # --- writing ------------------------------------------------------------------------------

    async def hold(self, session: AsyncSession, *, also: Iterable[str] = ()) -> None:
        """Wait for the turn in every district whose volunteers these cases may concern, and in
        these others.

        All of them at once and before anybody is freed or claimed: our own first and a neighbour
        later would deadlock with a case of the neighbour.
        """
        districts = {offer.home_district for offer in self.offers.values() if not offer.ended_at}
        districts.update(also)
        for case in self.cases.values():
            districts |= {case.district, *self.district(case).policy.neighbours}
        await matching.hold(session, districts)
        # The wait may have been long: deadlines are counted from now on.
        self.moment = await clock(session)
        asked = {o.volunteer.id for o in self.offers.values() if o.state in OPEN}
        if new := asked - self.hands.keys():
            for row in await execute(session, _HANDS, {"ids": list(new)}):
                self.hands[row.id] = Hands(row.open_cases, row.capacity)

    async def write_offers(self, session: AsyncSession) -> None:
        """Write what has ended or changed before anybody is looked for; the database counts."""
        if self._changed_offers or self._freed:
            await self.hold(session)
        await self._free(session)
        # What has ended first, or a new acceptance would meet the old one.
        for ended in (True, False):
            offers = [
                offer
                for offer in self._changed_offers.values()
                if (offer.ended_at is not None) is ended
            ]
            if offers:
                await execute(session, _WRITE_OFFERS, {"offers": _json_of(offers)})
        self._changed_offers.clear()

    async def _free(self, session: AsyncSession) -> None:
        if not self._freed:
            return
        rows = [
            {
                "id": str(id_),
                "rest_until": freed.rest_until.isoformat() if freed.rest_until else None,
                "reached": freed.reached,
            }
            for id_, freed in self._freed.items()
        ]
        await execute(session, _FREE, {"freed": json.dumps(rows), "moment": self.moment})
        self._freed.clear()

    async def write(self, session: AsyncSession) -> None:
        """Write all that was decided, and publish what happened; the last thing of a turn."""
        await self.write_offers(session)
        await execute(
            session,
            _WRITE_CASES,
            {"cases": json.dumps([row_of(case, _CASE_COLUMNS) for case in self.cases.values()])},
        )
        if told := self._told_of_help - self._forgotten:
            await execute(session, _TOLD_OF_HELP, {"ids": list(told)})
        if self._forgotten:
            await execute(session, _FORGET, {"ids": list(self._forgotten)})
        if self._log:
            await execute(
                session, _WRITE_LOG, {"lines": json.dumps(self._log), "moment": self.moment}
            )
        if self._openings:
            await openings.announce(session, self._openings)
        await outbox.publish(session, self.events)


# Named, here and everywhere: the next version's columns must not reach this one while both run.
# What other tables say of a case is read beside it.
_OF_OTHER_TABLES = ("reporter", "told_of_help", "held", "behind")
_CASE = ", ".join(one.name for one in fields(Case) if one.name not in _OF_OTHER_TABLES)
# In the order of ids, so that two turns with the same cases wait for each other.
_TAKE = sql(f"""
    SELECT {_CASE} FROM cases
    WHERE id = ANY (CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
""")  # noqa: S608 - our own text, no value in it
_OFFERS = sql("""
    SELECT o.id, o.case_id, o.volunteer_id, o.answer_code, o.state, o.distance_m, o.slot,
           o.made_at, o.respond_by, o.answered_at, o.ended_at, o.words, o.assigned_by,
           v.name, v.phone, v.email, v.language, v.channel, v.role,
           v.district AS home_district
    FROM offers o JOIN volunteers v ON v.id = o.volunteer_id
    WHERE o.case_id = ANY (CAST(:ids AS uuid[]))
""")
_HANDS = sql("""
    SELECT id, open_cases, capacity FROM volunteers WHERE id = ANY (CAST(:ids AS uuid[]))
""")
_BESIDE = sql("""
    SELECT case_id, r.contact, r.told_of_help,
           h.look_by IS NOT NULL AND h.begun_at IS NULL AS held, h.begun_at IS NOT NULL AS behind
    FROM (SELECT case_id, contact, told_of_help FROM reporters
          WHERE case_id = ANY (CAST(:ids AS uuid[]))) AS r
    FULL JOIN (SELECT case_id, look_by, begun_at FROM held_cases
               WHERE case_id = ANY (CAST(:ids AS uuid[]))) AS h
         USING (case_id)
""")
_TOLD_OF_HELP = sql("""
    UPDATE reporters SET told_of_help = true WHERE case_id = ANY (CAST(:ids AS uuid[]))
""")
_FORGET = sql("DELETE FROM reporters WHERE case_id = ANY (CAST(:ids AS uuid[]))")
_WRITE_CASES = sql("""
    UPDATE cases c
    SET state = w.state, waiting_for = w.waiting_for, version = w.version,
        changed_at = w.changed_at, next_action_at = w.next_action_at, parallel = w.parallel,
        stage = w.stage, asked_in_stage = w.asked_in_stage, escalate_at = w.escalate_at,
        escalated_at = w.escalated_at, escalated_for = w.escalated_for, outcome = w.outcome,
        closed_at = w.closed_at
    FROM jsonb_to_recordset(CAST(:cases AS jsonb)) AS w
        (id uuid, state text, waiting_for text, version int, changed_at timestamptz,
         next_action_at timestamptz, parallel int, stage int, asked_in_stage int,
         escalate_at timestamptz, escalated_at timestamptz, escalated_for text, outcome text,
         closed_at timestamptz)
    WHERE c.id = w.id
""")
_WRITE_OFFERS = sql("""
    UPDATE offers o
    SET state = w.state, answered_at = w.answered_at, ended_at = w.ended_at, words = w.words,
        assigned_by = w.assigned_by, respond_by = w.respond_by
    FROM jsonb_to_recordset(CAST(:offers AS jsonb)) AS w
        (id uuid, state text, answered_at timestamptz, ended_at timestamptz, words text,
         assigned_by text, respond_by timestamptz)
    WHERE o.id = w.id
""")
# The sweep computes `ready` anew when the rest is over; until then it is false.
_FREE = sql("""
    WITH freed AS (
        SELECT id, rest_until, reached
        FROM jsonb_to_recordset(CAST(:freed AS jsonb)) AS f
            (id uuid, rest_until timestamptz, reached bool)
    ), locked AS (
        SELECT v.id FROM volunteers v JOIN freed USING (id) ORDER BY v.id FOR NO KEY UPDATE OF v
    )
    UPDATE volunteers v
    SET rest_until = coalesce(freed.rest_until, v.rest_until),
        ready = v.ready AND freed.rest_until IS NULL,
        ready_changes_at = least(v.ready_changes_at, freed.rest_until),
        last_reached_at = CASE WHEN freed.reached THEN CAST(:moment AS timestamptz)
                               ELSE v.last_reached_at END
    FROM freed JOIN locked USING (id)
    WHERE v.id = freed.id
""")
_WRITE_LOG = sql("""
    INSERT INTO case_log (case_id, at, what, who, offer_id, why)
    SELECT case_id, CAST(:moment AS timestamptz), what, who, offer_id, why
    FROM ROWS FROM (jsonb_to_recordset(CAST(:lines AS jsonb)) AS
        (case_id uuid, what text, who text, offer_id uuid, why text))
        WITH ORDINALITY AS line (case_id, what, who, offer_id, why, place)
    ORDER BY place
""")

_CASE_COLUMNS = (
    "id", "state", "waiting_for", "version", "changed_at", "next_action_at", "parallel", "stage",
    "asked_in_stage", "escalate_at", "escalated_at", "escalated_for", "outcome", "closed_at",
)  # fmt: skip


def row_of(case: Case, columns: Sequence[str]) -> dict[str, Any]:
    """Some columns of a case, as JSON."""
    return {column: _jsonable(getattr(case, column)) for column in columns}


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _json_of(offers: Sequence[Asked]) -> str:
    return json.dumps(
        [
            {
                "id": str(offer.id),
                "state": offer.state,
                "answered_at": offer.answered_at.isoformat() if offer.answered_at else None,
                "ended_at": offer.ended_at.isoformat() if offer.ended_at else None,
                "words": offer.words,
                "assigned_by": offer.assigned_by,
                "respond_by": offer.respond_by.isoformat(),
            }
            for offer in offers
        ]
    )


def place(case: Case) -> Place:
    """Where the person is, as events carry it."""
    return Place.model_construct(
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


def utc_offset_minutes(district: District, moment: datetime) -> int:
    """How far the district's clocks are from UTC at a moment."""
    offset = moment.astimezone(ZoneInfo(district.timezone)).utcoffset() or timedelta()
    return int(offset.total_seconds() // 60)


def public(event: type[Event[PublicCase]], case: Case) -> Event[PublicCase]:
    """The public event of a case as it is now.

    No place but the subdistrict's centre, and no trace: the reporter may have chosen it.
    """
    data = PublicCase.model_construct(
        version=case.version,
        state=case.state,
        category=case.category,
        urgency=case.urgency,
        subdistrict=PublicSubdistrict.model_construct(
            code=case.subdistrict,
            name=case.subdistrict_name,
            latitude=case.centre_latitude,
            longitude=case.centre_longitude,
        ),
        reported_at=case.reported_at.astimezone(UTC),
        waiting_for=case.waiting_for,
        escalated_for=case.escalated_for,
        outcome=case.outcome,
    )
    made: Event[PublicCase] = event.of(
        data,
        case_id=case.id,
        district=case.district,
        time=case.changed_at,
        drill=case.drill,
    )
    return made
