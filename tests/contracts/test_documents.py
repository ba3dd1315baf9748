"""The documents say what the code does, and their examples are true."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from ops import documents
from shared import topics
from tests.contracts import growth

ASYNCAPI = ["public", "internal"]
OPENAPI = ["intake", "assignment", "notification"]
EVENTS = {event.type_name(): event for event in topics.TOPIC_OF}

# The least of https://spec.openapis.org/oas/v3.1 without which tools cannot read a document.
OPENAPI_DOCUMENT = {
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["get", "put", "post", "delete", "patch"]},
                "additionalProperties": {"$ref": "#/$defs/operation"},
            },
        },
    },
    "$defs": {
        "operation": {
            "type": "object",
            "required": ["operationId", "responses"],
            "properties": {
                "parameters": {
                    "type": "array",
                    "items": {
                        "required": ["name", "in", "schema"],
                        "properties": {"in": {"enum": ["query", "header", "path", "cookie"]}},
                    },
                },
                "responses": {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": r"^([1-5](\d\d|XX)|default)$"},
                    "additionalProperties": {"type": "object", "required": ["description"]},
                },
            },
        }
    },
}


def _asyncapi(name: str) -> dict[str, Any]:
    path = documents.PROJECT / "docs" / "asyncapi" / f"{name}.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _openapi(name: str) -> dict[str, Any]:
    path = documents.PROJECT / "docs" / "openapi" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def _found(reference: str, document: dict[str, Any]) -> Any:
    value: Any = document
    for part in reference.removeprefix("#/").split("/"):
        value = value[part.replace("~1", "/").replace("~0", "~")]
    return value


def _validate(value: Any, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)


def test_the_committed_documents_are_what_the_code_says() -> None:
    assert documents.problems() == [], "run `make docs` and commit what it writes"


def test_the_check_names_each_file_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documents.write(tmp_path)
    monkeypatch.setattr(sys, "argv", ["documents", "--check"])
    assert documents.main(tmp_path) == 0
    (tmp_path / "docs/asyncapi/public.yaml").write_text("stale")
    (tmp_path / "docs/openapi/intake.json").unlink()
    (tmp_path / "docs/schemas/id.jangkau.old.v1.json").write_text("{}")
    assert documents.main(tmp_path) == 1
    assert capsys.readouterr().err.splitlines() == [
        "docs/asyncapi/public.yaml is stale",
        "docs/openapi/intake.json is missing",
        "docs/schemas/id.jangkau.old.v1.json is superfluous",
        "Run `make docs` and commit what it writes.",
    ]
    documents.write(tmp_path)
    assert documents.problems(tmp_path) == []


def test_the_documents_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANGKAU_ENVIRONMENT", "production")
    monkeypatch.setenv("JANGKAU_PORT", "none")
    monkeypatch.setenv("JANGKAU_CHANNELS", "pigeon")
    monkeypatch.setenv("JANGKAU_DISTRICTS", "/nowhere")
    assert documents.problems() == []


@pytest.mark.parametrize("event", EVENTS)
def test_each_schema_is_valid_and_its_examples_are(event: str) -> None:
    schema = growth.schemas()[event]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:jangkau:schema:{event}"
    assert schema["examples"]
    for example in schema["examples"]:
        _validate(example, schema)
        assert example["dataschema"] == schema["$id"]
        read = EVENTS[event].model_validate(example)
        assert json.loads(read.to_json()) == example


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_with_unknown_fields_is_still_valid(event: str) -> None:
    schema = growth.schemas()[event]
    example = schema["examples"][0]
    newer = {**example, "later": 1, "data": {**example["data"], "later": {"more": True}}}
    _validate(newer, schema)
    assert EVENTS[event].model_validate(newer)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "subject", "time"])
def test_an_event_without_its_envelope_is_not_valid(event: str, attribute: str) -> None:
    schema = growth.schemas()[event]
    example = dict(schema["examples"][0])
    del example[attribute]
    assert not Draft202012Validator(schema).is_valid(example)


@pytest.mark.parametrize("name", ASYNCAPI)
def test_every_example_in_asyncapi_is_valid(name: str) -> None:
    document = _asyncapi(name)
    assert document["asyncapi"] == "3.0.0"
    for reference in _references(document):
        assert _found(reference, document)
    for message in document["components"]["messages"].values():
        assert message["examples"]
        payload = {"$ref": message["payload"]["$ref"], "components": document["components"]}
        for example in message["examples"]:
            _validate(example["payload"], payload)
            _validate(example["headers"], message["headers"])


def test_the_public_document_tells_of_the_public_feed_only() -> None:
    document = _asyncapi("public")
    assert [channel["address"] for channel in document["channels"].values()] == ["public.cases"]
    assert {message["name"] for message in document["components"]["messages"].values()} == {
        event.type_name() for event in topics.PUBLIC_CASES.events
    }
    assert all(operation["action"] == "receive" for operation in document["operations"].values())


def test_the_internal_document_marks_every_topic_with_personal_data() -> None:
    channels = {
        channel["address"]: channel for channel in _asyncapi("internal")["channels"].values()
    }
    assert channels.keys() == {topic.name for topic in topics.ALL}
    for topic in topics.ALL:
        channel = channels[topic.name]
        assert channel["x-personal-data"] is topic.personal_data
        assert ("**Personal data travels here.**" in channel["description"]) is topic.personal_data


def test_the_public_examples_tell_one_case_without_a_gap() -> None:
    messages = _asyncapi("public")["components"]["messages"].values()
    events = [example["payload"] for message in messages for example in message["examples"]]
    assert len({event["subject"] for event in events}) == 1
    versions = sorted(event["data"]["version"] for event in events)
    assert versions == list(range(1, len(events) + 1))


@pytest.mark.parametrize("name", OPENAPI)
def test_openapi_can_be_read_by_tools(name: str) -> None:
    document = _openapi(name)
    _validate(document, OPENAPI_DOCUMENT)
    for reference in _references(document):
        assert _found(reference, document)
    for schema in document.get("components", {}).get("schemas", {}).values():
        Draft202012Validator.check_schema(schema)
    operations = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(operations) == len(set(operations))
