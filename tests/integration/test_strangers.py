"""Strangers at intake's door: what they can send is bounded, what they send delays nobody else."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from services.intake.app import compose
from services.intake.settings import IntakeSettings
from tests.conftest import MakeSettings
from tests.integration.conftest import Door, one, open_door, rows, run

KOBA = {"latitude": -2.49, "longitude": 106.41}
REPORT: dict[str, Any] = {"category": "homeless", "place": KOBA}
TOKEN = "the agency's token of a test"
SIGNED_IN = {"authorization": f"Bearer {TOKEN}"}
VICTIM = {"phone": "+6281299998888"}
KEY = "01980c5f-8a13-7d24-8f00-0a1b2c3d4e53"

# More say the same: 10,000 were tried.
REPORTS_OF_A_FLOOD = 3_000

Make = Callable[..., Awaitable[Door]]


@pytest.fixture
async def opened(settings_without_kafka: MakeSettings) -> AsyncIterator[Make]:
    """``await opened(…)``: intake with these settings, all on one empty database."""
    doors: list[Door] = []

    async def make(**settings: Any) -> Door:
        settings = {"agency_token": TOKEN, **settings}
        doors.append(open_door(compose(await settings_without_kafka(IntakeSettings, **settings))))
        return doors[-1]

    yield make
    for door in doors:
        await door.close()


def from_address(door: Door, address: str) -> httpx2.AsyncClient:
    """A client that sits at this address."""
    transport = httpx2.ASGITransport(
        app=door.service.app(), raise_app_exceptions=False, client=(address, 40_000)
    )
    return httpx2.AsyncClient(transport=transport, base_url="http://test")


async def post(http: httpx2.AsyncClient, body: Any = None, **headers: str) -> httpx2.Response:
    return await http.post(
        "/v1/reports",
        json=body or REPORT,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def held(door: Door) -> list[str | None]:
    """Why each report is to be looked at first, in the order in which they came."""
    found = await rows(door.database, "SELECT payload FROM outbox ORDER BY id")
    return [json.loads(row.payload)["data"].get("review") for row in found]


def refused(answer: httpx2.Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


# --- drills ---------------------------------------------------------------------------------------


async def test_a_drill_of_a_stranger_is_refused_and_stored_nowhere(opened: Make) -> None:
    door = await opened()
    for header in ({}, {"authorization": "Bearer another"}, {"authorization": "Bearer "}):
        refused(await post(door.http, REPORT | {"drill": True}, **header), 403, "agency")
    assert await one(door.database, "SELECT count(*) FROM reports") == 0


async def test_a_drill_of_the_agency_is_taken(opened: Make) -> None:
    door = await opened()
    assert (await post(door.http, REPORT | {"drill": True}, **SIGNED_IN)).status_code == 202
    assert await one(door.database, "SELECT drill FROM reports")


async def test_without_a_token_drills_are_for_a_developers_machine_only(opened: Make) -> None:
    door = await opened(agency_token=None)
    assert (await post(door.http, REPORT | {"drill": True})).status_code == 202
    real = await opened(agency_token=None, environment="production", public_url="https://a.example")
    refused(await post(real.http, REPORT | {"drill": True}), 403, "agency")
    assert (await post(real.http)).status_code == 202


async def test_a_wrong_token_is_said_and_not_taken_for_a_stranger(opened: Make) -> None:
    door = await opened()
    refused(await post(door.http, authorization="Bearer another"), 403, "token")


# --- too many -------------------------------------------------------------------------------------


async def test_too_many_reports_from_one_address_are_kept_for_the_duty_officer(
    opened: Make,
) -> None:
    door = await opened(reports_per_address="3/hour", floods_per_address="5/hour")
    answers = [await post(door.http) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [202] * 5 + [429] * 3
    assert await held(door) == [None] * 3 + ["too_many_from_one_address"] * 2
    for answer in answers[5:]:
        refused(answer, 429, "too many")
        assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert await one(door.database, "SELECT count(*) FROM reports") == 5


async def test_a_flood_from_one_address_holds_up_no_report_of_another(opened: Make) -> None:
    door = await opened()
    flood = from_address(door, "203.0.113.7")
    gate = asyncio.Semaphore(16)

    async def send() -> int:
        async with gate:
            return (await post(flood)).status_code

    statuses = Counter(await asyncio.gather(*(send() for _ in range(REPORTS_OF_A_FLOOD))))
    other = from_address(door, "198.51.100.9")
    assert (await post(other)).status_code == 202
    limits = IntakeSettings()
    under_way = limits.database_pool_size
    stored = await one(door.database, "SELECT count(*) FROM reports") - 1
    assert statuses == {202: stored, 429: REPORTS_OF_A_FLOOD - stored}
    assert limits.floods_per_address.amount <= stored < limits.floods_per_address.amount + under_way
    why = await held(door)
    assert why[-1] is None  # the other's goes straight to the volunteers
    let_through = why[:-1].count(None)
    assert let_through < limits.reports_per_address.amount + under_way
    # Nothing of what is refused is ahead of it on its way to assignment.
    assert len(why) == stored + 1


async def test_a_restart_and_a_second_replica_count_on(opened: Make) -> None:
    settings = {"reports_per_address": "2/hour", "floods_per_address": "3/hour"}
    first, second = await opened(**settings), await opened(**settings)
    for door in (first, second, first):
        assert (await post(door.http)).status_code == 202
    third = await opened(**settings)
    assert (await post(third.http)).status_code == 429
    assert (await held(first))[2] == "too_many_from_one_address"


async def test_after_the_hour_an_address_begins_anew(opened: Make) -> None:
    door = await opened(reports_per_address="1/hour", floods_per_address="2/hour")
    assert [(await post(door.http)).status_code for _ in range(3)] == [202, 202, 429]
    await run(door.database, "UPDATE reports SET received_at = received_at - interval '1 hour'")
    assert (await post(door.http)).status_code == 202
    assert (await held(door))[-1] is None


async def test_an_ipv6_network_counts_as_one_address(opened: Make) -> None:
    door = await opened(reports_per_address="1/hour", floods_per_address="2/hour")
    same = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::3"]
    got = [(await post(from_address(door, address))).status_code for address in same]
    assert got == [202, 202, 429]
    assert (await post(from_address(door, "2001:db8:1:3::1"))).status_code == 202
    # An IPv4 address is the same one however it is written.
    assert (await post(from_address(door, "192.0.2.1"))).status_code == 202
    assert (await post(from_address(door, "::ffff:192.0.2.1"))).status_code == 202
    assert (await post(from_address(door, "192.0.2.1"))).status_code == 429


async def test_who_forwards_is_believed_only_if_they_are_trusted(opened: Make) -> None:
    strict = {"reports_per_address": "1/hour", "floods_per_address": "1/hour"}
    door = await opened(**strict)
    assert (await post(door.http, x_forwarded_for="192.0.2.1")).status_code == 202
    assert (await post(door.http, x_forwarded_for="192.0.2.2")).status_code == 429
    behind = await opened(**strict, trusted_proxies="127.0.0.0/8, 10.0.0.1")
    assert (await post(behind.http, x_forwarded_for="192.0.2.3, 10.0.0.1")).status_code == 202
    # What stands before the first one that is not ours is only said by the client.
    said = "198.51.100.1, 192.0.2.3, 10.0.0.1"
    assert (await post(behind.http, x_forwarded_for=said)).status_code == 429
    assert (await post(behind.http, x_forwarded_for="192.0.2.4")).status_code == 202


@pytest.mark.parametrize("proxies", ["*", "proxy", "10.0.0.0/99", "0.0.0.0/0", "::/0"])
def test_trusting_everybody_or_something_unreadable_is_refused_at_the_start(proxies: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        IntakeSettings(trusted_proxies=proxies)


@pytest.mark.parametrize("contact", [VICTIM, {"email": "korban@example.org"}], ids=["sms", "mail"])
async def test_too_many_reports_for_one_contact_are_looked_at_first(
    opened: Make, contact: dict[str, str]
) -> None:
    door = await opened(reports_per_contact="2/day")
    for number in range(4):
        caller = from_address(door, f"192.0.2.{number}")
        assert (await post(caller, REPORT | {"reporter": contact})).status_code == 202
    assert await held(door) == [None] * 2 + ["too_many_for_one_contact"] * 2
    shouted = {"email": "KORBAN@example.org"} if "email" in contact else {"phone": "081299998888"}
    await post(from_address(door, "192.0.2.9"), REPORT | {"reporter": shouted})
    assert (await held(door))[-1] == "too_many_for_one_contact"


async def test_more_than_a_district_can_take_in_a_minute_is_looked_at_first(opened: Make) -> None:
    door = await opened()
    a_minute = 60
    for number in range(a_minute + 2):
        caller = from_address(door, f"192.0.{number // 200}.{number % 200}")
        assert (await post(caller)).status_code == 202
    assert await held(door) == [None] * a_minute + ["too_many_in_the_district"] * 2
    await run(door.database, "UPDATE reports SET received_at = received_at - interval '1 minute'")
    await post(from_address(door, "192.0.9.1"))
    assert (await held(door))[-1] is None


async def test_what_is_held_back_of_one_address_uses_nothing_up_of_the_district(
    opened: Make,
) -> None:
    door = await opened(floods_per_address="200/hour")
    flood = from_address(door, "203.0.113.7")
    for _ in range(100):
        await post(flood)
    assert (await held(door)).count(None) == IntakeSettings().reports_per_address.amount
    await post(from_address(door, "198.51.100.9"))
    assert (await held(door))[-1] is None


async def test_the_agencys_own_desk_has_no_limit(opened: Make) -> None:
    door = await opened(reports_per_address="1/hour", floods_per_address="1/hour")
    for _ in range(80):
        answer = await post(door.http, REPORT | {"reporter": VICTIM}, **SIGNED_IN)
        assert answer.status_code == 202
    assert set(await held(door)) == {None}
    # And uses nothing up of what others have.
    assert (await post(door.http)).status_code == 202


async def test_the_address_of_a_caller_is_forgotten_after_a_day(opened: Make) -> None:
    door = await opened()
    await post(door.http)
    (purge,) = door.service.purges[:1]
    for shift, left in (("23 hours", 1), ("2 hours", 0)):
        await run(
            door.database,
            "UPDATE reports SET received_at = received_at - CAST(CAST(:s AS text) AS interval)",
            s=shift,
        )
        async with door.database.transaction() as session:
            await purge(session)
        known = "SELECT count(*) FROM reports WHERE caller IS NOT NULL"
        assert await one(door.database, known) == left


# --- the same report again ------------------------------------------------------------------------


async def test_a_key_of_another_does_not_answer_me(opened: Make) -> None:
    door = await opened()
    mine, theirs = from_address(door, "192.0.2.1"), from_address(door, "192.0.2.2")
    first = await post(theirs, idempotency_key=KEY)
    other = REPORT | {"people": 2}
    answer = await post(mine, other, idempotency_key=KEY)
    assert answer.status_code == 202
    assert answer.json()["case_id"] != first.json()["case_id"]
    assert (await post(mine, other, idempotency_key=KEY)).json() == answer.json()
    assert (await post(theirs, idempotency_key=KEY)).json() == first.json()


async def test_a_caller_who_uses_a_key_twice_is_told(opened: Make) -> None:
    door = await opened()
    await post(door.http, idempotency_key=KEY)
    refused(await post(door.http, REPORT | {"people": 2}, idempotency_key=KEY), 422, "was used")


async def test_a_retry_from_a_new_address_is_still_one_report(opened: Make) -> None:
    door = await opened()
    first = await post(from_address(door, "192.0.2.1"), idempotency_key=KEY)
    again = await post(from_address(door, "2001:db8::5"), idempotency_key=KEY)
    assert again.json() == first.json()
    assert await one(door.database, "SELECT count(*) FROM reports") == 1


@pytest.mark.parametrize("key", ["try-1", "k", "x" * 15])
async def test_a_key_that_could_be_guessed_is_refused(opened: Make, key: str) -> None:
    door = await opened()
    refused(await post(door.http, idempotency_key=key), 422, "16 characters")
    assert await one(door.database, "SELECT count(*) FROM reports") == 0


async def test_the_agencys_keys_are_its_own(opened: Make) -> None:
    door = await opened()
    stranger = await post(door.http, idempotency_key=KEY)
    desk = await post(door.http, idempotency_key=KEY, **SIGNED_IN)
    assert desk.json()["case_id"] != stranger.json()["case_id"]
    assert (await post(door.http, idempotency_key=KEY, **SIGNED_IN)).json() == desk.json()
    # From wherever the desk sits.
    elsewhere = from_address(door, "192.0.2.2")
    assert (await post(elsewhere, idempotency_key=KEY, **SIGNED_IN)).json() == desk.json()
    changed = await post(elsewhere, REPORT | {"people": 2}, idempotency_key=KEY, **SIGNED_IN)
    refused(changed, 422, "was used")


async def test_a_report_that_was_taken_is_answered_again_in_the_middle_of_a_flood(
    opened: Make,
) -> None:
    door = await opened(reports_per_address="1/hour", floods_per_address="1/hour")
    first = await post(door.http, idempotency_key=KEY)
    assert (await post(door.http)).status_code == 429
    assert (await post(door.http, idempotency_key=KEY)).json() == first.json()


async def test_a_key_from_before_the_upgrade_still_gives_the_same_case(opened: Make) -> None:
    door = await opened()
    first = await post(door.http, idempotency_key=KEY)
    # As the release before stored it: nothing is known of who sent it.
    await run(door.database, "UPDATE reports SET caller = NULL")
    assert (await post(door.http, idempotency_key=KEY)).json() == first.json()


# --- codes ----------------------------------------------------------------------------------------


async def test_codes_have_ten_characters_and_old_ones_still_work(opened: Make) -> None:
    door = await opened()
    receipt = (await post(door.http)).json()
    assert len(receipt["code"]) == 10
    await run(door.database, "UPDATE reports SET code = 'ABCD2345'")
    assert (await door.http.get("/v1/reports/abcd-2345")).status_code == 200


async def test_whoever_tries_codes_is_stopped_and_others_are_not(opened: Make) -> None:
    door = await opened(unknown_codes_per_address="3/hour")
    code = (await post(door.http)).json()["code"]
    guesser = from_address(door, "203.0.113.7")
    got = [(await guesser.get(f"/v1/reports/AAAAAAAA{n}")).status_code for n in range(5)]
    assert got == [404] * 3 + [429] * 2
    # Not even a right guess is answered now.
    answer = await guesser.get(f"/v1/reports/{code}")
    refused(answer, 429, "too many")
    assert 0 < int(answer.headers["retry-after"]) <= 3600
    assert (await door.http.get(f"/v1/reports/{code}")).status_code == 200
    assert (await guesser.get(f"/v1/reports/{code}", headers=SIGNED_IN)).status_code == 200
    # In another process, and until the hour is over.
    second = await opened(unknown_codes_per_address="3/hour")
    again = from_address(second, "203.0.113.7")
    assert (await again.get(f"/v1/reports/{code}")).status_code == 429
    await run(second.database, "UPDATE limit_hits SET expires_at = expires_at - interval '1 hour'")
    assert (await again.get(f"/v1/reports/{code}")).status_code == 200


async def test_looking_at_ones_own_report_is_never_too_often(opened: Make) -> None:
    door = await opened(unknown_codes_per_address="1/hour")
    code = (await post(door.http)).json()["code"]
    for _ in range(20):
        assert (await door.http.get(f"/v1/reports/{code}")).status_code == 200


# --- the documents --------------------------------------------------------------------------------


def test_the_document_says_what_is_refused_and_when_to_come_again() -> None:
    document = open_door(compose(IntakeSettings())).service.app().openapi()
    post, get = (document["paths"][path] for path in ("/v1/reports", "/v1/reports/{code}"))
    for operation, statuses in (
        (post["post"], ("403", "429")),
        (get["get"], ("403", "404", "429")),
    ):
        for status in statuses:
            assert "application/problem+json" in operation["responses"][status]["content"]
        assert "Retry-After" in operation["responses"]["429"]["headers"]
