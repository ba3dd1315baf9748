"""Who has how much room: accepted cases fill a volunteer's hands, open offers have a limit of their
own, and drills take nothing from a real case."""

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.assignment import audit, coordination
from services.assignment.coordination import Act, Assignment, Closing
from shared.database import Database
from shared.districts import District
from shared.events import AnswerJudged, CaseReported, OfferClosed
from tests.factories import KOBA, case_reported
from tests.integration.cases import (
    Districts,
    answer,
    events_of,
    in_hand,
    offers_of,
    open_offer,
    people,
    report,
    state_of,
    sweep,
    time_passes,
    volunteer,
    with_policy,
)
from tests.integration.conftest import one, rows, run

MOST_OFFERS = 3


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts, open_offers=MOST_OFFERS)


@pytest.fixture
def db(assignment_database: Database) -> Database:
    return assignment_database


async def reported(db: Database, policy: Districts, **values: Any) -> CaseReported:
    number = await one(db, "SELECT count(*) FROM cases")
    case = case_reported(**{"code": f"CASE{number}", **values})
    await report(db, policy, case)
    return case


async def counts(db: Database, id_: UUID) -> tuple[int, int, int]:
    """Cases in hand, open offers, drills."""
    (row,) = await rows(db, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    return row.open_cases, row.open_offers, row.open_drills


async def nothing_is_miscounted(db: Database) -> None:
    async with db.transaction() as session:
        assert await audit.miscounted(session) == []


# --- offers and drills fill nobody's hands --------------------------------------------------------


async def test_two_unanswered_offers_one_of_them_a_drill_send_no_case_farther(
    db: Database, policy: Districts
) -> None:
    near = await volunteer(db, *KOBA, capacity=2)
    await volunteer(db, KOBA[0] + 0.117, KOBA[1], capacity=2)  # 13 km
    await reported(db, policy, drill=True)
    await reported(db, policy)
    assert (await open_offer(db, await reported(db, policy))).volunteer_id == near
    assert await counts(db, near) == (0, 2, 1)


async def test_drills_never_leave_a_real_urgent_case_waiting(
    db: Database, policy: Districts
) -> None:
    near, *_ = await people(db, 12, capacity=2)
    await report(db, policy, *[case_reported(drill=True) for _ in range(25)])
    real = await reported(db, policy, urgency="urgent")
    assert (await open_offer(db, real)).volunteer_id == near


async def test_a_drill_asks_only_who_has_nothing_else_open_and_once_at_a_time(
    db: Database, policy: Districts
) -> None:
    with_a_case, with_an_offer, free = await people(db, 3, capacity=3)
    await in_hand(db, with_a_case, 1)
    await run(db, "UPDATE volunteers SET on_duty = id = :id", id=with_an_offer)
    await reported(db, policy)
    await run(db, "UPDATE volunteers SET on_duty = true")
    first, second = await reported(db, policy, drill=True), await reported(db, policy, drill=True)
    assert (await open_offer(db, first)).volunteer_id == free
    assert (await state_of(db, second)).waiting_for == "all_volunteers_busy"
    offer = await one(db, "SELECT reasons FROM offers WHERE drill")
    assert [near["why_not"] for near in offer["nearer"]] == ["busy_for_a_drill"] * 2


async def test_a_drill_of_the_same_batch_does_not_meet_a_real_offer(
    db: Database, policy: Districts
) -> None:
    (only,) = await people(db, 1, capacity=3)
    await report(db, policy, case_reported(drill=True), case_reported())
    assert await counts(db, only) == (0, 1, 0)


async def test_nobody_has_more_unanswered_offers_than_the_policy_says(
    db: Database, policy: Districts
) -> None:
    near, far = await people(db, 2, capacity=100)
    await report(db, policy, *[case_reported() for _ in range(4)])
    last = await reported(db, policy)
    assert [(await counts(db, id_))[1] for id_ in (near, far)] == [3, 2]
    made = await open_offer(db, last)
    assert made.volunteer_id == far
    (passed,) = made.reasons["nearer"]
    assert (passed["volunteer"], passed["why_not"]) == (str(near), "many_offers")
    await report(db, policy, case_reported())
    waiting = await reported(db, policy)
    assert (await state_of(db, waiting)).waiting_for == "all_volunteers_busy"


async def test_reports_at_the_same_time_keep_to_the_limit(db: Database, policy: Districts) -> None:
    await people(db, 5, capacity=2)
    batches = [[case_reported() for _ in range(5)] for _ in range(4)]
    await asyncio.gather(*(report(db, policy, *batch) for batch in batches))
    found = await rows(db, "SELECT open_offers FROM volunteers")
    assert [row.open_offers for row in found] == [MOST_OFFERS] * 5
    await nothing_is_miscounted(db)


# --- hands that are full --------------------------------------------------------------------------


async def test_who_accepts_their_last_case_is_not_asked_for_others_any_more(
    db: Database, policy: Districts
) -> None:
    near, far = await people(db, 2, capacity=1)
    cases = [await reported(db, policy) for _ in range(3)]
    assert await counts(db, near) == (0, 3, 0)
    assert await answer(db, policy, await open_offer(db, cases[1]), "accept") == "recorded"
    assert await sweep(db, policy) == 2  # at once, before any deadline
    assert await counts(db, near) == (1, 0, 0)
    for case in (cases[0], cases[2]):
        before, now = await offers_of(db, case)
        assert (before.state, now.state, now.volunteer_id) == ("called_off", "offered", far)
    told = [(e.data.volunteer.id, e.data.reason) for e in await events_of(db, OfferClosed)]
    assert told == [(near, "hands_full")] * 2
    assert await sweep(db, policy) == 0
    await nothing_is_miscounted(db)


async def test_a_yes_beyond_the_capacity_is_declined_politely_and_the_next_one_is_asked(
    db: Database, policy: Districts
) -> None:
    near, far = await people(db, 2, capacity=1)
    first, second = await reported(db, policy), await reported(db, policy)
    one_offer, other_offer = await open_offer(db, first), await open_offer(db, second)
    verdicts = await asyncio.gather(
        answer(db, policy, one_offer, "accept"),
        answer(db, policy, other_offer, "accept", words="saya juga bisa"),
    )
    assert sorted(verdicts) == ["hands_full", "recorded"]
    assert await counts(db, near) == (1, 0, 0)
    assert await counts(db, far) == (0, 1, 0)
    judged = [e.data for e in await events_of(db, AnswerJudged) if e.data.verdict == "hands_full"]
    assert [(j.volunteer.id, j.reporter) for j in judged] == [(near, None)]
    assert await events_of(db, OfferClosed) == []  # the verdict has told them
    await nothing_is_miscounted(db)


async def test_who_was_called_off_may_be_asked_again_once_their_hands_are_free(
    db: Database, policy: Districts
) -> None:
    (only,) = await people(db, 1, capacity=1)
    first, second = await reported(db, policy), await reported(db, policy)
    held = await open_offer(db, first)
    await answer(db, policy, held, "accept")
    await sweep(db, policy)
    assert (await state_of(db, second)).waiting_for == "all_volunteers_busy"
    await answer(db, policy, held, "done")
    await sweep(db, policy)
    assert (await open_offer(db, second)).volunteer_id == only
    assert [o.state for o in await offers_of(db, second)] == ["offered"]
    assert await answer(db, policy, await open_offer(db, second), "accept") == "recorded"
    await nothing_is_miscounted(db)


async def test_a_drill_in_hand_leaves_room_for_as_many_real_cases(
    db: Database, policy: Districts
) -> None:
    (only,) = await people(db, 1, capacity=1)
    drill = await reported(db, policy, drill=True)
    assert await answer(db, policy, await open_offer(db, drill), "accept") == "recorded"
    real = await reported(db, policy)
    assert await answer(db, policy, await open_offer(db, real), "accept") == "recorded"
    assert await counts(db, only) == (1, 0, 1)


# --- the coordinator's hand -----------------------------------------------------------------------


async def test_assigning_is_refused_for_accepted_cases_only_and_names_them(
    db: Database, policy: Districts
) -> None:
    (only,) = await people(db, 1, capacity=1, name="Siti")
    await run(db, "UPDATE volunteers SET on_duty = false")
    drill, first, second = [await reported(db, policy, drill=d) for d in (True, False, False)]
    act = Assignment(by="Rina", why="lewat telepon", volunteer_id=only)

    async def assign(code: str) -> None:
        async with db.transaction() as session:
            await coordination.assign(session, code, act, districts=policy)

    await assign(drill_code := drill.data.code)
    await assign(first.data.code)
    with pytest.raises(coordination.Refused) as refused:
        await assign(second.data.code)
    said = refused.value.message
    assert f"{first.data.code} (accepted)" in said
    assert drill_code not in said
    assert "Release or close" in said
    assert f"PATCH /v1/volunteers/{only}" in said
    async with db.transaction() as session:
        await coordination.release(session, first.data.code, Act(by="Rina", why="-"),
                                   districts=policy)  # fmt: skip
    await assign(second.data.code)
    await nothing_is_miscounted(db)


# --- whatever happens -----------------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(
        ("real", "real", "drill", "burst", "yes", "yes", "no", "done", "hand_back", "silence",
         "assign", "release", "close")
    ),
    min_size=6,
    max_size=16,
)  # fmt: skip
HISTORIES = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])

_COULD_BE_ASKED = """
    SELECT v.id FROM volunteers v
    WHERE v.on_duty AND v.ready AND v.open_cases < v.capacity AND v.open_offers < :most
      AND NOT EXISTS (SELECT FROM offers o WHERE o.volunteer_id = v.id AND o.case_id = :case
                      AND o.state NOT IN ('unsent', 'called_off'))
    ORDER BY earth_distance(v.home, ll_to_earth(:latitude, :longitude)), v.id
"""


class History:
    """Cases, drills, answers, silence and coordinators, as they come; after each step all must be
    as it was promised."""

    def __init__(self, db: Database, policy: Districts, luck: random.Random) -> None:
        self.db, self.policy, self.luck = db, policy, luck
        self.cases: list[CaseReported] = []

    async def begin(self) -> None:
        await run(
            self.db, "TRUNCATE volunteers, cases, offers, answers, case_log, reporters, pings, "
            "openings, outbox CASCADE",
        )  # fmt: skip
        for number in range(4):
            capacity = self.luck.randint(1, 2)
            await volunteer(self.db, KOBA[0] + number * 0.009, KOBA[1], capacity=capacity)

    async def step(self, what: str) -> None:
        match what:
            case "real":
                await self.one_real_case()
            case "drill":
                await self.report(drill=True)
            case "burst":
                await self.report(*[False] * self.luck.randint(2, 4), drill=True)
            case "yes" | "no":
                offers = await self.offers("offered")
                some = self.luck.sample(offers, min(len(offers), self.luck.randint(1, 2)))
                word = "accept" if what == "yes" else "decline"
                # Two at the same moment, in transactions of their own.
                await asyncio.gather(*(answer(self.db, self.policy, o, word) for o in some))
            case "done" | "hand_back":
                for offer in (await self.offers("accepted"))[:1]:
                    await answer(self.db, self.policy, offer, what)
            case "silence":
                for case in self.luck.sample(self.cases, min(len(self.cases), 2)):
                    await time_passes(self.db, case, timedelta(minutes=10))
            case _:
                await self.coordinate(what)
        while await sweep(self.db, self.policy):
            pass

    async def report(self, *drills: bool, drill: bool | None = None) -> None:
        flags = [*drills] if drill is None else [*drills, drill]
        made = [
            case_reported(drill=flag, code=f"CASE{len(self.cases) + n}")
            for n, flag in enumerate(flags)
        ]
        self.cases += made
        await report(self.db, self.policy, *made)

    async def one_real_case(self) -> None:
        """It goes to the nearest who have room: what drills there are changes nothing."""
        could = await self.could_be_asked(None)
        await self.report(False)
        parallel = self.policy["19.04"].policy.parallel["normal"]
        asked = [offer.volunteer_id for offer in await offers_of(self.db, self.cases[-1])]
        assert asked == could[:parallel]

    async def coordinate(self, what: str) -> None:
        if not self.cases:
            return
        code = self.luck.choice(self.cases).data.code
        who = self.luck.choice(await rows(self.db, "SELECT id FROM volunteers ORDER BY id")).id
        about: dict[str, Any] = {"by": "Rina", "why": "lewat telepon"}
        try:
            async with self.db.transaction() as session:
                if what == "assign":
                    act = Assignment(**about, volunteer_id=who)
                    await coordination.assign(session, code, act, districts=self.policy)
                elif what == "release":
                    await coordination.release(session, code, Act(**about), districts=self.policy)
                else:
                    closing = Closing(**about, outcome="resolved")
                    await coordination.close(session, code, closing, districts=self.policy)
        except coordination.Refused as refused:
            if "as many as they take" in refused.message:
                (full,) = await rows(self.db, "SELECT * FROM volunteers WHERE id = :id", id=who)
                assert full.open_cases == full.capacity

    async def offers(self, state: str) -> list[Any]:
        return await rows(
            self.db, "SELECT * FROM offers WHERE state = :state ORDER BY id", state=state
        )

    async def could_be_asked(self, case: UUID | None) -> list[UUID]:
        values = {"latitude": KOBA[0], "longitude": KOBA[1], "most": MOST_OFFERS}
        return [r.id for r in await rows(self.db, _COULD_BE_ASKED, **values, case=case)]

    async def all_is_well(self) -> None:
        await nothing_is_miscounted(self.db)
        for row in await rows(self.db, "SELECT * FROM volunteers"):
            assert row.open_offers <= MOST_OFFERS
            assert (
                row.open_cases < row.capacity or row.open_offers == 0
            )  # the others are called off
        for case in await rows(
            self.db, "SELECT id FROM cases WHERE state IN ('waiting', 'escalated') AND NOT drill"
        ):
            assert await self.could_be_asked(case.id) == []


@HISTORIES
@given(steps=STEPS, seed=st.integers(0, 10**6), parallel=st.integers(1, 2))
async def test_whatever_happens_counts_are_true_and_only_real_cases_take_room(
    steps: list[str], seed: int, parallel: int, db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(
        districts, open_offers=MOST_OFFERS, parallel={"normal": parallel, "urgent": parallel}
    )
    history = History(db, policy, random.Random(seed))
    await history.begin()
    for step in steps:
        await history.step(step)
        await history.all_is_well()
