"""The coordinator's hand, over HTTP: assign, release, close, note; and the story that stays."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from services.assignment import audit, cases_api, coordination
from services.assignment.coordination import Assignment
from shared import errors
from shared.database import Database
from shared.districts import District
from shared.events import CaseReported, OfferAssigned, OfferClosed, PublicCase, PublicCaseClosed
from tests.factories import KOBA, case_reported
from tests.integration.cases import (
    answer,
    feed_of,
    offers_of,
    open_offer,
    published,
    report,
    state_of,
    sweep,
    time_passes,
    volunteer,
    with_policy,
)
from tests.integration.conftest import one, rows, run
from tests.servers import PROJECT

MINUTE = timedelta(minutes=1)
BEARER = {"Authorization": "Bearer the token of the agency"}
RINA = {"by": "Bu Rina", "why": "knows the family"}


@dataclass
class Desk:
    """Assignment's door for coordinators, and what is behind it."""

    http: httpx2.AsyncClient
    db: Database
    policy: dict[str, District]

    async def act(
        self, case: CaseReported, what: str, *, expect: int = 200, **body: Any
    ) -> dict[str, Any]:
        """Let Bu Rina act; returns the answer."""
        url = f"/v1/cases/{case.data.code}/{what}"
        answered = await self.http.post(url, json={**RINA, **body}, headers=BEARER)
        assert answered.status_code == expect, answered.text
        found: dict[str, Any] = answered.json()
        return found

    async def assign(self, case: CaseReported, whom: UUID, **values: Any) -> dict[str, Any]:
        return await self.act(case, "assign", volunteer_id=str(whom), **values)

    async def story(self, case: CaseReported) -> dict[str, Any]:
        answered = await self.http.get(f"/v1/cases/{case.data.code}", headers=BEARER)
        assert answered.status_code == 200, answered.text
        found: dict[str, Any] = answered.json()
        return found

    async def lines(self, case: CaseReported) -> list[str]:
        """The story in words, without the times."""
        return [line.partition("  ")[2] for line in (await self.story(case))["lines"]]

    async def people(self, count: int, **values: Any) -> list[UUID]:
        """Volunteers in a row going north, a kilometre apart, the nearest first."""
        return [
            await volunteer(
                self.db, KOBA[0] + n * 0.009, KOBA[1], **{"name": f"Relawan {n}", **values}
            )
            for n in range(1, count + 1)
        ]

    async def reported(self, **values: Any) -> CaseReported:
        """A case that has just been reported, with a code of its own."""
        number = await one(self.db, "SELECT count(*) FROM cases")
        case = case_reported(**{"code": f"CASE{number}", **values})
        await report(self.db, self.policy, case)
        return case

    async def states(self, case: CaseReported) -> dict[UUID, str]:
        """Volunteer -> state of their offer."""
        return {offer.volunteer_id: offer.state for offer in await offers_of(self.db, case)}

    async def places(self) -> list[int]:
        """What each volunteer has open, cases and offers, in the order of their ids."""
        found = await rows(
            self.db, "SELECT open_cases + open_offers AS open FROM volunteers ORDER BY id"
        )
        return [row.open for row in found]

    async def closed(self) -> list[tuple[UUID, str]]:
        """Who was told that their offer has ended, and why."""
        return [
            (event.data.volunteer.id, event.data.reason)
            for event in await published(self.db)
            if isinstance(event, OfferClosed)
        ]

    async def given(self) -> list[OfferAssigned]:
        """Who was told that a case is theirs."""
        return [event for event in await published(self.db) if isinstance(event, OfferAssigned)]


@pytest.fixture
async def desk(
    assignment_database: Database, districts: dict[str, District]
) -> AsyncIterator[Desk]:
    policy = with_policy(districts)
    app = FastAPI()
    router = cases_api.router(
        assignment_database, districts=policy, token=SecretStr("the token of the agency")
    )
    app.include_router(router)
    errors.install(app)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        desk = Desk(http, assignment_database, policy)
        yield desk
    await everything_is_whole(desk)


async def everything_is_whole(desk: Desk) -> None:
    """After every test: one acceptance, counts as offers say, versions without a gap."""
    async with desk.db.transaction() as session:
        assert await audit.miscounted(session) == []
    held = await rows(
        desk.db,
        """SELECT c.code, c.state, count(o.id) AS holders FROM cases c
           LEFT JOIN offers o ON o.case_id = c.id AND o.state IN ('accepted', 'arrived')
           GROUP BY c.id""",
    )
    for row in held:
        assert row.holders == (1 if row.state in ("accepted", "arrived") else 0), row
    versions: dict[UUID, list[int]] = {}
    for event in await published(desk.db):
        if isinstance(event.data, PublicCase):
            versions.setdefault(event.subject, []).append(event.data.version)
    for found in versions.values():
        assert found == list(range(1, len(found) + 1))


# --- assign ---------------------------------------------------------------------------------------


async def test_a_case_is_given_to_somebody_who_was_never_asked(desk: Desk) -> None:
    near, far = await desk.people(2)
    case = await desk.reported()
    answered = await desk.assign(case, far)
    assert (answered["state"], answered["version"]) == ("accepted", 3)
    assert await desk.states(case) == {near: "withdrawn", far: "accepted"}
    assert await desk.places() == [0, 1]
    assert await desk.closed() == [(near, "taken_by_another")]
    (given,) = await desk.given()
    assert given.data.volunteer.id == far
    assert given.data.respond_by - given.time == 90 * MINUTE
    assert [state for _, state in await feed_of(desk.db, case)] == [
        "searching",
        "offered",
        "accepted",
    ]
    assert (await desk.lines(case))[2:] == [
        "Assigned to Relawan 2 by Bu Rina: knows the family",
        "Relawan 1 need not come any more",
    ]
    told = await desk.story(case)
    assert told["case"]["held_by"]["name"] == "Relawan 2"
    (offer,) = [o for o in told["offers"] if o["state"] == "accepted"]
    assert (offer["assigned_by"], offer["words"]) == ("Bu Rina", None)
    assert offer["reasons"]["why"] == "knows the family"


async def test_whoever_was_silent_gets_the_case_and_their_first_offer_stays_in_the_story(
    desk: Desk,
) -> None:
    first, second = await desk.people(2)
    case = await desk.reported()
    (before,) = await offers_of(desk.db, case)
    await time_passes(desk.db, case, 10 * MINUTE)
    await sweep(desk.db, desk.policy)
    lines = await desk.lines(case)
    await desk.assign(case, first)
    assert await desk.states(case) == {second: "withdrawn", first: "accepted"}
    assert await desk.places() == [1, 0]
    (now,) = [o for o in await offers_of(desk.db, case) if o.volunteer_id == first]
    assert now.id == before.id
    assert now.answer_code != before.answer_code
    assert (await desk.given())[0].data.answer_code == now.answer_code
    # Nothing that was told before is told otherwise now.
    assert (await desk.lines(case))[: len(lines)] == lines
    # It is theirs as if they had accepted.
    assert await answer(desk.db, desk.policy, now, "arrived") == "recorded"
    assert await answer(desk.db, desk.policy, now, "done") == "recorded"


async def test_whoever_declined_gets_the_case_and_their_words_stay_in_the_story(
    desk: Desk,
) -> None:
    first, _ = await desk.people(2)
    case = await desk.reported()
    await answer(
        desk.db, desk.policy, await open_offer(desk.db, case), "decline", words="bisa nanti"
    )
    await desk.assign(case, first)
    assert (await desk.states(case))[first] == "accepted"
    lines = await desk.lines(case)
    assert "Relawan 1 declined: 'bisa nanti'" in lines
    assert lines[-2] == "Assigned to Relawan 1 by Bu Rina: knows the family"


async def test_whoever_is_asked_right_now_gets_the_case_without_a_second_place(
    desk: Desk,
) -> None:
    (only,) = await desk.people(1)
    case = await desk.reported()
    offer = await open_offer(desk.db, case)
    await desk.assign(case, only)
    assert await desk.states(case) == {only: "accepted"}
    assert await desk.places() == [1]
    assert await desk.closed() == []
    (given,) = await desk.given()
    assert (given.data.offer_id, given.data.answer_code) == (offer.id, offer.answer_code)
    assert given.data.respond_by - given.time == 90 * MINUTE
    assert await answer(desk.db, desk.policy, offer, "accept") == "already_recorded"


async def test_duty_and_rest_do_not_count_as_the_two_have_spoken(desk: Desk) -> None:
    (only,) = await desk.people(1, on_duty=False, ready=False)
    case = await desk.reported()
    await desk.assign(case, only)
    assert await desk.states(case) == {only: "accepted"}


async def test_an_escalated_case_is_given_to_somebody(desk: Desk) -> None:
    case = await desk.reported()
    assert (await state_of(desk.db, case)).state == "escalated"
    (only,) = await desk.people(1)
    await desk.assign(case, only)
    now = await state_of(desk.db, case)
    assert (now.state, now.escalated_for) == ("accepted", None)


async def test_whoever_is_full_is_refused_with_a_sentence_and_nothing_changes(desk: Desk) -> None:
    (full,) = await desk.people(1)
    await desk.assign(await desk.reported(), full)
    case = await desk.reported()
    holder = await volunteer(desk.db, *KOBA, name="Holder")
    await desk.assign(case, holder)
    before = await desk.story(case)
    refused = await desk.assign(case, full, expect=409)
    assert refused["detail"] == (
        "Relawan 1 has accepted 1 case, as many as they take at the same time: CASE0 (accepted). "
        "Release or close one of these, or raise their capacity above 1 "
        f"(PATCH /v1/volunteers/{full}), then assign again."
    )
    assert await desk.story(case) == before  # whoever has it still has it


async def test_somebody_unknown_or_of_another_district_is_refused(desk: Desk) -> None:
    case = await desk.reported()
    stranger = await volunteer(desk.db, *KOBA, district="19.05")
    for nobody in (uuid7(), stranger):
        refused = await desk.assign(case, nobody, expect=404)
        assert refused["detail"] == f"There is no volunteer {nobody} in 19.04."


async def test_a_neighbour_is_taken_where_the_policy_allows_it(
    desk: Desk, districts: dict[str, District]
) -> None:
    desk.policy.update(with_policy(districts, neighbours=("19.71",)))
    case = await desk.reported()
    neighbour = await volunteer(desk.db, *KOBA, district="19.71")
    await desk.assign(case, neighbour)
    assert await desk.states(case) == {neighbour: "accepted"}
    await desk.act(case, "release")
    assert await desk.places() == [0]


async def test_given_to_another_whoever_had_it_is_told_and_free(desk: Desk) -> None:
    first, second = await desk.people(2)
    case = await desk.reported()
    offer = await open_offer(desk.db, case)
    await answer(desk.db, desk.policy, offer, "accept")
    await answer(desk.db, desk.policy, offer, "arrived")
    await desk.assign(case, second, why="speaks sign language")
    assert await desk.states(case) == {first: "withdrawn", second: "accepted"}
    assert await desk.places() == [0, 1]
    assert await desk.closed() == [(first, "released")]
    assert (await state_of(desk.db, case)).state == "accepted"
    assert (await desk.lines(case))[-2:] == [
        "Taken back from Relawan 1 by Bu Rina: speaks sign language",
        "Assigned to Relawan 2 by Bu Rina: speaks sign language",
    ]
    assert await answer(desk.db, desk.policy, offer, "done") == "taken_by_another"


async def test_whoever_has_it_already_is_refused(desk: Desk) -> None:
    (only,) = await desk.people(1)
    case = await desk.reported()
    await desk.assign(case, only)
    refused = await desk.assign(case, only, expect=409)
    assert refused["detail"] == "Relawan 1 has the case already."
    assert len(await desk.given()) == 1


async def test_an_assigned_case_lapses_like_an_accepted_one(desk: Desk) -> None:
    _, second = await desk.people(2)
    case = await desk.reported()
    await desk.assign(case, second)
    await time_passes(desk.db, case, 90 * MINUTE)
    assert await sweep(desk.db, desk.policy) == 1
    assert (await desk.states(case))[second] == "lapsed"


# --- release --------------------------------------------------------------------------------------


async def test_a_released_case_goes_to_another_and_not_to_the_same_one(desk: Desk) -> None:
    first, second = await desk.people(2)
    case = await desk.reported()
    await answer(desk.db, desk.policy, await open_offer(desk.db, case), "accept")
    answered = await desk.act(case, "release", why="has fallen ill")
    assert answered["state"] == "offered"
    assert await desk.states(case) == {first: "withdrawn", second: "offered"}
    assert await desk.places() == [0, 1]
    assert await desk.closed() == [(first, "released")]
    assert [state for _, state in await feed_of(desk.db, case)][-2:] == ["searching", "offered"]
    lines = await desk.lines(case)
    assert lines[-2] == "Taken back from Relawan 1 by Bu Rina: has fallen ill"
    assert lines[-1].startswith("Asked Relawan 2 (psm), 2.0 km, nearest available; until ")


async def test_a_released_case_with_nobody_left_waits_for_a_coordinator(desk: Desk) -> None:
    (only,) = await desk.people(1)
    case = await desk.reported()
    await desk.assign(case, only)
    answered = await desk.act(case, "release")
    assert answered["state"] == "escalated"
    # And may be given to the same one again.
    await desk.assign(case, only)
    assert await desk.states(case) == {only: "accepted"}


async def test_what_nobody_has_cannot_be_released(desk: Desk) -> None:
    await desk.people(1)
    case = await desk.reported()
    refused = await desk.act(case, "release", expect=409)
    assert refused["detail"] == "Nobody has case CASE0: it is offered."


# --- close ----------------------------------------------------------------------------------------


async def test_closing_ends_every_open_offer_and_tells_the_public(
    desk: Desk, districts: dict[str, District]
) -> None:
    desk.policy.update(with_policy(districts, parallel={"normal": 2, "urgent": 2}))
    first, second = await desk.people(2)
    case = await desk.reported()
    answered = await desk.act(case, "close", outcome="cancelled", why="a prank")
    assert (answered["state"], answered["outcome"]) == ("closed", "cancelled")
    assert await desk.states(case) == {first: "withdrawn", second: "withdrawn"}
    assert await desk.places() == [0, 0]
    assert await desk.closed() == [(first, "case_closed"), (second, "case_closed")]
    last = (await published(desk.db))[-1]
    assert isinstance(last, PublicCaseClosed)
    assert (last.data.state, last.data.outcome) == ("closed", "cancelled")
    assert (await desk.lines(case))[-1] == "Closed as cancelled by Bu Rina: a prank"
    assert (await state_of(desk.db, case)).next_action_at is None


async def test_closing_frees_whoever_has_the_case(desk: Desk) -> None:
    (only,) = await desk.people(1)
    case = await desk.reported()
    offer = await open_offer(desk.db, case)
    await answer(desk.db, desk.policy, offer, "accept")
    await desk.act(case, "close", outcome="referred")
    assert await desk.places() == [0]
    assert await desk.closed() == [(only, "case_closed")]
    assert await answer(desk.db, desk.policy, offer, "arrived") == "case_closed"
    assert (await desk.lines(case))[-1] == (
        "Relawan 1 answered arrived; nothing changed: the case was closed"
    )
    # Whoever has become free is asked for the next case.
    assert (await desk.states(await desk.reported())) == {only: "offered"}


async def test_a_closed_case_refuses_all_but_a_note(desk: Desk) -> None:
    (only,) = await desk.people(1)
    case = await desk.reported()
    await desk.act(case, "close", outcome="not_found")
    closed = {"detail": "Case CASE0 is closed already: not found.", "status": 409}
    for refused in (
        await desk.act(case, "close", expect=409, outcome="not_found"),
        await desk.assign(case, only, expect=409),
    ):
        assert {name: refused[name] for name in closed} == closed
    refused = await desk.act(case, "release", expect=409)
    assert refused["detail"] == "Nobody has case CASE0: it is closed."
    answered = await desk.act(case, "notes", why="the family has called")
    assert answered["state"] == "closed"
    assert (await desk.lines(case))[-1] == "Note by Bu Rina: the family has called"


# --- note -----------------------------------------------------------------------------------------


async def test_a_note_is_a_line_of_the_story_and_nothing_else(desk: Desk) -> None:
    await desk.people(1)
    case = await desk.reported()
    before, events = await state_of(desk.db, case), len(await published(desk.db))
    await desk.act(case, "notes", why="call before you go")
    assert dict(await state_of(desk.db, case)) == dict(before)
    assert len(await published(desk.db)) == events
    assert (await desk.lines(case))[-1] == "Note by Bu Rina: call before you go"


# --- two at once ----------------------------------------------------------------------------------


async def test_two_coordinators_at_once_make_one_acceptance(desk: Desk) -> None:
    people = await desk.people(2)
    case = await desk.reported()

    async def give(to: UUID) -> None:
        wanted = Assignment(volunteer_id=to, by=f"to {to}", why="now")
        async with desk.db.transaction() as session:
            await coordination.assign(session, case.data.code, wanted, districts=desk.policy)

    await asyncio.gather(*(give(to) for to in people))
    states = await desk.states(case)
    assert Counter(states.values()) == {"accepted": 1, "withdrawn": 1}
    assert sorted(await desk.places()) == [0, 1]
    (holder,) = [id_ for id_, state in states.items() if state == "accepted"]
    assert (await desk.given())[-1].data.volunteer.id == holder
    # The one who came first was told of both.
    assert ({*people} - {holder}).pop() in {who for who, _ in await desk.closed()}


async def test_many_acts_at_once_leave_everything_whole(desk: Desk) -> None:
    people = await desk.people(6)
    cases = [await desk.reported() for _ in range(4)]
    allowed = {200, 409}

    async def act(number: int) -> int:
        case = cases[number % 4]
        url = f"/v1/cases/{case.data.code}/"
        what = ("assign", "release", "assign", "notes")[number % 3 if number % 7 else 3]
        body = {**RINA, **({"volunteer_id": str(people[number % 6])} if what == "assign" else {})}
        return (await desk.http.post(url + what, json=body, headers=BEARER)).status_code

    async def look() -> None:
        for _ in range(10):
            await sweep(desk.db, desk.policy)

    *statuses, _ = await asyncio.gather(*(act(number) for number in range(60)), look())
    assert set(statuses) <= allowed
    assert 200 in statuses
    closing = {**RINA, "outcome": "resolved"}
    for case in cases:
        url = f"/v1/cases/{case.data.code}/close"
        twice = await asyncio.gather(
            *(desk.http.post(url, json=closing, headers=BEARER) for _ in range(2))
        )
        assert sorted(one.status_code for one in twice) == [200, 409]
    assert set(await desk.places()) == {0}


async def test_neighbours_that_help_each_other_do_not_deadlock(
    desk: Desk, districts: dict[str, District]
) -> None:
    """Each takes back a case in its own district while the other one may be asked for it."""
    mine = with_policy(districts, neighbours=("19.71",), open_offers=3)["19.04"]
    theirs = with_policy(districts, neighbours=("19.04",), open_offers=3)["19.04"]
    desk.policy.update({"19.04": mine, "19.71": theirs})
    for code in ("19.04", "19.71"):
        for number in range(3):
            await volunteer(desk.db, KOBA[0] + number * 0.01, KOBA[1], district=code, capacity=9)
    cases = [await desk.reported(district=code) for code in ("19.04", "19.71") * 4]
    for case in cases:
        await answer(desk.db, desk.policy, await open_offer(desk.db, case), "accept")
    await asyncio.gather(*(desk.act(case, "release") for case in cases))


# --- who may, and what is refused -----------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_without_the_token_nobody_sees_or_does_anything(
    desk: Desk, headers: dict[str, str]
) -> None:
    await desk.reported()
    for method, url in (
        ("GET", "/v1/cases"),
        ("GET", "/v1/cases/CASE0"),
        ("POST", "/v1/cases/CASE0/notes"),
    ):
        answered = await desk.http.request(method, url, headers=headers)
        assert answered.status_code == 403
        assert answered.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("what", ["assign", "release", "close", "notes"])
async def test_a_case_that_is_not_there_is_404(desk: Desk, what: str) -> None:
    case = case_reported(code="NOBODY")
    more = {"assign": {"volunteer_id": str(uuid7())}, "close": {"outcome": "resolved"}}
    refused = await desk.act(case, what, expect=404, **more.get(what, {}))
    assert refused["detail"] == "There is no case NOBODY."


async def test_a_story_that_is_not_there_is_404(desk: Desk) -> None:
    answered = await desk.http.get("/v1/cases/%00[x]", headers=BEARER)
    assert answered.status_code == 404


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("release", {"by": "Bu Rina", "why": "x", "reason": "x"}, "reason"),
        ("release", {"by": "Bu Rina"}, "why"),
        ("release", {"by": " ", "why": "x"}, "by"),
        ("notes", {"by": "Bu Rina", "why": "a\x00b"}, "why"),
        ("notes", {"by": "Bu\x1bRina", "why": "x"}, "by"),
        ("notes", {"by": "Bu Rina", "why": "x" * 501}, "why"),
        ("close", {**RINA, "outcome": "merged"}, "outcome"),
        ("assign", {**RINA, "volunteer_id": "Siti"}, "volunteer_id"),
    ],
)
async def test_what_is_not_understood_is_refused_with_the_field(
    desk: Desk, what: str, body: dict[str, Any], field: str
) -> None:
    await desk.reported()
    answered = await desk.http.post(f"/v1/cases/CASE0/{what}", json=body, headers=BEARER)
    assert answered.status_code == 422
    assert [error["field"] for error in answered.json()["errors"]] == [field]


async def test_a_case_of_a_district_without_a_folder_is_left_alone(desk: Desk) -> None:
    case = await desk.reported()
    await run(desk.db, "UPDATE cases SET district = '99.01'")
    refused = await desk.act(case, "close", outcome="resolved", expect=409)
    assert refused["detail"] == "There is no district 99.01; known are 19.04."
    assert (await desk.story(case))["case"]["district"] == "99.01"


# --- the list -------------------------------------------------------------------------------------


async def listed(desk: Desk, query: str = "") -> list[str]:
    answered = await desk.http.get(f"/v1/cases{query}", headers=BEARER)
    assert answered.status_code == 200, answered.text
    return [case["code"] for case in answered.json()["cases"]]


async def test_the_list_shows_what_is_open_the_oldest_report_first(desk: Desk) -> None:
    await desk.people(1)
    newer = await desk.reported()
    older = await desk.reported(reported_at=newer.data.reported_at - timedelta(hours=1))
    closed = await desk.reported()
    await desk.act(closed, "close", outcome="resolved")
    assert await listed(desk) == [older.data.code, newer.data.code]
    assert await listed(desk, "?state=waiting") == [older.data.code]
    assert await listed(desk, "?state=closed") == [closed.data.code]
    assert len(await listed(desk, "?state=all")) == 3
    assert await listed(desk, "?district=19.71") == []


async def test_the_list_says_who_has_a_case_and_why_nobody_has(desk: Desk) -> None:
    (only,) = await desk.people(1, phone="+6281200000009")
    held, waiting = await desk.reported(), await desk.reported(people=3, urgency="urgent")
    await desk.assign(held, only)
    answered = await desk.http.get("/v1/cases", headers=BEARER)
    first, second = answered.json()["cases"]
    assert first["held_by"] == {
        "id": str(only),
        "name": "Relawan 1",
        "role": "psm",
        "phone": "+6281200000009",
        "email": None,
    }
    assert first["held_since"] is not None
    assert second["held_by"] is None
    assert (second["state"], second["waiting_for"]) == ("waiting", "all_volunteers_busy")
    assert (second["people"], second["urgency"]) == (3, "urgent")
    assert second["code"] == waiting.data.code


async def test_the_list_comes_a_page_at_a_time_each_once(desk: Desk) -> None:
    codes = [(await desk.reported()).data.code for _ in range(5)]
    seen: list[str] = []
    after: str | None = None
    for _ in range(3):
        query = {"limit": "2", **({"after": after} if after else {})}
        answered = await desk.http.get("/v1/cases", params=query, headers=BEARER)
        seen += [case["code"] for case in answered.json()["cases"]]
        after = answered.json()["next_after"]
    assert seen == codes
    assert after is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "after=NOBODY", "state=mine", "district=%00"]
)
async def test_a_query_that_makes_no_sense_is_refused(desk: Desk, query: str) -> None:
    answered = await desk.http.get(f"/v1/cases?{query}", headers=BEARER)
    assert answered.status_code == 422
    assert answered.json()["errors"][0]["field"] == query.partition("=")[0]


# --- the commands ---------------------------------------------------------------------------------


async def said(desk: Desk, *arguments: str) -> tuple[int | None, str]:
    """What `jangkau` prints."""
    url = desk.db.engine.url.render_as_string(hide_password=False)
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", *arguments),
        env={**os.environ, "JANGKAU_DATABASE_URL": url, "COLUMNS": "200"},
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    answered, _ = await command.communicate()
    return command.returncode, answered.decode()


async def test_the_command_tells_the_whole_story(desk: Desk) -> None:
    (first,) = await desk.people(1, phone=None, email="[bold]@example.org")
    case = await desk.reported(urgency="urgent")
    await desk.assign(case, first, why="[red]closest[/]")
    code, told = await said(desk, "case", "case0")
    assert code == 0, told
    for words in (
        "CASE0  homeless, urgent",
        "Relawan 1 (psm), [bold]@example.org",
        "Koba (-2.49300, 106.40800)",
        "Asked Relawan 1 (psm), 1.0 km, nearest; until",
        "Assigned to Relawan 1 by Bu Rina: [red]closest[/]",
    ):
        assert words in told
    code, told = await said(desk, "case", "CASE0", "--json")
    assert code == 0, told
    assert json.loads(told) == await desk.story(case)


async def test_the_command_lists_the_open_cases(desk: Desk) -> None:
    case, closed = await desk.reported(), await desk.reported()
    await desk.act(closed, "close", outcome="resolved")
    code, told = await said(desk, "cases")
    assert code == 0, told
    assert case.data.code in told
    assert closed.data.code not in told
    assert "nobody suitable in reach; nobody is left to ask" in told
    code, told = await said(desk, "cases", "--state", "all", "--json")
    assert [one["state"] for one in json.loads(told)] == ["escalated", "closed"]
    assert await said(desk, "cases", "--state", "waiting") == (0, "No such case.\n")


async def test_the_commands_say_what_is_not_there(desk: Desk) -> None:
    code, told = await said(desk, "case", "[/]")
    assert (code, told) == (1, "Error: There is no case [/].\n")
    code, told = await said(desk, "cases", "--state", "mine")
    assert code == 2
    assert "There is no state 'mine'; known are open, all, searching" in told
