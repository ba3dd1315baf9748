"""Events only grow: what was published once is kept in published.json and compared.

``python -m tests.contracts.growth`` adds what is new; it refuses to take anything away.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ops import documents

PUBLISHED = Path(__file__).parent / "published.json"
UPDATE = "python -m tests.contracts.growth"

# What is promised of one field: its place (``data.place.latitude``) and its rules.
Fields = dict[str, dict[str, Any]]
# Said to people, or said already by the place of the field.
NOT_A_RULE = {"description", "title", "examples", "properties", "required", "$defs", "$ref"}


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every event by its type, as the code has it now."""
    return {Path(name).stem: json.loads(text) for name, text in documents.schemas().items()}


def fields_of(schema: Mapping[str, Any]) -> Fields:
    """Every field of an event with its rules, flat."""
    return dict(_fields(schema, schema.get("$defs", {}), prefix=""))


def _fields(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], *, prefix: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    required = schema.get("required", ())
    for name, declared in schema.get("properties", {}).items():
        place = f"{prefix}{name}"
        field = _resolved(declared, definitions)
        rules = {key: value for key, value in field.items() if key not in NOT_A_RULE}
        yield place, {**rules, "required": name in required}
        yield from _fields(field, definitions, prefix=f"{place}.")
        items = _resolved(field.get("items", {}), definitions)
        yield from _fields(items, definitions, prefix=f"{place}[].")


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(schema.get("$ref", ""))
    return definitions[reference.rpartition("/")[2]] if reference else schema


def published() -> dict[str, Fields]:
    """What was promised: the fields of every event by its type."""
    found: dict[str, Fields] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return found


def broken_promises(old: Mapping[str, Fields], new: Mapping[str, Fields]) -> list[str]:
    """A sentence for each promise that the events of now do not keep; empty if they only grew."""
    found = []
    for event, promised in old.items():
        if event not in new:
            found.append(
                f"{event} is gone. It is still in the feed and agencies read it: keep its class in "
                "shared/events.py and its place in shared/topics.py, even if nobody sends it."
            )
            continue
        for problem in _problems(promised, new[event]):
            stem, _, version = event.rpartition(".v")
            found.append(
                f"{event}: {problem}. Whoever reads {event} relies on it: leave that class as it "
                f"is and make a new one of type {stem}.v{int(version) + 1} in shared/events.py."
            )
    return found


def _problems(old: Fields, new: Fields) -> Iterator[str]:
    for place, promised in old.items():
        if place not in new:
            yield f"the field {place} was removed"
            continue
        now = new[place]
        for rule in sorted(promised.keys() | now.keys()):
            before, after = promised.get(rule), now.get(rule)
            if before == after:
                continue
            if rule in ("maxItems", "maxLength") and before is None:
                continue  # a bound on what is written takes nothing from whoever reads
            if rule == "required":
                yield f"the field {place} {'is now required' if after else 'can now be absent'}"
            elif rule == "enum" and before and after:
                # New words are growth: readers are told to expect them.
                if gone := sorted(set(before) - set(after)):
                    yield f"{place} can no longer be {', '.join(map(str, gone))}"
            else:
                yield f"{rule} of {place} changed from {before!r} to {after!r}"
    for place in new.keys() - old.keys():
        parent = place.rpartition(".")[0].removesuffix("[]")
        # Inside something that is itself new and optional, a field may be required.
        if new[place]["required"] and (not parent or parent in old):
            yield f"the new field {place} is required, and the events of the past do not have it"


def unrecorded(old: Mapping[str, Fields], new: Mapping[str, Fields]) -> list[str]:
    """What the events have that published.json does not know yet, one line each."""
    return [
        f"{event}: {place}"
        for event, fields in new.items()
        for place, rules in fields.items()
        if old.get(event, {}).get(place) != rules
    ]


def main() -> int:
    """Record what is new; returns 1 and changes nothing if a promise is broken."""
    now = {event: fields_of(schema) for event, schema in schemas().items()}
    problems = broken_promises(published(), now) if PUBLISHED.exists() else []
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    PUBLISHED.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
