"""The reporter's contact is for whoever has the case, nobody else; and what reporters are told."""

import asyncio
import json
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from services.assignment import answers, coordination, story
from services.assignment.app import compose
from services.assignment.coordination import Act, Assignment, Closing
from services.assignment.settings import AssignmentSettings
from shared.database import Database
from shared.districts import District
from shared.events import (
    AnswerJudged,
    CaseProgressed,
    CaseReported,
    OfferAssigned,
    OfferMade,
    Reporter,
)
from tests.conftest import MakeSettings
from tests.factories import case_reported, offer_answered, reporter
from tests.integration.cases import (
    Districts,
    answer,
    events_of,
    offers_of,
    open_offer,
    people,
    published,
    report,
    state_of,
    sweep,
    time_passes,
    who,
    with_policy,
)
from tests.integration.conftest import one, open_door, rows, run

BUDI = reporter()
CANARIES = ("Budi", "99998888", "budi@example.org")


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts)


@pytest.fixture
def db(assignment_database: Database) -> Database:
    return assignment_database


async def told(db: Database) -> list[tuple[str, str | None]]:
    """What the reporter hears: step and outcome."""
    return [(one.data.step, one.data.outcome) for one in await events_of(db, CaseProgressed)]


async def shown(db: Database) -> Reporter | None:
    """The reporter that came with the newest verdict."""
    newest: AnswerJudged = (await events_of(db, AnswerJudged))[-1]
    return newest.data.reporter


async def asked_about(db: Database, policy: Districts, **values: Any) -> CaseReported:
    """A report with a reporter, for which the first volunteer has been asked."""
    case = case_reported(**{"reporter": BUDI, **values})
    await report(db, policy, case)
    return case


# --- whoever has the case -------------------------------------------------------------------------


async def test_an_offer_says_nothing_of_the_reporter(db: Database, policy: Districts) -> None:
    await people(db, 1)
    case = await asked_about(db, policy)
    (made,) = await events_of(db, OfferMade)
    assert made.data.reporter is None
    payloads = await rows(db, "SELECT payload FROM outbox")
    assert not [canary for canary in CANARIES for row in payloads if canary in row.payload]
    assert await one(db, "SELECT contact ->> 'phone' FROM reporters WHERE case_id = :id",
                     id=who(case)) == BUDI.phone  # fmt: skip


async def test_whoever_takes_the_case_gets_the_reporter_and_the_reporter_hears_it(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case = await asked_about(db, policy)
    offer = await open_offer(db, case)
    assert await answer(db, policy, offer, "accept") == "recorded"
    assert await shown(db) == BUDI
    (progressed,) = await events_of(db, CaseProgressed)
    assert progressed.subject == who(case)
    assert (progressed.data.code, progressed.data.step) == (case.data.code, "accepted")
    assert (progressed.data.outcome, progressed.data.reporter) == (None, BUDI)


async def test_saying_yes_again_shows_the_reporter_again_and_tells_them_nothing_new(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case = await asked_about(db, policy)
    offer = await open_offer(db, case)
    await answer(db, policy, offer, "accept")
    assert await answer(db, policy, offer, "accept") == "already_recorded"
    assert await shown(db) == BUDI
    assert await told(db) == [("accepted", None)]


async def test_arriving_later_does_not_repeat_the_contact(db: Database, policy: Districts) -> None:
    await people(db, 1)
    offer = await open_offer(db, await asked_about(db, policy))
    await answer(db, policy, offer, "accept")
    for word in ("arrived", "obstacle", "done"):
        assert await answer(db, policy, offer, word) == "recorded"
        assert await shown(db) is None


async def test_whoever_is_too_late_or_says_no_gets_nothing(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, parallel={"normal": 3, "urgent": 3})
    await people(db, 3)
    case = await asked_about(db, policy)
    first, second, third = await offers_of(db, case)
    assert await answer(db, policy, first, "decline") == "recorded"
    assert await shown(db) is None
    assert await answer(db, policy, second, "accept") == "recorded"
    for offer, word in ((third, "accept"), (third, "arrived"), (first, "accept")):
        assert await answer(db, policy, offer, word) == "taken_by_another"
        assert await shown(db) is None
    assert await answer(db, policy, first, "decline") == "already_recorded"
    assert await shown(db) is None


async def test_a_stranger_with_the_code_gets_nothing(db: Database, policy: Districts) -> None:
    _, stranger = await people(db, 2)
    offer = await open_offer(db, await asked_about(db, policy))
    assert await answer(db, policy, offer, "accept", volunteer_id=stranger) == "not_yours"
    assert await shown(db) is None
    assert await answer(db, policy, offer, "accept") == "recorded"
    assert await answer(db, policy, offer, "accept", volunteer_id=stranger) == "not_yours"
    assert await shown(db) is None


@pytest.mark.parametrize(
    ("theirs", "said", "shows"),
    [
        ({"phone": "+6281200000001"}, {"phone": "+6281200000001"}, True),
        ({"phone": "+6281200000001"}, {"phone": "+6281200000002"}, False),
        ({"phone": "+6281200000001"}, {"email": "siti@example.org"}, False),
        (
            {"phone": "+6281200000001", "email": "siti@example.org"},
            {"phone": "+6281200000001", "email": "Siti@Example.org"},
            True,
        ),
        (
            {"phone": "+6281200000001", "email": "siti@example.org"},
            {"phone": "+6281200000001", "email": "old@example.org"},
            False,
        ),
    ],
)
async def test_the_contact_goes_only_to_an_address_that_is_theirs_now(
    db: Database, policy: Districts, theirs: Any, said: Any, shows: bool
) -> None:
    await people(db, 1, **theirs)
    offer = await open_offer(db, await asked_about(db, policy))
    assert await answer(db, policy, offer, "accept", **said) == "recorded"
    assert (await shown(db) is not None) is shows


async def test_after_a_hand_back_the_next_gets_the_reporter_who_hears_nothing_again(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = await asked_about(db, policy)
    first = await open_offer(db, case)
    await answer(db, policy, first, "accept")
    await answer(db, policy, first, "hand_back")
    assert await shown(db) is None
    assert await answer(db, policy, first, "accept") == "too_late"
    assert await shown(db) is None
    await answer(db, policy, await open_offer(db, case), "accept")
    assert await shown(db) == BUDI
    assert await told(db) == [("accepted", None)]


async def test_after_a_lapse_the_next_gets_the_reporter_who_hears_nothing_again(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = await asked_about(db, policy)
    first = await open_offer(db, case)
    await answer(db, policy, first, "accept")
    await time_passes(db, case, timedelta(hours=2))
    await sweep(db, policy)
    assert await answer(db, policy, first, "arrived") == "too_late"
    assert await shown(db) is None
    await answer(db, policy, await open_offer(db, case), "accept")
    assert await shown(db) == BUDI
    assert await told(db) == [("accepted", None)]


async def test_whoever_is_given_the_case_gets_the_reporter_with_it(
    db: Database, policy: Districts
) -> None:
    _, second = await people(db, 2)
    case = await asked_about(db, policy)
    act = Assignment(by="Ani", why="knows the family", volunteer_id=second)
    async with db.transaction() as session:
        await coordination.assign(session, case.data.code, act, districts=policy)
    (assigned,) = await events_of(db, OfferAssigned)
    assert (assigned.data.volunteer.id, assigned.data.reporter) == (second, BUDI)
    assert await told(db) == [("accepted", None)]


# --- what the reporter hears ----------------------------------------------------------------------


async def test_the_reporter_hears_how_it_ended_and_is_then_forgotten(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case = await asked_about(db, policy)
    offer = await open_offer(db, case)
    await answer(db, policy, offer, "accept")
    await answer(db, policy, offer, "done", outcome="referred")
    assert await told(db) == [("accepted", None), ("closed", "referred")]
    assert await one(db, "SELECT count(*) FROM reporters") == 0
    assert await answer(db, policy, offer, "done") == "already_recorded"
    assert await answer(db, policy, offer, "accept") == "case_closed"
    assert await shown(db) is None
    assert len(await told(db)) == 2


async def test_a_case_that_a_coordinator_closes_is_told_without_a_word_of_acceptance(
    db: Database, policy: Districts
) -> None:
    case = await asked_about(db, policy)
    act = Closing(by="Ani", why="found at home", outcome="not_found")
    async with db.transaction() as session:
        await coordination.close(session, case.data.code, act, districts=policy)
    assert await told(db) == [("closed", "not_found")]
    assert await one(db, "SELECT count(*) FROM reporters") == 0


async def test_whoever_wants_no_news_is_not_told_but_can_be_called(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    quiet = reporter(wants_news=False)
    offer = await open_offer(db, await asked_about(db, policy, reporter=quiet))
    await answer(db, policy, offer, "accept")
    assert await shown(db) == quiet
    await answer(db, policy, offer, "done")
    assert await told(db) == []


async def test_without_a_reporter_nobody_is_told_and_nothing_is_shown(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    offer = await open_offer(db, await asked_about(db, policy, reporter=None))
    assert await one(db, "SELECT count(*) FROM reporters") == 0
    await answer(db, policy, offer, "accept")
    assert await shown(db) is None
    await answer(db, policy, offer, "done")
    assert await told(db) == []


async def test_the_same_report_again_keeps_what_the_reporter_has_heard(
    db: Database, policy: Districts
) -> None:
    await people(db, 2)
    case = await asked_about(db, policy)
    await answer(db, policy, await open_offer(db, case), "accept")
    await report(db, policy, case)
    assert await one(db, "SELECT told_of_help FROM reporters")


async def test_a_drill_is_one_in_all_that_is_said(db: Database, policy: Districts) -> None:
    await people(db, 1)
    case = await asked_about(db, policy, drill=True)
    offer = await open_offer(db, case)
    event = offer_answered(case_id=offer.case_id, offer_id=offer.id, drill=True)
    async with db.transaction() as session:
        await answers.take_answers(session, [event], districts=policy)
    assert len(await events_of(db, CaseProgressed)) == 1
    assert all(event.drill for event in await published(db))


# --- whatever happens -----------------------------------------------------------------------------


async def test_two_who_say_yes_at_once_make_one_piece_of_news(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, parallel={"normal": 5, "urgent": 5})
    await people(db, 5)
    case = await asked_about(db, policy)
    offers = await offers_of(db, case)
    verdicts = await asyncio.gather(*(answer(db, policy, offer, "accept") for offer in offers))
    assert sorted(verdicts) == ["recorded"] + ["taken_by_another"] * 4
    assert await told(db) == [("accepted", None)]
    judged = await events_of(db, AnswerJudged)
    assert [one.data.verdict for one in judged if one.data.reporter] == ["recorded"]


_WAITS_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_a_hand_back_and_a_yes_that_wait_for_an_acceptance_make_no_second_news(
    db: Database, districts: dict[str, District]
) -> None:
    """What the reporter has heard is read after the case was locked: the turn that waited for the
    acceptance sees it."""
    policy = with_policy(districts)
    await people(db, 2)
    case = await asked_about(db, policy)
    first = await open_offer(db, case)
    accepted = asyncio.Event()

    def event(word: str, **values: Any) -> Any:
        return offer_answered(
            word, case_id=first.case_id, offer_id=first.id, volunteer_id=first.volunteer_id,
            **values,
        )  # fmt: skip

    async def accepts() -> None:
        async with db.transaction() as session:
            await answers.take_answers(session, [event("accept")], districts=policy)
            accepted.set()
            async with asyncio.timeout(60):
                while not await one(db, _WAITS_FOR_A_LOCK):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def hands_back() -> None:
        await accepted.wait()
        async with db.transaction() as session:
            await answers.take_answers(session, [event("hand_back")], districts=policy)

    await asyncio.gather(accepts(), hands_back())
    await answer(db, policy, await open_offer(db, case), "accept")
    assert await told(db) == [("accepted", None)]


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_only_the_holder_gets_the_reporter_who_hears_each_thing_once(
    db: Database, districts: dict[str, District], seed: int
) -> None:
    """Random answers, deadlines and coordinators; after each step, who was shown the contact."""
    dice = random.Random(seed)
    policy = with_policy(districts, parallel={"normal": 2, "urgent": 2})
    everybody = await people(db, 6)
    case = await asked_about(db, policy)
    read = 0
    for _ in range(30):
        before = {offer.volunteer_id: offer.state for offer in await offers_of(db, case)}
        await _something(db, policy, case, dice, everybody)
        after = {offer.volunteer_id: offer.state for offer in await offers_of(db, case)}
        everything = await published(db)
        for event in everything[read:]:
            carried = getattr(event.data, "reporter", None)
            if isinstance(event, CaseProgressed):
                assert carried == BUDI
            elif carried is not None:
                assert isinstance(event, AnswerJudged | OfferAssigned)
                volunteer_ = event.data.volunteer
                assert volunteer_ is not None
                assert after[volunteer_.id] in ("accepted", "arrived")
                if isinstance(event, AnswerJudged) and event.data.verdict == "already_recorded":
                    assert before[volunteer_.id] in ("accepted", "arrived")
        read = len(everything)
    news = await told(db)
    assert news.count(("accepted", None)) <= 1
    closed = (await state_of(db, case)).state == "closed"
    assert len([step for step, _ in news if step == "closed"]) == closed
    assert await one(db, "SELECT count(*) FROM reporters") == (not closed)
    assert not _leaks([event for event in everything if event.type.startswith("id.jangkau.public")])


async def _something(
    db: Database, policy: Districts, case: CaseReported, dice: random.Random, everybody: list[UUID]
) -> None:
    """One random thing that can happen to a case."""
    offers = await offers_of(db, case)
    what = dice.choices(
        ["answer", "time", "assign", "release", "close"], weights=[20, 5, 2, 2, 0.5]
    )[0]
    if what == "answer" and offers:
        words = ["accept", "accept", "decline", "arrived", "obstacle", "hand_back", "done"]
        whose = dice.choice([None, *everybody]) if dice.random() < 0.2 else None
        offer = dice.choice(offers)
        await answer(
            db, policy, offer, dice.choice(words), volunteer_id=whose or offer.volunteer_id
        )
    elif what == "time":
        await time_passes(db, case, timedelta(minutes=dice.choice([11, 100])))
        await sweep(db, policy)
    else:
        act = {"by": "Ani", "why": "so"}
        acts: dict[str, Any] = {
            "assign": (
                coordination.assign,
                Assignment(**act, volunteer_id=dice.choice(everybody)),
            ),
            "release": (coordination.release, Act(**act)),
            "close": (coordination.close, Closing(**act, outcome="cancelled")),
        }
        if what in acts:
            how, wanted = acts[what]
            try:
                async with db.transaction() as session:
                    await how(session, case.data.code, wanted, districts=policy)
            except coordination.Refused:
                pass


def _leaks(events: list[Any]) -> list[str]:
    return [canary for canary in CANARIES for event in events if canary in event.to_json()]


async def test_neither_the_story_nor_the_agencys_door_shows_the_reporter(
    settings_without_kafka: MakeSettings, districts: dict[str, District]
) -> None:
    """A coordinator asks the volunteer, who has the contact: nobody else reads it by the way."""
    settings = await settings_without_kafka(
        AssignmentSettings, agency_token=SecretStr("the token of the agency")
    )
    door = open_door(compose(settings))
    policy = with_policy(districts)
    await people(door.database, 1)
    case = await asked_about(door.database, policy)
    await answer(door.database, policy, await open_offer(door.database, case), "accept")
    async with door.database.transaction() as session:
        whole = await story.story(session, case.data.code)
    assert whole is not None
    shown_ = str(whole) + "\n".join(story.lines(whole, "Asia/Jakarta"))
    bearer = {"Authorization": "Bearer the token of the agency"}
    for address in (f"/v1/cases/{case.data.code}", "/v1/cases", "/v1/volunteers"):
        page = await door.http.get(address, headers=bearer)
        assert page.status_code == 200
        shown_ += page.text
    log = await rows(door.database, "SELECT what, who, why FROM case_log")
    shown_ += json.dumps([dict(row) for row in log])
    assert not [canary for canary in CANARIES if canary in shown_]
    await door.close()


async def test_a_case_of_a_release_before_has_no_reporter_and_goes_on(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    case = await asked_about(db, policy)
    await run(db, "DELETE FROM reporters")
    offer = await open_offer(db, case)
    assert await answer(db, policy, offer, "accept") == "recorded"
    assert await shown(db) is None
    assert await told(db) == []
