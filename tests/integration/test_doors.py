"""What every door of every service does, whatever stands behind it."""

import asyncio
import json
import socket
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from services.notification.settings import NotificationSettings
from shared import metrics_server
from shared.errors import HEADERS, PROBLEM_JSON
from shared.settings import CannotStart, Settings
from tests.integration.conftest import Door
from tests.integration.test_intake_api import REPORT

KEPT_OFF = {name: value for name, value in HEADERS.items() if name != "Content-Security-Policy"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def documented(door: Door) -> dict[str, dict[str, Any]]:
    app = door.http._transport.app  # type: ignore[attr-defined]
    assert isinstance(app, FastAPI)
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return paths


def kept_off(answer: httpx2.Response) -> bool:
    """Whether caches, browsers and other sites are told to keep their hands off."""
    policy = answer.headers.get("content-security-policy", "")
    return (
        {name: answer.headers.get(name) for name in KEPT_OFF} == KEPT_OFF
        and "default-src 'none'" in policy
        and "frame-ancestors 'none'" in policy
        and "base-uri 'none'" in policy
        and "script-src" not in policy
    )


async def test_every_answer_tells_others_to_keep_their_hands_off(door: Door) -> None:
    for path in (*documented(door), "/openapi.json", "/nothing/here", "/r/x", "/v/x", "/sandbox"):
        for method in (*METHODS, "OPTIONS", "TRACE", "BREW"):
            for body in (None, b"{", b"x" * 70_000):
                asked = path.replace("{code}", "ABC")
                answer = await door.http.request(method, asked, content=body)
                assert kept_off(answer), (method, path, answer.status_code, answer.headers)


async def test_so_does_an_answer_to_what_is_broken_on_our_side(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(door.service.database, "statement", broken)
    answer = await door.http.get("/health/ready")
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM_JSON)
    assert kept_off(answer)


async def test_options_and_405_name_the_methods_that_there_are(door: Door) -> None:
    for path, operations in documented(door).items():
        there = {method.upper() for method in operations} | {"OPTIONS"}
        asked = path.replace("{volunteer_id}", "01980b00-0000-7000-8000-0000000000a7")
        answer = await door.http.options(asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert set(answer.headers["allow"].split(", ")) == there, path
        for method in {*METHODS, "TRACE", "BREW"} - there:
            answer = await door.http.request(method, asked)
            assert (answer.status_code, answer.headers["content-type"]) == (405, PROBLEM_JSON)
            assert set(answer.headers["allow"].split(", ")) == there, path
    assert (await door.http.options("/nothing/here")).status_code == 404


async def test_the_public_port_shows_no_metrics(door: Door) -> None:
    for path in ("/metrics", "/metrics/", "/health/../metrics"):
        assert (await door.http.get(path)).status_code == 404


async def test_metrics_have_a_port_of_their_own(door: Door) -> None:
    with metrics_server.serving("127.0.0.1", 0) as port:
        async with httpx2.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{port}/metrics")
        assert 'jangkau_loop_age_seconds{loop="relay"}' in answer.text
        with pytest.raises(CannotStart, match="JANGKAU_METRICS_PORT"):
            await asyncio.to_thread(metrics_server.serving("127.0.0.1", port).__enter__)
    with socket.socket() as closed:
        assert closed.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("given", "port"),
    [({"port": 8001}, 9001), ({"port": 8001, "metrics_port": 7}, 7), ({"port": 0}, 0)],
)
def test_the_port_of_metrics_is_beside_that_of_the_service(
    given: dict[str, Any], port: int
) -> None:
    assert Settings(**given).port_of_metrics == port


@pytest.mark.parametrize("given", [{"port": 8000, "metrics_port": 8000}, {"port": 65_000}])
def test_metrics_are_never_behind_the_public_port(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="JANGKAU_METRICS_PORT"):
        NotificationSettings(**given)


# --- what is no text ------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["x=%00", "x=%ED%A0%80", "%FF=1", "secret=%C3"])
async def test_a_query_that_is_no_text_is_refused(door: Door, query: str) -> None:
    for path, operations in documented(door).items():
        for method in operations:
            answer = await door.http.request(method, f"{path}?{query}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM_JSON)


HALVES = ["\ud800", "a\udfffb", "\ud83d", "\x00", "\udc00\ud800"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    "where",
    ["category", "description", "channel", "district", "place", "village", "name", "phone",
     "email", "language", "a key", "the key of a person", "the whole body"],
)  # fmt: skip
async def test_half_a_character_anywhere_in_a_report_is_refused(
    intake: Door, where: str, half: str
) -> None:
    report: dict[str, Any] = json.loads(json.dumps(REPORT))
    reporter = report.setdefault("reporter", {})
    match where:
        case "place" | "the whole body":
            report["place"] = half
        case "village":
            report["place"] = {"village": half}
        case "name" | "phone" | "email" | "language":
            reporter[where] = half
        case "a key":
            report[half] = 1
        case "the key of a person":
            reporter[half] = half
        case _:
            report[where] = half
    body = json.dumps(half if where == "the whole body" else report)
    answer = await intake.http.post(
        "/v1/reports", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert answer.json()["errors"]


@pytest.mark.parametrize("path", ["%ED%A0%80", "%00", "%ff", "a%00b", "%F0%9F%98%80", "%E2%80%AE"])
async def test_a_code_that_is_no_text_is_no_code(intake: Door, path: str) -> None:
    answer = await intake.http.get(f"/v1/reports/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == PROBLEM_JSON


async def test_what_deceives_is_refused_where_it_is_typed(intake: Door) -> None:
    for field, text in (("name", "Siti \u202eitakuS"), ("name", "Si\u200dti")):
        report = {**REPORT, "reporter": {field: text}}
        answer = await intake.http.post("/v1/reports", json=report)
        assert answer.status_code == 422
        assert "cannot be seen" in answer.json()["detail"]
    answer = await intake.http.post("/v1/reports", json={**REPORT, "description": "a\u2066b"})
    assert answer.status_code == 422
    answer = await intake.http.post("/v1/reports", json={**REPORT, "description": "👨‍👩‍👧 ❤️"})
    assert answer.status_code == 202
