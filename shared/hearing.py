"""Up to which moment everything that was in Kafka has been handled: silence is only known up to it.

Each look at Kafka says where each partition ended at that moment. Once all that was there then is
handled (or set aside, which its case knows of), that moment has been heard. A batch that comes
again and again, a backlog, a Kafka that does not answer, a group that rebalances: in each of these
the moment stays where it is, and whoever goes by it waits (docs/adr/0013).
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

# So many looks are kept; with more, they are kept half as close to each other: what is heard then
# moves in longer steps.
MOST_LOOKS = 512
# In monotonic seconds, as long ago as matters to no deadline.
NEVER = -1e8


@dataclass(frozen=True)
class HeardUntil:
    """A moment (``at``, monotonic seconds) up to which all has been handled."""

    at: float
    # Since when it has not moved: itself, or when we began to listen.
    since: float

    def behind(self) -> timedelta:
        """How long ago the moment is by now."""
        return timedelta(seconds=max(time.monotonic() - self.at, 0))

    def deaf_for(self) -> timedelta:
        """For how long nothing has been heard by now."""
        return timedelta(seconds=max(time.monotonic() - self.since, 0))


# Of what needs no ears: nothing is ever unread.
ALL = HeardUntil(math.inf, math.inf)


def nothing(since: float | None = None) -> HeardUntil:
    """Nothing has been heard since then, by default since now."""
    return HeardUntil(NEVER, time.monotonic() if since is None else since)


@dataclass
class _Look:
    moment: float
    ends: Mapping[Any, int]


@dataclass
class Hearing:
    """What one reader has heard of the partitions that it has now."""

    # Monotonic seconds; None: nothing yet of these partitions.
    until: float | None = None
    since: float = field(default_factory=time.monotonic)
    _looks: deque[_Look] = field(default_factory=deque)
    # Seconds between two looks that are kept; the newest is always kept.
    _apart: float = 0.0

    def look(self, moment: float, ends: Mapping[Any, int], handled: Mapping[Any, int]) -> None:
        """Take note of where each partition ended at ``moment``, and of what is handled by now.

        ``ends`` and ``handled`` are next offsets, of every partition that this reader has.
        """
        looks = self._looks
        if looks and looks[-1].ends == ends:
            looks[-1].moment = max(moment, looks[-1].moment)
        elif len(looks) > 1 and looks[-1].moment - looks[-2].moment < self._apart:
            looks[-1] = _Look(moment, dict(ends))
        else:
            looks.append(_Look(moment, dict(ends)))
        if len(looks) > MOST_LOOKS:
            self._apart = 2 * (looks[-1].moment - looks[0].moment) / MOST_LOOKS
            self._looks = deque([*list(looks)[:-1:2], looks[-1]])
        while self._looks and all(
            handled.get(partition, -1) >= end for partition, end in self._looks[0].ends.items()
        ):
            self.until = self.since = max(self._looks.popleft().moment, self.until or NEVER)
        if not self._looks:
            self._apart = 0.0

    def lose(self) -> None:
        """The partitions change: nothing is known of those that come."""
        if self.until is not None:
            self.since = time.monotonic()
        self.until = None
        self._looks.clear()

    def heard(self) -> HeardUntil:
        """The moment up to which all has been handled."""
        return nothing(self.since) if self.until is None else HeardUntil(self.until, self.since)
