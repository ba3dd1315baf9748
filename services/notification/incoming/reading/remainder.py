"""What a text says besides its code and the plain answer that it begins with."""

import re
import unicodedata
from collections.abc import Sequence

from services.notification.incoming.reading.clauses import Clause
from services.notification.incoming.reading.lexicon import MANNERS
from services.notification.incoming.reading.tokens import Token
from shared.words import one_line

WORDS_AT_MOST = 1_000  # characters, as the event's contract takes them

_PLAIN = frozenset(
    ("yes", "ya", "can", "go", "no", "not", "not_yet", "sorry", "arrived", "done", "obstacle",
     "stop", "start", "people", "already", "now", *MANNERS)
)  # fmt: skip
# Our own words: what follows one of them is what the person adds.
_COMMANDS = frozenset((("ya",), ("tidak",), ("tiba",), ("selesai",), ("kendala",), ("siap",)))
_LEANS_ON_IT = frozenset(
    ("not", "not_yet", "can", "willing", "excuse", "ya", "yes", "arrived", "done", "hedge")
)


def on_one_line(text: str) -> str:
    """A text as an event can carry it."""
    plain = "".join(" " if unicodedata.category(c) == "Cs" else c for c in text)
    return one_line(plain)[:WORDS_AT_MOST].strip()


def without_code(text: str, tokens: Sequence[Token], start: int = 0) -> str:
    """The text from ``start`` on without the code, and without the signs that held on to it."""
    kept = []
    place = start
    for token in tokens:
        if token.kind == "code" and token.end > start:
            kept.append(text[place : token.start].rstrip("#"))
            place = token.end
    kept.append(text[place:])
    pieces = [piece.strip(" \t\r\n:-.,#_/") if piece.strip() else "" for piece in kept[:-1]]
    last = kept[-1].lstrip(" \t\r\n:-.,#_/)") if len(kept) > 1 else kept[-1]
    return " ".join(piece for piece in [*pieces, last] if piece)


def remaining(text: str, tokens: Sequence[Token], clauses: Sequence[Clause], meaning: str) -> str:
    """What the text says besides its code and the plain answer that it begins with."""
    if meaning == "ask" or not clauses or not clauses[0].parts:
        return on_one_line(without_code(text, tokens))
    start = 0
    parts = clauses[0].parts
    if all(part.kind in _PLAIN for part in parts):
        start = parts[-1].end
    elif parts[0].words in _COMMANDS and parts[0].end < parts[1].start:
        leans = parts[1].kind in _LEANS_ON_IT and parts[0].kind != "obstacle"
        start = 0 if leans else parts[0].end
    rest = on_one_line(without_code(text, tokens, start))
    if not start:
        return rest
    rest = rest.lstrip(" .,;:!-/_|*\"')")
    if not any(c.isalnum() or unicodedata.category(c) == "So" for c in rest):
        return ""
    return rest[1:-1] if re.fullmatch(r"\([^()]*\)", rest) else rest
