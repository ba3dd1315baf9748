"""The next version adds columns while this one runs: no statement takes whatever there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import PROJECT

FILES = sorted(
    path
    for folder in ("services", "shared", "ops")
    for path in (PROJECT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
_SQL = re.compile(r"\b(SELECT|UPDATE|INSERT INTO|DELETE FROM)\b")
# `count(*)` is no list of columns.
_EVERYTHING = re.compile(r"\b(?:SELECT|RETURNING)\s+(?:DISTINCT\s+)?\*|,\s*\*|\b[a-z_]+\.\*")
# A function whose columns are written beside it has no others.
_WRITTEN_OUT = re.compile(r"SELECT\s+\*\s+FROM\s+(?:jsonb_to_recordset|unnest)\(", re.IGNORECASE)


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a module, with their lines; of an f-string what is written in it."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = (p.value if isinstance(p, ast.Constant) else "x" for p in node.values)
            yield node.lineno, "".join(map(str, said))
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            yield node.lineno, str(node.value)


def everything(text: str) -> list[str]:
    """Where a statement takes all columns of a table."""
    return _EVERYTHING.findall(_WRITTEN_OUT.sub("", text)) if _SQL.search(text) else []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_statement_names_its_columns(path: Path) -> None:
    found = [
        f"line {line}: {taken}"
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        for taken in everything(text)
    ]
    assert found == [], "name the columns: an added one would reach code that does not know it"


@pytest.mark.parametrize(
    ("statement", "takes_all"),
    [
        ("SELECT * FROM cases", True),
        ("SELECT o.*, v.name FROM offers o", True),
        ("UPDATE messages SET state = 'sent' RETURNING *", True),
        ("SELECT id, * FROM cases", True),
        ("SELECT DISTINCT * FROM cases", True),
        ("SELECT count(*) AS n FROM cases", False),
        ("SELECT * FROM jsonb_to_recordset($1) AS w (id uuid)", False),
        ("SELECT a * b AS area FROM fields", False),
    ],
)
def test_the_guard_knows_what_takes_all_columns(statement: str, takes_all: bool) -> None:
    assert bool(everything(statement)) is takes_all
