"""Intake's door: a report that is answered 202 is stored, and nothing else is."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from services.intake import reports
from services.intake.app import compose
from services.intake.settings import IntakeSettings
from shared import topics
from shared.events import CaseReported, Reporter
from tests import servers
from tests.conftest import MakeSettings
from tests.factories import public_case
from tests.integration.conftest import Door, one, open_door, rows
from tests.servers import Databases

KOBA = {"latitude": -2.49, "longitude": 106.41}
REPORT: dict[str, Any] = {"category": "homeless", "place": KOBA}
KEY = "01980c5f-8a13-7d24-8f00-0a1b2c3d4e53"


async def send(door: Door, body: Any = None, *, key: str | None = None) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await door.http.post("/v1/reports", json=body or REPORT, headers=headers)


async def stored(door: Door) -> tuple[int, int]:
    """How many reports and outbox rows there are."""
    return (
        await one(door.database, "SELECT count(*) FROM reports"),
        await one(door.database, "SELECT count(*) FROM outbox"),
    )


@pytest.fixture(scope="module")
async def untouched(databases: Databases) -> AsyncIterator[Door]:
    """Intake with one database for all tests that must leave nothing in it."""
    name = f"jangkau_{databases.run}_untouched"
    await databases.create("intake", f"{name}_intake")
    url = f"{databases.server}/{name}_{{service}}"
    door = open_door(compose(IntakeSettings(database_url=url)))
    yield door
    await door.close()
    await databases.drop([f"{name}_intake"])


# --- a good report --------------------------------------------------------------------------------


async def test_a_report_is_answered_with_its_case_code_and_status_address(intake: Door) -> None:
    answer = await send(intake)
    assert answer.status_code == 202
    receipt = answer.json()
    assert UUID(receipt["case_id"]).version == 7
    assert receipt["status_url"] == f"http://127.0.0.1/v1/reports/{receipt['code']}"
    assert answer.headers["location"] == receipt["status_url"]
    assert len(receipt["code"]) == 10


async def test_a_report_is_stored_together_with_its_event(intake: Door) -> None:
    answer = await send(
        intake,
        {
            "category": "mental_illness",
            "urgency": "urgent",
            "people": 2,
            "place": {"village": "19.04.01.1002"},
            "description": "Tidur di pasar",
            "reporter": {"name": "Budi", "phone": "0812 3456 7890", "email": "budi@example.org"},
            "channel": "hotline",
            "drill": True,
        },
    )
    receipt = answer.json()
    (report,) = await rows(intake.database, "SELECT *, xmin::text AS tx FROM reports")
    (row,) = await rows(intake.database, "SELECT *, xmin::text AS tx FROM outbox")
    assert report.tx == row.tx  # one transaction: neither is ever there without the other
    assert str(report.case_id) == receipt["case_id"]
    assert report.reporter_phone == "+6281234567890"
    assert report.description == "Tidur di pasar"
    assert report.approximate
    assert (row.topic, row.key, row.published_at) == ("intake.cases", receipt["case_id"], None)
    event = topics.INTAKE_CASES.decode(row.payload.encode())
    assert isinstance(event, CaseReported)
    assert event.id == row.event_id
    assert event.time == report.received_at
    assert event.drill
    assert event.district == "19.04"
    assert event.data.code == receipt["code"]
    assert event.data.place.village == "19.04.01.1002"
    assert event.data.urgency == "urgent"


async def test_an_event_says_nothing_of_the_story_and_of_a_reporter_without_contact(
    intake: Door,
) -> None:
    body = {**REPORT, "description": "CANARY-STORY", "reporter": {"name": "CANARY-NAME"}}
    assert (await send(intake, body)).status_code == 202
    payload = await one(intake.database, "SELECT payload FROM outbox")
    assert "CANARY" not in payload
    assert "reporter" not in json.loads(payload)["data"]


@pytest.mark.parametrize(
    ("given", "language", "wants_news"),
    [
        ({"phone": "0812 9999 8888"}, "id", True),
        ({"phone": "0812 9999 8888", "language": "en", "wants_news": False}, "en", False),
        ({"email": "budi@example.org", "name": "Budi", "language": "en"}, "en", True),
    ],
)
async def test_an_event_carries_whoever_left_a_contact_and_what_they_want(
    intake: Door, given: dict[str, Any], language: str, wants_news: bool
) -> None:
    assert (await send(intake, {**REPORT, "reporter": given})).status_code == 202
    event = topics.INTAKE_CASES.decode(
        (await one(intake.database, "SELECT payload FROM outbox")).encode()
    )
    assert isinstance(event, CaseReported)
    assert event.data.reporter == Reporter(
        name=given.get("name"),
        phone="+6281299998888" if "phone" in given else None,
        email=given.get("email"),
        language=language,
        wants_news=wants_news,
    )
    (report,) = await rows(intake.database, "SELECT * FROM reports")
    assert (report.reporter_language, report.reporter_wants_news) == (language, wants_news)


async def test_a_report_continues_the_callers_trace(intake: Door) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await intake.http.post("/v1/reports", json=REPORT, headers={"traceparent": trace})
    payload = await one(intake.database, "SELECT payload FROM outbox")
    assert json.loads(payload)["traceparent"] == trace


async def test_status_links_begin_with_the_public_address(
    settings_without_kafka: MakeSettings,
) -> None:
    settings = await settings_without_kafka(
        IntakeSettings, environment="production", public_url="https://lapor.example/"
    )
    door = open_door(compose(settings))
    receipt = (await send(door)).json()
    assert receipt["status_url"] == f"https://lapor.example/v1/reports/{receipt['code']}"
    await door.close()


@pytest.mark.parametrize(
    ("host", "begins"),
    [
        ("evil.example", "http://127.0.0.1/"),
        ("localhost.evil.example", "http://127.0.0.1/"),
        ("127.0.0.1:80@evil.example", "http://127.0.0.1/"),
        ("127.0.0.1:x", "http://127.0.0.1/"),
        ("[::1", "http://127.0.0.1/"),
        ("", "http://127.0.0.1/"),
        ("localhost:8001", "http://localhost:8001/"),
        ("[::1]:8001", "http://[::1]:8001/"),
    ],
)
async def test_a_strangers_host_header_decides_no_link(
    intake: Door, host: str, begins: str
) -> None:
    answer = await intake.http.post("/v1/reports", json=REPORT, headers={"host": host})
    assert answer.status_code == 202
    code = answer.json()["code"]
    assert answer.json()["status_url"] == f"{begins}v1/reports/{code}"
    assert answer.headers["location"] == answer.json()["status_url"]


# --- the same report again ------------------------------------------------------------------------


async def test_the_same_key_and_body_give_the_same_case_and_one_report(intake: Door) -> None:
    first, again = await send(intake, key=KEY), await send(intake, key=KEY)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert await stored(intake) == (1, 1)


async def test_fifty_at_once_with_the_same_key_are_one_case(intake: Door) -> None:
    answers = await asyncio.gather(*(send(intake, key=KEY) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["case_id"] for answer in answers}) == 1
    assert await stored(intake) == (1, 1)


async def test_the_same_key_with_another_body_is_refused(intake: Door) -> None:
    await send(intake, key=KEY)
    answer = await send(intake, {**REPORT, "people": 2}, key=KEY)
    assert_refused(answer, 422, field="Idempotency-Key", said="used for another report")
    assert await stored(intake) == (1, 1)


# What the body of a report without the fields that came later was hashed as, when it had none.
BEFORE = (
    '{"category":"homeless","place":{"latitude":-2.49,"longitude":106.41,"village":null,'
    '"subdistrict":null},"district":null,"urgency":"normal","people":1,"description":null,'
    '"reporter":{"name":"Budi","phone":"+6281299998888","email":null},"channel":"web",'
    '"drill":false}'
)


async def test_a_key_from_before_the_upgrade_still_gives_the_same_case(intake: Door) -> None:
    body = {**REPORT, "reporter": {"name": "Budi", "phone": "0812 9999 8888"}}
    first = await send(intake, body, key=KEY)
    stored_hash = await one(intake.database, "SELECT body_hash FROM reports")
    assert stored_hash == hashlib.sha256(BEFORE.encode()).hexdigest()
    assert (await send(intake, body, key=KEY)).json() == first.json()
    for more in ({"language": "en"}, {"wants_news": False}):
        other = {**body, "reporter": {**body["reporter"], **more}}
        assert (await send(intake, other, key=KEY)).status_code == 422


async def test_without_a_key_each_report_is_a_case_of_its_own(intake: Door) -> None:
    first, second = await send(intake), await send(intake)
    assert first.json()["case_id"] != second.json()["case_id"]
    assert await stored(intake) == (2, 2)


# --- what became of it ----------------------------------------------------------------------------


async def test_a_report_is_received_until_its_case_is_known(intake: Door) -> None:
    receipt = (await send(intake)).json()
    answer = await intake.http.get(f"/v1/reports/{receipt['code'].lower()}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["state"] == "received"
    assert found["waiting_for"] is None
    assert found["received_at"] == found["changed_at"]
    assert set(found) == {
        "code",
        "state",
        "waiting_for",
        "category",
        "subdistrict",
        "approximate_place",
        "received_at",
        "changed_at",
    }


async def test_the_public_state_follows_the_feed_and_never_goes_back(intake: Door) -> None:
    receipt = (await send(intake)).json()
    case_id = UUID(receipt["case_id"])
    steps = [
        public_case("searching", version=1, case_id=case_id),
        public_case("waiting", version=2, case_id=case_id, waiting_for="all_volunteers_busy"),
        public_case("offered", version=3, case_id=case_id),
    ]

    async def state() -> tuple[str, str | None]:
        found = (await intake.http.get(f"/v1/reports/{receipt['code']}")).json()
        return found["state"], found["waiting_for"]

    async def remember(*numbers: int) -> None:
        async with intake.database.transaction() as session:
            await reports.remember_states(session, [steps[number] for number in numbers])

    await remember(1, 0)  # out of order in one batch
    assert await state() == ("waiting", "all_volunteers_busy")
    await remember(0)  # late
    assert await state() == ("waiting", "all_volunteers_busy")
    await remember(2)
    assert await state() == ("offered", None)
    await remember(2, 1, 0)  # all again
    assert await state() == ("offered", None)


@pytest.mark.parametrize("code", ["ABCD2345", "x", "%00", "a" * 3000, "%F0%9F%98%80"])
async def test_an_unknown_code_is_a_plain_404(untouched: Door, code: str) -> None:
    answer = await untouched.http.get(f"/v1/reports/{code}")
    assert_refused(answer, 404, said="no report with this code")


# --- bad input ------------------------------------------------------------------------------------


def assert_refused(
    answer: httpx2.Response, status: int, *, field: str | None = None, said: str = ""
) -> None:
    """A problem that a person understands: RFC 9457, with a sentence and the field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert said in problem["detail"]
    assert problem["detail"].endswith(".")
    if field is not None:
        assert field in [error["field"] for error in problem["errors"]], problem
        assert all(error["message"].endswith(".") for error in problem["errors"]), problem


def placed(**place: Any) -> dict[str, Any]:
    return {**REPORT, "place": place}


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (placed(subdistrict="19.04.09"), "place.subdistrict", "known are"),
        (placed(subdistrict="Atlantis"), "place.subdistrict", "is not known"),
        (placed(village="19.04.01.9999"), "place.village", ""),
        (placed(latitude=-6.2, longitude=106.8), "place.latitude", "far outside"),
        (placed(latitude=0, longitude=0), "place.latitude", "far outside"),
        (placed(latitude=91, longitude=0), "place.latitude", ""),
        (placed(latitude=-2.49), "place.longitude", "no longitude"),
        (placed(latitude=10**400, longitude=1), "place.latitude", ""),
        (placed(), "place", "Give a position"),
        (placed(village="x" * 121), "place.village", ""),
        (placed(planet="Mars"), "place.planet", ""),
        ({"place": KOBA}, "category", "required"),
        ({**REPORT, "category": "alien"}, "category", ""),
        ({**REPORT, "urgency": "very"}, "urgency", ""),
        ({**REPORT, "people": 0}, "people", ""),
        ({**REPORT, "people": 10**30}, "people", ""),
        ({**REPORT, "people": 1.5}, "people", ""),
        ({**REPORT, "description": "x" * 2001}, "description", "2000"),
        ({**REPORT, "description": "a\x00b"}, "description", "control characters"),
        ({**REPORT, "description": "a\x1bb"}, "description", "control characters"),
        ({**REPORT, "description": "\ud800"}, "description", ""),
        ({**REPORT, "channel": "x" * 41}, "channel", ""),
        ({**REPORT, "reporter": {"phone": "halo"}}, "reporter.phone", "not a telephone number"),
        ({**REPORT, "reporter": {"phone": "112" * 20}}, "reporter.phone", ""),
        ({**REPORT, "reporter": {"email": "nobody"}}, "reporter.email", ""),
        ({**REPORT, "reporter": {"email": "a\x00@b.c"}}, "reporter.email", ""),
        ({**REPORT, "reporter": {"name": "\x00"}}, "reporter.name", "control characters"),
        ({**REPORT, "reporter": {"language": "fr"}}, "reporter.language", ""),
        ({**REPORT, "reporter": {"wants_news": "perhaps"}}, "reporter.wants_news", ""),
        ({**REPORT, "district": "88.88"}, "place.district", "is not known"),
        ({**REPORT, "shoesize": 43}, "shoesize", ""),
        ([], "body", ""),
        ("text", "body", ""),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_a_report_that_cannot_be_used_names_the_field(
    untouched: Door, body: Any, field: str, said: str
) -> None:
    content = json.dumps(body).encode()
    answer = await untouched.http.post(
        "/v1/reports", content=content, headers={"content-type": "application/json"}
    )
    assert_refused(answer, 422, field=field, said=said)
    assert await stored(untouched) == (0, 0)


def as_json(body: str) -> bytes:
    return body.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"category": "homeless"', 400),
        (b"\xff\xfe\x00", 400),
        (b"\x00", 400),
        (b"[" * 60_000, 400),
        (b'{"a":' * 12_000, 400),
        (b'{"people": ' + b"9" * 60_000 + b"}", 400),
        (b'{"category": "homeless", "place": {"latitude": NaN, "longitude": 106.4}}', 422),
        (b'{"category": "homeless", "place": {"latitude": -2.4, "longitude": Infinity}}', 422),
        (b'{"category": "homeless", "place": {"latitude": -1e999, "longitude": 106.4}}', 422),
        (b'{"category": "homeless", "people": NaN, "place": {"subdistrict": "Koba"}}', 422),
        (b'{"category": "homeless", "place": {"subdistrict": "\\ud800"}}', 422),
        (b'{"\\ud800": 1, "category": "homeless", "place": {"subdistrict": "Koba"}}', 422),
        (b'{"\\u0000": 1, "category": "homeless", "place": {"subdistrict": "Koba"}}', 422),
        (as_json('{"category": "\ud800", "place": {"subdistrict": "Koba"}}'), 422),
        (b'{"category": "homeless", "place": "Koba"}', 422),
        (b'{"category": ["homeless"], "place": {"subdistrict": {"a": "Koba"}}}', 422),
        (b"null", 422),
        (b"3", 422),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_a_body_that_is_no_report_is_refused_without_a_trace(
    untouched: Door, content: bytes, status: int
) -> None:
    answer = await untouched.http.post(
        "/v1/reports", content=content, headers={"content-type": "application/json"}
    )
    assert_refused(answer, status)
    assert await stored(untouched) == (0, 0)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ],
)
async def test_a_body_that_does_not_say_it_is_json_is_refused(
    untouched: Door, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await untouched.http.post(
        "/v1/reports", content=json.dumps(REPORT).encode(), headers=headers
    )
    assert_refused(answer, 415, said="application/json")
    assert await stored(untouched) == (0, 0)


async def test_json_with_a_charset_is_json(intake: Door) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    content = json.dumps(REPORT).encode()
    answer = await intake.http.post("/v1/reports", content=content, headers=headers)
    assert answer.status_code == 202


MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_a_body_of_17_mebibytes_is_refused_before_it_is_read(
    untouched: Door, chunked: bool
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(17 * 16):
            sent += MEBIBYTE // 16
            yield b" " * (MEBIBYTE // 16)

    answer = await untouched.http.post(
        "/v1/reports",
        content=chunks() if chunked else b" " * (17 * MEBIBYTE),
        headers={"content-type": "application/json"},
    )
    assert_refused(answer, 413, said="64 KiB")
    assert sent <= MEBIBYTE
    assert await stored(untouched) == (0, 0)


@pytest.mark.parametrize("key", ["x" * 256, "x" * 15, ""])
async def test_an_unusable_idempotency_key_is_refused(untouched: Door, key: str) -> None:
    answer = await untouched.http.post("/v1/reports", json=REPORT, headers={"Idempotency-Key": key})
    assert_refused(answer, 422, field="idempotency-key")
    assert await stored(untouched) == (0, 0)


async def test_a_key_with_bytes_beyond_ascii_is_a_key(intake: Door) -> None:
    headers = [(b"idempotency-key", "kunci-é-yang-panjang".encode())]
    answer = await intake.http.post("/v1/reports", json=REPORT, headers=headers)
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/reports", 405),
        ("DELETE", "/v1/reports/ABCD2345", 405),
        ("GET", "/nothing", 404),
    ],
)
async def test_what_is_not_there_is_a_problem_too(
    untouched: Door, method: str, path: str, status: int
) -> None:
    assert_refused(await untouched.http.request(method, path), status)


async def test_a_traceparent_that_is_none_does_not_refuse_a_report(intake: Door) -> None:
    answer = await intake.http.post("/v1/reports", json=REPORT, headers={"traceparent": "junk"})
    assert answer.status_code == 202


# --- the database is away -------------------------------------------------------------------------


async def test_without_its_database_intake_asks_to_come_again() -> None:
    settings = IntakeSettings(
        database_url=f"postgresql+asyncpg://x@127.0.0.1:{servers.NOBODY_LISTENS}/jangkau_{{service}}",
        districts=str(servers.PROJECT / "districts"),
    )
    door = open_door(compose(settings))
    for answer in (await send(door), await door.http.get("/v1/reports/ABCD2345")):
        assert_refused(answer, 503, said="try again")
        assert timedelta(seconds=int(answer.headers["retry-after"])) > timedelta(0)
    assert (await door.http.get("/health/ready")).status_code == 503
    await door.close()


async def test_a_full_connection_pool_asks_to_come_again(
    settings_without_kafka: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = await settings_without_kafka(IntakeSettings, database_pool_size=1)
    door = open_door(compose(settings))
    monkeypatch.setattr(door.database.engine.pool, "_timeout", 0.05)
    async with door.database.engine.connect():
        assert_refused(await send(door), 503, said="try again")
    assert await stored(door) == (0, 0)
    await door.close()
