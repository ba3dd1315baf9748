"""The documents that are made from code: JSON Schemas, AsyncAPI and OpenAPI.

``python -m ops.documents`` writes them; with ``--check`` it compares and ends with 1 if one is
stale, missing or superfluous. Nothing is started and no environment variable is read.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from services.assignment import app as assignment
from services.assignment.settings import AssignmentSettings
from services.intake import app as intake
from services.intake.settings import IntakeSettings
from services.notification import app as notification
from services.notification.settings import NotificationSettings
from shared import topics
from shared.events import (
    CONTENT_TYPE,
    SCHEMA_BASE,
    AnsweredDuty,
    AnsweredPing,
    AnswerJudged,
    AskedDutyPage,
    AskedVolunteer,
    CaseEscalated,
    CaseProgressed,
    CaseReported,
    CasesHeld,
    ClosedOffer,
    Coordinator,
    DutyAnswered,
    DutyPageAsked,
    EscalatedCase,
    Event,
    GivenAnswer,
    HeldCases,
    JudgedAnswer,
    MadeOffer,
    OffDutyVolunteer,
    OfferAnswered,
    OfferAssigned,
    OfferClosed,
    OfferedVolunteer,
    OfferMade,
    OfferUnreachable,
    PingAnswered,
    PingedVolunteer,
    PingUnreachable,
    Place,
    ProgressedCase,
    PublicCase,
    PublicCaseAccepted,
    PublicCaseArrived,
    PublicCaseClosed,
    PublicCaseEscalated,
    PublicCaseOffered,
    PublicCaseOpened,
    PublicCaseReopened,
    PublicCaseWaiting,
    PublicSubdistrict,
    ReportedCase,
    Reporter,
    RunLowBudget,
    SmsBudgetRunLow,
    StoppedVolunteer,
    UnreachableOffer,
    UnreachedPing,
    VolunteerOffDuty,
    VolunteerPinged,
    VolunteerStopped,
)
from shared.topics import Topic

PROJECT = Path(__file__).parents[1]
# Which files are made here, and so would be superfluous if they were not made any more.
OWNED = ("docs/schemas/*.json", "docs/asyncapi/*.yaml", "docs/openapi/*.json")

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
# Of the feed as a whole; an event's own version is in its type.
FEED_VERSION = "1.0.0"
# https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#required-attributes
ALWAYS_THERE = ("specversion", "id", "source", "type")
KAFKA_BINDINGS = "0.5.0"

AGENCIES = f"""\
The life of every case, for other agencies: a case is opened, waits, is offered to volunteers,
escalated to a coordinator, accepted, reached, opened again if need be, and closed.

- One record is one fact: a CloudEvent 1.0 in structured JSON (`{CONTENT_TYPE}`).
- The Kafka key is the case id, so the events of one case are in one partition and in order. Between
  cases there is no order.
- `data.version` counts 1, 2, 3 ... per case. A gap means that you have missed an event.
- An event can come more than once, always with the same `id`: drop what you have seen.
- The feed is kept for good. Start at its beginning, or at any moment in time.
- Never in it: names, numbers, addresses, free text, or where the person is. The only position is
  the centre of the subdistrict.
- Events with `drill: true` are rehearsals: let them through your system, but let nobody act.
- Events only grow: new fields and new words in a list can come at any time, so ignore what you do
  not know. What would break you comes as a new type (`...v2`) beside the old one.

How to connect: docs/how-to/subscribe.md. A subscriber to begin with: examples/subscriber.py.
"""
MAINTAINERS = """\
Every topic of Jangkau: who writes it, who reads it, how long it is kept. For maintainers; what
agencies may read is in public.yaml.

One topic per writer, so that the order within a case holds from each writer to each reader.
Channels tagged `personal-data` carry names, numbers and places of people: they forget within 7
days, and nobody outside Jangkau may read them.
"""


def _example(event: type[Event[Any]], data: Any, *, number: int, at: str) -> dict[str, Any]:
    """One event of the story that all examples tell, as it goes over the wire."""
    of_a_case = event not in _volunteer_story()
    traced = of_a_case and topics.TOPIC_OF[event].personal_data
    made = event.of(
        data,
        case_id=UUID("01980c5f-8a10-7c3e-9b1d-5f2a6c7e8d01") if of_a_case else _VOLUNTEER.id,
        district="19.04",
        time=datetime.fromisoformat(at),
        traceparent=TRACE if traced else None,
    ).model_copy(
        update={
            "id": UUID(f"01980c5f-8a{0x10 + number:02x}-7d24-8f00-0a1b2c3d4e{0x50 + number:02x}")
        }
    )
    found: dict[str, Any] = json.loads(made.to_json())
    return found


# Whom the examples are about, and where. All people in them are invented.
_REPORTED_AT = datetime.fromisoformat("2026-07-15T02:10:00.000000+00:00")
_PLACE = Place(
    latitude=-2.4871,
    longitude=106.4163,
    approximate=False,
    subdistrict="19.04.01",
    subdistrict_name="Koba",
    village="19.04.01.2004",
    village_name="Nibung",
    centre_latitude=-2.493,
    centre_longitude=106.408,
)
_VOLUNTEER = OfferedVolunteer(
    id=UUID("01980b00-0000-7000-8000-0000000000a7"),
    name="Relawan Contoh",
    phone="+6281200000007",
    email="relawan@example.org",
)
_REPORTER = Reporter(name="Pelapor Contoh", phone="+6281200000009", language="id")
_OFFER = MadeOffer(
    offer_id=UUID("01980c5f-8a12-7a01-8c44-7d6e5f4a3b21"),
    answer_code="7Q4MK",
    respond_by=datetime.fromisoformat("2026-07-15T02:15:02.418000+00:00"),
    volunteer=_VOLUNTEER,
    distance_m=1240.5,
    category="elderly_abandoned",
    urgency="urgent",
    place=_PLACE,
    utc_offset_minutes=420,
    reported_at=_REPORTED_AT,
)


def _public_story() -> dict[type[Event[Any]], tuple[Any, str]]:
    """One case from its opening to its end, with the time of each event."""
    first = PublicCase(
        version=1,
        state="searching",
        category="elderly_abandoned",
        urgency="urgent",
        subdistrict=PublicSubdistrict(
            code="19.04.01", name="Koba", latitude=-2.493, longitude=106.408
        ),
        reported_at=_REPORTED_AT,
    )

    def then(version: int, state: str, **words: str) -> PublicCase:
        return first.model_copy(update={"version": version, "state": state, **words})

    unaccepted = then(4, "escalated", escalated_for="nobody_accepted_in_time")
    return {
        PublicCaseOpened: (first, "2026-07-15T02:10:00.171000+00:00"),
        PublicCaseWaiting: (
            then(2, "waiting", waiting_for="all_volunteers_busy"),
            "2026-07-15T02:10:00.171000+00:00",
        ),
        PublicCaseOffered: (then(3, "offered"), "2026-07-15T02:12:02.418000+00:00"),
        PublicCaseEscalated: (unaccepted, "2026-07-15T02:13:00.044000+00:00"),
        PublicCaseAccepted: (then(5, "accepted"), "2026-07-15T02:13:20.950000+00:00"),
        PublicCaseArrived: (then(6, "arrived"), "2026-07-15T02:31:11.530000+00:00"),
        PublicCaseReopened: (then(7, "searching"), "2026-07-15T02:45:25.264000+00:00"),
        PublicCaseClosed: (
            then(8, "closed", outcome="referred"),
            "2026-07-15T03:31:09.812000+00:00",
        ),
    }


def _escalated_case() -> EscalatedCase:
    return EscalatedCase(
        code="BKTWM7HX",
        reason="nobody_accepted_in_time",
        coordinators=[
            Coordinator(
                name="Koordinator Contoh",
                phone="+6281200000001",
                email="koordinator@example.org",
            )
        ],
        asked=[
            AskedVolunteer(
                name="Relawan Lain",
                phone="+6281200000008",
                role="psm",
                distance_m=890.0,
                state="declined",
                words="maaf, sedang di luar kota",
            )
        ],
        category="elderly_abandoned",
        urgency="urgent",
        place=_PLACE,
        utc_offset_minutes=420,
        reported_at=_REPORTED_AT,
    )


def _internal_story() -> dict[type[Event[Any]], tuple[Any, str]]:
    """What assignment and notification say to each other about the same case."""
    about = {"offer_id": _OFFER.offer_id, "answer_code": _OFFER.answer_code}
    closed = ClosedOffer(**about, reason="taken_by_another", volunteer=_VOLUNTEER)
    answer = GivenAnswer(
        offer_id=_OFFER.offer_id,
        answer="accept",
        words="ya, siap",
        channel="sms",
        phone=_VOLUNTEER.phone,
    )
    judged = JudgedAnswer(
        **about, answer="accept", verdict="recorded", volunteer=_VOLUNTEER, reporter=_REPORTER
    )
    assigned = _OFFER.model_copy(update={"reporter": _REPORTER})
    progressed = ProgressedCase(code="BKTWM7HX", step="accepted", reporter=_REPORTER)
    return {
        OfferMade: (_OFFER, "2026-07-15T02:12:02.418000+00:00"),
        OfferAssigned: (assigned, "2026-07-15T02:45:58.620000+00:00"),
        OfferClosed: (closed, "2026-07-15T02:13:20.950000+00:00"),
        AnswerJudged: (judged, "2026-07-15T02:13:20.950000+00:00"),
        CaseEscalated: (_escalated_case(), "2026-07-15T02:13:00.044000+00:00"),
        OfferAnswered: (answer, "2026-07-15T02:13:20.911000+00:00"),
        OfferUnreachable: (
            UnreachableOffer(offer_id=_OFFER.offer_id, reason="no_channel_left"),
            "2026-07-15T02:12:09.304000+00:00",
        ),
        CasesHeld: (
            HeldCases(
                district_name="Bangka Tengah",
                cases=37,
                urgent=4,
                reasons=["too_many_from_one_address"],
                look_by=datetime.fromisoformat("2026-07-15T02:25:00.000000+00:00"),
                utc_offset_minutes=420,
                coordinators=[Coordinator(name="Piket Dinas Sosial", phone="+6289000000201")],
            ),
            "2026-07-15T02:15:00.200000+00:00",
        ),
        CaseProgressed: (progressed, "2026-07-15T02:13:20.950000+00:00"),
    }


def _volunteer_story() -> dict[type[Event[Any]], tuple[Any, str]]:
    """Tests whether a volunteer can be reached, and what came of them; and the SMS of a day."""
    ping_id = UUID("01980c5f-8a30-7b15-9e02-1a2b3c4d5e6f")
    pinged = PingedVolunteer(
        ping_id=ping_id,
        answer_code="M4TQ7",
        respond_by=datetime.fromisoformat("2026-07-16T02:00:00.000000+00:00"),
        volunteer=_VOLUNTEER,
    )
    return {
        VolunteerPinged: (pinged, "2026-07-15T02:00:00.000000+00:00"),
        VolunteerOffDuty: (
            OffDutyVolunteer(
                last_day=date(2026, 7, 17),
                channel="sms",
                words="libur 3 hari",
                phone=_VOLUNTEER.phone,
            ),
            "2026-07-15T03:30:12.007000+00:00",
        ),
        DutyPageAsked: (
            AskedDutyPage(channel="sms", phone=_VOLUNTEER.phone),
            "2026-07-15T03:31:40.512000+00:00",
        ),
        DutyAnswered: (
            AnsweredDuty(about="off_duty", volunteer=_VOLUNTEER, last_day=date(2026, 7, 17)),
            "2026-07-15T03:30:12.093000+00:00",
        ),
        PingAnswered: (
            AnsweredPing(ping_id=ping_id, words="ya, masih aktif", channel="sms"),
            "2026-07-15T02:04:51.207000+00:00",
        ),
        PingUnreachable: (
            UnreachedPing(ping_id=ping_id, reason="no_channel_left"),
            "2026-07-15T02:00:07.618000+00:00",
        ),
        VolunteerStopped: (
            StoppedVolunteer(
                volunteer_id=_VOLUNTEER.id, channel="sms", stopped=True, reachable=True
            ),
            "2026-07-15T04:20:11.093000+00:00",
        ),
        SmsBudgetRunLow: (
            RunLowBudget(day="2026-07-15", used=400, budget=500),
            "2026-07-15T09:41:35.770000+00:00",
        ),
    }


def _examples() -> dict[type[Event[Any]], dict[str, Any]]:
    """One example of each event."""
    reported = ReportedCase(
        code="BKTWM7HX",
        category="elderly_abandoned",
        urgency="urgent",
        place=_PLACE,
        channel="web",
        reported_at=_REPORTED_AT,
        reporter=_REPORTER,
    )
    told: dict[type[Event[Any]], tuple[Any, str]] = {
        CaseReported: (reported, "2026-07-15T02:10:00.132000+00:00"),
        **_public_story(),
        **_internal_story(),
        **_volunteer_story(),
    }
    missing = [event.__name__ for event in topics.TOPIC_OF if event not in told]
    if missing:
        raise SystemExit(f"ops/documents.py has no example of {', '.join(missing)}: add one there.")
    return {
        event: _example(event, data, number=number, at=at)
        for number, (event, (data, at)) in enumerate(told.items())
    }


class _OnTheWire(GenerateJsonSchema):
    """JSON Schema of what is really sent: absent instead of null, no titles made of field names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        found = super().default_schema(schema)
        # A constant has no other value, and null means that the field is absent.
        if "const" in found or found.get("default", ...) is None:
            found.pop("default", None)
        return found


def _polished(schema: Any) -> Any:
    """The schema with its docstrings as Markdown, and what CloudEvents requires as required."""
    if isinstance(schema, list):
        return [_polished(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _polished(value) for key, value in schema.items()}
    if isinstance(found.get("description"), str):
        found["description"] = found["description"].replace("``", "`")
    properties = found.get("properties", {})
    if "specversion" in properties:
        wanted = {*ALWAYS_THERE, *found["required"]}
        found["required"] = [name for name in properties if name in wanted]
    return found


def _kept(topic: Topic) -> str:
    return "for good" if topic.retention is None else f"{topic.retention.days} days"


def schemas() -> dict[str, str]:
    """The JSON Schema of each event, envelope and data in one, by the path of its file."""
    examples = _examples()
    files = {}
    for event, topic in topics.TOPIC_OF.items():
        schema = _polished(
            event.model_json_schema(schema_generator=_OnTheWire, mode="serialization")
        )
        personal = "It holds personal data." if topic.personal_data else "No personal data."
        head = {
            "$schema": JSON_SCHEMA,
            "$id": f"{SCHEMA_BASE}{event.type_name()}",
            "title": schema.pop("title"),
            "description": f"{schema.pop('description')}\n\n"
            f"On the topic `{topic.name}`, kept {_kept(topic)}. {personal}",
        }
        whole = {**head, **schema, "examples": [examples[event]]}
        files[f"docs/schemas/{event.type_name()}.json"] = _json(whole)
    return files


def _words(event: type[Event[Any]]) -> str:
    """``PublicCaseOpened`` as a person writes it: Public case opened."""
    return re.sub(r"(?<!^)([A-Z])", r" \1", event.__name__).capitalize()


def _channel_id(topic: Topic) -> str:
    first, *others = topic.name.split(".")
    return first + "".join(part.capitalize() for part in others)


def _channel(topic: Topic) -> dict[str, Any]:
    readers = ", ".join(f"**{reader}**" for reader in topic.read_by)
    personal = (
        "\n\n**Personal data travels here.** Nobody outside Jangkau may read it."
        if topic.personal_data
        else "\n\nNever any personal data."
    )
    milliseconds = -1 if topic.retention is None else int(topic.retention.total_seconds() * 1000)
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"Written by **{topic.written_by}** alone, read by {readers}; "
        f"kept {_kept(topic)}.{personal}",
        "messages": {
            event.__name__: {"$ref": f"#/components/messages/{event.__name__}"}
            for event in topic.events
        },
        "tags": [{"name": "personal-data" if topic.personal_data else "public"}],
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": milliseconds},
                "bindingVersion": KAFKA_BINDINGS,
            }
        },
        "x-personal-data": topic.personal_data,
        "x-written-by": topic.written_by,
        "x-read-by": list(topic.read_by),
    }


def _operation(topic: Topic, *, action: str, who: str) -> dict[str, Any]:
    channel = f"#/channels/{_channel_id(topic)}"
    return {
        "action": action,
        "title": f"{who}: {action} {topic.name}",
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{event.__name__}"} for event in topic.events],
    }


def _message(event: type[Event[Any]], example: Mapping[str, Any]) -> dict[str, Any]:
    headers = {"content-type": CONTENT_TYPE}
    return {
        "name": event.type_name(),
        "title": _words(event),
        "summary": str(event.__doc__),
        "contentType": CONTENT_TYPE,
        "correlationId": {"description": "the case id", "location": "$message.payload#/subject"},
        "headers": {
            "type": "object",
            "properties": {"content-type": {"type": "string", "const": CONTENT_TYPE}},
            "required": ["content-type"],
        },
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "bindings": {
            "kafka": {
                "key": {
                    "type": "string",
                    "format": "uuid",
                    "description": "the case id, as in `subject`",
                },
                "bindingVersion": KAFKA_BINDINGS,
            }
        },
        "examples": [{"name": event.__name__, "headers": headers, "payload": dict(example)}],
    }


def _components(declared: tuple[Topic, ...]) -> dict[str, Any]:
    examples = _examples()
    events = [event for topic in declared for event in topic.events]
    _, found = models_json_schema(
        [(event, "serialization") for event in events],
        ref_template="#/components/schemas/{model}",
        schema_generator=_OnTheWire,
    )
    return {
        "messages": {event.__name__: _message(event, examples[event]) for event in events},
        "schemas": _polished(found["$defs"]),
    }


def _public_asyncapi() -> dict[str, Any]:
    """The feed, told from the side of an agency's program: it receives."""
    public = tuple(topic for topic in topics.ALL if not topic.personal_data)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Jangkau: the public feed of cases",
            "version": FEED_VERSION,
            "description": AGENCIES,
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "district": {
                "host": "{address}",
                "protocol": "kafka",
                "title": "The Kafka of a district",
                "description": "Ask the district's operator for the address and for access.",
                "variables": {
                    "address": {
                        "default": "127.0.0.1:9092",
                        "description": "host and port; several are separated by commas",
                    }
                },
            }
        },
        "channels": {_channel_id(topic): _channel(topic) for topic in public},
        "operations": {
            f"receive{topic.name.title().replace('.', '')}": _operation(
                topic, action="receive", who="an agency"
            )
            for topic in public
        },
        "components": _components(public),
    }


def _internal_asyncapi() -> dict[str, Any]:
    """All topics, told from inside: each service sends and receives."""
    operations = {}
    for topic in topics.ALL:
        name = topic.name.title().replace(".", "")
        for action, who in [
            ("send", topic.written_by),
            *(("receive", reader) for reader in topic.read_by),
        ]:
            first, *others = who.split()
            key = first + "".join(word.capitalize() for word in others)
            operations[f"{key}{action.capitalize()}{name}"] = _operation(
                topic, action=action, who=who
            )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Jangkau: all topics, for maintainers",
            "version": FEED_VERSION,
            "description": MAINTAINERS,
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "kafka": {
                "host": "kafka:9092",
                "protocol": "kafka",
                "description": "Inside the deployment only; see docker-compose.yml.",
            }
        },
        "channels": {_channel_id(topic): _channel(topic) for topic in topics.ALL},
        "operations": operations,
        "components": _components(topics.ALL),
    }


def _openapi() -> dict[str, str]:
    """The HTTP of each service, as it serves it itself at /openapi.json."""
    # model_construct reads neither the environment nor files; no district is needed to say what
    # can be asked.
    composed = (
        intake.compose(IntakeSettings.model_construct(districts="")),
        assignment.compose(AssignmentSettings.model_construct(districts="")),
        notification.compose(NotificationSettings.model_construct(districts="")),
    )
    return {
        f"docs/openapi/{service.name}.json": _json(service.app().openapi(), sort_keys=True)
        for service in composed
    }


def _json(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=sort_keys) + "\n"


class _ReadableYaml(yaml.SafeDumper):
    """Texts of several lines as blocks; every value written out where it is used."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_ReadableYaml.add_representer(str, _text)


def _yaml(value: Any) -> str:
    head = "# Made by `python -m ops.documents` from shared/events.py and shared/topics.py.\n"
    return head + yaml.dump(
        value, Dumper=_ReadableYaml, sort_keys=False, allow_unicode=True, width=100
    )


def generate() -> dict[str, str]:
    """The content of every document by its path inside the project."""
    return {
        **schemas(),
        "docs/asyncapi/public.yaml": _yaml(_public_asyncapi()),
        "docs/asyncapi/internal.yaml": _yaml(_internal_asyncapi()),
        **_openapi(),
    }


def _superfluous(documents: Mapping[str, str], root: Path) -> list[str]:
    there = (path for pattern in OWNED for path in root.glob(pattern))
    return sorted({path.relative_to(root).as_posix() for path in there} - documents.keys())


def problems(root: Path = PROJECT) -> list[str]:
    """What differs below ``root`` from what the code says: a line for each file."""
    documents = generate()
    found = []
    for name, content in documents.items():
        path = root / name
        if not path.exists():
            found.append(f"{name} is missing")
        elif path.read_text(encoding="utf-8") != content:
            found.append(f"{name} is stale")
    return [*found, *(f"{name} is superfluous" for name in _superfluous(documents, root))]


def write(root: Path = PROJECT) -> list[str]:
    """Write every document below ``root`` and delete the superfluous; returns the paths."""
    documents = generate()
    for name, content in documents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for name in _superfluous(documents, root):
        (root / name).unlink()
    return sorted(documents)


def main(root: Path = PROJECT) -> int:
    """Write, or with ``--check`` compare; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ops.documents", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; 1 if one differs")
    if not parser.parse_args().check:
        print(*write(root), sep="\n")
        return 0
    found = problems(root)
    if found:
        print(*found, "Run `make docs` and commit what it writes.", sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
