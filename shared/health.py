"""Health means progress: a loop that no longer turns is dead, whatever its process says."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass
class Loop:
    """Something that must keep turning. ``limit`` is how long one turn may take.

    A loop that fails and is tried again and again does not turn: after a failure the next beat only
    begins a turn, and the one after it says that the turn went through.
    """

    name: str
    limit: timedelta
    clock: Callable[[], float] = time.monotonic
    last_beat: float = field(init=False)
    # Of any kind, also that it has failed: a loop that fails is not stuck, and no new process would
    # mend it.
    last_sign: float = field(init=False)
    error: str | None = None
    _begun: bool = False

    def __post_init__(self) -> None:
        self.last_beat = self.last_sign = self.clock()

    def beat(self) -> None:
        """Say that the loop has turned."""
        self.last_sign = self.clock()
        if self.error is not None and not self._begun:
            self._begun = True
            return
        self.last_beat, self.error = self.last_sign, None

    def failed(self, error: str) -> None:
        """Say that the loop has not got through its turn, and is about to try again."""
        self.last_sign = self.clock()
        self.error, self._begun = error, False

    @property
    def age(self) -> timedelta:
        """Time since the last turn."""
        return timedelta(seconds=self.clock() - self.last_beat)

    @property
    def silence(self) -> timedelta:
        """Time since the last sign of life."""
        return timedelta(seconds=self.clock() - self.last_sign)

    @property
    def problem(self) -> str | None:
        """What is wrong, in words; None if all is well."""
        if self.age <= self.limit:
            return None
        why = f": {self.error}" if self.error else ""
        return (
            f"{self.name} has not made progress for {self.age.total_seconds():.0f} s "
            f"(limit {self.limit.total_seconds():.0f} s){why}"
        )


@dataclass
class Health:
    """All that must be well for a process to count as alive."""

    loops: list[Loop] = field(default_factory=list)
    checks: list[Callable[[], str | None]] = field(default_factory=list)
    # What needs a person while the process itself makes progress.
    notes: list[str] = field(default_factory=list)
    # What a person has to mend although the process itself is well: a restart would not help.
    notices: list[Callable[[], list[str]]] = field(default_factory=list)

    def loop(self, name: str, limit: timedelta) -> Loop:
        """Declare a loop that must keep turning."""
        loop = Loop(name, limit)
        self.loops.append(loop)
        return loop

    def problems(self) -> list[str]:
        """What is wrong, in words; empty if the process makes progress."""
        found = [loop.problem for loop in self.loops] + [check() for check in self.checks]
        return [problem for problem in found if problem is not None]

    def noticed(self) -> list[str]:
        """What a person has to mend, in words; says nothing about being alive."""
        return [sentence for notice in self.notices for sentence in notice()]
