"""How much strangers may send: what is over it is looked at first, what floods is refused."""

from datetime import timedelta

from limits import RateLimitItem
from limits.aio.strategies import FixedWindowRateLimiter

from services.intake.callers import Caller
from services.intake.settings import IntakeSettings
from shared.database import Database
from shared.limit_storage import PostgresStorage


class TooMany(Exception):
    """Nothing is done for this caller before ``retry_after`` has passed."""

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__(f"again in {retry_after}")
        self.retry_after = retry_after


def window(limit: RateLimitItem) -> timedelta:
    """Over how long a limit counts."""
    return timedelta(seconds=limit.get_expiry())


def longest_window(settings: IntakeSettings) -> timedelta:
    """How long the caller of a report has to be known."""
    limits = (settings.reports_per_address, settings.floods_per_address)
    return max(map(window, (*limits, settings.reports_per_contact)))


class UnknownCodes:
    """Counts the codes that an address has asked for and that there are not.

    Only these count: who looks at their own report may do so as often as they like.
    """

    def __init__(self, database: Database, limit: RateLimitItem) -> None:
        self._limit = limit
        self._storage = PostgresStorage(database)
        self._limiter = FixedWindowRateLimiter(self._storage)

    async def check(self, caller: Caller) -> None:
        """Refuse whoever has tried too many, also if they have guessed right now.

        Raises:
            TooMany: so they have.
        """
        key = caller.limited_by
        if key is None or await self._limiter.test(self._limit, "code", key):
            return
        until = (await self._limiter.get_window_stats(self._limit, "code", key)).reset_time
        seconds = min(max(until - await self._storage.now(), 1), self._limit.get_expiry())
        raise TooMany(timedelta(seconds=seconds))

    async def missed(self, caller: Caller) -> None:
        """There was no report with the code."""
        if caller.limited_by is not None:
            await self._limiter.hit(self._limit, "code", caller.limited_by)
