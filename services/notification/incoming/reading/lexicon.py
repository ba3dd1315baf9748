"""The words we know (``reply_words.toml``): what each is, and what people write for it."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import OSA

from services.notification.incoming.reading.tokens import folded

WORDS = Path(__file__).parent / "reply_words.toml"

Words = tuple[str, ...]

# Shorter words differ by one letter from too many others.
SHORTEST_WITH_TYPO = 4
LONGEST_WITH_TYPO = 20
# "Kamis" is near to "kami", "balik" to "baik": what an act is made of must be longer.
SHORTEST_OF_AN_ACT = 6
# From this length on, two letters may be wrong.
LONG_WORD = 8

# Groups of words that are something besides their kind: what became of a case, what is asked for,
# and what may stand beside an act.
MARKS = (
    "referred", "resolved", "not_found", "cancelled", "place",
    "help", "near", "there", "about", "person", "family", "named", "polite",
    "needs_a_writer", "may_be_past", "moved",
)  # fmt: skip
# Whom a text is said to, and particles: they say nothing themselves.
MANNERS = frozenset(("filler", "address", "particle", "title"))
DENIALS = frozenset(("not", "not_yet", "bare_not"))
# What an act is made of: a typing error is forgiven only where no other word is near.
_OF_ACTS = MANNERS | {
    "yes", "ya", "can", "willing", "go", "arrived", "done", "handled", "already", "people", "soon",
    "now", "hopeful", "to",
}  # fmt: skip
# What a typing error must not make of a word without it being asked back.
_HEAVY = DENIALS | {
    "yes", "ya", "can", "go", "no", "arrived", "done", "obstacle", "stop", "start",
}  # fmt: skip


class Spelt(NamedTuple):
    """A word as our lists write it. ``guessed``: through a typing error; ``torn``: it may as well
    be another of another meaning."""

    words: Words
    guessed: bool = False
    torn: bool = False


@dataclass(frozen=True)
class Lexicon:
    """Kinds of words and phrases by their words, and spellings by what people write."""

    kinds: dict[Words, str]
    spellings: dict[Words, Words]
    marks: dict[str, frozenset[Words]]
    single: dict[str, Words]  # every single word that is written, and its spelling
    of_acts: frozenset[str]  # the words that acts and what stands beside them are made of
    long: tuple[str, ...]  # those of them in which a typing error is forgiven
    longest: int  # words in the longest phrase

    def kind(self, words: Words) -> str:
        """What a word or phrase is; ``neutral`` for all that says nothing to us."""
        return self.kinds.get(words, "neutral")

    def knows(self, word: str) -> bool:
        """Whether a word is one of ours, in whatever spelling."""
        return word in self.single or self.spelt(word).words != (word,)

    def spelt(self, word: str) -> Spelt:
        """A written word in our spelling; itself where it is none of ours."""
        if word in self.single:
            return Spelt(self.single[word])
        for shorter in (re.sub(r"(.)\1{2,}", r"\1", word), re.sub(r"(.)\1+", r"\1", word)):
            if shorter in self.single:
                return Spelt(self.single[shorter])
        if word.endswith("n't"):
            return Spelt(("tidak",))
        return self._without_ending(word) or self._nearest(word)

    def _without_ending(self, word: str) -> Spelt | None:
        for ending in ("nya", "lah", "kah"):
            base = word.removesuffix(ending)
            if base == word or len(base) < 3 or base not in self.single:
                continue
            plain = self.single[base]
            if ending == "kah":
                return Spelt((*plain, "apa"))
            # "Selesainya" is the end of something, not that it has ended.
            if ending == "lah" or self.kind(plain[:1]) not in _OF_ACTS:
                return Spelt(plain)
        return None

    def _nearest(self, word: str) -> Spelt:
        if not (SHORTEST_WITH_TYPO <= len(word) <= LONGEST_WITH_TYPO) or not word.isalpha():
            return Spelt((word,))
        allowed = 2 if len(word) >= LONG_WORD else 1
        near = process.extract(
            word, self.long, scorer=OSA.distance, score_cutoff=allowed, limit=8, processor=None
        )
        if not near:
            return Spelt((word,))
        best = near[0][1]
        plain = list(dict.fromkeys(self.single[entry] for entry, far, _ in near if far == best))
        kinds = {self.kind(words[:1]) for words in plain}
        if len(plain) == 1 or len(kinds) == 1:
            return self._if_sure(word, plain[0])
        # "No" must not be overread, nor one meaning be taken for another.
        torn = bool(kinds & DENIALS) or len(kinds & _HEAVY) > 1
        return Spelt((word,), torn=torn)

    def _if_sure(self, word: str, plain: Words) -> Spelt:
        """An act is not made of a short word mistyped: "kamis" is no "kami"."""
        unsure = len(word) < SHORTEST_OF_AN_ACT or word[0] != plain[0][0]
        if unsure and not self.of_acts.isdisjoint(plain):
            return Spelt((word,))
        return Spelt(plain, guessed=True)


@cache
def lexicon() -> Lexicon:
    """The words of ``reply_words.toml``."""
    table = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    spellings = {
        tuple(variant.split()): tuple(plain.split())
        for plain, variants in table.pop("spelling").items()
        for variant in variants
    }
    kinds: dict[Words, str] = {}
    marks: dict[str, frozenset[Words]] = {}
    for group in table.values():
        for kind, entries in group.items():
            phrases = [tuple(folded(word) for word in entry.split()) for entry in entries]
            if kind in MARKS:
                marks[kind] = frozenset(phrases)
                continue
            for phrase in phrases:
                kinds.setdefault(phrase, kind)
    for phrases_of in marks.values():
        for phrase in phrases_of:
            kinds.setdefault(phrase, "neutral")
    single = {written[0]: plain for written, plain in spellings.items() if len(written) == 1}
    words = {word for phrase in kinds for word in phrase}
    words |= {word for plain in spellings.values() for word in plain}
    single |= {word: (word,) for word in words if word not in single}
    return Lexicon(
        kinds=kinds,
        spellings=spellings,
        marks=marks,
        single=single,
        of_acts=frozenset(
            word
            for phrase, kind in kinds.items()
            for word in phrase
            if kind in _OF_ACTS or any(phrase in marked for marked in marks.values())
        )
        - {"tidak"},
        long=tuple(sorted(word for word, plain in single.items() if _forgives(word, plain))),
        longest=max(map(len, [*kinds, *spellings])),
    )


def _forgives(word: str, plain: Words) -> bool:
    """Short spellings of "tidak" are near to too much: "ngak" to "agak" and "anak"."""
    return len(word) >= SHORTEST_WITH_TYPO + (plain == ("tidak",))
