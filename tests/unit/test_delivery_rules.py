"""Which channel is tried next and when, and batches of mixed events."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notification.channels import Channel
from services.notification.channels.email import Email
from services.notification.channels.http import retry_after
from services.notification.channels.sandbox import Sandbox
from services.notification.channels.sms import Sms
from services.notification.delivery import LONGEST_RETRY, Pace, backoff
from services.notification.handlers import RANK, waves
from services.notification.offers import judged
from services.notification.routes import Routes, policy_problem
from services.notification.settings import NotificationSettings
from shared import topics
from shared.database import Database
from shared.districts import District
from shared.events import Event
from shared.policy import Messages
from tests.factories import (
    answer_judged,
    case_escalated,
    case_progressed,
    offer_assigned,
    offer_closed,
    offer_made,
)

PHONE, ADDRESS = "+6281234567890", "siti@example.org"


def channels() -> list[Channel]:
    """SMS first, then e-mail, then the sandbox."""
    settings = NotificationSettings(channels="sms,email,sandbox", sms_url="http://127.0.0.1:1")
    return [Sms(settings), Email(settings), Sandbox(cast(Database, None))]


def routes(*names: str) -> Routes:
    return Routes([channel for channel in channels() if channel.name in names or not names])


@pytest.mark.parametrize(
    ("phone", "email", "expected"),
    [
        (PHONE, ADDRESS, ["sms", "email", "sandbox"]),
        (PHONE, None, ["sms", "sandbox"]),
        (None, ADDRESS, ["email", "sandbox"]),
        (None, None, []),
    ],
)
async def test_the_routes_are_the_channels_that_have_an_address(
    phone: str | None, email: str | None, expected: list[str]
) -> None:
    assert routes().of(district="19.04", phone=phone, email=email) == expected


async def test_what_is_preferred_comes_first_and_what_is_stopped_not_at_all() -> None:
    reach: Any = {"district": "19.04", "phone": PHONE, "email": ADDRESS}
    assert routes().of(**reach, preferred="email") == ["email", "sms", "sandbox"]
    assert routes().of(**reach, preferred="other") == ["sms", "email", "sandbox"]
    stopped = {(PHONE, "sms")}
    assert routes().of(**reach, stopped=stopped) == ["email"]


async def test_the_next_channel_is_the_next_that_there_still_is() -> None:
    ways = ["sms", "email", "sandbox"]
    assert routes().after(ways, "sms", tried=["sms"]) == "email"
    assert routes().after(ways, "sandbox", tried=ways) is None
    assert routes("sms", "sandbox").after(ways, "sms", tried=["sms"]) == "sandbox"
    assert routes().after(ways, "pigeon", tried=["pigeon"]) == "sms", "taken away meanwhile"


async def test_a_channel_that_was_called_is_no_way_wherever_the_routes_put_it_now() -> None:
    assert routes().after(["sms", "email"], "pigeon", tried=["sms", "pigeon"]) == "email"
    assert routes().after(["email", "sms"], "email", tried=["sms", "email"]) is None


NAMES = st.sampled_from(["sms", "email", "sandbox", "pigeon"])


@given(
    histories=st.lists(
        st.tuples(st.lists(NAMES, unique=True), st.lists(NAMES, unique=True)), min_size=1
    ),
    first=NAMES,
)
async def test_no_change_of_routes_or_channels_leads_back_to_a_channel_that_was_called(
    histories: list[tuple[list[str], list[str]]], first: str
) -> None:
    tried, now = [first], first
    for ways, installed in histories:
        after = routes(*installed or ["none"]).after(ways, now, tried=tried)
        if after is not None:
            assert after not in tried
            tried.append(now := after)


def test_waits_double_up_to_two_minutes() -> None:
    assert [backoff(n).total_seconds() for n in (1, 2, 3, 4, 7, 8)] == [2, 4, 8, 16, 120, 120]


@given(st.integers(1, 10**9))
def test_no_number_of_attempts_waits_longer_than_the_limit(attempts: int) -> None:
    assert timedelta(0) < backoff(attempts) <= LONGEST_RETRY


def test_a_pace_lets_a_second_worth_through_and_rests_when_told() -> None:
    assert Pace(None).room() > 1000
    pace = Pace(5)
    assert pace.room() == 5
    pace.spend(5)
    assert pace.room() == 0
    assert 0 < pace.next_s() <= 0.2
    rested = Pace(None)
    rested.pause(timedelta(seconds=30))
    assert rested.room() == 0
    assert 29 < rested.next_s() <= 30


# --- batches of mixed events ----------------------------------------------------------------------

MAKE = (
    offer_made,
    offer_assigned,
    offer_closed,
    answer_judged,
    case_escalated,
    case_progressed,
)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(MAKE)), max_size=30))
def test_waves_keep_the_order_of_every_case_and_lose_nothing(steps: list[Any]) -> None:
    cases = [UUID(int=number) for number in range(4)]
    events: list[Event[Any]] = [make(case_id=cases[case]) for case, make in steps]
    # Kind by kind within a wave: that is how they are gone through.
    gone_through = [
        event
        for wave in waves(events)
        for event in sorted(wave, key=lambda event: RANK[type(event)])
    ]
    for case in cases:
        assert [event for event in gone_through if event.subject == case] == [
            event for event in events if event.subject == case
        ]
    assert len(gone_through) == len(events)


def test_hundreds_of_cases_are_as_few_waves_as_one() -> None:
    offers = [offer_made() for _ in range(300)]
    declined = [event for o in offers for event in (o, answer_judged("decline", offer=o))]
    assert len(waves(offers)) == 1
    assert len(waves(declined)) == 2


def test_every_event_of_the_topic_has_its_place_in_a_wave() -> None:
    assert RANK.keys() == set(topics.ASSIGNMENT_OFFERS.events)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([("accept", "recorded")], "accepted"),
        ([("accept", "recorded"), ("arrived", "recorded")], "arrived"),
        ([("accept", "recorded"), ("obstacle", "recorded")], "accepted"),
        ([("accept", "recorded"), ("hand_back", "recorded")], "ended"),
        ([("decline", "recorded")], "ended"),
        ([("done", "recorded")], "ended"),
        ([("accept", "already_recorded")], None),
        ([("accept", "too_late")], "ended"),
        ([("accept", "taken_by_another")], "ended"),
        ([("accept", "case_closed")], "ended"),
        ([("arrived", "not_accepted_yet")], None),
        ([("accept", "not_yours")], None),
        ([("accept", "of_the_future")], None),
        ([("sing", "recorded")], None),
    ],
)
def test_what_was_judged_says_what_can_be_answered_next(
    answers: list[tuple[str, str]], state: str | None
) -> None:
    offer = offer_made()
    events = [answer_judged(answer, verdict, offer=offer) for answer, verdict in answers]
    assert judged(events) == {offer.data.offer_id: state}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"retry-after": "7"}, 7),
        (
            {
                "retry-after": "Tue, 24 Nov 2026 12:01:00 GMT",
                "date": "Tue, 24 Nov 2026 12:00:00 GMT",
            },
            60,
        ),
        ({"retry-after": "Tue, 24 Nov 2026 12:01:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_a_provider_says_in_seconds_or_by_its_own_clock_how_long_to_wait(
    said: dict[str, str], expected: int | None
) -> None:
    wait = retry_after(said)
    assert wait == (timedelta(seconds=expected) if expected is not None else None)


def test_a_policy_that_this_installation_cannot_keep_is_refused(
    districts: dict[str, District],
) -> None:
    sample = districts["19.04"]

    def problem_with(**values: Any) -> str:
        policy = replace(sample.policy, messages=Messages(**values))
        return policy_problem(channels(), replace(sample, policy=policy)) or "none"

    assert problem_with(channels=("email", "sms")) == "none"
    told = "names the channels pigeon; this installation has"
    assert told in problem_with(channels=("pigeon",))
    assert "JANGKAU_SMS_COST_PER_SEGMENT" in problem_with(sms_a_day=100)
