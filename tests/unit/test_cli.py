"""Every command explains itself."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from ops.cli import app

PROJECT = Path(__file__).parents[2]


def commands(group: Any, path: str = "") -> dict[str, Any]:
    """All commands by what one types."""
    found: dict[str, Any] = {}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands(command, f"{path} {name}") or {f"{path} {name}".strip(): command}
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_help_text_with_an_example(name: str) -> None:
    text = COMMANDS[name].help or ""
    assert "Example:" in text
    assert f"jangkau {name}" in text


def test_a_health_check_of_nobody_says_so() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "ops.health_check", "http://127.0.0.1:1"],
        capture_output=True, text=True, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert asked.returncode == 1
    assert "does not answer" in asked.stderr
