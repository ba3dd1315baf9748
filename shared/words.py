"""What people write, made safe to store and to show: terminals obey control characters, and what
cannot be seen or turns the writing round makes one text look like another.

Where a sender can mend it, such characters are refused; in what comes in by SMS or mail they are
left out when it is shown. Of emoji, what joins them stays in sentences: they are how people write.
See docs/adr/0027-characters-that-deceive.md.
"""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

LINE_BREAKS = "\n\t"
# No writing puts more marks on one letter (Hebrew with all its signs has four); floods of them
# cover the lines above.
MARKS_AT_MOST = 4

_JOINER = "\u200d"
_EMOJI_STYLE = "\ufe0f"
# Characters of other kinds that telephones make emoji of.
_IN_EMOJI = frozenset("0123456789#*\u203c\u2049\u2139\u3030\u303d\u00a9\u00ae")
# What Unicode shows as nothing although it is a letter, a mark or a symbol: fillers of Hangul and
# Khmer, the blank of Braille, the joiner of graphemes, and the selectors of variants.
_BLANK = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
)
# Format, private use, halves of characters, separators of lines and paragraphs.
_HIDDEN_KINDS = frozenset({"Cf", "Co", "Cs", "Zl", "Zp"})


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _is_hidden(character: str) -> bool:
    """Whether nothing of this character is to be seen but what it does to others."""
    number = ord(character)
    return (
        character in _BLANK
        or 0xE0000 <= number <= 0xE0FFF  # tags, more selectors
        or number & 0xFFFE == 0xFFFE  # no characters, as U+FFFE
        or 0xFDD0 <= number <= 0xFDEF
        or unicodedata.category(character) in _HIDDEN_KINDS
    )


def _is_symbol(character: str) -> bool:
    """Whether this may be a part of an emoji; what is too new for this Python counts as one."""
    symbol = unicodedata.category(character) in ("So", "Sk", "Cn") or character in _IN_EMOJI
    return symbol and not _is_hidden(character)


def _holds_together(before: str, joiner: str, after: str) -> bool:
    """Whether a hidden character holds an emoji together, between these two."""
    if joiner == _EMOJI_STYLE:
        return before != "" and _is_symbol(before)
    joined = before == _EMOJI_STYLE or (before != "" and _is_symbol(before))
    return joiner == _JOINER and joined and after != "" and _is_symbol(after)


def _cleaned(text: str, *, emoji: bool) -> tuple[str, int | None]:
    """A text without what deceives, and where the first of it stood; with ``emoji`` what holds one
    together is none."""
    kept: list[str] = []
    first, marks = None, 0
    for index, character in enumerate(text):
        if character.isascii():
            marks = 0
            kept.append(character)
            continue
        mark = unicodedata.category(character) in ("Mn", "Me")
        flaw = mark and marks == MARKS_AT_MOST
        if not flaw and _is_hidden(character):
            before, after = kept[-1] if kept else "", text[index + 1 : index + 2]
            flaw = not (emoji and _holds_together(before, character, after))
        if flaw:
            first = index if first is None else first
            continue
        marks = marks + 1 if mark else 0
        kept.append(character)
    return "".join(kept), first


def _without_flaws(text: str) -> str:
    return text if text.isascii() else _cleaned(text, emoji=True)[0]


def one_line(text: str) -> str:
    """A text on one line, without control characters and what deceives: nobody can forge a line
    with it."""
    line = "".join(" " if _is_control(c) or c in "\u2028\u2029" else c for c in text)
    return " ".join(_without_flaws(line).split())


def storable(text: str) -> str:
    """A text as PostgreSQL takes it: without NUL and without halves of characters."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def shortened(text: str, at_most: int) -> str:
    """A text of no more than so many characters, and how many were left out: ``jalan… (+120)``."""
    left_out = len(text) - at_most
    return text if left_out <= 0 else f"{text[:at_most]}… (+{left_out})"


def without_control(text: str) -> str:
    """A text of several lines without other control characters and without what deceives."""
    return _without_flaws("".join(c for c in text if c in LINE_BREAKS or not _is_control(c)))


def _printable_line(text: str) -> str:
    if any(map(_is_control, text)):
        raise ValueError("It must be one line without control characters.")
    _refuse_flaws(text, emoji=False)
    return text


def _printable(text: str) -> str:
    if any(_is_control(c) and c not in LINE_BREAKS for c in text):
        raise ValueError("It must not contain control characters.")
    _refuse_flaws(text, emoji=True)
    return text


def _refuse_flaws(text: str, *, emoji: bool) -> None:
    if text.isascii():
        return
    _, first = _cleaned(text, emoji=emoji)
    if first is not None:
        raise ValueError(
            "It must not contain characters that cannot be seen or pile up: remove what stands "
            f"at position {first + 1} (U+{ord(text[first]):04X})."
        )


# A name or the like, of up to 120 characters.
Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=120),
    AfterValidator(_printable_line),
]
# Sentences in a person's own words; put a length of your own on top.
Sentences = Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_printable)]
