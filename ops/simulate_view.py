"""What one sees of a simulation: a table on the console, and a page for the head of agency."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from ops.simulate import Measures

LANGUAGES = ("id", "en")

@dataclass(frozen=True)
class Comparison:
    district: str
    answer_rate: float
    seeds: Sequence[int]
    volunteers: int
    refused: Sequence[str]
    measures: Mapping[str, Measures]
    settings: Mapping[str, Mapping[str, str]]
    command: str
    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

def page(c: Comparison, *, language: str) -> str: return ""
def show(c: Comparison, console: Console) -> None:
    for n, m in c.measures.items():
        console.print(n, {k: v for k, v in asdict(m).items() if k != "curve"})
