"""The offer loop on a real database: answers, silence, wider, other roles, neighbours, coordinator,
and one acceptance whatever happens at the same time."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from services.assignment import answers, loop
from services.assignment.handlers import Sweep
from shared.database import Database
from shared.districts import District
from shared.events import AnswerJudged, CaseEscalated, OfferClosed, OfferMade
from shared.hearing import nothing
from shared.policy import Need
from tests.factories import KOBA, case_reported, offer_answered, offer_unreachable
from tests.integration.cases import (
    Districts,
    answer,
    events_of,
    feed_of,
    offers_of,
    open_offer,
    people,
    report,
    state_of,
    sweep,
    time_passes,
    volunteer,
    who,
    with_policy,
)
from tests.integration.conftest import one, rows, run

MINUTE = timedelta(minutes=1)


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts)


@pytest.fixture
def db(assignment_database: Database) -> Database:
    return assignment_database


async def places(db: Database) -> dict[UUID, int]:
    """What each volunteer has open: cases in hand, and offers."""
    found = await rows(db, "SELECT id, open_cases + open_offers AS open FROM volunteers")
    return {row.id: row.open for row in found}


# --- declined, unreachable, silent: the next ------------------------------------------------------


async def test_a_declined_offer_goes_to_the_next_nearest_at_once(
    db: Database, policy: Districts
) -> None:
    first, second = await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    declined = await open_offer(db, case)
    assert await answer(db, policy, declined, "decline", words="sedang di luar kota") == "recorded"
    assert (await open_offer(db, case)).volunteer_id == second
    before, _ = await offers_of(db, case)
    assert (before.state, before.words) == ("declined", "sedang di luar kota")
    assert await places(db) == {first: 0, second: 1}
    assert await feed_of(db, case) == [(1, "searching"), (2, "offered"), (3, "offered")]


async def test_an_offer_that_reached_nobody_goes_to_the_next_at_once(
    db: Database, policy: Districts
) -> None:
    _, second = await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    lost = await open_offer(db, case)
    event = offer_unreachable(case_id=who(case), offer_id=lost.id)
    async with db.transaction() as session:
        await answers.take_answers(session, [event], districts=policy)
    assert (await open_offer(db, case)).volunteer_id == second
    assert [o.state for o in await offers_of(db, case)] == ["unreachable", "offered"]


async def test_silence_goes_to_the_next_at_the_deadline_and_not_before(
    db: Database, policy: Districts
) -> None:
    first, second = await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    await time_passes(db, case, 9 * MINUTE)
    assert await sweep(db, policy) == 0
    await time_passes(db, case, 1 * MINUTE)
    assert await sweep(db, policy) == 1
    assert [o.state for o in await offers_of(db, case)] == ["expired", "offered"]
    assert (await open_offer(db, case)).volunteer_id == second
    assert await places(db) == {first: 0, second: 1}
    (closed,) = await events_of(db, OfferClosed)
    assert (closed.data.reason, closed.data.volunteer.id) == ("expired", first)


async def test_nobody_is_asked_twice_for_the_same_case(db: Database, policy: Districts) -> None:
    await people(db, 3, capacity=5)
    case = case_reported()
    await report(db, policy, case)
    for _ in range(6):
        await time_passes(db, case, 10 * MINUTE)
        await sweep(db, policy)
    asked = Counter(o.volunteer_id for o in await offers_of(db, case))
    assert set(asked.values()) == {1}
    assert len(asked) == 3
    assert (await state_of(db, case)).state == "escalated"


# --- several at once ------------------------------------------------------------------------------


async def test_urgent_cases_ask_several_at_once_and_replace_each_decliner(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, parallel={"normal": 1, "urgent": 3})
    volunteers = await people(db, 5)
    case = case_reported(urgency="urgent")
    await report(db, policy, case)
    made = await offers_of(db, case)
    assert [o.volunteer_id for o in made] == volunteers[:3]
    assert [o.slot for o in made] == [1, 2, 3]
    await answer(db, policy, made[1], "decline")
    now_open = [o for o in await offers_of(db, case) if o.state == "offered"]
    assert {o.volunteer_id for o in now_open} == {volunteers[0], volunteers[2], volunteers[3]}
    assert sorted(o.slot for o in now_open) == [1, 2, 3]


async def test_the_first_acceptance_wins_and_all_other_offers_close_at_once(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, parallel={"normal": 3, "urgent": 3})
    a, b, c = await people(db, 3)
    case = case_reported()
    await report(db, policy, case)
    made = {o.volunteer_id: o for o in await offers_of(db, case)}
    assert await answer(db, policy, made[b], "accept", words="siap, otw") == "recorded"
    states = {o.volunteer_id: o.state for o in await offers_of(db, case)}
    assert states == {a: "withdrawn", b: "accepted", c: "withdrawn"}
    closed = await events_of(db, OfferClosed)
    assert {(e.data.volunteer.id, e.data.reason) for e in closed} == {
        (a, "taken_by_another"),
        (c, "taken_by_another"),
    }
    assert await places(db) == {a: 0, b: 1, c: 0}
    assert (await feed_of(db, case))[-1][1] == "accepted"
    assert await answer(db, policy, made[a], "accept") == "taken_by_another"
    assert await answer(db, policy, made[c], "decline") == "taken_by_another"
    assert await places(db) == {a: 0, b: 1, c: 0}


async def test_200_simultaneous_accepts_have_one_winner(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, parallel={"normal": 5, "urgent": 5})
    await people(db, 5)
    case = case_reported()
    await report(db, policy, case)
    made = await offers_of(db, case)
    assert len(made) == 5
    limit = asyncio.Semaphore(8)

    async def one_accept(number: int) -> str:
        async with limit:
            return await answer(db, policy, made[number % 5], "accept")

    verdicts = Counter(await asyncio.gather(*(one_accept(number) for number in range(200))))
    assert verdicts == {"recorded": 1, "already_recorded": 39, "taken_by_another": 160}
    states = Counter(o.state for o in await offers_of(db, case))
    assert states == {"accepted": 1, "withdrawn": 4}
    assert Counter((await places(db)).values()) == {1: 1, 0: 4}
    judged = await events_of(db, AnswerJudged)
    assert len(judged) == 200
    versions = [version for version, _ in await feed_of(db, case)]
    assert versions == [1, 2, 3]


# --- after the acceptance -------------------------------------------------------------------------


async def accepted(db: Database, policy: Districts, **values: Any) -> tuple[Any, Any]:
    case = case_reported(**values)
    await report(db, policy, case)
    offer = await open_offer(db, case)
    assert await answer(db, policy, offer, "accept") == "recorded"
    return case, offer


async def test_arrived_and_done_close_the_case_with_its_outcome_and_give_a_rest(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, rest=timedelta(hours=8))
    (only,) = await people(db, 1)
    case, offer = await accepted(db, policy)
    assert await answer(db, policy, offer, "arrived") == "recorded"
    assert await answer(db, policy, offer, "done", outcome="referred") == "recorded"
    assert await feed_of(db, case) == [
        (1, "searching"),
        (2, "offered"),
        (3, "accepted"),
        (4, "arrived"),
        (5, "closed"),
    ]
    closed = await state_of(db, case)
    assert (closed.outcome, closed.next_action_at) == ("referred", None)
    (row,) = await rows(db, "SELECT * FROM volunteers")
    assert (row.id, row.open_cases, row.ready, row.available) == (only, 0, False, False)
    assert row.rest_until - closed.closed_at == timedelta(hours=8)
    assert row.last_reached_at is not None
    # Resting: not asked.
    another = case_reported()
    await report(db, policy, another)
    assert await offers_of(db, another) == []
    assert await answer(db, policy, offer, "accept") == "case_closed"
    assert await answer(db, policy, offer, "done") == "already_recorded"


async def test_a_done_that_may_not_have_been_meant_closes_nothing_and_is_asked_back(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case, offer = await accepted(db, policy)
    guess = {"outcome": None, "form": "words", "channel": "sms"}
    assert await answer(db, policy, offer, "done", **guess) == "unconfirmed"
    assert await answer(db, policy, offer, "arrived", form="words") == "recorded"
    assert await answer(db, policy, offer, "done", **guess) == "unconfirmed"
    # As a release before this one hands it over.
    assert await answer(db, policy, offer, "done", form=None, channel="sms") == "unconfirmed"
    assert (await state_of(db, case)).state == "arrived"
    judged = (await events_of(db, AnswerJudged))[-1]
    assert (judged.data.verdict, judged.data.answer_code) == ("unconfirmed", offer.answer_code)
    plain = {"outcome": None, "form": "plain", "channel": "sms"}
    assert await answer(db, policy, offer, "done", **plain) == "recorded"
    assert (await state_of(db, case)).outcome == "resolved"


async def test_an_obstacle_reaches_the_coordinator_at_once_and_the_case_stays_theirs(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case, offer = await accepted(db, policy)
    assert await answer(db, policy, offer, "obstacle", words="jembatan putus") == "recorded"
    (escalated,) = await events_of(db, CaseEscalated)
    assert (escalated.data.reason, escalated.data.words) == ("obstacle", "jembatan putus")
    names = [c.name for c in escalated.data.coordinators]
    assert names == ["Hendra Wijaya", "Piket Dinas Sosial Bangka Tengah"]
    state = await state_of(db, case)
    assert (state.state, state.escalated_for) == ("accepted", "obstacle")
    assert await answer(db, policy, offer, "done") == "recorded"


async def test_a_case_handed_back_is_offered_to_another_and_not_to_the_same_one(
    db: Database, policy: Districts
) -> None:
    first, second = await people(db, 2)
    case, offer = await accepted(db, policy)
    assert await answer(db, policy, offer, "hand_back", words="anak sakit") == "recorded"
    assert (await open_offer(db, case)).volunteer_id == second
    assert await places(db) == {first: 0, second: 1}
    assert [state for _, state in await feed_of(db, case)] == [
        "searching",
        "offered",
        "accepted",
        "searching",
        "offered",
    ]


async def test_declining_after_the_acceptance_hands_the_case_back(
    db: Database, policy: Districts
) -> None:
    _, second = await people(db, 2)
    case, offer = await accepted(db, policy)
    assert await answer(db, policy, offer, "decline") == "recorded"
    assert (await open_offer(db, case)).volunteer_id == second


async def test_silence_after_the_acceptance_lapses_and_the_search_goes_on(
    db: Database, policy: Districts
) -> None:
    first, second = await people(db, 2)
    case, _ = await accepted(db, policy)
    await time_passes(db, case, 89 * MINUTE)
    assert await sweep(db, policy) == 0
    await time_passes(db, case, 1 * MINUTE)
    assert await sweep(db, policy) == 1
    assert [o.state for o in await offers_of(db, case)] == ["lapsed", "offered"]
    assert (await open_offer(db, case)).volunteer_id == second
    (closed,) = await events_of(db, OfferClosed)
    assert (closed.data.reason, closed.data.volunteer.id) == ("lapsed", first)


async def test_silence_after_the_arrival_is_told_to_the_coordinator_once(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case, offer = await accepted(db, policy)
    await answer(db, policy, offer, "arrived")
    await time_passes(db, case, timedelta(hours=8))
    assert await sweep(db, policy) == 1
    assert await sweep(db, policy) == 0
    (escalated,) = await events_of(db, CaseEscalated)
    assert escalated.data.reason == "no_news_after_arrival"
    assert (await state_of(db, case)).state == "arrived"


# --- what changes nothing -------------------------------------------------------------------------


async def test_an_answer_after_the_deadline_is_polite_and_changes_nothing(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    late = await open_offer(db, case)
    await time_passes(db, case, 10 * MINUTE)
    await sweep(db, policy)
    before = await state_of(db, case)
    assert await answer(db, policy, late, "accept") == "too_late"
    assert dict(await state_of(db, case)) == dict(before)
    judged = (await events_of(db, AnswerJudged))[-1]
    assert judged.data.verdict == "too_late"
    assert judged.data.volunteer.id == late.volunteer_id


async def test_an_answer_to_an_unknown_offer_or_anothers_changes_nothing(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    assert await answer(db, policy, offer, "accept", volunteer_id=uuid7()) == "not_yours"
    stranger = offer_answered(case_id=uuid7(), offer_id=uuid7(), answer="accept")
    async with db.transaction() as session:
        await answers.take_answers(session, [stranger], districts=policy)
    assert (await open_offer(db, case)).id == offer.id
    judged = await events_of(db, AnswerJudged)
    assert [e.data.verdict for e in judged] == ["not_yours", "unknown_offer"]
    # Nothing of somebody else's offer is said back.
    assert all(e.data.volunteer is None and e.data.answer_code is None for e in judged)
    assert len(await rows(db, "SELECT * FROM answers")) == 2


@pytest.mark.parametrize("word", ["arrived", "done", "obstacle"])
async def test_arrived_done_or_an_obstacle_before_the_acceptance_is_asked_back(
    db: Database, policy: Districts, word: str
) -> None:
    await people(db, 1)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    assert await answer(db, policy, offer, word) == "not_accepted_yet"
    assert (await open_offer(db, case)).id == offer.id


async def test_accept_and_decline_of_the_same_one_in_one_batch_keep_their_order(
    db: Database, policy: Districts
) -> None:
    _, second = await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    both = [
        offer_answered(case_id=who(case), offer_id=offer.id, answer=word, volunteer_id=None)
        for word in ("accept", "decline")
    ]
    async with db.transaction() as session:
        await answers.take_answers(session, both, districts=policy)
    assert [o.state for o in await offers_of(db, case)] == ["handed_back", "offered"]
    assert (await open_offer(db, case)).volunteer_id == second
    versions = [version for version, _ in await feed_of(db, case)]
    assert versions == list(range(1, len(versions) + 1))


# --- wider, other roles, neighbours, coordinator --------------------------------------------------


async def silent(db: Database, policy: Districts, case: Any) -> None:
    """The open offers of a case pass their deadline."""
    await time_passes(db, case, 10 * MINUTE)
    await sweep(db, policy)


async def test_an_exhausted_step_widens_then_other_roles_then_the_coordinator(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(
        districts, steps_m=(3_000.0, 20_000.0), rounds=2, first_roles=("psm", "tksk")
    )
    near = await people(db, 2)  # 1 and 2 km
    near_pkh = await volunteer(db, *KOBA, role="pkh")
    far = await volunteer(db, KOBA[0] + 0.09, KOBA[1])  # 10 km
    case = case_reported()
    await report(db, policy, case)
    for _ in range(3):
        await silent(db, policy, case)
    made = await offers_of(db, case)
    assert [o.volunteer_id for o in made] == [*near, far, near_pkh]
    assert [o.reasons["stage"] for o in made] == [0, 0, 1, 2]
    assert await events_of(db, CaseEscalated) == []
    await silent(db, policy, case)
    (escalated,) = await events_of(db, CaseEscalated)
    assert escalated.data.reason == "nobody_left_to_ask"
    assert [a.state for a in escalated.data.asked] == ["expired"] * 4
    assert (await state_of(db, case)).state == "escalated"


async def test_a_round_of_the_policy_bounds_how_many_are_asked_before_it_widens(
    db: Database, districts: dict[str, District]
) -> None:
    """Two are asked within 3 km though a third lives there; the idle one farther off comes next."""
    policy = with_policy(districts, steps_m=(3_500.0, 20_000.0), rounds=2, busy_counts_m=50_000.0)
    await people(db, 3, capacity=2, open_cases=1)
    idle = await volunteer(db, KOBA[0] + 0.09, KOBA[1])
    case = case_reported()
    await report(db, policy, case)
    await silent(db, policy, case)
    await silent(db, policy, case)
    assert (await open_offer(db, case)).volunteer_id == idle


async def test_when_the_rounds_are_gone_through_the_coordinator_hears_and_the_search_goes_on(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, rounds=2)
    volunteers = await people(db, 4)
    case = case_reported()
    await report(db, policy, case)
    await silent(db, policy, case)
    assert await events_of(db, CaseEscalated) == []
    await silent(db, policy, case)
    (escalated,) = await events_of(db, CaseEscalated)
    assert escalated.data.reason == "nobody_accepted_in_time"
    assert (await open_offer(db, case)).volunteer_id == volunteers[2]
    assert await answer(db, policy, await open_offer(db, case), "accept") == "recorded"
    assert (await feed_of(db, case))[-1][1] == "accepted"


async def test_the_neighbour_district_is_asked_last_and_only_if_the_policy_allows(
    db: Database, districts: dict[str, District]
) -> None:
    alone = with_policy(districts)
    across = await volunteer(db, KOBA[0] + 0.01, KOBA[1], district="19.71")
    case = case_reported()
    await report(db, alone, case)
    assert (await state_of(db, case)).state == "escalated"
    friends = with_policy(districts, neighbours=("19.71",))
    (own,) = await people(db, 1)
    helped = case_reported()
    await report(db, friends, helped)
    assert (await open_offer(db, helped)).volunteer_id == own
    await silent(db, friends, helped)
    assert (await open_offer(db, helped)).volunteer_id == across


async def test_a_case_that_nobody_accepted_in_time_goes_to_the_coordinator_while_asking_goes_on(
    db: Database, districts: dict[str, District]
) -> None:
    hour = {"normal": timedelta(minutes=25), "urgent": timedelta(minutes=25)}
    policy = with_policy(districts, escalate_after=hour)
    await people(db, 5)
    case = case_reported()
    await report(db, policy, case)
    for _ in range(3):
        await silent(db, policy, case)
    (escalated,) = await events_of(db, CaseEscalated)
    assert escalated.data.reason == "nobody_accepted_in_time"
    assert (await state_of(db, case)).state == "offered"
    assert (await open_offer(db, case)) is not None


async def test_what_a_category_needs_is_a_role_or_a_training(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(
        districts, needs={"mental_illness": Need(roles=("tksk",), trainings=("mental_health",))}
    )
    await volunteer(db, *KOBA)
    trained = await volunteer(db, KOBA[0] + 0.05, KOBA[1], trainings=["mental_health"], role="pkh")
    tksk = await volunteer(db, KOBA[0] + 0.1, KOBA[1], role="tksk")
    case = case_reported(category="mental_illness")
    await report(db, policy, case)
    (offer,) = await offers_of(db, case)
    assert offer.volunteer_id == trained
    assert [n["why_not"] for n in offer.reasons["nearer"]] == ["not_trained"]
    await silent(db, policy, case)
    assert (await open_offer(db, case)).volunteer_id == tksk


async def test_of_those_equally_near_whoever_was_asked_least_is_asked(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, same_distance_m=5_000.0, open_offers=10)
    await people(db, 3)
    for _ in range(6):
        await report(db, policy, case_reported())
    counts = await rows(db, "SELECT count(*) AS n FROM offers GROUP BY volunteer_id")
    assert [row.n for row in counts] == [2, 2, 2]


# --- capacity and deadlines -----------------------------------------------------------------------


async def test_whoever_becomes_free_is_offered_the_case_that_waits(
    db: Database, policy: Districts
) -> None:
    (only,) = await people(db, 1)
    _, offer = await accepted(db, policy)
    waiting = case_reported()
    await report(db, policy, waiting)
    assert (await state_of(db, waiting)).state == "waiting"
    await answer(db, policy, offer, "done")
    assert await sweep(db, policy) == 1
    assert (await open_offer(db, waiting)).volunteer_id == only


async def test_the_same_answer_delivered_again_changes_nothing(
    db: Database, policy: Districts
) -> None:
    await people(db, 3)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    assert await answer(db, policy, offer, "decline") == "recorded"
    assert await answer(db, policy, offer, "decline") == "already_recorded"
    assert len(await offers_of(db, case)) == 2


async def test_the_database_refuses_a_second_acceptance_and_more_offers_than_slots(
    db: Database, policy: Districts
) -> None:
    a, b = await people(db, 2)
    case, _ = await accepted(db, policy)
    again = """
        INSERT INTO offers (id, case_id, volunteer_id, district, answer_code, state, distance_m,
                            reasons, respond_by, slot, slots)
        VALUES (gen_random_uuid(), :case, :volunteer, '19.04', 'X', :state, 1, '{}', now(),
                :slot, 1)
    """
    for state, slot, constraint in (
        ("accepted", 1, "offers_one_acceptance"),
        ("offered", 2, "offers_slots"),
    ):
        with pytest.raises(Exception, match=constraint):
            await run(db, again, case=who(case), volunteer=b, state=state, slot=slot)
    another = case_reported()
    await report(db, policy, another)
    with pytest.raises(Exception, match="volunteers_not_overloaded"):
        await run(db, again, case=who(another), volunteer=a, state="accepted", slot=1)
    # By itself a statement changes nothing: only offers count.
    await run(db, "UPDATE volunteers SET open_cases = 0 WHERE id = :id", id=a)
    assert (await places(db))[a] == 1


async def test_sweeps_of_several_processes_give_each_case_one_next_offer(
    db: Database, policy: Districts
) -> None:
    await people(db, 40)
    cases = [case_reported() for _ in range(20)]
    await report(db, policy, *cases)
    for case in cases:
        await time_passes(db, case, 10 * MINUTE)
    await asyncio.gather(*(sweep(db, policy) for _ in range(4)))
    for case in cases:
        assert [o.state for o in await offers_of(db, case)] == ["expired", "offered"]
    assert Counter((await places(db)).values()) == {1: 20, 0: 20}


async def test_a_case_that_cannot_be_handled_holds_up_no_other(
    db: Database, policy: Districts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people(db, 4)
    good, bad = case_reported(), case_reported()
    await report(db, policy, good, bad)
    for case in (good, bad):
        await time_passes(db, case, 10 * MINUTE)
    come_due = loop.come_due

    def broken(turn: Any, case: Any, **heard: Any) -> None:
        if case.id == who(bad):
            raise ValueError("cannot be handled")
        come_due(turn, case, **heard)

    monkeypatch.setattr(loop, "come_due", broken)
    assert await Sweep(db, districts=policy, every_s=1).look_at_cases() == 2
    assert [o.state for o in await offers_of(db, good)] == ["expired", "offered"]
    assert [o.state for o in await offers_of(db, bad)] == ["offered"]
    assert await sweep(db, policy) == 0  # it rests for a while instead of failing each second


async def test_a_changed_policy_counts_from_the_next_offer_on(
    db: Database, policy: Districts
) -> None:
    await people(db, 4)
    case = case_reported()
    await report(db, policy, case)
    district = policy["19.04"]
    faster = {"normal": 2 * MINUTE, "urgent": MINUTE}
    changed = {
        "19.04": replace(
            district,
            policy=replace(
                district.policy, answer_within=faster, parallel={"normal": 3, "urgent": 3}
            ),
        )
    }
    await time_passes(db, case, 10 * MINUTE)
    await sweep(db, changed)
    offer = await open_offer(db, case)
    assert offer.respond_by - offer.made_at == 2 * MINUTE


async def test_every_event_of_an_offer_goes_with_its_case(db: Database, policy: Districts) -> None:
    await people(db, 2)
    case, offer = await accepted(db, policy)
    await answer(db, policy, offer, "hand_back")
    keys = await rows(db, "SELECT DISTINCT key FROM outbox")
    assert [row.key for row in keys] == [str(case.subject)]
    assert len(await events_of(db, OfferMade)) == 2
    assert await one(db, "SELECT count(*) FROM case_log") == 5


# --- when something is away, or has changed meanwhile ---------------------------------------------


async def unreachable(db: Database, policy: Districts, offer: Any, reason: str) -> None:
    event = offer_unreachable(reason, case_id=offer.case_id, offer_id=offer.id)
    async with db.transaction() as session:
        await answers.take_answers(session, [event], districts=policy)


async def test_a_policy_with_fewer_steps_than_a_case_has_gone_goes_on_with_the_last(
    db: Database, districts: dict[str, District]
) -> None:
    many = with_policy(districts, steps_m=(2_000.0, 4_000.0, 40_000.0), rounds=1)
    volunteers = await people(db, 6)
    case = case_reported()
    await report(db, many, case)
    await silent(db, many, case)
    await silent(db, many, case)
    assert (await state_of(db, case)).stage == 2
    one_step = with_policy(districts, steps_m=(40_000.0,), rounds=5)
    await silent(db, one_step, case)
    assert (await open_offer(db, case)).volunteer_id == volunteers[3]
    states = [o.state for o in await offers_of(db, case)]
    assert states == ["expired", "expired", "expired", "offered"]


async def test_who_was_never_sent_the_offer_was_not_asked_and_can_be_asked_later(
    db: Database, policy: Districts
) -> None:
    (only,) = await people(db, 1)
    case = case_reported()
    await report(db, policy, case)
    lost = await open_offer(db, case)
    await unreachable(db, policy, lost, "not_sent_in_time")
    again = await open_offer(db, case)
    assert (again.volunteer_id, again.id != lost.id) == (only, True)
    assert again.answer_code != lost.answer_code
    # And if the deadline was noticed here first.
    await silent(db, policy, case)
    assert (await state_of(db, case)).state == "escalated"
    await unreachable(db, policy, again, "not_sent_in_time")
    assert (await open_offer(db, case)).volunteer_id == only
    assert await places(db) == {only: 1}
    assert len(await offers_of(db, case)) == 1


async def test_a_named_volunteer_whom_nobody_can_reach_gives_the_case_back_and_only_then(
    db: Database, policy: Districts
) -> None:
    first, second = await people(db, 2)
    case, offer = await accepted(db, policy)
    await run(db, "UPDATE offers SET assigned_by = 'Bu Rina'")
    # The message that had asked before was not sent; the one about the assignment was.
    await unreachable(db, policy, offer, "not_sent_in_time")
    assert (await state_of(db, case)).state == "accepted"
    await unreachable(db, policy, offer, "no_channel_left")
    (escalated,) = await events_of(db, CaseEscalated)
    assert escalated.data.reason == "assigned_unreachable"
    assert (await open_offer(db, case)).volunteer_id == second
    assert await places(db) == {first: 0, second: 1}


async def test_whom_no_channel_reaches_is_left_alone_for_a_while(
    db: Database, policy: Districts
) -> None:
    dead, other = await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    await unreachable(db, policy, await open_offer(db, case), "no_channel_left")
    assert (await open_offer(db, case)).volunteer_id == other
    (row,) = await rows(db, "SELECT * FROM volunteers WHERE id = :id", id=dead)
    assert (row.ready, row.open_cases) == (False, 0)


async def test_while_answers_cannot_be_heard_or_offers_not_said_deadlines_stand_still(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    await time_passes(db, case, 20 * MINUTE)
    deaf = Sweep(db, districts=policy, every_s=1, heard=nothing)
    assert await deaf.look_at_cases() == 0
    await run(db, "UPDATE outbox SET created_at = now() - interval '1 minute'")
    hearing = Sweep(db, districts=policy, every_s=1)
    assert await hearing.look_at_cases() == 0
    assert [o.state for o in await offers_of(db, case)] == ["offered"]
    await run(db, "UPDATE outbox SET published_at = now()")
    assert await hearing.look_at_cases() == 1
    assert [o.state for o in await offers_of(db, case)] == ["expired", "offered"]


async def test_a_case_that_was_closed_while_the_sweep_failed_on_it_stays_closed(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    await answer(db, policy, offer, "accept")
    await answer(db, policy, offer, "done")
    await Sweep(db, districts=policy, every_s=1)._later(who(case))
    assert (await state_of(db, case)).next_action_at is None
    await run(db, "UPDATE cases SET next_action_at = now()")
    await sweep(db, policy)
    closed = await state_of(db, case)
    assert (closed.state, closed.next_action_at) == ("closed", None)
    assert len(await offers_of(db, case)) == 1


async def test_the_coordinator_hears_again_when_nobody_is_left(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, rounds=1)
    await people(db, 3)
    case = case_reported()
    await report(db, policy, case)
    for _ in range(5):
        await silent(db, policy, case)
    told = await events_of(db, CaseEscalated)
    assert [e.data.reason for e in told] == ["nobody_accepted_in_time", "nobody_left_to_ask"]
    assert [len(e.data.asked) for e in told] == [1, 3]


async def test_a_neighbours_volunteer_who_becomes_free_helps_the_neighbours_own_case(
    db: Database, districts: dict[str, District]
) -> None:
    friends = with_policy(districts, neighbours=("19.71",))
    both = friends | {"19.71": replace(with_policy(districts)["19.04"], code="19.71")}
    across = await volunteer(db, KOBA[0] + 0.01, KOBA[1], district="19.71")
    ours, theirs = case_reported(), case_reported(district="19.71")
    await report(db, both, ours)
    offer = await open_offer(db, ours)
    assert offer.volunteer_id == across
    await report(db, both, theirs)
    assert (await state_of(db, theirs)).state == "waiting"
    await answer(db, both, offer, "decline")
    await sweep(db, both)
    assert (await open_offer(db, theirs)).volunteer_id == across


async def test_an_answer_about_a_district_without_a_folder_says_so(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case = case_reported()
    await report(db, policy, case)
    with pytest.raises(loop.UnknownDistrict, match=r"19\.04"):
        await answer(db, {}, await open_offer(db, case), "accept")


async def test_the_same_obstacle_again_wakes_no_coordinator(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    _, offer = await accepted(db, policy)
    assert await answer(db, policy, offer, "obstacle", words="banjir") == "recorded"
    assert await answer(db, policy, offer, "obstacle", words="banjir") == "already_recorded"
    assert await answer(db, policy, offer, "obstacle", words="banjir, jembatan putus") == "recorded"
    assert len(await events_of(db, CaseEscalated)) == 2
