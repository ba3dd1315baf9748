"""What a text says that is no act: a no, an obstacle, or something between, read more freely.

A "tidak" is followed to what it denies, and clause by clause it is noted what is said and what is
left open. Words that would be an act are noted as well, as what a no may stand beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from services.notification.incoming.reading.clauses import Clause, Part
from services.notification.incoming.reading.lexicon import DENIALS, MANNERS

# A "tidak" reaches over this many words without a meaning of their own.
REACH = 3

_ACTS = {
    "yes": "accept", "ya": "accept", "can": "accept", "willing": "accept", "go": "accept",
    "arrived": "arrived", "done": "done", "handled": "done",
}  # fmt: skip
_ASIDE = MANNERS | {"people", "already", "daytime", "waiting", "request", "hopeful", "now"}
_DENIABLE = frozenset({*_ACTS, "obstacle", "weak", "excuse"} - {"ya"})
_OPEN = frozenset(("hedge", "later", "unclear", "wrong_number", "stop", "start"))
_ABSORBED = frozenset(("can", "willing", "go", "arrived", "done", "handled", "ya"))


class Signal(NamedTuple):
    """What one part of a clause says: accept, arrived and done as far as words alone go; decline,
    excuse, sorry, obstacle and weak."""

    meaning: str
    part: Part
    clause: Clause


@dataclass
class Heard:
    """All signals of a text in their order, and the flags of what it leaves open."""

    signals: list[Signal] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def heard(clauses: Sequence[Clause]) -> Heard:
    """Listen to all clauses of a text."""
    found = Heard()
    for clause in _without_conditions(clauses, found.flags):
        if clause.either or any(part.torn for part in clause.parts):
            found.flags.add("torn")
        if _is_question(clause):
            found.flags.add("question")
        else:
            _Listener(clause, found).listen()
    return found


def _without_conditions(clauses: Sequence[Clause], flags: set[str]) -> list[Clause]:
    """ "Kalau tidak hujan, saya bisa": neither the condition nor what hangs on it is an answer."""
    kept: list[Clause] = []
    hangs = False
    for clause in clauses:
        if hangs:
            hangs = False
            continue
        place = next((n for n, p in enumerate(clause.parts) if p.kind == "conditional"), None)
        if place is not None:
            flags.add("conditional")
            content = _content(clause.parts)
            hangs = bool(content) and content[0] is clause.parts[place]
            clause = replace(clause, parts=clause.parts[:place])
        kept.append(clause)
    return kept


def _content(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if part.kind not in MANNERS | {"contrast"}]


def _is_question(clause: Clause) -> bool:
    if clause.asks or any(part.kind == "question" for part in clause.parts):
        return True
    # "Bisa tidak", "sudah sampai belum": the denial at the end asks.
    content = [part for part in _content(clause.parts) if part.kind != "ya"]
    if len(content) < 2 or content[-1].kind not in ("not", "not_yet"):
        return False
    return content[-2].kind in {*_ACTS, "neutral"} - {"ya", "handled"}


class _Listener:
    """Goes through the parts of one clause and notes what is said."""

    def __init__(self, clause: Clause, found: Heard) -> None:
        self.clause, self.found = clause, found
        self.content = _content(clause.parts)
        self.by_the_writer = bool(self.content) and self.content[0].kind == "people"
        self.before: Part | None = None
        self.denied: Part | None = None  # a "tidak" that still reaches
        self.reach = 0
        self.absorbing = 0  # parts that still belong to a "tidak bisa"
        self.somebody_else = False
        self.may_repeat = True  # a second "tidak" says the first again: "no, I can't"

    def listen(self) -> None:
        for part in self.clause.parts:
            if not self._absorbs(part):
                self._take(part)
            self.before = part
        if self.denied is not None:
            self._left_hanging(self.denied)

    def _absorbs(self, part: Part) -> bool:
        """Whether a part only goes on with a "tidak bisa": "tidak bisa datang"."""
        if part.kind in ("soon", "duration", "later", "contrast"):
            self.absorbing = 0
            return False
        absorbed = self.absorbing > 0 and part.kind in _ABSORBED
        self.absorbing = max(0, self.absorbing - 1)
        return absorbed

    def _take(self, part: Part) -> None:
        kind = part.kind
        if kind in DENIALS:
            if self.denied is not None and (self.denied.kind == "bare_not" or not self.may_repeat):
                self._flag("torn")  # "bukan tidak bisa"
            self.denied, self.reach, self.may_repeat = part, REACH, True
        elif kind in _ASIDE:
            # "Anak saya" is not me.
            of_mine = self.before is not None and self.before.kind == "others"
            self.somebody_else = self.somebody_else and (kind != "people" or of_mine)
        elif kind == "others":
            # "Saya antar anak, tidak bisa" is still about me, "saya lihat orangnya tidak bisa" not.
            self.somebody_else = not self.by_the_writer or part.words == ("orang",)
            self._passed_over()
        elif self.denied is not None and self.reach >= 0 and kind in _DENIABLE:
            self._deny(self.denied, part)
        elif kind == "no" and self.denied is not None and self.before is self.denied:
            self._flag("torn")  # "jangan batalkan"
            self.denied = None
        elif kind in _OPEN:
            self._flag(kind)
            self.may_repeat = False
            self.absorbing = REACH if kind == "unclear" and "tidak" in part.words else 0
        else:
            self._say_or_pass(part)

    def _say_or_pass(self, part: Part) -> None:
        kind = part.kind
        if kind in ("excuse", "weak") and self._is_of_somebody_else(part):
            self._flag("unclear")
        elif kind in ("no", "sorry", "excuse", "obstacle", "weak"):
            self._say("decline" if kind == "no" else kind, part)
        elif kind in _ACTS:
            if not self._is_in_passing(part):
                self._say(_ACTS[kind], part)
        else:
            self._passed_over()
            return
        if kind == "no" or (kind == "weak" and "tidak" in part.words):
            self.absorbing = REACH  # "batal datang", "orangnya tidak mau ikut"
        if kind != "ya":
            self.somebody_else = False

    def _is_in_passing(self, part: Part) -> bool:
        """ "Maaf ya", "ban pecah di jalan", "menolak dibawa"."""
        hindered = any(p.kind in ("obstacle", "weak") for p in self.clause.parts)
        if part.kind == "ya":
            return self.content[:1] != [part]
        return hindered and (part.kind == "handled" or part.marked("needs_a_writer"))

    def _is_of_somebody_else(self, part: Part) -> bool:
        """ "Orangnya sakit", "sudah dirawat di RSUD" is no reason of the writer's; "jangan sampai
        kabur" is no obstacle yet."""
        if part.kind == "weak":
            return any(p.kind == "bare_not" for p in self._earlier(part))
        earlier = self._earlier(part)
        if any(p.words == ("orang",) or p.kind == "already" for p in earlier):
            return True
        apologetic = any(s.meaning == "sorry" for s in self.found.signals)
        following = self.clause.parts[len(earlier) + 1 : len(earlier) + 2]
        theirs = self.somebody_else or any(p.kind == "others" for p in following)
        return theirs and not apologetic

    def _earlier(self, part: Part) -> Sequence[Part]:
        return self.clause.parts[: self.clause.parts.index(part)]

    def _deny(self, denial: Part, part: Part) -> None:
        kind = part.kind
        if kind in ("yes", "can", "willing"):
            self._refuse(denial, part)
        elif (kind == "go" and denial.kind == "not" and not self.somebody_else) or (
            kind == "excuse" and denial.kind == "not" and self.content[:1] == [denial]
        ):
            self._say_no(denial, part)
        elif kind not in ("obstacle", "weak"):
            self._flag("not_yet")
        self.denied = None

    def _refuse(self, denial: Part, part: Part) -> None:
        """ "Tidak bisa": of the writer, or of somebody else, who "tidak bisa bicara"."""
        if denial.kind == "bare_not" or self.somebody_else or self._may_be_of_another(denial, part):
            self._flag("unclear")
        else:
            self._say_no(denial, part)
        self.absorbing = _absorbed_by(part)

    def _may_be_of_another(self, denial: Part, part: Part) -> bool:
        """ "Rifak tidak bisa", "tidak mau makan": without a "saya" or a "maaf" who knows whose."""
        apologetic = any(signal.meaning == "sorry" for signal in self.found.signals)
        if apologetic or any(p.kind == "people" for p in self._earlier(part)):
            return False
        stranger = any(p.strange for p in self._earlier(denial))
        return stranger or (part.words == ("mau",) and self._is_followed_by_the_unknown(part))

    def _is_followed_by_the_unknown(self, part: Part) -> bool:
        place = self.clause.parts.index(part)
        return any(p.kind == "neutral" for p in self.clause.parts[place + 1 : place + 2])

    def _say_no(self, denial: Part, part: Part) -> None:
        whole = replace(part, words=denial.words + part.words, start=denial.start)
        self._say("decline", whole)
        self.absorbing = _absorbed_by(part)

    def _left_hanging(self, denial: Part) -> None:
        """A denial of nothing that we know: a plain no where nothing else is said, or after the
        code; else "tidak hujan di sini"."""
        polite = MANNERS | {"people", "sorry", "ya", "yes", "already"}
        around = [part for part in self.content if part.kind not in polite]
        alone = all(part is denial or part.kind in polite | {"excuse"} for part in self.content)
        first = around[:1] == [denial]
        if denial.kind == "not" and first and (alone or self.clause.after_code):
            self._say("decline", denial)
            if any(part.kind in ("yes", "ya") for part in self.content):
                self._flag("torn")
        else:
            self._flag("not_yet" if denial.kind == "not_yet" else "unclear")

    def _passed_over(self) -> None:
        self.reach, self.may_repeat = self.reach - 1, False

    def _say(self, meaning: str, part: Part) -> None:
        self.found.signals.append(Signal(meaning, part, self.clause))

    def _flag(self, flag: str) -> None:
        self.found.flags.add(flag)


def _absorbed_by(part: Part) -> int:
    """Over how many parts a denied word goes on: "tidak bisa datang"."""
    return REACH if part.kind in ("can", "willing") else 0


# --- weighing ----------------------------------------------------------------------------------


def refusal_of(said: Heard, clauses: Sequence[Clause]) -> str | None:
    """The decline or obstacle that all signals together are; None if they are at odds."""
    meanings = {signal.meaning for signal in said.signals}
    if not meanings or "torn" in said.flags:
        return None
    first = said.signals[0]
    if first.meaning == "obstacle" and "done" not in meanings and _begins(first):
        return "obstacle"
    if meanings & {"obstacle", "weak"} and "decline" not in meanings:
        about = {"obstacle", "weak", "arrived", "sorry"} | (
            {"excuse"} if "obstacle" in meanings else set()
        )
        return "obstacle" if meanings <= about else None
    if "decline" in meanings:
        return _no_beside(said.signals, meanings)
    if meanings <= {"excuse", "sorry"} and "excuse" in meanings:
        return "decline"
    # "Maaf" alone is a no; with other words it is mere politeness.
    polite = MANNERS | {"sorry", "people"}
    alone = all(part.kind in polite for clause in clauses for part in clause.parts)
    return "decline" if meanings == {"sorry"} and alone and not said.flags else None


def _begins(signal: Signal) -> bool:
    around = MANNERS | {"people", "contrast", "sorry", "already"}
    first = next((p for p in signal.clause.parts if p.kind not in around), None)
    return first is signal.part


def _no_beside(signals: Sequence[Signal], meanings: set[str]) -> str | None:
    if meanings & {"done", "arrived"}:
        return None
    if "obstacle" in meanings:
        return "decline" if signals[0].meaning == "decline" and "accept" not in meanings else None
    return _no_beside_a_yes(signals) if "accept" in meanings else "decline"


def _no_beside_a_yes(signals: Sequence[Signal]) -> str | None:
    """ "Tidak bisa sekarang, tapi 2 jam lagi bisa" is a no with words, as "iya, maaf tidak bisa"
    is; what begins with a yes and then takes it back otherwise is neither."""
    order = [signal for signal in signals if signal.meaning in ("accept", "decline", "sorry")]
    meanings = [signal.meaning for signal in order]
    no = meanings.index("decline")
    yes = [place for place, meaning in enumerate(meanings) if meaning == "accept"]
    if yes[0] > no:
        soon = ("soon", "duration", "later")
        postponed = all(
            order[place].clause.contrast or any(p.kind in soon for p in order[place].clause.parts)
            for place in yes
        )
        return "decline" if postponed else None
    mere_manners = all(place < no and order[place].part.kind in ("yes", "ya") for place in yes)
    return "decline" if mere_manners and "sorry" in meanings[:no] else None
