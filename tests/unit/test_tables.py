"""The tables of the commands fit a terminal of 80 columns, and nothing in them is cut off."""

import io
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from uuid_utils.compat import uuid7

from ops import cli_cases, cli_pings, cli_volunteers, status, status_view
from services.assignment.api import ListedVolunteer
from services.assignment.models import Volunteer
from services.assignment.reach import Reach
from services.assignment.story import CaseNow, Person

NOON = datetime(2026, 11, 24, 5, tzinfo=UTC)


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(width=80, file=io.StringIO())
    for module in (cli_cases, cli_pings, cli_volunteers):
        monkeypatch.setattr(module, "out", console)
    return console


def printed(console: Console, *words: str) -> str:
    """What was printed: within 80 columns, no word of it cut short or broken up."""
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for word in words:
        assert word in text, (word, text)
    return text


def a_volunteer(**values: Any) -> Volunteer:
    about: dict[str, Any] = {
        "id": uuid7(), "district": "19.04", "name": "Muhammad Syahrul Effendi", "role": "pensosmas",
        "phone": "+6289000000016", "email": "syahrul.effendi@example.org",
        "village": "Lubuk Pabrik",
        "latitude": -2.5,
        "longitude": 106.4, "categories": [], "trainings": [], "stopped": [],
        "capacity": 2, "open_cases": 0, "open_offers": 0, "on_duty": True, "ready": True,
        "reachable": True, "duty_times": [], "language": "id", "channel": "sms",
        "last_reached_at": NOON,
    }  # fmt: skip
    return Volunteer(**about | values)


# Every way to stand, and the word of the table for it.
STANDINGS: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, None, "ready"),
    ({"on_duty": False}, "off_duty", "off duty"),
    ({"ready": False, "reachable": False, "stopped": ["sms"]}, "wants_no_messages", "wants no"),
    ({"ready": False, "rest_until": NOON + timedelta(hours=8)}, "resting", "rests"),
    ({"ready": False, "off_until": NOON + timedelta(days=8)}, "away", "away"),
    ({"ready": False, "ready_changes_at": NOON}, "outside_duty_times", "outside"),
    ({"open_cases": 2}, "full", "full"),
    ({"open_offers": 3}, "many_offers", "asked"),  # and has not answered
]


@pytest.mark.parametrize(("values", "why_not", "said"), STANDINGS)
def test_ready_is_the_same_in_the_json_and_in_the_table(
    values: dict[str, Any], why_not: str | None, said: str, console: Console
) -> None:
    listed = ListedVolunteer.of(a_volunteer(**values), districts={}, moment=NOON)
    assert (listed.ready, listed.why_not) == (why_not is None, why_not)
    cli_volunteers._show([listed], {})
    text = printed(console, said, f"1 volunteers, {int(listed.ready)} can be asked now.")
    # Nor does the word stand within another one.
    assert (" ready " in text) is listed.ready


def test_the_list_of_volunteers_fits(console: Console) -> None:
    found = [
        ListedVolunteer.of(a_volunteer(**values), districts={}, moment=NOON)
        for values, _, _ in STANDINGS
    ]
    cli_volunteers._show(found, {})
    printed(console, "Muhammad", "Syahrul", "Effendi", "pensosmas", "Lubuk", "+6289000000016")


def test_the_list_of_reach_fits(console: Console) -> None:
    about: dict[str, Any] = dict.fromkeys(Reach.__dataclass_fields__)
    reach = Reach(**about | {
        "id": uuid7(), "district": "19.04", "name": "Muhammad Syahrul Effendi",
        "phone": "+6289000000016", "email": "syahrul.effendi@example.org", "stopped": [],
        "reachable": True, "state": "unreachable", "drill": True, "asked_at": NOON,
        "reason": "no_channel_reached_them", "last_reached_at": NOON,
    })  # fmt: skip
    cli_pings._show([reach], {})
    printed(console, "Muhammad", "+6289000000016", "cannot be")


def test_the_list_of_cases_fits(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_cases, "_timezones", lambda found: {"19.04": "Asia/Jakarta"})
    person = Person(uuid7(), "Muhammad Syahrul Effendi", "psm", "+6289000000016", None)
    about: dict[str, Any] = dict.fromkeys(CaseNow.__dataclass_fields__)
    case = CaseNow(**about | {
        "id": uuid7(), "code": "NTM8RB4JWX", "district": "19.04", "state": "escalated",
        "category": "stranded_traveller", "urgency": "urgent", "people": 12,
        "subdistrict": "19.04.02", "subdistrict_name": "Pangkalan Baru", "drill": True,
        "reported_at": NOON, "changed_at": NOON, "held_by": person,
        "escalated_for": "no_news_after_arrival",
    })  # fmt: skip
    console.print(cli_cases._table([case]))
    printed(console, "NTM8RB4JWX", "escalated", "stranded", "traveller", "Pangkalan", "Muhammad")


def test_the_status_fits(console: Console) -> None:
    service = SimpleNamespace(
        up=True, problems=[], set_aside=[], dead_letters=12_345, name="notification", instances=12,
        outbox_events=123_456, outbox_age_seconds=7100.0,
    )  # fmt: skip
    queue = SimpleNamespace(
        problem=None, topic="notification.answers", group="jangkau.assignment",
        lag_events=1_234_567, lag_seconds=86_400.0,
    )  # fmt: skip
    shown = SimpleNamespace(
        services=[service], queues=[queue], cases={"searching": 1}, messages={"sent": 1},
        oldest_waiting_seconds=None, overdue_cases=0,
    )  # fmt: skip
    status_view.show(shown, console)  # type: ignore[arg-type]
    printed(console, "notification.answers", "jangkau.assignment", "1234567")
    assert status.SystemStatus.__dataclass_fields__  # the view takes what the status has
