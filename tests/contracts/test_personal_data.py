"""What other agencies can read holds nothing about a person."""

import re
from datetime import timedelta

import pytest

from shared import topics
from shared.topics import Topic
from tests.contracts import growth

PUBLIC = [topic for topic in topics.ALL if not topic.personal_data]
PERSONAL = [topic for topic in topics.ALL if topic.personal_data]

# A word of a field's name that smells of a person, or of where a person is.
PERSONAL_WORDS = {
    "name", "names", "phone", "mobile", "tel", "email", "mail", "address", "street", "nik", "birth",
    "age", "gender", "ip", "description", "story", "text", "words", "note", "notes", "comment",
    "remark", "photo", "picture", "image", "latitude", "longitude", "lat", "lon", "lng", "position",
    "location", "place", "village", "distance", "reporter", "volunteer", "coordinator", "code",
}  # fmt: skip
# The centre of a subdistrict and what it is called: the only position in the public feed.
OF_THE_SUBDISTRICT = {
    f"data.subdistrict.{field}" for field in ("code", "name", "latitude", "longitude")
}
# Strings without a list of words: what CloudEvents and W3C define, and the codes of places.
NEITHER_WORDS_NOR_TIME = {
    "source", "subject", "dataschema", "district", "traceparent",
    "data.subdistrict.code", "data.subdistrict.name",
}  # fmt: skip


def _fields(topic: Topic) -> growth.Fields:
    schemas = growth.schemas()
    return {
        place: rules
        for event in topic.events
        for place, rules in growth.fields_of(schemas[event.type_name()]).items()
    }


def _smells_personal(place: str) -> bool:
    return bool(set(re.split(r"[._\[\]]+", place)) & PERSONAL_WORDS)


@pytest.mark.parametrize("topic", PUBLIC, ids=lambda topic: topic.name)
def test_no_field_of_the_public_feed_is_named_like_personal_data(topic: Topic) -> None:
    suspicious = {place for place in _fields(topic) if _smells_personal(place)}
    assert suspicious <= OF_THE_SUBDISTRICT


@pytest.mark.parametrize("topic", PUBLIC, ids=lambda topic: topic.name)
def test_nothing_in_the_public_feed_can_hold_free_text(topic: Topic) -> None:
    free = {
        place
        for place, rules in _fields(topic).items()
        if rules.get("type") == "string" and not rules.keys() & {"enum", "const", "format"}
    }
    assert free <= NEITHER_WORDS_NOR_TIME


@pytest.mark.parametrize("topic", PERSONAL, ids=lambda topic: topic.name)
def test_the_search_for_personal_data_finds_it_where_it_is(topic: Topic) -> None:
    assert any(_smells_personal(place) for place in _fields(topic))


@pytest.mark.parametrize("topic", PERSONAL, ids=lambda topic: topic.name)
def test_a_topic_with_personal_data_forgets_within_seven_days(topic: Topic) -> None:
    assert topic.retention is not None
    assert topic.retention <= timedelta(days=7)
    assert "other agencies" not in topic.read_by


@pytest.mark.parametrize("topic", PUBLIC, ids=lambda topic: topic.name)
def test_the_public_feed_is_kept_for_good(topic: Topic) -> None:
    assert topic.retention is None


def test_only_the_assignment_service_writes_the_one_public_topic() -> None:
    assert [(topic.name, topic.written_by) for topic in PUBLIC] == [("public.cases", "assignment")]
