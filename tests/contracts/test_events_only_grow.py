"""A contract that agencies rely on can get more, never less."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts import growth

OPENED = "id.jangkau.public.case.opened.v1"
Schema = dict[str, Any]


def test_events_only_grow() -> None:
    now = {event: growth.fields_of(schema) for event, schema in growth.schemas().items()}
    problems = growth.broken_promises(growth.published(), now)
    assert not problems, "\n".join(problems)


def test_everything_that_is_published_is_recorded() -> None:
    now = {event: growth.fields_of(schema) for event, schema in growth.schemas().items()}
    new = growth.unrecorded(growth.published(), now)
    assert not new, f"New in the contract: {new}. Record it with `{growth.UPDATE}`."


def _remove_a_field(schema: Schema) -> None:
    del schema["$defs"]["PublicCase"]["properties"]["urgency"]
    schema["$defs"]["PublicCase"]["required"].remove("urgency")


def _require_a_new_field(schema: Schema) -> None:
    schema["$defs"]["PublicCase"]["properties"]["people"] = {"type": "integer"}
    schema["$defs"]["PublicCase"]["required"].append("people")


def _require_an_old_field(schema: Schema) -> None:
    schema["required"].append("traceparent")


def _let_a_field_be_absent(schema: Schema) -> None:
    schema["required"].remove("subject")


def _change_a_type(schema: Schema) -> None:
    schema["$defs"]["PublicSubdistrict"]["properties"]["latitude"]["type"] = "string"


def _change_a_format(schema: Schema) -> None:
    schema["properties"]["time"]["format"] = "date"


def _remove_a_word(schema: Schema) -> None:
    schema["$defs"]["PublicCase"]["properties"]["category"]["enum"].remove("beggar")


def _change_what_absent_means(schema: Schema) -> None:
    schema["properties"]["drill"]["default"] = True


def _narrow_a_number(schema: Schema) -> None:
    schema["$defs"]["PublicCase"]["properties"]["version"]["minimum"] = 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_remove_a_field, "the field data.urgency was removed"),
        (_require_a_new_field, "the new field data.people is required"),
        (_require_an_old_field, "the field traceparent is now required"),
        (_let_a_field_be_absent, "the field subject can now be absent"),
        (_change_a_type, "type of data.subdistrict.latitude changed"),
        (_change_a_format, "format of time changed"),
        (_remove_a_word, "data.category can no longer be beggar"),
        (_change_what_absent_means, "default of drill changed"),
        (_narrow_a_number, "minimum of data.version changed"),
    ],
)
def test_a_change_that_would_break_a_reader_is_refused_and_says_what_to_do(
    change: Callable[[Schema], None], said: str
) -> None:
    schema = growth.schemas()[OPENED]
    changed = copy.deepcopy(schema)
    change(changed)
    problems = growth.broken_promises(
        {OPENED: growth.fields_of(schema)}, {OPENED: growth.fields_of(changed)}
    )
    assert len(problems) == 1
    assert said in problems[0]
    assert "make a new one of type id.jangkau.public.case.opened.v2" in problems[0]


def test_an_event_that_is_gone_is_refused() -> None:
    promised = {OPENED: growth.fields_of(growth.schemas()[OPENED])}
    assert "agencies read it" in growth.broken_promises(promised, {})[0]


def test_new_optional_fields_words_and_events_are_growth() -> None:
    schema = growth.schemas()[OPENED]
    grown = copy.deepcopy(schema)
    case = grown["$defs"]["PublicCase"]["properties"]
    case["state"]["enum"].append("accepted")
    case["people"] = {"type": "integer"}
    grown["$defs"]["Shelter"] = {"properties": {"beds": {"type": "integer"}}, "required": ["beds"]}
    case["shelters"] = {"type": "array", "items": {"$ref": "#/$defs/Shelter"}}
    old = {OPENED: growth.fields_of(schema)}
    new = {OPENED: growth.fields_of(grown), "id.jangkau.public.case.closed.v1": {}}
    assert growth.broken_promises(old, new) == []
    assert f"{OPENED}: data.shelters[].beds" in growth.unrecorded(old, new)
