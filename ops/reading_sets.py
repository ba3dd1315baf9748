"""How well the reading of texts does on a set of sentences, counted by group."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from services.notification.incoming.reading import Meaning, classify

# What changes a case: taken where it was not meant, it does harm.
ACTS = frozenset(("accept", "arrived", "done"))
COLUMNS = ("meaning", "text")


class NoSetError(ValueError):
    """A file that is no set of sentences; the text is a sentence for people."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, the meanings that it may be given, and the group that it is counted in."""

    text: str
    allowed: frozenset[str]
    group: str


@dataclass
class Counted:
    """The sentences of one group: read rightly, asked back though they say something, taken for
    something else that is no act, and (sentence, meaning) where an act was not meant."""

    name: str
    sentences: int = 0
    right: int = 0
    asked_back: int = 0
    another: int = 0
    not_meant: list[tuple[str, str]] = field(default_factory=list)


def read(file: Path) -> list[Sentence]:
    """The sentences of a CSV file.

    Raises:
        NoSetError: it cannot be read, a column is missing, or a meaning is none of ours.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise NoSetError(f"{file}: the column {missing[0]!r} is missing")
            return [_sentence(file, rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NoSetError(f"{file} cannot be read: {error}") from error


def _sentence(file: Path, line: int, row: dict[str, str | None]) -> Sentence:
    meaning = (row["meaning"] or "").strip()
    named = [name.strip() for name in (row.get("allowed") or meaning).split("|")]
    for name in named:
        if name not in get_args(Meaning):
            known = ", ".join(get_args(Meaning))
            raise NoSetError(f"{file}, line {line}: {name!r} is no meaning; known are {known}")
    group = (row.get("group") or row.get("set") or "").strip()
    return Sentence(row["text"] or "", frozenset(named), group or "all")


def counted(sentences: Iterable[Sentence], *, codes: Sequence[str]) -> list[Counted]:
    """Read all sentences, as from a sender who may mean ``codes``; groups in their order."""
    groups: dict[str, Counted] = {}
    for sentence in sentences:
        group = groups.setdefault(sentence.group, Counted(sentence.group))
        meaning = classify(sentence.text, codes=codes).meaning
        group.sentences += 1
        if meaning in sentence.allowed:
            group.right += 1
        elif meaning in ACTS:
            group.not_meant.append((sentence.text, meaning))
        elif meaning == "ask":
            group.asked_back += 1
        else:
            group.another += 1
    return list(groups.values())
