"""No event grows with what happened: its lists and texts end where Kafka always takes it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from services.assignment.turn import Asked, Case, Turn
from shared import outbox
from shared.districts import District
from shared.events import ASKED_AT_MOST, ASKED_WORDS_AT_MOST, CaseEscalated
from shared.words import shortened
from tests.contracts import growth
from tests.factories import DISTRICT, NOON, case_reported, offered_volunteer

# Half of what Kafka takes: there is room for what is added some day.
ROOM = outbox.LARGEST_EVENT // 2


def asked(case: Case, number: int, words: str | None) -> Asked:
    """The offer to one volunteer, who was asked later than those before."""
    return Asked(
        id=uuid7(),
        case_id=case.id,
        volunteer=offered_volunteer(name=f"{number} {'n' * 110}"),
        home_district=DISTRICT,
        role="psm",
        answer_code="K7P2M",
        state="declined",
        distance_m=1.0,
        slot=1,
        made_at=NOON + timedelta(seconds=number),
        respond_by=NOON,
        words=words,
    )


def a_case() -> Case:
    reported = case_reported()
    place = reported.data.place
    return Case(
        id=reported.subject, code=reported.data.code, district=DISTRICT, category="homeless",
        urgency="normal", people=1, latitude=place.latitude, longitude=place.longitude,
        approximate=False, subdistrict=place.subdistrict, subdistrict_name=place.subdistrict_name,
        village=None, village_name=None, centre_latitude=0, centre_longitude=0, drill=False,
        traceparent=None, reported_at=NOON, state="searching", version=1, changed_at=NOON,
    )  # fmt: skip


LETTERS = st.characters(codec="utf-8")
WORDS = st.none() | st.tuples(LETTERS, st.integers(0, 1000)).map(lambda drawn: drawn[0] * drawn[1])


@given(count=st.sampled_from([0, 1, ASKED_AT_MOST, ASKED_AT_MOST + 1, 500]), words=WORDS)
def test_an_escalation_names_the_last_who_were_asked_and_how_many_were_before(
    districts: dict[str, District], count: int, words: str | None
) -> None:
    case = a_case()
    turn = Turn(NOON, districts, {case.id: case})
    for number in range(count):
        turn.add(asked(case, number, words))
    turn.escalate(case, "obstacle", words=(words or "") * 50)
    (event,) = [event for event in turn.events if isinstance(event, CaseEscalated)]
    named = [int(one.name.split()[0]) for one in event.data.asked]
    assert named == list(range(count))[-ASKED_AT_MOST:]
    assert len(named) + event.data.asked_left_out == count
    assert len(outbox.payload_of(event).encode()) < ROOM


@given(text=st.text(max_size=400), at_most=st.integers(0, 400))
def test_what_is_shortened_says_how_much_was_left_out(text: str, at_most: int) -> None:
    short = shortened(text, at_most)
    if len(text) <= at_most:
        assert short == text
    else:
        begin, _, left_out = short.rpartition("… (+")
        assert text.startswith(begin)
        assert len(begin) == at_most
        assert int(left_out.rstrip(")")) == len(text) - at_most


def arrays(fields: growth.Fields) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lists of an event, with their rules."""
    for place, rules in fields.items():
        if rules.get("type") == "array":
            yield place, rules


@pytest.mark.parametrize("event", sorted(growth.schemas()))
def test_every_list_of_an_event_ends_somewhere(event: str) -> None:
    endless = [
        place
        for place, rules in arrays(growth.fields_of(growth.schemas()[event]))
        if "maxItems" not in rules
    ]
    assert endless == [], "say in the contract how many there are at most, and cut where it is made"


def test_the_words_of_an_asked_volunteer_are_cut_with_a_count() -> None:
    assert shortened("x" * 1000, ASKED_WORDS_AT_MOST).endswith("x… (+700)")
