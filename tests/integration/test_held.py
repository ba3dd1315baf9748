"""What came in too great a number waits for the duty officer, beside the search and not in it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from services.assignment import coordination, held, loop, story
from services.assignment.coordination import Act, Assignment, Closing
from services.notification.settings import NotificationSettings
from shared.database import Database
from shared.districts import District
from shared.events import CaseEscalated, CaseReported, CasesHeld, OfferMade
from shared.policy import Reports
from tests.factories import case_reported, cases_held
from tests.integration.cases import (
    Districts,
    events_of,
    feed_of,
    offers_of,
    people,
    report,
    state_of,
    sweep,
    time_passes,
    who,
    with_policy,
)
from tests.integration.conftest import one, rows, run
from tests.integration.sending import Senders

FROM_ONE = "too_many_from_one_address"
RINA: dict[str, Any] = {"by": "Bu Rina", "why": "a real one"}


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts, reports=Reports(at_once=2))


@pytest.fixture
def db(assignment_database: Database) -> Database:
    return assignment_database


def flood(count: int, **values: Any) -> list[CaseReported]:
    """Reports that are to be looked at first, each with its code."""
    return [
        case_reported(**{"code": f"FLOOD{number:05}", "review": FROM_ONE, **values})
        for number in range(count)
    ]


async def look(db: Database, policy: Districts) -> list[UUID]:
    """What the sweep does about cases that are held back; returns whose search has begun."""
    async with db.transaction() as session:
        await held.tell(session, districts=policy)
    async with db.transaction() as session:
        return await loop.begin_overlooked(session, districts=policy)


async def nobody_looks(db: Database, by: timedelta = timedelta(hours=1)) -> None:
    """As if so much time had passed for what is held back."""
    for statement in (
        "UPDATE held_cases SET look_by = look_by - CAST(:by AS interval), "
        "begun_at = begun_at - CAST(:by AS interval)",
        "UPDATE held_told SET told_at = told_at - CAST(:by AS interval)",
    ):
        await run(db, statement, by=by)


async def act(db: Database, policy: Districts, how: Any, case: CaseReported, act: Act) -> None:
    async with db.transaction() as session:
        await how(session, case.data.code, act, districts=policy)


async def asked_for(db: Database) -> set[UUID]:
    """The cases for which somebody has been asked."""
    return {row.case_id for row in await rows(db, "SELECT DISTINCT case_id FROM offers")}


async def test_volunteers_are_not_asked_for_a_case_that_is_to_be_looked_at_first(
    db: Database, policy: Districts
) -> None:
    await people(db, 3)
    (case,) = flood(1)
    await report(db, policy, case)
    await sweep(db, policy)
    assert await offers_of(db, case) == []
    state = await state_of(db, case)
    assert (state.state, state.escalated_for, state.next_action_at) == ("escalated", FROM_ONE, None)
    assert await feed_of(db, case) == [(1, "searching"), (2, "escalated")]
    # Somebody who becomes available changes nothing for it.
    await run(db, "INSERT INTO openings (district) VALUES ('19.04')")
    await sweep(db, policy)
    assert await offers_of(db, case) == []


@pytest.mark.parametrize("urgency", ["normal", "urgent"])
async def test_a_flood_takes_nobody_from_a_report_of_another(
    db: Database, policy: Districts, urgency: str
) -> None:
    (nearest, *_) = await people(db, 3)
    await report(db, policy, *flood(300, urgency=urgency))
    other = case_reported()
    await report(db, policy, other)
    assert [offer.volunteer_id for offer in await offers_of(db, other)] == [nearest]
    assert await asked_for(db) == {who(other)}


async def test_what_nobody_has_looked_at_is_searched_for_a_few_at_a_time(
    db: Database, policy: Districts
) -> None:
    await people(db, 40)
    cases = flood(6)
    await report(db, policy, *cases)
    assert await look(db, policy) == []  # there is time to look
    await nobody_looks(db)
    begun = await look(db, policy)
    assert len(begun) == 2
    assert await look(db, policy) == []
    assert await asked_for(db) == set(begun)
    # The next ones begin when these have somebody, and not sooner than a while after them.
    await run(db, "UPDATE offers SET state = 'accepted'")
    await run(db, "UPDATE cases SET state = 'accepted' WHERE state = 'offered'")
    assert await look(db, policy) == []
    await nobody_looks(db)
    assert len(await look(db, policy)) == 2


async def test_no_case_is_forgotten_and_the_urgent_come_first(
    db: Database, policy: Districts
) -> None:
    await people(db, 60)
    normal, urgent = flood(3), flood(3, urgency="urgent")
    await report(db, policy, *normal, *urgent)
    order: list[UUID] = []
    for _ in range(3):
        await nobody_looks(db)
        order += await look(db, policy)
        await run(db, "UPDATE cases SET state = 'accepted' WHERE state = 'offered'")
    assert set(order[:3]) == {who(case) for case in urgent}
    assert set(order) == {who(case) for case in normal + urgent}


async def test_an_urgent_one_waits_ten_minutes_for_an_officer_and_not_an_hour(
    db: Database, policy: Districts
) -> None:
    (normal,), (urgent,) = flood(1), flood(1, urgency="urgent")
    await report(db, policy, normal, urgent)
    await nobody_looks(db, timedelta(minutes=10))
    assert await look(db, policy) == [who(urgent)]


async def test_where_nobody_suits_a_flood_is_no_flood_of_escalations(
    db: Database, policy: Districts
) -> None:
    await report(db, policy, *flood(30))
    await nobody_looks(db)
    for _ in range(10):
        await look(db, policy)
        await sweep(db, policy)
    assert len(await events_of(db, CaseEscalated)) == 2


async def test_what_began_by_itself_gets_what_the_others_leave(
    db: Database, policy: Districts
) -> None:
    late = flood(2, urgency="urgent")
    await report(db, policy, *late)
    await nobody_looks(db)
    await look(db, policy)  # they find nobody, and wait
    other = case_reported()
    await report(db, policy, other)
    (only,) = await people(db, 1)
    for case in (*late, other):
        await time_passes(db, case, timedelta(days=2))
    await sweep(db, policy)
    # Urgent, older and overdue; and yet not before somebody else's.
    assert [offer.volunteer_id for offer in await offers_of(db, other)] == [only]
    assert await asked_for(db) == {who(other)}


async def test_an_officer_lets_a_case_in_and_it_is_like_any_other(
    db: Database, policy: Districts
) -> None:
    await people(db, 1)
    (case,) = flood(1)
    await report(db, policy, case)
    await act(db, policy, coordination.release, case, Act(**RINA))
    assert len(await offers_of(db, case)) == 1
    state = await state_of(db, case)
    assert (state.state, state.escalated_for, state.escalated_at) == ("offered", None, None)
    assert await one(db, "SELECT count(*) FROM held_cases") == 0
    assert [version for version, _ in await feed_of(db, case)] == [1, 2, 3]
    async with db.transaction() as session:
        told = await story.story(session, case.data.code)
    assert told is not None
    lines = "\n".join(story.lines(told, "Asia/Jakarta"))
    assert "Held back for the duty officer: very many reports came from one address" in lines
    assert "Let into the search by Bu Rina: a real one" in lines


async def test_an_officer_gives_it_to_somebody_or_closes_it(
    db: Database, policy: Districts
) -> None:
    (somebody,) = await people(db, 1)
    given, prank = flood(2)
    await report(db, policy, given, prank)
    assignment = Assignment(volunteer_id=somebody, **RINA)
    await act(db, policy, coordination.assign, given, assignment)
    await act(db, policy, coordination.close, prank, Closing(outcome="cancelled", **RINA))
    assert (await state_of(db, given)).state == "accepted"
    assert (await state_of(db, prank)).state == "closed"
    await nobody_looks(db)
    assert await look(db, policy) == []
    assert await events_of(db, OfferMade) == []


async def test_the_story_of_a_case_that_nobody_looked_at_says_so(
    db: Database, policy: Districts
) -> None:
    (case,) = flood(1)
    await report(db, policy, case)
    await nobody_looks(db)
    await look(db, policy)
    async with db.transaction() as session:
        told = await story.story(session, case.data.code)
    assert told is not None
    lines = "\n".join(story.lines(told, "Asia/Jakarta"))
    assert "The duty officer did not look in time: the search begins" in lines


# --- telling the duty officers --------------------------------------------------------------------


async def told(db: Database) -> Sequence[CasesHeld]:
    return await events_of(db, CasesHeld)


async def test_duty_officers_hear_of_a_flood_once_in_a_while_and_not_of_each_case(
    db: Database, policy: Districts
) -> None:
    await report(db, policy, *flood(1))
    await look(db, policy)
    for number in range(20):
        more = [case_reported(code=f"M{number}{n}", review=FROM_ONE) for n in range(20)]
        await report(db, policy, *more)
        await look(db, policy)
    (first,) = await told(db)
    assert (first.data.cases, first.data.urgent, first.data.reasons) == (1, 0, [FROM_ONE])
    assert [c.name for c in first.data.coordinators] == ["Piket Dinas Sosial Bangka Tengah"]
    await nobody_looks(db, timedelta(minutes=15))
    await look(db, policy)
    await look(db, policy)
    assert [event.data.cases for event in await told(db)] == [1, 401]
    assert await events_of(db, CaseEscalated) == []
    # Nothing new: nothing to say.
    await nobody_looks(db, timedelta(minutes=15))
    await look(db, policy)
    assert len(await told(db)) == 2


async def test_two_processes_tell_once(db: Database, policy: Districts) -> None:
    await report(db, policy, *flood(3))
    async with db.transaction() as first:
        await held.tell(first, districts=policy)
    async with db.transaction() as second:
        await held.tell(second, districts=policy)
    assert len(await told(db)) == 1


async def test_a_duty_officer_gets_one_message_for_all(
    notification_database: Database,
) -> None:
    senders = Senders(notification_database, NotificationSettings(channels="sandbox"))
    await senders.queue(cases_held(cases=540, urgent=12))
    (message,) = await rows(notification_database, "SELECT * FROM messages")
    assert message.purpose == "held"
    assert "540 laporan (12 mendesak)" in message.short_text
    assert message.segments == 1
    await senders.close()


async def test_a_review_that_this_version_does_not_know_is_held_back_too(
    db: Database, policy: Districts
) -> None:
    case = case_reported(review="something_new", case_id=uuid7())
    await report(db, policy, case)
    assert (await state_of(db, case)).escalated_for == "something_new"
