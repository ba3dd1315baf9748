"""What people write, made safe to store and to show: terminals obey control characters."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

LINE_BREAKS = "\n\t"


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def one_line(text: str) -> str:
    """A text on one line, without control characters: nobody can forge a line with it."""
    return " ".join("".join(" " if _is_control(c) else c for c in text).split())


def storable(text: str) -> str:
    """A text as PostgreSQL takes it: without NUL and without halves of characters."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def shortened(text: str, at_most: int) -> str:
    """A text of no more than so many characters, and how many were left out: ``jalan… (+120)``."""
    left_out = len(text) - at_most
    return text if left_out <= 0 else f"{text[:at_most]}… (+{left_out})"


def without_control(text: str) -> str:
    """A text of several lines without other control characters."""
    return "".join(c for c in text if c in LINE_BREAKS or not _is_control(c))


def _printable_line(text: str) -> str:
    if any(map(_is_control, text)):
        raise ValueError("It must be one line without control characters.")
    return text


def _printable(text: str) -> str:
    if any(_is_control(c) and c not in LINE_BREAKS for c in text):
        raise ValueError("It must not contain control characters.")
    return text


# A name or the like, of up to 120 characters.
Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=120),
    AfterValidator(_printable_line),
]
# Sentences in a person's own words; put a length of your own on top.
Sentences = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_printable)]
