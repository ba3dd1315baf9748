"""What a text means that a volunteer has written: a pure reading, without knowing their cases.

A text is cut into words, the words are brought to one spelling (``reply_words.toml``, where a
district can add its own), and clause by clause the words are read with what stands around them: a
"tidak" before, a question mark behind, a "kalau" in front. Whatever then says two things, or
nothing, is asked back; nothing is guessed.
"""

import re
import tomllib
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import OSA

from services.notification.incoming.reading.leave import Leave, leave_in
from shared.codes import ALPHABET, normalised
from shared.events import Outcome
from shared.words import one_line

Meaning = Literal[
    "accept", "decline", "arrived", "done", "obstacle", "stop", "start", "off_duty", "duty_page",
    "ask",
]  # fmt: skip

WORDS = Path(__file__).parent / "reply_words.toml"
# Nobody's answer stands further back, and a text must not cost us more than a few milliseconds.
LOOKED_AT = 2_000  # characters
PIECES_LOOKED_AT = 300  # words and signs
WORDS_AT_MOST = 1_000  # characters, as the event's contract takes them
CODE_LENGTH = 5
# Shorter words differ by one letter from too many others.
SHORTEST_WITH_TYPO = 4
# From this length on, two letters may be wrong.
LONG_WORD = 8
# A "tidak" reaches over this many words without a meaning of their own.
REACH = 3


@dataclass(frozen=True)
class Reading:
    """What a text is taken for.

    ``code`` is the answer code that was typed; ``words`` what the text says besides, on one line.
    With ``done``, ``outcome`` is set where the words leave no doubt, and ``plain`` where the text
    is the word SELESAI and nothing else but a code and manners. ``leave`` goes with ``off_duty``.
    ``why`` goes with ``ask``: empty, ambiguous, not_understood, two_codes or wrong_number.
    """

    meaning: Meaning
    code: str | None
    words: str
    outcome: Outcome | None = None
    why: str | None = None
    plain: bool = False
    leave: Leave | None = None


def classify(text: str, *, codes: Collection[str] = ()) -> Reading:
    """Read a text; ``codes`` are the answer codes that its sender may mean."""
    looked = text[: LOOKED_AT * 4].strip()[:LOOKED_AT]
    tokens, code = _take_codes(list(islice(_tokens(looked), PIECES_LOOKED_AT)), _valid(codes))
    if code == TWO:
        return Reading("ask", None, _line(looked), why="two_codes")
    said = [token for token in tokens if token.kind != "code"]
    if not any(token.kind != "mark" for token in said):
        why = "empty" if code is None else "not_understood"
        return Reading("ask", code, _line(_without_code(looked, tokens)), why=why)
    leave = leave_in(_whole_words(said))
    if leave is not None:
        return Reading("off_duty", code, _line(_without_code(looked, tokens)), leave=leave)
    if _is_duty_page(said):
        return Reading("duty_page", code, _line(_without_code(looked, tokens)))
    clauses = _clauses(said, after_code=_after_code(tokens))
    meaning, unclear = _judged(clauses)
    rest = _remaining(looked, tokens, clauses, meaning)
    if len(text.strip()) > LOOKED_AT:
        # What stands further back may say the opposite.
        return Reading("ask", code, rest, why="not_understood")
    outcome = _outcome(clauses) if meaning == "done" else None
    plain = meaning == "done" and _is_plain(clauses)
    return Reading(meaning, code, rest, outcome, unclear, plain)


def _whole_words(said: Sequence["Token"]) -> list[str]:
    """The words with "s/d" and "5/12" as one, whatever signs the cutting made of them."""
    joined: list[str] = []
    end = -1
    for token in said:
        glued = token.start == end and (token.folded == "/" or joined[-1].endswith("/"))
        if glued:
            joined[-1] += token.folded
        else:
            joined.append(token.folded)
        end = token.end
    return joined


def _is_duty_page(said: Sequence["Token"]) -> bool:
    words = {token.folded for token in said if token.kind == "word"}
    around = {"saya", "minta", "mohon", "lihat", "cek", "pak", "bu", "jaga", "piket", "tugas"}
    return "jadwal" in words and words <= around | {"jadwal"}


def _is_plain(clauses: Sequence["Clause"]) -> bool:
    parts = [part for clause in clauses for part in clause.parts]
    done = [part for part in parts if part.kind == "done"]
    return len(done) == 1 and all(part.kind in ("done", "filler", "people") for part in parts)


# --- the words we know -------------------------------------------------------------------------


@dataclass(frozen=True)
class Lexicon:
    """Kinds of words and phrases by their words, and spellings by what people write."""

    kinds: dict[tuple[str, ...], str]
    spellings: dict[tuple[str, ...], tuple[str, ...]]
    marks: dict[str, frozenset[tuple[str, ...]]]  # outcomes, and places, beside the kinds
    single: dict[str, tuple[str, ...]]  # every single word that is written, and its spelling
    long: tuple[str, ...]  # those of them in which a typing error is forgiven
    longest: int

    def kind(self, words: tuple[str, ...]) -> str:
        """What a word or phrase is; ``neutral`` for all that says nothing to us."""
        return self.kinds.get(words, "neutral")


# Words that mark something and are something else besides.
_MARKS = ("referred", "resolved", "not_found", "cancelled", "place")
# What a typing error must not make of a word without it being asked back.
_HEAVY = frozenset(
    ("not", "not_yet", "yes", "ya", "can", "go", "no", "arrived", "done", "obstacle",
     "stop", "start")
)  # fmt: skip
_DENIALS = frozenset(("not", "not_yet", "bare_not"))


@cache
def lexicon() -> Lexicon:
    """The words of ``reply_words.toml``."""
    table = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    spellings = {
        tuple(variant.split()): tuple(plain.split())
        for plain, variants in table.pop("spelling").items()
        for variant in variants
    }
    kinds: dict[tuple[str, ...], str] = {}
    marks: dict[str, frozenset[tuple[str, ...]]] = {}
    for group in table.values():
        for kind, entries in group.items():
            phrases = [tuple(_fold(word) for word in entry.split()) for entry in entries]
            if kind in _MARKS:
                marks[kind] = frozenset(phrases)
                continue
            for phrase in phrases:
                kinds.setdefault(phrase, kind)
    single = {written[0]: plain for written, plain in spellings.items() if len(written) == 1}
    words = {word for phrase in kinds for word in phrase}
    words |= {word for plain in spellings.values() for word in plain}
    words |= {word for phrases in marks.values() for phrase in phrases for word in phrase}
    single |= {word: (word,) for word in words if word not in single}
    return Lexicon(
        kinds=kinds,
        spellings=spellings,
        marks=marks,
        single=single,
        long=tuple(sorted(word for word, plain in single.items() if _forgives(word, plain))),
        longest=max(map(len, [*kinds, *spellings])),
    )


def _forgives(word: str, plain: tuple[str, ...]) -> bool:
    """Short spellings of "tidak" are near to too much: "ngak" to "agak" and "anak"."""
    return len(word) >= SHORTEST_WITH_TYPO + (plain == ("tidak",))


# --- cutting -----------------------------------------------------------------------------------


class Token(NamedTuple):
    """A piece of a text: where it stands, how it reads, and a word, a mark or a code."""

    start: int
    end: int
    folded: str
    kind: str = "word"


_PIECE = re.compile(
    r"\d+(?:[.:,]\d+)+|[^\W_](?:[^\W_]|[\u0300-\u036f\u200b-\u200d'\u2019`])*|\S|\n"
)
_ENDS = frozenset(".,;!?:\n()|/")
_DECORATION = re.compile("[\u200b-\u200f\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
_NUMBER_AND_WORD = re.compile(r"(\d+)([a-z]{2,})")


def _fold(piece: str) -> str:
    """A word without capitals, accents, ornaments and shapes of apostrophes."""
    plain = unicodedata.normalize("NFKD", _DECORATION.sub("", piece)).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return plain.replace("\u2019", "'").replace("`", "'").strip("'")


def _tokens(text: str) -> Iterator[Token]:
    for found in _PIECE.finditer(text):
        piece = found.group()
        folded = _fold(piece)
        if not folded:
            if piece == "\n":
                yield Token(found.start(), found.end(), piece, "mark")
            continue
        is_word = folded[0].isalnum() or unicodedata.category(folded[0]) == "So"
        yield Token(found.start(), found.end(), folded, "word" if is_word else "mark")


# --- codes -------------------------------------------------------------------------------------

TWO = "two codes"
_UNITS = re.compile(r"\d+(mnt|menit|jam|km|m|rb|jt|hr|thn|org|x|k)", re.IGNORECASE)
_NUMBERED = re.compile(r"(rt|rw)\d\w*|(jam|jl|km|gg|no|ber|ke|blok|kav|h|hp)\d+", re.IGNORECASE)
# What is read or typed for what, also letters that codes do not have.
_LOOK_ALIKES = ("0OQD", "1ILJT", "5S", "2Z", "8B", "6G", "UVW")
_ALIKE = str.maketrans({letter: group[0] for group in _LOOK_ALIKES for letter in group})


def _valid(codes: Collection[str]) -> list[str]:
    plain = dict.fromkeys(map(normalised, codes))
    return [code for code in plain if _is_code(code)]


def _is_code(text: str) -> bool:
    return len(text) == CODE_LENGTH and set(text) <= set(ALPHABET)


def _take_codes(tokens: list[Token], codes: Sequence[str]) -> tuple[list[Token], str | None]:
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
    return not _known(written) and not _can_be_said(written)


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


def _known(word: str) -> bool:
    return bool(_spelt(word)[0] != (word,)) or word in lexicon().single


# --- spelling ----------------------------------------------------------------------------------


def _spelt(word: str) -> tuple[tuple[str, ...], bool]:
    """A word as our lists write it, and whether it may as well be another of another meaning."""
    known = lexicon()
    if word in known.single:
        return known.single[word], False
    for shorter in (re.sub(r"(.)\1{2,}", r"\1", word), re.sub(r"(.)\1+", r"\1", word)):
        if shorter in known.single:
            return known.single[shorter], False
    if word.endswith("n't"):
        return ("tidak",), False
    for ending in ("nya", "lah", "kah"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3 and base in known.single:
            plain = known.single[base]
            return (*plain, "apa") if ending == "kah" else plain, False
    return _nearest(word)


def _nearest(word: str) -> tuple[tuple[str, ...], bool]:
    known = lexicon()
    if not (SHORTEST_WITH_TYPO <= len(word) <= 20) or not word.isalpha():
        return (word,), False
    allowed = 2 if len(word) >= LONG_WORD else 1
    near = process.extract(
        word, known.long, scorer=OSA.distance, score_cutoff=allowed, limit=8, processor=None
    )
    if not near:
        return (word,), False
    best = near[0][1]
    plain = list(dict.fromkeys(known.single[entry] for entry, far, _ in near if far == best))
    if len(plain) == 1:
        return plain[0], False
    kinds = {known.kind(words[:1]) for words in plain}
    if len(kinds) == 1:
        return plain[0], False
    # "No" must not be overread, nor one meaning be taken for another.
    return (word,), bool(kinds & _DENIALS) or len(kinds & _HEAVY) > 1


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A word or phrase with its kind, and where it stands in the text."""

    kind: str
    words: tuple[str, ...]
    start: int
    end: int
    torn: bool = False  # it may be either of two
    strange: bool = False  # no word of ours at all


@dataclass
class Clause:
    """What stands between two stops."""

    parts: list[Part]
    asks: bool = False  # a question mark ends it
    contrast: bool = False  # a "tapi" begins it
    after_code: bool = False  # nothing stands between the code and it
    # (meaning, its part) as read; filled by `_read`.
    signals: list[tuple[str, Part]] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def _after_code(tokens: Sequence[Token]) -> int | None:
    """Where the word begins that directly follows the code, whatever signs are between."""
    seen = False
    for token in tokens:
        if token.kind == "code":
            seen = True
        elif token.kind == "word" and seen:
            return token.start
    return None


def _clauses(said: Sequence[Token], *, after_code: int | None) -> list[Clause]:
    clauses: list[Clause] = []
    run: list[Token] = []
    for token in [*said, Token(-1, -1, "\n", "mark")]:
        if token.kind == "word":
            run.append(token)
            continue
        if token.folded not in _ENDS or (token.folded == "." and _abbreviates(said, token, run)):
            continue
        if run:
            clauses += _parted(run)
            if token.folded == "/" and clauses[-1].parts[-1].kind in ("yes", "ya", "not"):
                clauses[-1].flags.add("torn")  # "ya/tidak"
            clauses[-1].after_code = clauses[-1].parts[0].start == after_code
            run = []
        if token.folded == "?" and clauses:
            clauses[-1].asks = True
    _skip_what_is_conditional(clauses)
    for clause in clauses:
        _read(clause)
    return clauses


def _abbreviates(said: Sequence[Token], stop: Token, run: Sequence[Token]) -> bool:
    """Whether the full stop belongs to a "no." of a telephone or a house."""
    after = next((token for token in said if token.start >= stop.end), None)
    return bool(run) and run[-1].folded == "no" and after is not None and _is_numbered(after.folded)


def _is_numbered(word: str) -> bool:
    return word[0].isdigit() or word in ("hp", "wa", "telp", "tlp", "telepon", "rumah", "rekening")


def _parted(run: Sequence[Token]) -> list[Clause]:
    """The clauses of words without a sign between them: a "tapi" begins a new one."""
    clauses = [Clause([])]
    for part in _parts(run):
        if part.kind == "contrast":
            if clauses[-1].parts:
                clauses.append(Clause([]))
            clauses[-1].contrast = True
        clauses[-1].parts.append(part)
    return clauses


class _Spelt(NamedTuple):
    words: str
    token: Token
    torn: bool
    strange: bool


def _parts(run: Sequence[Token]) -> list[Part]:
    known = lexicon()
    spelt: list[_Spelt] = []
    written = [piece for token in run for piece in _split_number(token)]
    place = 0
    while place < len(written):
        size = _longest_in(known.spellings, [word for word, _ in written], place, known.longest)
        if size > 1:
            plain, torn = known.spellings[tuple(w for w, _ in written[place : place + size])], False
        else:
            size = 1
            plain, torn = _spelt(written[place][0])
            following = written[place + 1][0] if place + 1 < len(written) else " "
            if written[place][0] == "no" and _is_numbered(following):
                plain, torn = ("nomor",), False
        first, last = written[place][1], written[place + size - 1][1]
        token = Token(first.start, last.end, "")
        strange = len(plain) == 1 and plain[0] not in known.single and plain[0].isalpha()
        spelt += [_Spelt(word, token, torn, strange) for word in plain]
        place += size
    return _phrases(spelt)


def _split_number(token: Token) -> list[tuple[str, Token]]:
    """ "15mnt" is two words."""
    found = _NUMBER_AND_WORD.fullmatch(token.folded)
    return [(word, token) for word in (found.groups() if found else (token.folded,))]


def _phrases(spelt: Sequence[_Spelt]) -> list[Part]:
    known = lexicon()
    parts = []
    words = [one.words for one in spelt]
    place = 0
    while place < len(spelt):
        size = max(1, _longest_in(known.kinds, words, place, known.longest))
        of = spelt[place : place + size]
        phrase = tuple(words[place : place + size])
        kind = known.kind(phrase)
        if phrase == ("jam",) and words[place + 1 : place + 2] and words[place + 1][0].isdigit():
            # "Jam 5" is a time of day, "2 jam" is not.
            kind = "soon" if place and words[place - 1][0].isdigit() else "later"
        parts.append(
            Part(
                kind,
                phrase,
                of[0].token.start,
                of[-1].token.end,
                torn=any(one.torn for one in of),
                strange=of[0].strange,
            )
        )
        place += size
    return parts


def _longest_in(
    table: Collection[tuple[str, ...]], words: Sequence[str], place: int, longest: int
) -> int:
    """How many words from here on are an entry; 0 if not even one is."""
    for size in range(min(longest, len(words) - place), 0, -1):
        if tuple(words[place : place + size]) in table:
            return size
    return 0


def _content(clause: Clause) -> list[Part]:
    return [part for part in clause.parts if part.kind not in ("filler", "contrast")]


# "Siap kalau dibutuhkan", "siap kalau ada kendala saya kabari" are no conditions.
_NO_CONDITION = frozenset(("kendala", "kabari", "dibutuhkan", "butuh", "perlu", "diperlukan"))


def _skip_what_is_conditional(clauses: list[Clause]) -> None:
    """ "Kalau tidak hujan, saya bisa": neither the condition nor what hangs on it is an answer."""
    hangs = False
    for clause in clauses:
        content = _content(clause)
        if hangs:
            clause.parts = []
            clause.flags.add("conditional")
            hangs = False
            continue
        for place, part in enumerate(clause.parts):
            if part.kind == "conditional":
                hangs = bool(content) and content[0] is part
                said = {word for later in clause.parts[place:] for word in later.words}
                clause.parts = clause.parts[:place]
                clause.flags.add("conditional")
                if clause.parts and not hangs and not said & _NO_CONDITION:
                    clause.flags.add("on_condition")
                break


def _read(clause: Clause) -> None:
    """Find what a clause says (``signals``) and what it leaves open (``flags``)."""
    if any(part.torn for part in clause.parts):
        clause.flags.add("torn")
    if _is_question(clause):
        clause.flags.add("question")
        kept = _answer_before_a_question(clause)
        if kept is not None:
            clause.signals.append(("accept", kept))
        return
    content = _content(clause)
    soon = any(part.kind in ("soon", "can_last") for part in clause.parts)
    before: Part | None = None  # the part before this one
    denied: Part | None = None  # a "tidak" that still reaches
    reach = 0
    absorbing = 0  # parts that still belong to a "tidak bisa"
    somebody_else = False
    repeated = True  # a second "tidak" says the first again: "no, I can't"
    by_the_writer = bool(content) and content[0].kind == "people"
    for part in clause.parts:
        kind = part.kind
        if absorbing and kind in ("can", "can_last", "go", "arrived", "done", "handled", "ya"):
            absorbing -= 1
            before = part
            continue
        if kind in ("soon", "later", "contrast"):
            absorbing = 0
        elif absorbing:
            absorbing -= 1
        if kind in _DENIALS:
            if denied is not None and (denied.kind == "bare_not" or not repeated):
                clause.flags.add("torn")  # "bukan tidak bisa"
            denied, reach, repeated = part, REACH, True
        elif kind in ("filler", "people", "already"):
            # "Anak saya" is not me.
            of_mine = before is not None and before.kind == "others"
            somebody_else = somebody_else and (kind != "people" or of_mine)
        elif kind == "others":
            # "Saya antar anak, tidak bisa" is still about me, "saya lihat orangnya tidak bisa" not.
            somebody_else = not by_the_writer or part.words == ("orang",)
            reach, repeated = reach - 1, False
        elif denied is not None and reach >= 0 and kind in _DENIABLE:
            if somebody_else and kind in ("yes", "can", "can_last", "go"):
                clause.flags.add("unclear")  # "orangnya tidak bisa bicara"
            else:
                _deny(clause, denied, part, first=bool(content) and content[0] is denied)
            absorbing = REACH if kind in ("can", "can_last") else 0
            denied = None
        elif kind == "no" and denied is not None and before is denied:
            clause.flags.add("torn")  # "jangan batalkan"
            denied = None
        elif kind in _SIGNALS:
            _signal(clause, part, before, soon=soon, somebody_else=somebody_else)
            if kind == "no" or (kind == "weak" and "tidak" in part.words):
                absorbing = REACH  # "batal datang", "orangnya tidak mau ikut"
            if kind != "ya":
                somebody_else = False
        elif kind in ("hedge", "later", "unclear", "wrong_number", "stop", "start"):
            clause.flags.add(kind)
            repeated = False
            absorbing = REACH if kind == "unclear" and "tidak" in part.words else 0
        else:
            reach, repeated = reach - 1, False
        before = part
    if denied is not None:
        _left_hanging(clause, denied, content)
    if (clause.signals or clause.contrast) and _puts_off(clause, content):
        clause.flags.add("on_condition")


_DENIABLE = frozenset(
    ("yes", "can", "can_last", "go", "arrived", "done", "handled", "obstacle", "weak", "excuse")
)
_SIGNALS = _DENIABLE | {"ya", "no", "sorry"}


def _puts_off(clause: Clause, content: Sequence[Part]) -> bool:
    """ "Siap besok", "ok nanti", "siap, tapi baru bisa jam 5": that is no yes to now."""
    delays = [part for part in content if part.kind in ("later", "hedge")]
    if any(part.words in _ANOTHER_DAY for part in delays):
        return True
    rest = [part for part in content if part not in delays]
    mere = all(part.kind in ("yes", "ya", "people") for part in rest)
    return bool(delays) and (clause.contrast or mere)


_ANOTHER_DAY = frozenset((("besok",), ("minggu", "depan"), ("kapan", "kapan")))


def _is_question(clause: Clause) -> bool:
    if clause.asks or any(part.kind == "question" for part in clause.parts):
        return True
    # "Bisa tidak", "sudah sampai belum": the denial at the end asks.
    content = [p for p in _content(clause) if p.kind != "ya"]
    if len(content) < 2 or content[-1].kind not in ("not", "not_yet"):
        return False
    return content[-2].kind in ("can", "can_last", "yes", "go", "arrived", "done", "neutral")


def _answer_before_a_question(clause: Clause) -> Part | None:
    """ "Siap alamatnya dimana": a yes, if what is asked for is the way there."""
    content = [part for part in _content(clause) if part.kind != "people"]
    if len(content) < 2 or content[0].kind not in ("yes", "ya", "go"):
        return None
    places = lexicon().marks["place"]
    asked = any((word,) in places for part in content[1:] for word in part.words)
    rest = {part.kind for part in content[1:]}
    if rest & {"not", "not_yet", "bare_not", "no", "hedge", "wrong_number"}:
        return None
    # "Siap, alamatnya?", but not "oke meluncur ke lokasi?"
    short = len(content) == 2 and content[0].kind != "go"
    asked = asked and ("question" in rest or short)
    return content[0] if asked or (clause.after_code and content[0].kind == "ya") else None


def _deny(clause: Clause, denial: Part, part: Part, *, first: bool) -> None:
    says_no = part.kind in ("yes", "can", "can_last") or (
        part.kind == "go" and denial.kind == "not"
    )
    whole = Part(part.kind, denial.words + part.words, denial.start, part.end)
    if denial.kind == "bare_not":
        clause.flags.add("unclear")
    elif says_no or (part.kind == "excuse" and first and denial.kind == "not"):
        clause.signals.append(("decline", whole))
    elif part.kind in ("obstacle", "weak"):
        return
    else:
        clause.flags.add("not_yet")


def _left_hanging(clause: Clause, denial: Part, content: Sequence[Part]) -> None:
    """A denial of nothing that we know: a plain no where it begins, else who knows."""
    around = [part for part in content if part.kind not in ("people", "sorry", "ya", "yes")]
    if denial.kind == "not" and around[:1] == [denial]:
        clause.signals.append(("decline", denial))
        if any(part.kind in ("yes", "ya") for part in content):
            clause.flags.add("torn")
    else:
        clause.flags.add("not_yet" if denial.kind == "not_yet" else "unclear")


def _signal(
    clause: Clause, part: Part, before: Part | None, *, soon: bool, somebody_else: bool
) -> None:
    kind = part.kind
    place = clause.parts.index(part)
    earlier = [p for p in clause.parts[:place] if p.kind not in ("filler", "contrast", "sorry")]
    later = [p for p in clause.parts[place + 1 :] if p.kind != "filler"]
    flags = clause.flags
    if kind in ("no", "sorry", "excuse", "obstacle", "weak"):
        clause.signals.append(("decline" if kind == "no" else kind, part))
    elif kind == "ya":
        if not earlier:
            clause.signals.append(("accept", part))
    elif kind == "yes":
        a_number = part.words == ("86",) and (
            earlier or (later[:1] and later[0].words[0] in _COUNTED)
        )
        of_a_thing = part.words == ("ok",) and any(p.kind in ("neutral", "others") for p in earlier)
        if not (a_number or of_a_thing):
            clause.signals.append(("accept", part))
    elif somebody_else and kind != "handled" and kind != "done":
        flags.add("unclear")
    elif kind in ("can", "can_last", "go"):
        _offer_of_help(clause, part, before, earlier=earlier, later=later)
    elif kind == "arrived":
        there = before is not None and before.kind == "already"
        if part.words[0] in ("di", "ada") and not _is_about_the_writer(earlier):
            return  # "tunggu di lokasi"
        if not there and any(p.kind == "later" for p in clause.parts):
            flags.add("later")
        elif soon and not there:
            clause.signals.append(("accept", part))
        else:
            clause.signals.append(("arrived", part))
    elif kind == "done":
        flags.add("not_yet") if soon else clause.signals.append(("done", part))
    elif any(p.kind in ("weak", "obstacle") for p in earlier):
        return  # "menolak dibawa"
    else:  # handled
        told = any(p.kind == "already" for p in earlier)
        clause.signals.append(("done" if told and not soon else "handled", part))


_COUNTED = frozenset(("km", "m", "menit", "jam", "orang", "rt", "rw", "tahun", "hari"))


def _offer_of_help(
    clause: Clause,
    part: Part,
    before: Part | None,
    *,
    earlier: Sequence[Part],
    later: Sequence[Part],
) -> None:
    kinds = {p.kind for p in earlier}
    agreed = any(meaning == "accept" for meaning, _ in clause.signals)
    unread = before is not None and before.strange and len(before.words[0]) <= SHORTEST_WITH_TYPO
    if unread and part.kind != "go":
        # "tfk bisa": perhaps a "tidak" that we cannot read.
        clause.flags.add("unclear")
    elif part.kind == "can_last" and any(p.kind not in ("people",) for p in later):
        return
    elif part.kind == "can" and not agreed and _is_about_something_else(earlier):
        clause.flags.add("unclear")
    elif "hedge" in kinds:
        clause.flags.add("hedge")
    elif not agreed and (kinds | {p.kind for p in later}) & {"later"}:
        clause.flags.add("later")
    elif part.words[0] in _IN_PASSING and not _is_about_the_writer(earlier):
        return
    else:
        clause.signals.append(("accept", part))


def _is_about_something_else(earlier: Sequence[Part]) -> bool:
    """ "Kemarin bapak itu bisa makan": what we do not know stands before it, and no "saya"."""
    kinds = {p.kind for p in earlier}
    return "neutral" in kinds and not kinds & {"people", "yes", "ya", "sorry"}


# "Di jalan" is on the way, but "ban pecah di jalan" is not, nor "jalan ke sana longsor".
_IN_PASSING = frozenset(("di", "dijalan", "ke"))
_STILL_THE_WRITER = frozenset((("lagi",), ("langsung",), ("yang",)))


def _is_about_the_writer(earlier: Sequence[Part]) -> bool:
    around = ("people", "already", "yes", "ya", "soon", "later", "can", "go", "not", "not_yet")
    return all(p.kind in around or p.words in _STILL_THE_WRITER for p in earlier)


# --- judging -----------------------------------------------------------------------------------

_AMBIGUOUS = frozenset(
    ("torn", "conditional", "hedge", "later", "not_yet", "unclear", "stop", "start")
)


def _judged(clauses: Sequence[Clause]) -> tuple[Meaning, str | None]:
    flags = {flag for clause in clauses for flag in clause.flags}
    if "wrong_number" in flags:
        return "ask", "wrong_number"
    for kind in ("stop", "start"):
        if kind in flags and _is_nothing_but(clauses, kind):
            return kind, None
    if "torn" in flags:
        return "ask", "ambiguous"
    meaning = _weighed(clauses, flags)
    if meaning is not None:
        return meaning, None
    signals = [signal for clause in clauses for signal in clause.signals]
    ambiguous = signals or (flags & _AMBIGUOUS and "question" not in flags)
    return "ask", "ambiguous" if ambiguous else "not_understood"


def _is_nothing_but(clauses: Sequence[Clause], kind: str) -> bool:
    parts = [part for clause in clauses for part in clause.parts]
    asks = any(clause.asks for clause in clauses)
    around = (kind, "filler", "people", "sorry", "ya")
    return not asks and parts[0].kind != "ya" and all(part.kind in around for part in parts)


def _weighed(clauses: Sequence[Clause], flags: Collection[str]) -> Meaning | None:
    """The one meaning of all signals together; None if they are at odds or there is none."""
    signals = [(m, part, clause) for clause in clauses for m, part in clause.signals]
    said = {meaning for meaning, _, _ in signals}
    if not said:
        return None
    first, first_part, first_clause = signals[0]
    if first == "obstacle" and "done" not in said and _begins(first_clause, first_part):
        return "obstacle"
    if "handled" in said:
        said = said - {"handled"} | ({"done"} if "done" in said else {"unclear"})
    if "unclear" in said:
        return None
    if "obstacle" in said:
        if said <= {"obstacle", "weak", "arrived", "sorry", "excuse"}:
            return "obstacle"
        return "decline" if first == "decline" and "accept" not in said else None
    if "done" in said:
        return None if "decline" in said or "stop" in flags else "done"
    if "arrived" in said:
        if "decline" in said:
            return None
        return "obstacle" if "weak" in said else "arrived"
    return _yes_or_no(signals, said, clauses, flags)


def _begins(clause: Clause, part: Part) -> bool:
    around = ("filler", "people", "contrast", "sorry", "already")
    return next((p for p in clause.parts if p.kind not in around), None) is part


def _yes_or_no(
    signals: Sequence[tuple[str, Part, Clause]],
    said: set[str],
    clauses: Sequence[Clause],
    flags: Collection[str],
) -> Meaning | None:
    if "decline" in said and "accept" in said:
        return _no_beside_a_yes(signals)
    if "decline" in said:
        return "decline"
    if "accept" in said:
        if "excuse" in said or {"unclear", "on_condition"} & set(flags):
            return None
        # "Ya, maaf" may go on with a no.
        if [meaning for meaning, *_ in signals if meaning in ("accept", "sorry")][-1] == "sorry":
            return None
        # "Ok, terima kasih" may be no more than manners.
        yes = {part.words for meaning, part, _ in signals if meaning == "accept"}
        thanked = any(p.words == ("terima", "kasih") for clause in clauses for p in clause.parts)
        return None if thanked and yes <= {("ok",), ("baik",)} else "accept"
    if "weak" in said:
        return None if "excuse" in said else "obstacle"
    if "excuse" in said:
        return "decline"
    # "Maaf" alone is a no; with other words it is mere politeness.
    parts = [part for clause in clauses for part in clause.parts]
    alone = all(part.kind in ("sorry", "filler", "people") for part in parts)
    return "decline" if alone and not flags else None


def _no_beside_a_yes(signals: Sequence[tuple[str, Part, Clause]]) -> Meaning | None:
    """ "Tidak bisa sekarang, tapi 2 jam lagi bisa" is a no with words, as "iya, maaf tidak bisa"
    is; what begins with a yes and then takes it back otherwise is neither."""
    order = [
        (meaning, part, clause)
        for meaning, part, clause in signals
        if meaning in ("accept", "decline", "sorry")
    ]
    meanings = [meaning for meaning, _, _ in order]
    no = meanings.index("decline")
    yes = [place for place, meaning in enumerate(meanings) if meaning == "accept"]
    if yes[0] > no:
        postponed = all(
            order[place][2].contrast
            or any(p.kind in ("soon", "later") for p in order[place][2].parts)
            for place in yes
        )
        return "decline" if postponed else None
    mere_manners = all(place < no and order[place][1].kind in ("yes", "ya") for place in yes)
    return "decline" if mere_manners and "sorry" in meanings[:no] else None


def _outcome(clauses: Sequence[Clause]) -> Outcome | None:
    """What became of the case, if the words say one thing."""
    words = [word for clause in clauses for part in clause.parts for word in part.words]
    found: set[Outcome] = set()
    names: tuple[Outcome, ...] = ("referred", "resolved", "not_found", "cancelled")
    for name in names:
        for phrase in lexicon().marks[name]:
            size = len(phrase)
            if any(tuple(words[i : i + size]) == phrase for i in range(len(words) - size + 1)):
                found.add(name)
    if found == {"referred", "resolved"}:
        # "Ditangani di RSUD": handled there.
        return "referred"
    return found.pop() if len(found) == 1 else None


# --- what remains ------------------------------------------------------------------------------

_PLAIN = frozenset(
    ("yes", "ya", "can", "go", "no", "not", "not_yet", "sorry", "arrived", "done", "obstacle",
     "stop", "start", "filler", "people", "already")
)  # fmt: skip
# Our own words: what follows one of them is what the person adds.
_COMMANDS = frozenset((("ya",), ("tidak",), ("tiba",), ("selesai",), ("kendala",), ("siap",)))
_LEANS_ON_IT = frozenset(
    ("not", "not_yet", "can", "can_last", "excuse", "ya", "yes", "arrived", "done", "hedge")
)


def _line(text: str) -> str:
    plain = "".join(" " if unicodedata.category(c) == "Cs" else c for c in text)
    return one_line(plain)[:WORDS_AT_MOST].strip()


def _without_code(text: str, tokens: Sequence[Token], start: int = 0) -> str:
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


def _remaining(
    text: str, tokens: Sequence[Token], clauses: Sequence[Clause], meaning: Meaning
) -> str:
    """What the text says besides its code and the plain answer that it begins with."""
    if meaning == "ask" or not clauses or not clauses[0].parts:
        return _line(_without_code(text, tokens))
    start = 0
    parts = clauses[0].parts
    if all(part.kind in _PLAIN for part in parts):
        start = parts[-1].end
    elif parts[0].words in _COMMANDS and parts[0].end < parts[1].start:
        leans = parts[1].kind in _LEANS_ON_IT and parts[0].kind != "obstacle"
        start = 0 if leans else parts[0].end
    rest = _line(_without_code(text, tokens, start))
    if not start:
        return rest
    rest = rest.lstrip(" .,;:!-/_|*\"')")
    if not any(c.isalnum() or unicodedata.category(c) == "So" for c in rest):
        return ""
    return rest[1:-1] if re.fullmatch(r"\([^()]*\)", rest) else rest
