"""What a topic takes for an event, and what it does not."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from shared import topics
from shared.events import CaseReported, OfferMade
from shared.topics import INTAKE_CASES, Topic, UndecodableRecord
from tests.factories import case_reported, offer_made, public_case

every_topic = pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)


def envelope(**changes: Any) -> dict[str, Any]:
    """A report as JSON, with these attributes replaced (or left out, where the value is ...)."""
    given: dict[str, Any] = json.loads(case_reported().to_json())
    for name, value in changes.items():
        if value is ...:
            del given[name]
        else:
            given[name] = value
    return given


@pytest.mark.parametrize(
    "event",
    [
        case_reported(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        offer_made(drill=True),
        public_case("searching", version=1, case_id=uuid7()),
        public_case("offered", version=2, case_id=uuid7()),
        public_case("waiting", version=3, case_id=uuid7(), waiting_for="all_volunteers_busy"),
    ],
    ids=lambda event: event.type,
)
def test_what_is_published_can_be_read(event: Any) -> None:
    assert topics.TOPIC_OF[type(event)].decode(event.to_json().encode()) == event


def test_unknown_fields_are_ignored() -> None:
    event = envelope(shoesize=43)
    event["data"]["hair"] = "grey"
    assert isinstance(INTAKE_CASES.decode(json.dumps(event).encode()), CaseReported)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (None, "no value"),
        (b"", "no value"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "unknown type None"),
        (b"[]", "unknown type None"),
        (b'{"type": {"a": 1}}', "unknown type"),
        (json.dumps(envelope(type="id.jangkau.case.reported.v2")).encode(), "unknown type"),
        (offer_made().to_json().encode(), "unknown type 'id.jangkau.offer.made.v1'"),
        (json.dumps(envelope(id=...)).encode(), "id: Field required"),
        (json.dumps(envelope(id="42")).encode(), "id: Input should be a valid UUID"),
        (json.dumps(envelope(time="2026-01-01T00:00:00")).encode(), "time: "),
        (json.dumps(envelope(data=...)).encode(), "data: Field required"),
        (json.dumps(envelope(data={})).encode(), "data.code: Field required"),
        (b'{"type": "' + b"x" * 100_000 + b'"}', "unknown type"),
    ],
    # Not by the payload: ids differ in each process.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_event_says_why(payload: bytes | None, said: str) -> None:
    with pytest.raises(UndecodableRecord) as refused:
        INTAKE_CASES.decode(payload)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_the_reason_does_not_repeat_what_may_be_personal() -> None:
    event = envelope()
    event["data"]["channel"] = {"phone": "+6281234567890"}
    with pytest.raises(UndecodableRecord) as refused:
        INTAKE_CASES.decode(json.dumps(event).encode())
    assert "6281234567890" not in str(refused.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@every_topic
@given(payload=st.binary())
def test_no_bytes_make_it_fail_otherwise(topic: Topic, payload: bytes) -> None:
    with pytest.raises(UndecodableRecord):
        topic.decode(payload)


@given(field=st.sampled_from(sorted(envelope())), value=anything)
def test_no_value_of_an_attribute_makes_it_fail_otherwise(field: str, value: Any) -> None:
    payload = json.dumps(envelope(**{field: value})).encode()
    with contextlib.suppress(UndecodableRecord):
        assert isinstance(INTAKE_CASES.decode(payload), CaseReported)


@given(field=st.sampled_from(sorted(envelope()["data"])), value=anything)
def test_no_value_of_the_data_makes_it_fail_otherwise(field: str, value: Any) -> None:
    event = envelope()
    event["data"][field] = value
    with contextlib.suppress(UndecodableRecord):
        assert isinstance(INTAKE_CASES.decode(json.dumps(event).encode()), CaseReported)


def test_every_event_type_is_on_one_topic() -> None:
    types = [event.type_name() for topic in topics.ALL for event in topic.events]
    assert len(types) == len(set(types))
    assert topics.TOPIC_OF[OfferMade] is topics.ASSIGNMENT_OFFERS


def test_a_topic_with_personal_data_forgets_within_a_week() -> None:
    for topic in topics.ALL:
        assert topic.personal_data == (topic.retention is not None)
        assert topic.retention in (None, topics.WEEK)


def test_an_unknown_topic_has_no_name_here() -> None:
    with pytest.raises(KeyError):
        topics.named("nothing")


@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59.999999-12:00", "0001-01-01T00:00:00+14:00"]
)
def test_a_time_that_no_zone_can_show_is_not_decoded(moment: str) -> None:
    event = json.loads(case_reported().to_json())
    event["data"]["reported_at"] = moment
    with pytest.raises(UndecodableRecord, match="reported_at"):
        topics.INTAKE_CASES.decode(json.dumps(event).encode())
