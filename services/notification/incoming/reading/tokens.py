"""Cutting: a text becomes words and signs, each in one spelling of capitals and accents."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple


class Token(NamedTuple):
    """A piece of a text: where it stands, how it reads, and a word, a mark or a code."""

    start: int
    end: int
    folded: str
    kind: str = "word"


_PIECE = re.compile(
    r"\d+(?:[.:,]\d+)+|[^\W_](?:[^\W_]|[\u0300-\u036f\u200b-\u200d'\u2019`])*|\S|\n"
)
_DECORATION = re.compile("[\u200b-\u200f\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")


def folded(piece: str) -> str:
    """A word without capitals, accents, ornaments and shapes of apostrophes."""
    plain = unicodedata.normalize("NFKD", _DECORATION.sub("", piece)).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return plain.replace("\u2019", "'").replace("`", "'").strip("'")


def cut(text: str) -> Iterator[Token]:
    """The words, signs and line ends of a text, one after the other."""
    for found in _PIECE.finditer(text):
        piece = found.group()
        plain = folded(piece)
        if not plain:
            if piece == "\n":
                yield Token(found.start(), found.end(), piece, "mark")
            continue
        is_word = plain[0].isalnum() or unicodedata.category(plain[0]) == "So"
        yield Token(found.start(), found.end(), plain, "word" if is_word else "mark")


def joined(tokens: list[Token]) -> list[str]:
    """The words with "s/d" and "5/12" as one, whatever signs the cutting made of them."""
    words: list[str] = []
    end = -1
    for token in tokens:
        if token.start == end and (token.folded == "/" or words[-1].endswith("/")):
            words[-1] += token.folded
        else:
            words.append(token.folded)
        end = token.end
    return words
