"""The verdict on a text: what it is taken for, from the code in it to the words that remain."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

from services.notification.incoming.reading.acts import act_of, is_plain
from services.notification.incoming.reading.clauses import Clause, clauses_of
from services.notification.incoming.reading.codes import TWO, after_code, take_codes, valid
from services.notification.incoming.reading.leave import Leave, asks_for_the_duty_page, leave_in
from services.notification.incoming.reading.lexicon import MANNERS, lexicon
from services.notification.incoming.reading.refusals import heard, refusal_of
from services.notification.incoming.reading.remainder import on_one_line, remaining, without_code
from services.notification.incoming.reading.tokens import cut, joined
from shared.events import Outcome

Meaning = Literal[
    "accept", "decline", "arrived", "done", "obstacle", "stop", "start", "off_duty", "duty_page",
    "ask",
]  # fmt: skip

# No person's answer stands further back, and a text must not cost us more than a few milliseconds.
LOOKED_AT = 2_000  # characters
PIECES_LOOKED_AT = 300  # words and signs


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
    pieces = list(islice(cut(looked), PIECES_LOOKED_AT + 1))
    tokens, code = take_codes(pieces[:PIECES_LOOKED_AT], valid(codes))
    all_of_it = on_one_line(without_code(looked, tokens))
    if code == TWO:
        return Reading("ask", None, on_one_line(looked), why="two_codes")
    said = [token for token in tokens if token.kind != "code"]
    if not any(token.kind != "mark" for token in said):
        return Reading("ask", code, all_of_it, why="empty" if code is None else "not_understood")
    if len(text.strip()) > LOOKED_AT or len(pieces) > PIECES_LOOKED_AT:
        # What stands further back may say the opposite.
        return Reading("ask", code, all_of_it, why="not_understood")
    words = joined(said)
    if (leave := leave_in(words)) is not None:
        return Reading("off_duty", code, all_of_it, leave=leave)
    if asks_for_the_duty_page(words):
        return Reading("duty_page", code, all_of_it)
    clauses = clauses_of(said, after_code=after_code(tokens))
    meaning, why = _verdict(clauses)
    rest = remaining(looked, tokens, clauses, meaning)
    if meaning != "done":
        return Reading(meaning, code, rest, why=why)
    return Reading(meaning, code, rest, outcome=_outcome(clauses), plain=is_plain(clauses))


_AMBIGUOUS = frozenset(
    ("torn", "conditional", "hedge", "later", "not_yet", "unclear", "stop", "start")
)


def _verdict(clauses: Sequence[Clause]) -> tuple[Meaning, str | None]:
    """What the clauses are taken for, and why they are asked back if they are."""
    said = heard(clauses)
    if "wrong_number" in said.flags:
        return "ask", "wrong_number"
    for kind in ("stop", "start"):
        if kind in said.flags and _is_nothing_but(clauses, kind):
            return cast(Meaning, kind), None
    act = act_of(clauses)
    if act is not None:
        return act.meaning, None
    refusal = refusal_of(said, clauses)
    if refusal is not None:
        return cast(Meaning, refusal), None
    ambiguous = said.signals or (said.flags & _AMBIGUOUS and "question" not in said.flags)
    return "ask", "ambiguous" if ambiguous else "not_understood"


def _is_nothing_but(clauses: Sequence[Clause], kind: str) -> bool:
    parts = [part for clause in clauses for part in clause.parts]
    asks = any(clause.asks for clause in clauses)
    around = MANNERS | {kind, "people", "sorry", "request", "ya"}
    return not asks and parts[0].kind != "ya" and all(part.kind in around for part in parts)


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
