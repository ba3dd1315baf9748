"""Finding the answer code in a text: exact, glued to a word, in pieces, or one slip away."""

import re
from collections.abc import Collection, Sequence

from rapidfuzz.distance import OSA

from services.notification.incoming.reading.lexicon import lexicon
from services.notification.incoming.reading.tokens import Token
from shared.codes import ALPHABET, normalised

CODE_LENGTH = 5
TWO = "two codes"
_UNITS = re.compile(r"\d+(mnt|menit|jam|km|m|rb|jt|hr|thn|org|x|k)", re.IGNORECASE)
_NUMBERED = re.compile(r"(rt|rw)\d\w*|(jam|jl|km|gg|no|ber|ke|blok|kav|h|hp)\d+", re.IGNORECASE)
# What is read or typed for what, also letters that codes do not have.
_LOOK_ALIKES = ("0OQD", "1ILJT", "5S", "2Z", "8B", "6G", "UVW")
_ALIKE = str.maketrans({letter: group[0] for group in _LOOK_ALIKES for letter in group})


def valid(codes: Collection[str]) -> list[str]:
    """Those that can be answer codes, each once, as we write them."""
    plain = dict.fromkeys(map(normalised, codes))
    return [code for code in plain if _is_code(code)]


def _is_code(text: str) -> bool:
    return len(text) == CODE_LENGTH and set(text) <= set(ALPHABET)


def take_codes(tokens: list[Token], codes: Sequence[str]) -> tuple[list[Token], str | None]:
    """The tokens with those marked that are the code, and the code; ``TWO`` if there are several.

    One of ``codes`` goes before what only looks like a code; an exact one before a near one.
    """
    for find in (_exact, _glued, _apart, _near):
        marked, found = find(tokens, codes)
        if found:
            return marked, found.pop() if len(found) == 1 else TWO
    return _looks_like_codes(tokens)


Found = tuple[list[Token], set[str]]


def _as_code(token: Token) -> str:
    return normalised(token.folded) if token.kind == "word" else ""


def _exact(tokens: list[Token], codes: Sequence[str]) -> Found:
    found = {code for token in tokens if (code := _as_code(token)) in codes}
    marked = [t._replace(kind="code") if _as_code(t) in found else t for t in tokens]
    return marked, found


def _glued(tokens: list[Token], codes: Sequence[str]) -> Found:
    """ "k7m2pya": the code, and a word without a space between."""
    marked: list[Token] = []
    found: set[str] = set()
    for token in tokens:
        pieces = _unglued(token, codes)
        found |= {normalised(piece.folded) for piece in pieces if piece.kind == "code"}
        marked += pieces
    return marked, found


def _unglued(token: Token, codes: Sequence[str] | None) -> list[Token]:
    written = token.folded
    # Where folding has changed the length, positions are not known.
    if token.kind != "word" or token.end - token.start != len(written):
        return [token]
    if len(written) <= CODE_LENGTH:
        return [token]
    for cut, first in ((CODE_LENGTH, True), (len(written) - CODE_LENGTH, False)):
        head, tail = written[:cut], written[cut:]
        code, word = (head, tail) if first else (tail, head)
        if codes is None:
            known = _is_sure(normalised(code)) and word in lexicon().single
        else:
            known = normalised(code) in codes
        if known:
            middle = token.start + cut
            return [
                Token(token.start, middle, head, "code" if first else "word"),
                Token(middle, token.end, tail, "word" if first else "code"),
            ]
    return [token]


def _apart(tokens: list[Token], codes: Sequence[str]) -> Found:
    """ "K7 M2P", "K.7.M.2.P": the code in pieces."""
    words = [place for place, token in enumerate(tokens) if token.kind == "word"]
    found: dict[str, tuple[int, int]] = {}
    for first, place in enumerate(words):
        joined = ""
        for last in words[first : first + CODE_LENGTH]:
            joined += normalised(tokens[last].folded)
            if len(joined) >= CODE_LENGTH:
                if joined in codes and last > place:
                    found[joined] = (place, last)
                break
    marked = list(tokens)
    for place, last in found.values():
        marked[place : last + 1] = [t._replace(kind="code") for t in marked[place : last + 1]]
    return marked, set(found)


def _near(tokens: list[Token], codes: Sequence[str]) -> Found:
    """A slip of the thumb, or a letter taken for another: if it is near to just one code."""
    marked: list[Token] = []
    found: set[str] = set()
    for number, token in enumerate(tokens):
        written = _as_code(token)
        near = []
        if CODE_LENGTH - 1 <= len(written) <= CODE_LENGTH + 1 and _may_be_code(tokens, number):
            near = [c for c in codes if OSA.distance(written, c, score_cutoff=1) <= 1]
            alike = written.translate(_ALIKE)
            near = near or [c for c in codes if c.translate(_ALIKE) == alike]
        if len(near) == 1:
            found.add(near[0])
            token = token._replace(kind="code")
        marked.append(token)
    return marked, found


def _may_be_code(tokens: Sequence[Token], number: int) -> bool:
    """No ordinary word: it has a digit in it, or it can hardly be said."""
    written = tokens[number].folded
    if _UNITS.fullmatch(written) or _NUMBERED.fullmatch(written) or written.isdigit():
        return False
    if any(c.isdigit() for c in written):
        return any(c.isalpha() for c in written)
    return not lexicon().knows(written) and not _can_be_said(written)


def _looks_like_codes(tokens: list[Token]) -> tuple[list[Token], str | None]:
    pieces = [piece for token in tokens for piece in _unglued(token, None)]
    firsts = [number for number, token in enumerate(pieces) if token.kind != "mark"][:1]
    found: set[str] = {normalised(p.folded) for p in pieces if p.kind == "code"}
    marked = []
    for number, token in enumerate(pieces):
        written = _as_code(token)
        if _is_sure(written) or (
            number in firsts and _is_code(written) and _may_be_code(pieces, number)
        ):
            found.add(written)
            token = token._replace(kind="code")
        marked.append(token)
    if not found:
        return tokens, None
    return marked, found.pop() if len(found) == 1 else TWO


def _is_sure(written: str) -> bool:
    """Of five letters of our alphabet, and no word: a digit and a letter are in it."""
    return (
        _is_code(written)
        and any(c.isdigit() for c in written)
        and any(c.isalpha() for c in written)
        and not _UNITS.fullmatch(written)
        and not _NUMBERED.fullmatch(written)
    )


def _can_be_said(word: str) -> bool:
    """Whether letters alone could be a word or a name: "SEKAR", but not "KBDFR"."""
    return re.search(r"[aeiou]", word) is not None and not re.search(r"[^aeiou]{4}", word)


def after_code(tokens: Sequence[Token]) -> int | None:
    """Where the word begins that directly follows the code, whatever signs are between."""
    seen = False
    for token in tokens:
        if token.kind == "code":
            seen = True
        elif token.kind == "word" and seen:
            return token.start
    return None
