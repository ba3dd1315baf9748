r"""Rules by which a gateway's answer is read, written in settings.

``json:status=1``             the field is that value (numbers and texts alike)
``json:message.status in 1,2``  the field at that path is one of them; ``data.0.id`` goes into lists
``json:message.id``           the field is there, and not null
``text:OK``                   the answer begins with that, spaces before it aside
``re:ID=(\d+)``               the answer contains that; its first group is the value

An empty rule matches nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

_JSON = re.compile(
    r"(?P<path>[^=\s]+)\s*(?:=\s*(?P<one>.*)|\s+in\s+(?P<several>.+))?", re.IGNORECASE
)


@dataclass(frozen=True)
class Rule:
    """``values``: what the field at a path may be; None if it need only be there."""

    kind: str
    pattern: str
    values: frozenset[str] | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The rule that a text in settings describes; None for an empty one.

        Raises:
            ValueError: it describes none.
        """
        if not text.strip():
            return None
        kind, _, rest = text.strip().partition(":")
        rest = rest.strip()
        if kind not in ("json", "text", "re") or not rest:
            raise ValueError(f"{text!r} begins with none of json:, text: and re:")
        if kind == "re":
            try:
                re.compile(rest)
            except re.error as error:
                raise ValueError(f"{rest!r} is no regular expression: {error}") from None
        if kind != "json":
            return cls(kind, rest)
        found = _JSON.fullmatch(rest)
        if found is None:
            raise ValueError(f"{rest!r} is neither a field, nor field=value, nor field in a,b")
        values = None
        if found["one"] is not None:
            values = frozenset([found["one"].strip()])
        elif found["several"] is not None:
            values = frozenset(value.strip() for value in found["several"].split(","))
        return cls(kind, found["path"], values)

    def value(self, answer: str) -> str | None:
        """What the rule finds in an answer; None if it does not match."""
        if self.kind == "text":
            return self.pattern if answer.lstrip().startswith(self.pattern) else None
        if self.kind == "re":
            match = re.search(self.pattern, answer)
            return None if match is None else str(match[1] if match.re.groups else match[0])
        try:
            value = field(json.loads(answer), self.pattern)
        except (ValueError, RecursionError):
            return None
        if value is None or (self.values is not None and value not in self.values):
            return None
        return value

    def matches(self, answer: str) -> bool:
        """Whether an answer is what the rule describes."""
        return self.value(answer) is not None


def field(body: Any, path: str) -> str | None:
    """The value at a path such as ``data.0.id`` as text; None if there is none."""
    for name in path.split("."):
        if isinstance(body, Mapping):
            body = body.get(name)
        elif isinstance(body, Sequence) and not isinstance(body, str | bytes):
            index = int(name) if name.isdecimal() else len(body)
            body = body[index] if index < len(body) else None
        else:
            return None
    if body is None or isinstance(body, Mapping | list):
        return None
    return json.dumps(body) if isinstance(body, bool) else str(body)
