"""Who can be reached: tests of it, what comes back, who wants no messages."""

import asyncio
import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.assignment import answers, duty, loop, reach, volunteers
from services.assignment.app import compose
from services.assignment.handlers import Reachability
from services.assignment.settings import AssignmentSettings
from shared.database import Database
from shared.districts import District
from shared.events import OfferMade, VolunteerPinged
from shared.hearing import nothing
from shared.policy import Messages
from tests.conftest import MakeSettings
from tests.factories import (
    KOBA,
    case_reported,
    offer_answered,
    ping_answered,
    ping_unreachable,
    sms_budget_run_low,
    volunteer_stopped,
)
from tests.integration.cases import (
    Districts,
    events_of,
    offers_of,
    open_offer,
    people,
    published,
    report,
    state_of,
    sweep,
    volunteer,
    with_policy,
)
from tests.integration.conftest import one, open_door, rows, run
from tests.servers import PROJECT

DAY = timedelta(days=1)


@pytest.fixture
def policy(districts: dict[str, District]) -> dict[str, District]:
    return with_policy(districts)


@pytest.fixture
def db(assignment_database: Database) -> Database:
    return assignment_database


async def chosen(db: Database, **which: Any) -> reach.Chosen:
    async with db.transaction() as session:
        return await reach.choose(session, districts=["19.04"], **which)


async def pinged(db: Database, ids: list[UUID] | None = None, **values: Any) -> int:
    """Ping these, or all who can be."""
    ids = (await chosen(db)).ids if ids is None else ids
    async with db.transaction() as session:
        return await reach.ping(session, districts=["19.04"], only=ids, **{"within": DAY, **values})


async def ping_of(db: Database, id_: UUID) -> Any:
    (ping,) = await rows(db, "SELECT * FROM pings WHERE volunteer_id = :id", id=id_)
    return ping


async def who_is(db: Database, id_: UUID) -> Any:
    (found,) = await rows(db, "SELECT * FROM volunteers WHERE id = :id", id=id_)
    return found


async def hears(db: Database, policy: Districts, *events: Any) -> None:
    """As the handler takes a batch."""
    async with db.transaction() as session:
        await answers.take_answers(session, list(events), districts=policy)


# --- asking ---------------------------------------------------------------------------------------


async def test_a_test_asks_each_volunteer_once_and_says_how_to_answer(db: Database) -> None:
    siti = await volunteer(
        db, *KOBA, phone="+6281200000001", email="siti@example.org", channel="email", language="en"
    )
    (budi,) = await people(db, 1)
    assert await pinged(db) == 2
    events = {event.subject: event for event in await events_of(db, VolunteerPinged)}
    assert set(events) == {siti, budi}
    ping, event = await ping_of(db, siti), events[siti]
    assert event.data.ping_id == ping.id
    assert event.data.answer_code == ping.answer_code
    assert event.data.respond_by == ping.respond_by == ping.asked_at + DAY
    assert (event.district, event.drill, ping.state) == ("19.04", False, "asked")
    told = event.data.volunteer
    assert (told.id, told.phone, told.email) == (siti, "+6281200000001", "siti@example.org")
    assert (told.language, told.channel) == ("en", "email")
    # The test is open: nobody is asked again.
    assert await pinged(db) == 0
    assert await pinged(db, [siti, budi]) == 0
    assert len(await events_of(db, VolunteerPinged)) == 2


async def test_who_is_away_off_duty_or_wants_no_messages_is_left_alone(db: Database) -> None:
    (siti,) = await people(db, 1)
    (off_duty,) = await people(db, 1, on_duty=False)
    await people(db, 1, off_until=datetime.now(UTC) + DAY)
    await people(db, 1, reachable=False, ready=False, stopped=["sms"])
    await people(db, 1, on_duty=False, phone=None)
    (back,) = await people(db, 1, off_until=datetime.now(UTC) - DAY)
    assert (await chosen(db)).ids == sorted([siti, back])
    everybody = [row.id for row in await rows(db, "SELECT id FROM volunteers")]
    # Whoever is named is asked also when off duty; not away, not against their will.
    assert (await chosen(db, only=everybody)).ids == sorted([siti, off_duty, back])
    assert (await chosen(db, only=[])).ids == []


async def test_only_those_of_whom_nothing_was_heard_for_long_are_asked_if_one_wants(
    db: Database,
) -> None:
    now = datetime.now(UTC)
    (never,) = await people(db, 1)
    (long_ago,) = await people(db, 1, last_reached_at=now - 31 * DAY)
    (lately,) = await people(db, 1, last_reached_at=now - 29 * DAY)
    assert (await chosen(db, quiet=30 * DAY)).ids == sorted([never, long_ago])
    assert lately in (await chosen(db)).ids


async def test_it_is_told_before_how_many_sms_that_is(db: Database) -> None:
    await people(db, 2)
    await people(db, 1, email="a@example.org", channel="sms")
    await people(db, 1, email="b@example.org", channel="email")
    await people(db, 1, email="c@example.org", stopped=["sms"])
    await volunteer(db, *KOBA, phone=None, email="d@example.org")
    found = await chosen(db)
    assert (len(found.ids), found.by_sms) == (6, 3)


async def test_those_of_other_districts_are_not_asked(db: Database) -> None:
    await people(db, 1, district="19.71")
    (siti,) = await people(db, 1)
    assert (await chosen(db)).ids == [siti]
    everybody = [row.id for row in await rows(db, "SELECT id FROM volunteers")]
    assert await pinged(db, everybody) == 1


async def test_no_code_of_a_test_is_also_that_of_an_offer(db: Database, policy: Districts) -> None:
    await people(db, 20, capacity=5)
    for _ in range(5):
        await report(db, policy, *(case_reported() for _ in range(4)))
        await pinged(db)
        await run(db, "UPDATE pings SET state = 'answered', ended_at = now()")
    events = await published(db)
    codes = [e.data.answer_code for e in events if isinstance(e, OfferMade | VolunteerPinged)]
    assert len(codes) == 20 + 5 * 20
    assert len(set(codes)) == len(codes)


async def test_a_drill_is_marked_as_one(db: Database) -> None:
    (siti,) = await people(db, 1)
    await pinged(db, drill=True)
    assert (await ping_of(db, siti)).drill
    assert [event.drill for event in await events_of(db, VolunteerPinged)] == [True]


async def test_five_who_test_at_once_make_one_test_of_each(db: Database) -> None:
    ids = await people(db, 30)
    asked = await asyncio.gather(*(pinged(db, ids) for _ in range(5)))
    assert sorted(asked) == [0, 0, 0, 0, 30]
    assert await one(db, "SELECT count(*) FROM pings") == 30
    events = await events_of(db, VolunteerPinged)
    assert sorted(event.subject for event in events) == sorted(ids)


# --- what comes back ------------------------------------------------------------------------------


async def test_an_answer_is_a_sign_of_life_and_its_words_are_kept(
    db: Database, policy: Districts
) -> None:
    siti, budi = await people(db, 2)
    await pinged(db)
    ping = await ping_of(db, siti)
    answered = ping_answered("ya, masih aktif", ping_id=ping.id, volunteer_id=siti)
    await hears(db, policy, answered)
    ping = await ping_of(db, siti)
    assert (ping.state, ping.words, ping.ended_at) == ("answered", "ya, masih aktif", answered.time)
    reached = (await who_is(db, siti)).last_reached_at
    assert abs(reached - answered.time) < timedelta(seconds=5)
    assert (await ping_of(db, budi)).state == "asked"
    assert (await who_is(db, budi)).last_reached_at is None
    # Said again: when they first answered stays, what they add is kept.
    await hears(db, policy, ping_answered(ping_id=ping.id, volunteer_id=siti))
    assert (await ping_of(db, siti)).words == "ya, masih aktif"
    await hears(db, policy, ping_answered("nomor baru besok", ping_id=ping.id, volunteer_id=siti))
    again = await ping_of(db, siti)
    assert (again.words, again.ended_at) == ("nomor baru besok", answered.time)


async def test_what_comes_late_counts_and_an_old_answer_does_not_make_them_younger(
    db: Database, policy: Districts
) -> None:
    (siti,) = await people(db, 1)
    await pinged(db)
    await run(db, "UPDATE pings SET respond_by = now() - interval '1 min'")
    async with db.transaction() as session:
        await reach.end_overdue(session)
    ping = await ping_of(db, siti)
    assert (ping.state, ping.ended_at) == ("unanswered", ping.respond_by)
    await hears(db, policy, ping_answered("maaf baru baca", ping_id=ping.id, volunteer_id=siti))
    assert (await ping_of(db, siti)).state == "answered"
    reached = (await who_is(db, siti)).last_reached_at
    old = ping_answered(ping_id=ping.id, volunteer_id=siti, time=datetime.now(UTC) - DAY)
    await hears(db, policy, old)
    assert (await who_is(db, siti)).last_reached_at == reached


@pytest.mark.parametrize("reason", ["not_sent_in_time", "budget_spent"])
async def test_a_dead_number_is_told_with_the_reason(
    db: Database, policy: Districts, reason: str
) -> None:
    siti, budi = await people(db, 2)
    await pinged(db)
    dead, unsent = await ping_of(db, siti), await ping_of(db, budi)
    await hears(
        db,
        policy,
        ping_unreachable("undelivered", ping_id=dead.id, volunteer_id=siti),
        # Nothing was sent: it says nothing about the number.
        ping_unreachable(reason, ping_id=unsent.id, volunteer_id=budi),
    )
    ping = await ping_of(db, siti)
    assert (ping.state, ping.reason) == ("unreachable", "undelivered")
    ping = await ping_of(db, budi)
    assert (ping.state, ping.reason) == ("unanswered", reason)
    assert (await who_is(db, siti)).last_reached_at is None
    # An answer by another way is stronger than the gateway's word, whichever comes first.
    await hears(db, policy, ping_answered(ping_id=dead.id, volunteer_id=siti))
    await hears(db, policy, ping_unreachable(ping_id=dead.id, volunteer_id=siti))
    ping = await ping_of(db, siti)
    assert (ping.state, ping.reason) == ("answered", None)


async def test_what_nobody_knows_of_changes_nothing(db: Database, policy: Districts) -> None:
    (siti,) = await people(db, 1)
    before = await who_is(db, siti)
    await hears(
        db, policy, ping_answered("ya"), ping_unreachable(), volunteer_stopped(),
        sms_budget_run_low(),
    )  # fmt: skip
    assert await who_is(db, siti) == before


async def test_a_batch_may_hold_answers_of_every_kind(db: Database, policy: Districts) -> None:
    siti, budi = await people(db, 2)
    case = case_reported()
    await report(db, policy, case)
    await pinged(db)
    offer, ping = await open_offer(db, case), await ping_of(db, budi)
    await hears(
        db,
        policy,
        ping_answered("ya", ping_id=ping.id, volunteer_id=budi),
        sms_budget_run_low(),
        offer_answered(case_id=offer.case_id, offer_id=offer.id, volunteer_id=siti),
        volunteer_stopped(budi),
    )
    assert (await state_of(db, case)).state == "accepted"
    assert (await ping_of(db, budi)).state == "answered"
    assert not (await who_is(db, budi)).available


async def test_answers_of_all_kinds_at_once_do_not_lock_each_other_out(
    db: Database, policy: Districts
) -> None:
    """Each batch frees places of some and hears signs of life of others, in other orders."""
    ids = await people(db, 12, capacity=3)
    cases = [case_reported() for _ in range(12)]
    await report(db, policy, *cases)
    await pinged(db)
    pings = [await ping_of(db, id_) for id_ in ids]
    offers = [await open_offer(db, case) for case in cases]

    async def batch(number: int) -> None:
        for step in range(3):
            offer = offers[(number * 3 + step) % 12]
            others = [pings[(number * 5 + step * 7 + k) % 12] for k in range(6)]
            signs = [ping_answered(ping_id=p.id, volunteer_id=p.volunteer_id) for p in others]
            decline = offer_answered(
                "decline", case_id=offer.case_id, offer_id=offer.id,
                volunteer_id=offer.volunteer_id,
            )  # fmt: skip
            stop = volunteer_stopped(others[0].volunteer_id, stopped=step == 0, reachable=step > 0)
            await hears(db, policy, *signs, decline, stop)

    async def signs_only(order: int) -> None:
        for _ in range(5):
            signs = [ping_answered(ping_id=p.id, volunteer_id=p.volunteer_id) for p in pings]
            await hears(db, policy, *signs[::order])

    await asyncio.gather(
        *(batch(number) for number in range(3)),
        *(signs_only(order) for order in (1, -1)),
        _sweeping(db, policy),
    )
    assert await one(db, "SELECT count(*) FROM pings WHERE state <> 'answered'") == 0
    taken = await one(db, "SELECT count(*) FROM offers WHERE ended_at IS NULL")
    assert await one(db, "SELECT sum(open_cases + open_offers) FROM volunteers") == taken


async def _sweeping(db: Database, policy: Districts) -> None:
    for _ in range(10):
        await sweep(db, policy)


# --- who wants no messages ------------------------------------------------------------------------


async def test_who_has_stopped_everything_is_not_asked_until_they_want_it_again(
    db: Database, policy: Districts
) -> None:
    siti, budi = await people(db, 2)
    await hears(db, policy, volunteer_stopped(siti, channel="sms", reachable=False))
    stopped = await who_is(db, siti)
    assert (stopped.stopped, stopped.reachable, stopped.available) == (["sms"], False, False)
    assert stopped.on_duty  # their own switch stays as it is
    assert stopped.last_reached_at is not None  # they have written, after all
    case = case_reported()
    await report(db, policy, case)
    offer = await open_offer(db, case)
    assert offer.volunteer_id == budi
    (nearer,) = offer.reasons["nearer"]
    assert (nearer["volunteer"], nearer["why_not"]) == (str(siti), "wants_no_messages")
    # MULAI: whoever waits is looked for again at once.
    other = case_reported()
    await report(db, policy, other)
    assert (await state_of(db, other)).state == "waiting"
    await hears(db, policy, volunteer_stopped(siti, stopped=False, reachable=True))
    back = await who_is(db, siti)
    assert (back.stopped, back.reachable, back.available) == ([], True, True)
    assert await sweep(db, policy) == 1
    assert (await open_offer(db, other)).volunteer_id == siti


async def test_who_has_another_way_left_is_asked_all_the_same(
    db: Database, policy: Districts
) -> None:
    (siti,) = await people(db, 1, email="siti@example.org")
    for channel, reachable in (("sms", True), ("sms", True), ("email", False)):
        await hears(db, policy, volunteer_stopped(siti, channel=channel, reachable=reachable))
        assert (await who_is(db, siti)).available is reachable
    assert (await who_is(db, siti)).stopped == ["sms", "email"]
    await hears(db, policy, volunteer_stopped(siti, channel="sms", stopped=False, reachable=True))
    back = await who_is(db, siti)
    assert (back.stopped, back.available) == (["email"], True)


async def test_neither_duty_nor_rest_makes_somebody_available_who_wants_no_messages(
    db: Database, policy: Districts
) -> None:
    (siti,) = await people(db, 1)
    await hears(db, policy, volunteer_stopped(siti, reachable=False))
    async with db.transaction() as session:
        await volunteers.change(session, siti, {"duty": [], "on_duty": True}, districts=policy)
    assert not (await who_is(db, siti)).available
    await run(db, "UPDATE volunteers SET ready_changes_at = now() - interval '1 s'")
    async with db.transaction() as session:
        timezones = {code: district.timezone for code, district in policy.items()}
        await duty.refresh(session, timezones=timezones)
    assert not (await who_is(db, siti)).available


@pytest.mark.parametrize(
    ("changes", "stopped", "reachable"),
    [
        ({"name": "Siti A."}, ["sms", "email"], False),
        ({"phone": "+6281200000001"}, ["sms", "email"], False),  # the same as before
        ({"phone": "+6281200000002"}, ["email"], True),
        ({"email": "new@example.org"}, ["sms"], True),
        ({"email": None}, ["sms", "email"], False),
    ],
)
async def test_a_new_address_has_stopped_nothing(
    db: Database, policy: Districts, changes: dict[str, Any], stopped: list[str], reachable: bool
) -> None:
    (siti,) = await people(db, 1, phone="+6281200000001", email="old@example.org")
    for channel in ("sms", "email"):
        await hears(db, policy, volunteer_stopped(siti, channel=channel, reachable=False))
    async with db.transaction() as session:
        await volunteers.change(session, siti, changes, districts=policy)
    found = await who_is(db, siti)
    assert (found.stopped, found.reachable, found.available) == (stopped, reachable, reachable)


async def test_a_stop_of_a_district_without_folder_is_not_lost(
    db: Database, policy: Districts
) -> None:
    (siti,) = await people(db, 1, district="19.71")
    with pytest.raises(loop.UnknownDistrict, match=r"19\.71"):
        await hears(db, policy, volunteer_stopped(siti))
    assert (await who_is(db, siti)).reachable


# --- by itself ------------------------------------------------------------------------------------


def monthly(policy: Districts, *, hour: int = 12, **figures: Any) -> dict[str, District]:
    """The district tests every 30 days, and its clocks show this hour now."""
    messages = Messages(**{"ping_every": 30 * DAY, **figures})
    district = policy["19.04"]
    return {
        "19.04": replace(
            district,
            timezone=where_it_is(hour=hour),
            policy=replace(district.policy, messages=messages),
        )
    }


def where_it_is(*, hour: int) -> str:
    """Where clocks show this hour now."""
    behind = (datetime.now(UTC).hour - hour + 12) % 24 - 12
    # In POSIX names the sign is the other way round; what is west is behind.
    return f"Etc/GMT{behind:+d}" if behind else "Etc/GMT"


async def looked(db: Database, policy: Districts) -> int:
    """How many are pinged by one look."""
    before: int = await one(db, "SELECT count(*) FROM pings")
    await Reachability(db, districts=policy).look()
    after: int = await one(db, "SELECT count(*) FROM pings")
    return after - before


OLD: dict[str, Any] = {"created_at": datetime.now(UTC) - 60 * DAY}


async def test_those_of_whom_nothing_was_heard_for_long_are_tested_by_themselves(
    db: Database, policy: Districts
) -> None:
    now = datetime.now(UTC)
    (never,) = await people(db, 1, **OLD)
    (long_ago,) = await people(db, 1, **OLD, last_reached_at=now - 31 * DAY)
    await people(db, 1, **OLD, last_reached_at=now - 29 * DAY)
    await people(db, 1)  # new: whoever has come a moment ago need not be asked
    await people(db, 1, **OLD, on_duty=False)
    await people(db, 1, **OLD, off_until=now + DAY)
    await people(db, 1, **OLD, reachable=False, ready=False)
    await people(db, 1, **OLD, district="19.71")
    tests = monthly(policy, ping_within=timedelta(hours=6))
    assert await looked(db, tests) == 2
    events = await events_of(db, VolunteerPinged)
    assert sorted(event.subject for event in events) == sorted([never, long_ago])
    assert all(not event.drill for event in events)
    ping = await ping_of(db, never)
    assert ping.respond_by - ping.asked_at == timedelta(hours=6)
    assert await looked(db, tests) == 0


async def test_nobody_is_tested_again_before_the_time_has_passed(
    db: Database, policy: Districts
) -> None:
    await people(db, 1, **OLD)
    tests = monthly(policy)
    assert await looked(db, tests) == 1
    await run(db, "UPDATE pings SET asked_at = now() - interval '29 days', "
                  "respond_by = now() - interval '28 days'")  # fmt: skip
    assert await looked(db, tests) == 0
    assert await one(db, "SELECT state FROM pings") == "unanswered"
    await run(db, "UPDATE pings SET asked_at = now() - interval '31 days'")
    assert await looked(db, tests) == 1


@pytest.mark.parametrize(
    ("hour", "asked"), [(0, 0), (5, 0), (8, 0), (9, 1), (12, 1), (19, 1), (20, 0), (23, 0)]
)
async def test_they_are_tested_by_day(
    db: Database, policy: Districts, hour: int, asked: int
) -> None:
    await people(db, 1, **OLD)
    assert await looked(db, monthly(policy, hour=hour)) == asked


async def test_a_district_that_does_not_want_it_tests_nobody(
    db: Database, policy: Districts
) -> None:
    await people(db, 1, **OLD)
    assert await looked(db, monthly(policy, ping_every=None)) == 0


async def test_a_whole_district_is_tested_a_few_at_a_time_the_quietest_first(
    db: Database, policy: Districts
) -> None:
    now = datetime.now(UTC)
    ids = [
        await volunteer(db, *KOBA, **OLD, last_reached_at=now - (100 - n) * DAY)
        for n in range(reach.PINGED_AT_ONCE + 5)
    ]
    tests = monthly(policy)
    assert await looked(db, tests) == reach.PINGED_AT_ONCE
    first = {event.subject for event in await events_of(db, VolunteerPinged)}
    assert first == set(ids[: reach.PINGED_AT_ONCE])
    assert await looked(db, tests) == 5
    assert await looked(db, tests) == 0


async def test_replicas_that_look_at_once_test_nobody_twice(
    db: Database, policy: Districts
) -> None:
    ids = await people(db, 30, **OLD)
    tests = monthly(policy)
    for _ in range(4):
        await asyncio.gather(*(Reachability(db, districts=tests).look() for _ in range(5)))
    events = await events_of(db, VolunteerPinged)
    assert sorted(event.subject for event in events) == sorted(ids)


async def test_while_answers_are_away_nobody_is_silent(db: Database, policy: Districts) -> None:
    await people(db, 1)
    await pinged(db)
    await run(db, "UPDATE pings SET respond_by = now() - interval '1 min'")
    await Reachability(db, districts=policy, heard=nothing).look()
    assert await one(db, "SELECT state FROM pings") == "asked"
    await Reachability(db, districts=policy).look()
    assert await one(db, "SELECT state FROM pings") == "unanswered"


async def test_the_service_itself_tests_by_the_policy_of_the_folder(
    settings_without_kafka: MakeSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "19.04"
    shutil.copytree(PROJECT / "districts" / "19.04", folder)
    places = (folder / "places.toml").read_text(encoding="utf-8")
    noon = where_it_is(hour=12)
    (folder / "places.toml").write_text(places.replace("Asia/Jakarta", noon), encoding="utf-8")
    settings = await settings_without_kafka(AssignmentSettings, districts=str(tmp_path))
    door = open_door(compose(settings))
    (loop_, work) = next(each for each in door.service.work if each[0].name == "reachability")
    (siti,) = await people(door.database, 1, **OLD)
    await people(door.database, 1)
    turning = asyncio.ensure_future(work(loop_))
    async with asyncio.timeout(90):
        while not await one(door.database, "SELECT count(*) FROM outbox"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    turning.cancel()
    (event,) = await events_of(door.database, VolunteerPinged)
    assert event.subject == siti
    assert event.data.respond_by - event.time == timedelta(hours=24)
    await door.close()


# --- drills are no work ---------------------------------------------------------------------------


async def test_a_drill_costs_no_rest_and_does_not_count_as_having_been_asked(
    db: Database, districts: dict[str, District]
) -> None:
    policy = with_policy(districts, rest=timedelta(hours=8), same_distance_m=3000.0)
    siti, budi = await people(db, 2)
    drill = case_reported(drill=True)
    await report(db, policy, drill)
    offer = await open_offer(db, drill)
    assert (offer.volunteer_id, offer.drill) == (siti, True)
    for word in ("accept", "arrived", "done"):
        await hears(
            db, policy,
            offer_answered(word, case_id=offer.case_id, offer_id=offer.id, drill=True),
        )  # fmt: skip
    rested = await who_is(db, siti)
    assert (rested.rest_until, rested.available) == (None, True)
    # Equally near, and nobody was asked of late: the nearest, not the one who was spared the drill.
    case = case_reported()
    await report(db, policy, case)
    (offer,) = await offers_of(db, case)
    assert (offer.volunteer_id, offer.drill) == (siti, False)
    assert offer.reasons["asked_of_late"] == 0
    other = case_reported()
    await report(db, policy, other)
    assert (await open_offer(db, other)).volunteer_id == budi


# --- on the command line --------------------------------------------------------------------------


async def test_the_command_line_tests_and_tells(
    settings_without_kafka: MakeSettings, districts: dict[str, District]
) -> None:
    settings = await settings_without_kafka(AssignmentSettings)
    door = open_door(compose(settings))
    db = door.database

    async def said(*arguments: str, answer: str = "") -> tuple[int | None, str]:
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops.cli", "volunteers", *arguments),
            env={**os.environ, "JANGKAU_DATABASE_URL": settings.database_url, "COLUMNS": "200"},
            cwd=PROJECT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await command.communicate(answer.encode())
        return command.returncode, output.decode()

    siti = await volunteer(db, *KOBA, name="Siti", phone="+6281277770001")
    await volunteer(db, *KOBA, name="Budi", phone="+6281277770002", channel="email",
                    email="budi@example.org")  # fmt: skip
    dead = await volunteer(db, *KOBA, name="Rina", phone="+6281277770003")
    await volunteer(db, *KOBA, name="Off", phone="+6281277770004", on_duty=False)
    code, output = await said("ping", "--district", "19.04", answer="n\n")
    assert (code, "3 volunteers get a test: up to 2 SMS" in output) == (1, True), output
    assert await one(db, "SELECT count(*) FROM pings") == 0
    code, output = await said("ping", "--within", "2h", answer="y\n")
    assert (code, "3 asked" in output) == (0, True), output
    assert await one(db, "SELECT max(respond_by - asked_at) FROM pings") == timedelta(hours=2)
    code, output = await said("ping", "--yes")
    assert (code, "Nobody to ask" in output) == (0, True), output
    policy = with_policy(districts)
    answered, lost = await ping_of(db, siti), await ping_of(db, dead)
    await hears(
        db, policy,
        ping_answered("ya siap", ping_id=answered.id, volunteer_id=siti),
        ping_unreachable("undelivered", ping_id=lost.id, volunteer_id=dead),
    )  # fmt: skip
    code, output = await said("reach")
    assert code == 0
    lines = output.splitlines()
    for name, parts in {
        "Siti": ("+6281277770001", "answered", "ya siap"),
        "Budi": ("have not answered yet", "never"),
        "Rina": ("cannot be reached", "undelivered", "never"),
    }.items():
        (line,) = [line for line in lines if name in line]
        assert all(part in line for part in parts), line
    assert "1 cannot be reached" in output
    code, output = await said("reach", "--json", "--district", "19.04")
    told = json.loads(output)
    assert told["counts"] == {
        "unreachable": 1, "wants_no_messages": 0, "unanswered": 0, "asked": 1, "answered": 1,
        "never_tested": 1,
    }  # fmt: skip
    assert [each["name"] for each in told["volunteers"]] == ["Rina", "Budi", "Siti", "Off"]
    for wrong, sentence in {
        ("ping", "--only", "0812-0000-0000"): "No volunteer has",
        ("ping", "--district", "88.88"): "There is no district 88.88",
        ("ping", "--within", "soon"): "write it as",
        ("ping", "--within", "8d"): "from a minute to a week",
        ("reach", "--district", "88.88"): "There is no district 88.88",
    }.items():
        code, output = await said(*wrong)
        assert code != 0
        assert sentence in " ".join(output.replace("│", " ").split())
    code, output = await said("ping", "--only", "0812-7777-0004", "--drill", "--yes")
    assert (code, "1 volunteer gets a drill, marked as one" in output) == (0, True), output
    await hears(db, policy, volunteer_stopped(siti))
    code, output = await said("list")
    (line,) = [line for line in output.splitlines() if "+6281277770001" in line]
    assert "wants no messages (sms)" in line
    await door.close()
