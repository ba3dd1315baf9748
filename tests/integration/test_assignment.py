"""Who is asked for a case, on a real database: distance, capacity, claims, reasons, the feed."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import prometheus_client
import pytest
from uuid_utils.compat import uuid7

from services.assignment import coordination, loop, matching, openings, search
from services.assignment.app import measure_cases
from services.assignment.coordination import Assignment
from shared.database import Database
from shared.districts import District
from shared.events import (
    AnswerJudged,
    MadeOffer,
    OfferAssigned,
    OfferClosed,
    OfferMade,
    PublicCase,
)
from shared.places import great_circle_m
from tests.factories import KOBA, NOON, case_reported
from tests.integration.cases import (
    Districts,
    answer,
    asked,
    in_hand,
    offers_of,
    published,
    report,
    state_of,
    sweep,
    volunteer,
    who,
    with_policy,
)
from tests.integration.conftest import one, rows, run


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    """The sample district with figures that the tests know."""
    return with_policy(districts)


# --- the nearest ----------------------------------------------------------------------------------


async def test_the_nearest_volunteer_is_asked(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, KOBA[0] + 0.02, KOBA[1])
    near = await volunteer(assignment_database, KOBA[0] + 0.01, KOBA[1])
    reported = case_reported()
    await report(assignment_database, policy, reported)
    assert await asked(assignment_database) == {who(reported): near}
    (offer,) = await rows(assignment_database, "SELECT * FROM offers")
    expected = great_circle_m(*KOBA, KOBA[0] + 0.01, KOBA[1])
    assert offer.distance_m == pytest.approx(expected, abs=0.1)
    assert offer.respond_by - offer.made_at == timedelta(minutes=10)


async def test_near_means_along_the_great_circle_and_not_in_degrees(
    assignment_database: Database, policy: Districts
) -> None:
    """At 60° a degree of longitude is half a degree of latitude: planar degrees choose wrong."""
    for number in range(search.CANDIDATES + 2):  # more than are looked at for one case
        await volunteer(assignment_database, 60.20 + number / 1000, 100.0)  # 22 km
    east = await volunteer(assignment_database, 60.0, 100.30)  # 17 km, though more degrees
    reported = case_reported(60.0, 100.0)
    await report(assignment_database, policy, reported)
    assert await asked(assignment_database) == {who(reported): east}


async def test_near_goes_across_the_date_line(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, 0.0, 179.7)
    across = await volunteer(assignment_database, 0.0, -179.9)
    reported = case_reported(0.0, 179.95)
    await report(assignment_database, policy, reported)
    assert await asked(assignment_database) == {who(reported): across}


@pytest.mark.parametrize(
    "unfit",
    [
        {"on_duty": False},
        {"open_cases": 1},
        {"categories": ["beggar"]},
        {"district": "19.05"},
    ],
    ids=["off duty", "full", "not trained for it", "of another district"],
)
async def test_who_cannot_help_is_passed_over(
    assignment_database: Database, policy: Districts, unfit: dict[str, Any]
) -> None:
    await volunteer(assignment_database, *KOBA, **unfit)
    fit = await volunteer(
        assignment_database, KOBA[0] + 0.1, KOBA[1], categories=["beggar", "homeless"]
    )
    reported = case_reported()
    await report(assignment_database, policy, reported)
    assert await asked(assignment_database) == {who(reported): fit}


async def test_the_offer_keeps_its_reasons(
    assignment_database: Database, policy: Districts
) -> None:
    passed_over = {
        await volunteer(assignment_database, *KOBA, on_duty=False): "off_duty",
        await volunteer(assignment_database, *KOBA, open_cases=1): "full",
        await volunteer(assignment_database, *KOBA, categories=["beggar"]): "not_trained",
    }
    await volunteer(assignment_database, KOBA[0] + 0.1, KOBA[1])
    await report(assignment_database, policy, case_reported())
    reasons = await one(assignment_database, "SELECT reasons FROM offers")
    assert reasons["rank"] == 1
    assert reasons["distance_m"] == pytest.approx(11_132, abs=5)
    (nearer,) = [value for value in reasons.values() if isinstance(value, list)]
    assert {UUID(one["volunteer"]): one["why_not"] for one in nearer} == passed_over


# --- capacity -------------------------------------------------------------------------------------


async def test_a_batch_from_one_place_is_spread_over_the_volunteers(
    assignment_database: Database, districts: dict[str, District]
) -> None:
    """More cases than candidates per case: whoever finds all taken asks again in the next round."""
    policy = with_policy(districts, open_offers=3)
    for number in range(60):
        await volunteer(assignment_database, KOBA[0] + number / 1000, KOBA[1])
    reports = [case_reported() for _ in range(200)]
    await report(assignment_database, policy, *reports)
    counts = Counter((await asked(assignment_database)).values())
    assert set(counts.values()) == {3}
    assert len(counts) == 60
    states = Counter(r.state for r in await rows(assignment_database, "SELECT state FROM cases"))
    assert states == {"offered": 180, "waiting": 20}
    wrong = "SELECT count(*) FROM volunteers WHERE open_offers <> 3"
    assert await one(assignment_database, wrong) == 0


async def test_urgent_cases_of_a_batch_get_the_last_free_volunteer(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, *KOBA)
    calm = case_reported()
    urgent = case_reported(urgency="urgent", reported_at=NOON + timedelta(minutes=1))
    await report(assignment_database, policy, calm, urgent)
    assert set(await asked(assignment_database)) == {who(urgent)}


async def test_two_transactions_at_once_never_ask_more_often_than_the_policy_says(
    assignment_database: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, open_offers=2)
    for number in range(10):
        await volunteer(assignment_database, KOBA[0] + number / 1000, KOBA[1])
    batches = [[case_reported() for _ in range(10)] for _ in range(4)]
    await asyncio.gather(*(report(assignment_database, policy, *batch) for batch in batches))
    assert len(await asked(assignment_database)) == 20
    places = "SELECT sum(open_offers) = 20 AND bool_and(open_offers <= 2) FROM volunteers"
    assert await one(assignment_database, places) is True
    codes = [r.answer_code for r in await rows(assignment_database, "SELECT * FROM offers")]
    assert len(set(codes)) == 20


async def test_whoever_loses_a_claim_is_given_the_next_one_in_the_same_transaction(
    assignment_database: Database, policy: Districts, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = await volunteer(assignment_database, *KOBA)
    far = await volunteer(assignment_database, KOBA[0] + 0.1, KOBA[1])
    candidates, rounds = matching.candidates, 0

    async def seen_then_taken(session: Any, needs: Any, promised: Any) -> Any:
        """Another transaction takes the nearest between our look and our claim."""
        nonlocal rounds
        rounds += 1
        found = await candidates(session, needs, promised)
        if rounds == 1:
            await in_hand(assignment_database, near, 1)
        return found

    monkeypatch.setattr(matching, "candidates", seen_then_taken)
    reported = case_reported()
    await report(assignment_database, policy, reported)
    assert rounds == 2
    assert await asked(assignment_database) == {who(reported): far}


# --- waiting --------------------------------------------------------------------------------------


async def test_a_case_out_of_everybodys_reach_goes_to_the_coordinator_at_once(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, KOBA[0] + 1, KOBA[1])  # 111 km
    reported = case_reported()
    await report(assignment_database, policy, reported)
    case = await state_of(assignment_database, reported)
    assert (case.state, case.waiting_for) == ("escalated", "no_volunteer_in_reach")
    assert case.escalated_for == "nobody_left_to_ask"
    assert case.next_action_at - case.changed_at == timedelta(seconds=60)
    assert await asked(assignment_database) == {}


async def test_a_case_whose_volunteers_are_all_busy_waits_and_says_so(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, *KOBA, open_cases=1)
    reported = case_reported()
    await report(assignment_database, policy, reported)
    assert (await state_of(assignment_database, reported)).waiting_for == "all_volunteers_busy"


async def test_a_waiting_case_is_not_tried_before_its_time(
    assignment_database: Database, policy: Districts
) -> None:
    await report(assignment_database, policy, case_reported())
    await volunteer(assignment_database, *KOBA)
    assert await sweep(assignment_database, policy) == 0
    assert await asked(assignment_database) == {}


async def test_a_waiting_case_is_tried_at_once_when_somebody_becomes_available(
    assignment_database: Database, policy: Districts
) -> None:
    reported = case_reported()
    await report(assignment_database, policy, reported)
    await volunteer(assignment_database, *KOBA)
    async with assignment_database.transaction() as session:
        await openings.announce(session, ["19.05"])
    assert await sweep(assignment_database, policy) == 0
    async with assignment_database.transaction() as session:
        await openings.announce(session, ["19.04"])
    assert await sweep(assignment_database, policy) == 1
    case = await state_of(assignment_database, reported)
    assert (case.state, case.waiting_for, case.version) == ("offered", None, 3)


async def test_waiting_on_is_no_news_unless_the_reason_changes(
    assignment_database: Database, policy: Districts
) -> None:
    reported = case_reported()
    await report(assignment_database, policy, reported)
    assert (await state_of(assignment_database, reported)).version == 2
    for _ in range(3):
        await run(assignment_database, "UPDATE cases SET next_action_at = now()")
        assert await sweep(assignment_database, policy) == 1
    assert (await state_of(assignment_database, reported)).version == 2
    await volunteer(assignment_database, *KOBA, open_cases=1)
    await run(assignment_database, "UPDATE cases SET next_action_at = now()")
    await sweep(assignment_database, policy)
    case = await state_of(assignment_database, reported)
    assert (case.version, case.waiting_for) == (3, "all_volunteers_busy")
    feed = [e for e in await published(assignment_database) if isinstance(e.data, PublicCase)]
    assert [event.data.version for event in feed] == [1, 2, 3]


async def test_sweeps_at_the_same_time_try_each_case_once(
    assignment_database: Database, policy: Districts
) -> None:
    await report(assignment_database, policy, *(case_reported() for _ in range(20)))
    for number in range(20):
        await volunteer(assignment_database, KOBA[0] + number / 1000, KOBA[1])
    await run(assignment_database, "UPDATE cases SET next_action_at = now()")
    await asyncio.gather(*(sweep(assignment_database, policy) for _ in range(4)))
    await sweep(assignment_database, policy)
    assert len(await asked(assignment_database)) == 20


async def test_urgent_cases_are_tried_again_first(
    assignment_database: Database, policy: Districts, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, urgent = case_reported(), case_reported(urgency="urgent")
    await report(assignment_database, policy, calm, urgent)
    await volunteer(assignment_database, *KOBA, capacity=5)
    await run(assignment_database, "UPDATE cases SET next_action_at = now()")
    monkeypatch.setattr(loop, "SWEEP_SIZE", 1)
    assert await sweep(assignment_database, policy) == 1
    assert set(await asked(assignment_database)) == {who(urgent)}


# --- events ---------------------------------------------------------------------------------------


async def test_versions_of_a_case_are_published_from_one_without_a_gap(
    assignment_database: Database, policy: Districts
) -> None:
    waiting, offered = case_reported(), case_reported(KOBA[0] + 1.0, KOBA[1])
    await volunteer(assignment_database, KOBA[0] + 1.0, KOBA[1])
    await report(assignment_database, policy, waiting, offered)
    await volunteer(assignment_database, *KOBA)
    await run(assignment_database, "UPDATE cases SET next_action_at = now()")
    await sweep(assignment_database, policy)
    told: dict[Any, list[tuple[int, str]]] = {}
    for event in await published(assignment_database):
        if isinstance(event.data, PublicCase):
            told.setdefault(event.subject, []).append((event.data.version, event.data.state))
    assert told == {
        waiting.subject: [(1, "searching"), (2, "escalated"), (3, "offered")],
        offered.subject: [(1, "searching"), (2, "offered")],
    }


async def test_an_offer_says_all_that_a_message_needs(
    assignment_database: Database, policy: Districts
) -> None:
    id_ = await volunteer(assignment_database, *KOBA, email="siti@example.org")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    reported = case_reported(people=3, traceparent=trace)
    await report(assignment_database, policy, reported)
    (made,) = [e for e in await published(assignment_database) if isinstance(e, OfferMade)]
    (stored,) = await rows(assignment_database, "SELECT * FROM offers")
    assert isinstance(made.data, MadeOffer)
    assert made.subject == reported.subject
    assert made.traceparent == trace
    assert made.data.offer_id == stored.id
    assert made.data.answer_code == stored.answer_code
    assert made.data.respond_by == stored.respond_by
    assert made.data.volunteer.id == id_
    assert made.data.volunteer.email == "siti@example.org"
    assert made.data.people == 3
    assert made.data.utc_offset_minutes == 420
    assert made.data.place == reported.data.place


async def test_whatever_is_said_to_a_volunteer_says_how_they_would_rather_be_reached(
    assignment_database: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, parallel={"normal": 3, "urgent": 3})
    near = (KOBA[0] + 0.01, KOBA[1])
    by_mail: dict[str, Any] = {"channel": "email", "email": "a@example.org", "language": "en"}
    for _ in range(3):
        await volunteer(assignment_database, *near, **by_mail)
    named = await volunteer(assignment_database, *near, **by_mail, on_duty=False)
    reported = case_reported()
    await report(assignment_database, policy, reported)
    taken, *_ = await offers_of(assignment_database, reported)
    await answer(assignment_database, policy, taken, "accept")
    act = Assignment(by="Ani", why="nearer", volunteer_id=named)
    async with assignment_database.transaction() as session:
        await coordination.assign(session, reported.data.code, act, districts=policy)
    said = [
        event
        for event in await published(assignment_database)
        if getattr(event.data, "volunteer", None) is not None
    ]
    assert {type(event) for event in said} == {OfferMade, OfferClosed, OfferAssigned, AnswerJudged}
    assert {(e.data.volunteer.channel, e.data.volunteer.language) for e in said} == {
        ("email", "en")
    }


async def test_the_metrics_count_no_drill(assignment_database: Database, policy: Districts) -> None:
    async def measured() -> tuple[float, float]:
        async with assignment_database.transaction() as session:
            await measure_cases(session)
        registry = prometheus_client.REGISTRY
        waiting = registry.get_sample_value("jangkau_cases", {"state": "escalated"})
        oldest = registry.get_sample_value("jangkau_oldest_waiting_seconds")
        assert waiting is not None
        assert oldest is not None
        return waiting, oldest

    await report(assignment_database, policy, case_reported(drill=True))
    assert await measured() == (0, 0)
    await report(assignment_database, policy, case_reported())
    waiting, oldest = await measured()
    assert waiting == 1
    assert oldest > 0


async def test_the_public_feed_knows_no_position_but_the_subdistricts_centre(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, -2.5, 106.4, name="CANARY", email="canary@example.org")
    await report(assignment_database, policy, case_reported(-2.51234, 106.43210))
    query = "SELECT payload FROM outbox WHERE topic = 'public.cases'"
    found = [row.payload for row in await rows(assignment_database, query)]
    assert len(found) == 2
    for payload in found:
        for canary in ("51234", "4321", "CANARY", "canary", "ABCD2345"):
            assert canary not in payload


# --- again, and wrong -----------------------------------------------------------------------------


async def test_the_same_report_again_changes_nothing(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, *KOBA, capacity=5)
    reported = case_reported()
    await report(assignment_database, policy, reported)
    before = len(await published(assignment_database))
    await report(assignment_database, policy, reported)
    await report(assignment_database, policy, reported, reported)
    assert len(await asked(assignment_database)) == 1
    assert len(await published(assignment_database)) == before
    assert await one(assignment_database, "SELECT open_offers FROM volunteers") == 1


async def test_the_same_new_report_twice_in_one_batch_is_one_case(
    assignment_database: Database, policy: Districts
) -> None:
    await volunteer(assignment_database, *KOBA, capacity=5)
    case_id = uuid7()
    twice = [case_reported(case_id=case_id), case_reported(case_id=case_id)]  # two events, one case
    await report(assignment_database, policy, *twice)
    assert len(await asked(assignment_database)) == 1
    assert await one(assignment_database, "SELECT open_offers FROM volunteers") == 1
    feed = [e for e in await published(assignment_database) if isinstance(e.data, PublicCase)]
    assert [event.data.version for event in feed] == [1, 2]


async def test_a_report_of_an_unknown_district_fails_and_leaves_nothing(
    assignment_database: Database, policy: Districts
) -> None:
    with pytest.raises(loop.UnknownDistrict):
        await report(assignment_database, policy, case_reported(), case_reported(district="88.88"))
    assert await one(assignment_database, "SELECT count(*) FROM cases") == 0
    assert await published(assignment_database) == []
