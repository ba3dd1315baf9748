"""From words to clauses: what stands between two stops, as words and phrases with their kinds."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from services.notification.incoming.reading.lexicon import lexicon
from services.notification.incoming.reading.tokens import Token

# Who is on the way for longer than this says when they will come, not that they come.
MINUTES_ON_THE_WAY = 60
_MINUTES = {"menit": 1, "min": 1, "jam": 60}
_ROUGHLY = frozenset((("dalam",), ("sekitar",), ("kira", "kira"), ("kurang", "lebih")))
_ENDS = frozenset(".,;!?:\n()|/")
_NUMBER_AND_WORD = re.compile(r"(\d+)([a-z]{2,})")
_CLOCK = re.compile(r"\d{1,2}([.:]\d{2})?")


@dataclass(frozen=True)
class Part:
    """A word or phrase with its kind, and where it stands in the text."""

    kind: str
    words: tuple[str, ...]
    start: int
    end: int
    torn: bool = False  # it may be either of two
    strange: bool = False  # no word of ours at all
    guessed: bool = False  # one of ours through a typing error

    def marked(self, *names: str) -> bool:
        """Whether it is in one of these groups of words, whatever its kind."""
        marks = lexicon().marks
        return any(self.words in marks[name] for name in names)


@dataclass(frozen=True)
class Clause:
    """What stands between two stops."""

    parts: tuple[Part, ...]
    asks: bool = False  # a question mark ends it
    contrast: bool = False  # a "tapi" begins it
    either: bool = False  # a stroke ends it: "ya/tidak"
    after_code: bool = False  # nothing stands between the code and it


def clauses_of(said: Sequence[Token], *, after_code: int | None) -> list[Clause]:
    """The clauses of the words and signs that were said; ``after_code`` is where the word begins
    that follows the code."""
    clauses: list[Clause] = []
    run: list[Token] = []
    asked = False
    for token in [*said, Token(-1, -1, "\n", "mark")]:
        if token.kind == "word":
            run.append(token)
            continue
        if token.folded not in _ENDS or (token.folded == "." and _abbreviates(said, token, run)):
            continue
        if run:
            clauses += _parted(_greeted(_timed(_phrases(_spelt(run)))))
            last = clauses[-1]
            either = token.folded == "/" and last.parts[-1].kind in ("yes", "ya", "not")
            coded = last.parts[0].start == after_code
            clauses[-1] = replace(last, either=either, after_code=coded)
            run = []
        if token.folded == "?":
            asked = asked or not clauses  # "?? selesai"
            clauses[-1:] = [replace(clause, asks=True) for clause in clauses[-1:]]
    if asked and clauses:
        clauses[0] = replace(clauses[0], asks=True)
    return clauses


def _abbreviates(said: Sequence[Token], stop: Token, run: Sequence[Token]) -> bool:
    """Whether the full stop belongs to a "no." of a telephone or a house."""
    after = next((token for token in said if token.start >= stop.end), None)
    return bool(run) and run[-1].folded == "no" and after is not None and _is_numbered(after.folded)


def _is_numbered(word: str) -> bool:
    return word[0].isdigit() or word in ("hp", "wa", "telp", "tlp", "telepon", "rumah", "rekening")


def _parted(parts: Sequence[Part]) -> list[Clause]:
    """The clauses of words without a sign between them: a "tapi" begins a new one."""
    runs: list[list[Part]] = [[]]
    for part in parts:
        if part.kind == "contrast" and runs[-1]:
            runs.append([])
        runs[-1].append(part)
    return [Clause(tuple(run), contrast=run[0].kind == "contrast") for run in runs]


# --- words in our spelling ---------------------------------------------------------------------


class _Word(NamedTuple):
    words: str
    start: int
    end: int
    torn: bool
    strange: bool
    guessed: bool


def _spelt(run: Sequence[Token]) -> list[_Word]:
    known = lexicon()
    written = [piece for token in run for piece in _split_number(token)]
    words = [word for word, _ in written]
    spelt: list[_Word] = []
    place = 0
    while place < len(written):
        size = _longest_in(known.spellings, words, place, known.longest)
        torn = guessed = False
        if size > 1:
            plain = known.spellings[tuple(words[place : place + size])]
        elif words[place] == "no" and place + 1 < len(words) and _is_numbered(words[place + 1]):
            size, plain = 1, ("nomor",)
        else:
            size = 1
            plain, guessed, torn = known.spelt(words[place])
        start, end = written[place][1].start, written[place + size - 1][1].end
        strange = len(plain) == 1 and plain[0] not in known.single and plain[0].isalpha()
        spelt += [_Word(word, start, end, torn, strange, guessed) for word in plain]
        place += size
    return spelt


def _split_number(token: Token) -> list[tuple[str, Token]]:
    """ "15mnt" is two words."""
    found = _NUMBER_AND_WORD.fullmatch(token.folded)
    return [(word, token) for word in (found.groups() if found else (token.folded,))]


def _longest_in(
    table: Collection[tuple[str, ...]], words: Sequence[str], place: int, longest: int
) -> int:
    """How many words from here on are an entry; 0 if not even one is."""
    for size in range(min(longest, len(words) - place), 0, -1):
        if tuple(words[place : place + size]) in table:
            return size
    return 0


def _phrases(spelt: Sequence[_Word]) -> list[Part]:
    known = lexicon()
    words = [one.words for one in spelt]
    parts: list[Part] = []
    place = 0
    while place < len(spelt):
        size = max(1, _longest_in(known.kinds, words, place, known.longest))
        of = spelt[place : place + size]
        phrase = tuple(words[place : place + size])
        parts.append(
            Part(
                known.kind(phrase),
                phrase,
                of[0].start,
                of[-1].end,
                torn=any(one.torn for one in of),
                strange=of[0].strange,
                guessed=any(one.guessed for one in of),
            )
        )
        place += size
    return parts


# --- times -------------------------------------------------------------------------------------


def _timed(parts: Sequence[Part]) -> list[Part]:
    """The parts with lengths of time as one: a ``duration``, or ``later`` if it is no short one."""
    timed: list[Part] = []
    place = 0
    while place < len(parts):
        one, size = _time_at(parts, place)
        timed.append(one)
        place += size
    return timed


def _time_at(parts: Sequence[Part], place: int) -> tuple[Part, int]:
    """ "Sekitar 10-15 menit lagi" and "jam 5", as one part; else the part as it is."""
    at = place
    while at < len(parts) and parts[at].words in _ROUGHLY:
        at += 1
    numbers = 0
    while at < len(parts) and numbers < 2 and (amount := _amount(parts[at])) is not None:
        at, numbers, last = at + 1, numbers + 1, amount
    follows = parts[at : at + 1]
    if numbers and follows and follows[0].words[0] in _MINUTES:
        at += 1
        short = last * _MINUTES[follows[0].words[0]] <= MINUTES_ON_THE_WAY
        at += at < len(parts) and parts[at].words == ("lagi",)
        return _one_part("duration" if short else "later", parts[place:at]), at - place
    first, second = parts[place], parts[place + 1 : place + 2]
    if first.words == ("jam",) and second and _CLOCK.fullmatch(" ".join(second[0].words)):
        return _one_part("later", parts[place : place + 2]), 2
    return first, 1


def _amount(part: Part) -> float | None:
    if part.words == ("setengah",):
        return 0.5
    word = part.words[0]
    plain = len(part.words) == 1 and word.isascii() and word.isdigit() and len(word) <= 3
    return int(word) if plain else None


def _one_part(kind: str, parts: Sequence[Part]) -> Part:
    words = tuple(word for part in parts for word in part.words)
    return Part(kind, words, parts[0].start, parts[-1].end)


def _greeted(parts: Sequence[Part]) -> list[Part]:
    """ "Sore pak" is a greeting where a clause begins; "bisa sore" and "sore saya bisa" are not."""
    for place, part in enumerate(parts):
        if part.kind == "daytime":
            alone = place + 1 == len(parts) or parts[place + 1].kind in ("address", "title")
            return (
                [*parts[:place], replace(part, kind="filler"), *parts[place + 1 :]]
                if (alone)
                else list(parts)
            )
        if part.kind not in ("filler", "address"):
            break
    return list(parts)
