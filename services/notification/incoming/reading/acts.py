"""What an act is: the grammar of a text that accepts, arrives or is done.

It lists what such a text may be made of, not what would spoil it. Every clause must be one of an
act or harmless beside one, and of every clause all words must be known as such: a time, a place, a
condition, somebody else or a word that we do not know makes another text, which is asked back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from services.notification.incoming.reading.clauses import Clause, Part
from services.notification.incoming.reading.lexicon import MANNERS

Meaning = Literal["accept", "arrived", "done"]
Parts = Sequence[Part]


@dataclass(frozen=True)
class Act:
    """What a text does, the words that say so (``heads``), and whether it has ``ended``."""

    meaning: Meaning
    heads: tuple[Part, ...]
    ended: bool = True


def act_of(clauses: Sequence[Clause]) -> Act | None:
    """The act that a text is, if all of it is understood; None for any other text."""
    told = _apart_from_questions_of_the_way(clauses)
    said = [_act_in(clause) for clause in told]
    act = _together([one for one in said if one is not None])
    if act is None or _is_mere_thanks(act, told) or not _apologies_come_first(act, told):
        return None
    beside = _BESIDE[act.meaning]
    others = [clause for clause, one in zip(told, said, strict=True) if one is None]
    return act if all(_is_harmless(clause, beside) for clause in others) else None


def is_plain(clauses: Sequence[Clause]) -> bool:
    """Whether a text is the word SELESAI as we teach it, and besides it only manners."""
    parts = [part for clause in clauses for part in clause.parts]
    around = [part for part in parts if part.words not in _PLAIN_WORDS]
    (*done,) = (part for part in parts if part.words in _PLAIN_WORDS)
    mannerly = all(part.kind in ("address", "title") or part.marked("polite") for part in around)
    return mannerly and len(done) == 1 and not done[0].guessed


_PLAIN_WORDS = frozenset((("selesai",), ("done",)))


# --- the whole text ----------------------------------------------------------------------------


def _together(said: Sequence[Act]) -> Act | None:
    """The furthest of several acts: "siap, sudah sampai" has arrived; but who is done or there
    and still wants to come says two things."""
    if not said:
        return None
    heads = tuple(head for act in said for head in act.heads)
    for meaning in ("done", "arrived"):
        if any(act.meaning == meaning for act in said):
            comes = [act for act in said if act.meaning == "accept"]
            if any(head.kind not in ("yes", "ya") for act in comes for head in act.heads):
                return None
            ended = any(act.ended for act in said if act.meaning == meaning)
            return Act(meaning, heads) if ended else None
    return Act("accept", heads)


def _is_mere_thanks(act: Act, clauses: Sequence[Clause]) -> bool:
    """ "Ok, terima kasih" may be no more than manners."""
    if act.meaning != "accept" or any(h.words not in (("ok",), ("baik",)) for h in act.heads):
        return False
    return any("kasih" in part.words for clause in clauses for part in clause.parts)


def _apologies_come_first(act: Act, clauses: Sequence[Clause]) -> bool:
    """ "Ya, maaf" may go on with a no."""
    first = min(head.start for head in act.heads)
    sorry = [part for clause in clauses for part in clause.parts if part.kind == "sorry"]
    return all(part.start < first for part in sorry)


def _apart_from_questions_of_the_way(clauses: Sequence[Clause]) -> list[Clause]:
    """ "Siap alamatnya dimana" is a yes and a question."""
    told: list[Clause] = []
    for clause in clauses:
        size = _yes_at_the_beginning(clause)
        rest = replace(clause, parts=clause.parts[size:])
        if size and _asks_the_way(rest) and any(p.marked("place") for p in rest.parts):
            told.append(replace(clause, parts=clause.parts[:size], asks=False))
            clause = rest
        told.append(clause)
    return told


def _yes_at_the_beginning(clause: Clause) -> int:
    """How many parts a yes at the beginning takes, with whom it is said to; 0 if there is none."""
    first = clause.parts[0] if clause.parts else None
    sure = first is not None and (
        first.words == ("siap",) or (clause.after_code and first.kind in ("ya", "yes"))
    )
    size = int(sure)
    while size and size < len(clause.parts) and clause.parts[size].kind in ("address", "title"):
        size += 1
    return size


def _asks_the_way(clause: Clause) -> bool:
    """Whether it asks where to go or whom to call, and nothing else."""
    parts = clause.parts
    kinds = {part.kind for part in parts}
    known = all(part.kind in _OF_THE_WAY or part.marked("place", "person") for part in parts)
    where = clause.asks or any(part.marked("person") for part in parts)
    asked = any(part.marked("place") or (where and part.words == ("mana",)) for part in parts)
    return known and asked and (clause.asks or bool(kinds & {"question", "request"}))


# --- one clause --------------------------------------------------------------------------------

# What says an act; the rest of a clause only stands beside it.
_HEADS = frozenset(("yes", "ya", "can", "willing", "go", "arrived", "done", "handled"))
_AROUND = MANNERS | {"ya", "sorry", "people", "yes"}
_OF_THE_WAY = MANNERS | {"ya", "sorry"} | {"people", "question", "request", "already"}


@dataclass(frozen=True)
class Rule:
    """What a clause may hold: kinds of words, groups of words, and how they must stand."""

    kinds: frozenset[str]
    groups: tuple[str, ...] = ()
    fits: tuple[Callable[[Parts], bool], ...] = ()

    def holds(self, parts: Parts) -> bool:
        known = all(part.kind in self.kinds or part.marked(*self.groups) for part in parts)
        return known and all(fit(parts) for fit in self.fits)


def _act_in(clause: Clause) -> Act | None:
    parts = clause.parts
    heads = _heads(parts)
    if not heads or clause.asks or clause.either or any(part.torn for part in parts):
        return None
    meaning: Meaning = "accept"
    rule = _COMING
    kinds = {head.kind for head in heads}
    if kinds & {"done", "handled"}:
        meaning, rule = "done", _DONE
    elif "arrived" in kinds and any(part.kind in ("duration", "soon") for part in parts):
        rule = _ARRIVING
    elif "arrived" in kinds:
        meaning, rule = "arrived", _ARRIVED
    if not rule.holds(parts):
        return None
    # "Diantar ke RSUD" may be still to come.
    ended = meaning != "done" or any(
        part.kind in ("done", "already") or "sudah" in part.words for part in parts
    )
    return Act(meaning, tuple(heads), ended)


def _heads(parts: Parts) -> list[Part]:
    """The words that say an act: "ya" only where the clause begins, for behind thanks, a greeting
    or an apology it is a particle ("makasih ya")."""
    first = next((part for part in parts if part.kind not in ("address", "title")), None)
    return [part for part in parts if part.kind in _HEADS and (part.kind != "ya" or part is first)]


def _is_harmless(clause: Clause, beside: Rule) -> bool:
    if _asks_the_way(clause) and beside is not _BESIDE["done"]:
        return True
    whole = not (clause.asks or clause.either or any(part.torn for part in clause.parts))
    return whole and beside.holds(clause.parts)


# --- how the words of an act must stand --------------------------------------------------------


def _is_about_the_writer(parts: Parts) -> bool:
    """ "Bapak sudah sampai" may be about him, and "bisa bapak", "berangkat bapak saja"; "siap
    bapak" is not."""
    heads = _heads(parts)
    around = [None, *parts, None]
    for before, part, after in zip(around, parts, around[2:], strict=False):
        if part.kind != "title":
            continue
        led = bool(heads) and heads[0].start < part.start
        if not led or (before and before.kind == "can") or (after and after.kind == "particle"):
            return False
    return True


_MAY_BE_TWICE = frozenset((("ya",), ("ok",), ("saya",), ("👍",), ("🙏",)))


def _nothing_is_doubled(parts: Parts) -> bool:
    """ "Siap-siap", "tiba-tiba", "beres-beres" are other words."""
    return all(one.words != two.words or one.words in _MAY_BE_TWICE for one, two in pairwise(parts))


_BARE = frozenset((("sampai",), ("tiba",), ("arrived",), ("selesai",), ("done",)))


def _is_no_until(parts: Parts) -> bool:
    """ "Siap sudah sampai" has arrived; "siap sampai" and "selesai siap" may be about later."""
    agrees = [part.start for part in _heads(parts) if part.kind in ("yes", "ya")]
    for before, part in pairwise(parts) if agrees else ():
        if part.words in _BARE and before.kind != "already":
            return False
    bare = [part.start for part in parts if part.words in _BARE]
    if bare and sum(part.kind == "arrived" for part in parts) > 1:
        return False  # "sampai sudah tiba"
    return not (agrees and bare) or min(bare) > max(agrees)


_QUOTED = frozenset((("balas",), ("jawab",), ("kode",)))


def _sampai_is_no_until(parts: Parts) -> bool:
    """ "Sampai pak", "sudah sampai, aman"; but "sampai aman" is until then."""
    for place, part in enumerate(parts):
        sure = place > 0 and parts[place - 1].kind == "already"
        if part.words == ("sampai",) and not sure:
            after = (p for p in parts[place + 1 :] if p.kind not in MANNERS | {"ya"})
            tail = (p for p in parts[place + 1 :] if p.kind == "filler")
            return not any(after) and all(p.marked("polite") for p in tail)
    return True


def _ya_is_a_particle(parts: Parts) -> bool:
    """ "Sudah sampai ya", but not "sampai baik"."""
    heads = _heads(parts)
    return all(p.kind != "ya" or p in heads or p.words == ("ya",) for p in parts)


def _only_quotes_us(parts: Parts) -> bool:
    """ "Balas SELESAI" repeats our words; "selesai saya balas" is about later."""
    return all(part.words not in _QUOTED or part is parts[0] for part in parts)


def _already_goes(parts: Parts) -> bool:
    """ "Sudah otw", "ok lah"; but "sudah bisa" and "sudah 2 jam" say something else."""
    for place, part in enumerate(parts):
        if part.kind != "already":
            continue
        after = parts[place + 1].kind if place + 1 < len(parts) else "end"
        before = parts[place - 1].kind if place else "begin"
        particle = before in ("yes", "can", "ya") and after in ("end", "address")
        past = after == "go" and parts[place + 1].marked("may_be_past")
        if past or (after not in ("go", "yes") and not particle):
            return False
    return True


def _nothing_delays(parts: Parts) -> bool:
    """ "Bisa, 30 menit lagi" comes; "30 menit lagi bisa" and "sudah 30 menit" may not."""
    for place, part in enumerate(parts):
        if part.kind not in ("duration", "soon"):
            continue
        if any(later.kind in ("can", "yes", "willing") for later in parts[place + 1 :]):
            return False
        if place and parts[place - 1].kind == "already":
            return False
    return True


def _willing_ends_it(parts: Parts) -> bool:
    """ "Saya mau" is a yes, "saya mau ke sana" a wish, "boleh saya ke sana" a question."""
    content = [part for part in parts if part.kind not in MANNERS]
    willing = [part for part in content if part.kind == "willing"]
    others = {part.kind for part in content} - {"willing", "people", "yes", "ya"}
    return not willing or (willing == content[-1:] and not others)


_LIMITED = frozenset((("saja",), ("aja",)))


def _can_is_no_maybe(parts: Parts) -> bool:
    """ "Bisa" offers help; "bisa saja" says that something may well be."""
    return not any(one.kind == "can" and two.words in _LIMITED for one, two in pairwise(parts))


def _help_is_given(parts: Parts) -> bool:
    """ "Bisa bantu" helps; "bisa bantu saya" asks for it."""
    helps = [part.start for part in parts if part.marked("help")]
    return not helps or all(p.kind != "people" or p.start < helps[0] for p in parts)


def _somebody_goes(parts: Parts) -> bool:
    """ "Saya datang", "segera ke sana"; "datang pak" may be said to us."""
    if not all(head.marked("needs_a_writer") for head in _heads(parts)):
        return True
    return any(p.kind in ("people", "ya", "soon", "duration") for p in parts)


def _arrives_from_now(parts: Parts) -> bool:
    """ "10 menit lagi sampai", "sampai 10 menit lagi", but not "sampai 10 menit"."""
    arrived = next(part for part in parts if part.kind == "arrived")
    times = [p for p in parts if p.kind in ("duration", "soon") and p.start > arrived.start]
    return all(part.kind == "duration" and {"lagi", "dalam"} & {*part.words} for part in times)


def _people_have_an_end(parts: Parts) -> bool:
    """ "Orangnya sudah diantar" is about the case; "orangnya sudah selesai" is not the end."""
    ends = any(p.kind == "handled" or p.marked(*_ENDS, "there") for p in parts)
    return ends or not any(part.marked("person") for part in parts)


def _places_are_ends(parts: Parts) -> bool:
    """ "Ke RSUD Koba": a "ke" leads to where somebody was taken, a name follows a facility."""
    around = [None, *parts, None]
    for before, part, after in zip(around, parts, around[2:], strict=False):
        if part.kind == "to" and not (after is not None and after.marked(*_ENDS, "family")):
            return False
        named = part.marked("named") and not part.marked(*_ENDS)
        if named and not (before is not None and before.marked("referred", "named")):
            return False
        taken = before is not None and (before.kind == "to" or before.marked("moved"))
        if part.marked("family") and not taken:
            return False
        # "Diantar orangnya ke panti", but "ditangani orang itu" is by them.
        if part.marked("person") and before is not None and _is_passive(before):
            return False
    return True


def _is_passive(part: Part) -> bool:
    return part.kind == "handled" and part.words[0].startswith("di") and not part.marked("moved")


_ENDS = ("referred", "resolved", "not_found", "cancelled")
_ALWAYS = (_is_about_the_writer, _nothing_is_doubled, _only_quotes_us, _ya_is_a_particle)
_COMING = Rule(
    _AROUND | {"can", "willing", "go", "duration", "soon", "now", "hopeful", "already"},
    ("help", "near"),
    (
        *_ALWAYS,
        _already_goes,
        _nothing_delays,
        _willing_ends_it,
        _can_is_no_maybe,
        _help_is_given,
        _somebody_goes,
    ),
)
_ARRIVING = Rule(
    _AROUND | {"arrived", "duration", "soon", "now", "hopeful"},
    (),
    (*_ALWAYS, _nothing_delays, _arrives_from_now),
)
_ARRIVED = Rule(
    _AROUND | {"arrived", "already", "now"},
    ("there",),
    (*_ALWAYS, _is_no_until, _sampai_is_no_until),
)
_DONE = Rule(
    _AROUND | {"done", "handled", "already", "to"},
    (*_ENDS, "about", "there", "person", "family", "named"),
    (*_ALWAYS, _is_no_until, _people_have_an_end, _places_are_ends),
)
# What other clauses may hold beside the act of a text.
_BESIDE = {
    "accept": Rule(_AROUND | {"duration", "soon", "now", "hopeful"}, ("near",)),
    "arrived": Rule(_AROUND | {"already"}, ("there", "person"), (_people_have_an_end,)),
    "done": Rule(
        _AROUND | {"already", "to"},
        (*_ENDS, "about", "there", "person", "family", "named"),
        (_people_have_an_end, _places_are_ends),
    ),
}
