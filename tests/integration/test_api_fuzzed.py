"""The three OpenAPI documents hold under whatever is sent: no 5xx, no answer that is not in them.

Generated requests and real ones are mixed: reports of a district, codes and ids that there are,
the agency's token, and real reports of which one part was replaced. ``JANGKAU_FUZZ_EXAMPLES`` is
how many are sent to each operation (CONTRIBUTING.md).
"""

import asyncio
import copy
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import hypothesis
import limits
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ops.demo import SAMPLE
from ops.synthetic import read_reports
from services.assignment.app import compose as compose_assignment
from services.assignment.settings import AssignmentSettings
from services.intake.app import compose as compose_intake
from services.intake.settings import IntakeSettings
from services.notification.app import compose as compose_notification
from services.notification.settings import NotificationSettings
from shared.districts import District
from shared.settings import SERVICES
from tests import factories
from tests.conftest import MakeSettings
from tests.integration.cases import people, report, with_policy
from tests.integration.conftest import Door, open_door, rows
from tests.integration.sending import Senders

EXAMPLES = int(os.environ.get("JANGKAU_FUZZ_EXAMPLES", "30"))
TOKEN = "the token of the agency"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
PLENTY = limits.parse("1000000/hour")
REAL_REPORTS = [
    {name: value for name, value in planned.body.items() if name != "area"}
    for planned in read_reports(SAMPLE)[:60]
]


@dataclass
class Target:
    """A service with something in it. ``known`` are values of parameters that there are,
    ``bodies`` are real ones by the operation's path."""

    door: Door
    known: dict[str, list[str]] = field(default_factory=dict)
    bodies: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def schema(self) -> Any:
        app = cast("Any", self.door.http)._transport.app
        return schemathesis.openapi.from_dict(app.openapi())


async def intake_with_reports(make: MakeSettings) -> Target:
    settings = await make(
        IntakeSettings,
        agency_token=SecretStr(TOKEN),
        reports_per_address=PLENTY,
        floods_per_address=PLENTY,
        reports_per_contact=PLENTY,
        unknown_codes_per_address=PLENTY,
    )
    door = open_door(compose_intake(settings))
    codes = []
    for body in REAL_REPORTS[:5]:
        answer = await door.http.post("/v1/reports", json=body)
        assert answer.status_code == 202, answer.text
        codes.append(answer.json()["code"])
    return Target(door, {"code": codes}, {"/v1/reports": REAL_REPORTS})


async def assignment_with_cases(make: MakeSettings, districts: dict[str, District]) -> Target:
    settings = await make(AssignmentSettings, agency_token=SecretStr(TOKEN))
    door = open_door(compose_assignment(settings))
    volunteers = await people(door.database, 5)
    await report(
        door.database,
        with_policy(districts),
        *(factories.case_reported(code=f"ABCD234{number}") for number in range(2, 7)),
    )
    codes = [row.code for row in await rows(door.database, "SELECT code FROM cases")]
    note = {"by": "Bu Ani", "why": "sudah ditelepon"}
    return Target(
        door,
        {"code": codes, "after": codes, "volunteer_id": [str(id_) for id_ in volunteers]},
        {
            "/v1/cases/{code}/assign": [{**note, "volunteer_id": str(id_)} for id_ in volunteers],
            "/v1/cases/{code}/close": [{**note, "outcome": "resolved"}],
            "/v1/cases/{code}/release": [note],
            "/v1/cases/{code}/notes": [note],
            "/v1/volunteers/{volunteer_id}": [
                {"on_duty": False},
                {"name": "Siti", "duty": "mon-fri 08:00-17:00"},
                {"village": "Nibung", "capacity": 2},
            ],
        },
    )


async def notification_with_phones(make: MakeSettings) -> Target:
    settings = await make(NotificationSettings)
    door = open_door(compose_notification(settings))
    offers = [factories.offer_made() for _ in range(3)]
    senders = Senders(door.database, settings)
    await senders.queue(*offers)
    await senders.send("sandbox")
    await senders.close()
    ids = [str(offer.data.offer_id) for offer in offers]
    return Target(
        door,
        {"phone": ["+6281200000007"], "after": ["0", "1"]},
        {
            "/sandbox/replies": [{"address": "+6281200000007", "text": "ya siap"}],
            "/sandbox/answers": [
                answer
                for id_ in ids
                for answer in (
                    {"offer_id": id_, "answer": "accept"},
                    {"offer_id": id_, "answer": "done", "outcome": "resolved"},
                    {"offer_id": id_, "answer": "obstacle", "words": "banjir"},
                )
            ],
        },
    )


@pytest.fixture(params=SERVICES)
async def target(
    request: pytest.FixtureRequest,
    settings_without_kafka: MakeSettings,
    districts: dict[str, District],
) -> AsyncIterator[Target]:
    match request.param:
        case "intake":
            made = await intake_with_reports(settings_without_kafka)
        case "assignment":
            made = await assignment_with_cases(settings_without_kafka, districts)
        case _:
            made = await notification_with_phones(settings_without_kafka)
    yield made
    await made.door.close()


# What people and programs really put where it does not belong.
_ODD: st.SearchStrategy[Any] = st.sampled_from(
    ["", " ", "\x00", "\ud800", "a\udfff", "\u202e", "\u200b", "e\u0301" * 9, "👨\u200d👩", "'; --",
     "9" * 400, -1, 0, 1e308, 2**63, True, None, [], {}, [[]], {"\ud800": 1}, "x" * 3000]
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, bodies: list[Any]) -> Any:
    """A real body in which one part was replaced, left out or added."""
    body = copy.deepcopy(draw(st.sampled_from(bodies)))
    inside, key = body, draw(st.sampled_from([*body, "another"]))
    if isinstance(body.get(key), dict) and draw(st.booleans()):
        inside = body[key]
        key = draw(st.sampled_from([*inside, "another"]))
    if draw(st.booleans()):
        inside[key] = draw(_ODD | st.text(max_size=20))
    else:
        inside.pop(key, None)
    return body


def _cases(target: Target, operation: Any) -> st.SearchStrategy[tuple[Any, Any]]:
    """Requests for an operation, each with what takes the place of its body, if anything does."""
    made = st.one_of(
        operation.as_strategy(schemathesis.GenerationMode.POSITIVE),
        operation.as_strategy(schemathesis.GenerationMode.NEGATIVE),
    )
    bodies = target.bodies.get(operation.path)
    real = st.sampled_from(bodies) if bodies else st.nothing()
    body = st.one_of(st.none(), real, real, spoilt(bodies)) if bodies else st.none()
    return st.tuples(made, body)


def _send(target: Target, loop: asyncio.AbstractEventLoop, case: Any, body: Any, pick: Any) -> Any:
    """What the service answers to a case in which some of what there is was put."""
    for values in (case.path_parameters, case.query):
        for name in values or ():
            if name in target.known and pick(st.integers(0, 4)):
                values[name] = pick(st.sampled_from(target.known[name]))
    given = case.as_transport_kwargs(base_url="http://test")
    if body is not None:
        given.pop("data", None)
        given.pop("files", None)
        given["json"] = None
        given["data"] = json.dumps(body)
        given["headers"] = {**given["headers"], "content-type": "application/json"}
    prepared = requests.Request(**{k: v for k, v in given.items() if k != "timeout"}).prepare()
    headers = [
        (name.encode("latin-1", "replace"), str(value).encode("latin-1", "replace"))
        for name, value in prepared.headers.items()
        if name.lower() != "authorization"
    ]
    shown = pick(st.sampled_from([*[TOKEN] * 7, "", "wrong", None]))
    if shown is not None:
        headers.append((b"authorization", f"Bearer {shown}".encode()))
    sending = target.door.http.request(
        str(prepared.method), str(prepared.url), headers=headers, content=cast("Any", prepared.body)
    )
    return asyncio.run_coroutine_threadsafe(sending, loop).result(timeout=60)


def _fuzz(target: Target, loop: asyncio.AbstractEventLoop) -> dict[str, set[int]]:
    """The statuses that each operation has answered."""
    return {
        found.ok().label: _fuzz_one(target, loop, found.ok())
        for found in target.schema.get_all_operations()
    }


def _fuzz_one(target: Target, loop: asyncio.AbstractEventLoop, operation: Any) -> set[int]:
    seen: set[int] = set()

    @hypothesis.settings(
        max_examples=EXAMPLES,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(drawn=_cases(target, operation), data=st.data())
    def hold(drawn: tuple[Any, Any], data: st.DataObject) -> None:
        case, body = drawn
        answer = _send(target, loop, case, body, data.draw)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    hold()
    return seen


# Hypothesis warns of a request that is long to print.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
async def test_every_answer_is_in_the_document_and_none_is_a_failure_of_ours(
    target: Target,
) -> None:
    seen = await asyncio.to_thread(_fuzz, target, asyncio.get_running_loop())
    for label, statuses in seen.items():
        # A conflict is the case's own answer, behind all doors.
        inside = [status for status in statuses if status < 400 or status == 409]
        assert inside, f"{label} was never let through: {seen}"
    assert any(status >= 400 for statuses in seen.values() for status in statuses)


async def test_real_reports_are_taken_beside_all_that(
    settings_without_kafka: MakeSettings,
) -> None:
    target = await intake_with_reports(settings_without_kafka)
    for body in REAL_REPORTS:
        answer = await target.door.http.post("/v1/reports", json=body)
        assert answer.status_code == 202, answer.text
    await target.door.close()
