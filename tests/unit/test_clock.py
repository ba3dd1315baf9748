"""Deadlines are the database's: a host whose clock is ten minutes off changes nothing."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
READS_THE_HOSTS_CLOCK = {("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
MODULES = sorted((PROJECT / "services").rglob("*.py"))


def reads(module: Path) -> list[str]:
    """Where a module asks the host for the time of day (a monotonic clock is not that)."""
    found = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
        if (name, node.func.attr) in READS_THE_HOSTS_CLOCK or (name, node.func.attr) == (
            "time",
            "time",
        ):
            found.append(f"{module.relative_to(PROJECT)}:{node.lineno}")
    return found


def test_the_rule_finds_what_it_looks_for() -> None:
    module = PROJECT / "shared" / "consume.py"  # there it is the age of an event in a metric
    assert reads(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PROJECT)))
def test_no_service_reads_the_hosts_clock(module: Path) -> None:
    assert reads(module) == []
