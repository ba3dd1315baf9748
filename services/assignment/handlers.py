"""What assignment does when something happened elsewhere, or when a moment has come."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import answers, duty, held, loop, openings, reach
from services.assignment.answers import Heard
from services.assignment.leave import DutyLink
from shared.consume import Handler
from shared.database import Database, is_transient, sql
from shared.districts import District
from shared.events import CaseReported
from shared.health import Loop
from shared.hearing import ALL, HeardUntil

log = structlog.get_logger("sweep")

SWEEP_FAILURES = Counter(
    "jangkau_sweep_failures_total",
    "Cases that the sweep could not act on. Any rise: a person has to look at the log.",
)
# A case on which the sweep fails is looked at again after this long, so that it holds up no other.
FAILED_PAUSE = timedelta(minutes=5)
# Events are in Kafka within milliseconds; the worst burst takes a second or two.
UNSAID_PATIENCE = timedelta(seconds=10)

_UNSAID = sql("""
    SELECT EXISTS (SELECT 1 FROM outbox WHERE published_at IS NULL
                   AND created_at < now() - CAST(:patience AS interval))
""")


def on_intake_cases(districts: Mapping[str, District]) -> Handler:
    """Open a case for each report and ask the nearest volunteers."""

    async def handle(session: AsyncSession, reported: list[CaseReported]) -> None:
        await loop.open_cases(session, reported, districts=districts)

    return handle


def on_notification_answers(districts: Mapping[str, District], *, duty_link: DutyLink) -> Handler:
    """Let each answer take effect, or say why it cannot."""

    async def handle(session: AsyncSession, heard: list[Heard]) -> None:
        await answers.take_answers(session, heard, districts=districts, duty_link=duty_link)

    return handle


class Sweep:
    """Acts on deadlines, on volunteers whose duty begins, and on those who have become free."""

    def __init__(
        self,
        database: Database,
        *,
        districts: Mapping[str, District],
        every_s: float,
        heard: Callable[[], HeardUntil] = lambda: ALL,
    ) -> None:
        self.database = database
        self.districts = districts
        self.every_s = every_s
        # Until when all answers have been read: nobody is silent whom we have not heard.
        self.heard = heard
        self._wake = database.wake_on_commit(openings.WORK)

    async def run(self, turns: Loop) -> None:
        """Sweep until cancelled; at once when somebody has become available here."""
        while True:
            turns.beat()
            self._wake.clear()
            await self.look_at_volunteers()
            await self.look_at_held()
            if await self.look_at_cases() < loop.SWEEP_SIZE:
                try:
                    async with asyncio.timeout(self.every_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def look_at_volunteers(self) -> None:
        """Let duty begin and end, and wake the cases that somebody new could help."""
        async with self.database.transaction() as session:
            timezones = {code: district.timezone for code, district in self.districts.items()}
            await duty.refresh(session, timezones=timezones)
        # On its own: it waits for cases, and must hold no volunteer meanwhile.
        async with self.database.transaction() as session:
            await loop.wake(session, districts=self.districts)

    async def look_at_held(self) -> None:
        """Tell coordinators of what is held back, and search for what they have not looked at."""
        async with self.database.transaction() as session:
            await held.tell(session, districts=self.districts)
        async with self.database.transaction() as session:
            await loop.begin_overlooked(session, districts=self.districts)

    async def look_at_cases(self) -> int:
        """Act on the cases whose moment has come, one by one if all together fail; returns how
        many there were.

        While Kafka is away the deadlines stand still, and while answers are unread those that came
        after them: who has not been told, or has not been heard, has not been silent.
        """
        if await self._unsaid():
            return 0
        # Before the transaction: what has been set aside by now, it sees.
        heard = self.heard()
        try:
            async with self.database.transaction() as session:
                return len(await loop.sweep(session, districts=self.districts, heard=heard))
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("sweep.failed")
        return await self._one_by_one(heard)

    async def _unsaid(self) -> bool:
        """Whether events wait for Kafka for so long that it, or our relay, must be away."""
        rows = await self.database.statement(_UNSAID, {"patience": UNSAID_PATIENCE})
        return bool(rows[0][0])

    async def _one_by_one(self, heard: HeardUntil) -> int:
        async with self.database.transaction() as session:
            due = list(await loop.due(session, districts=self.districts, heard=heard))
        for case_id in due:
            try:
                async with self.database.transaction() as session:
                    await loop.sweep(session, districts=self.districts, heard=heard, only=case_id)
            except Exception as error:
                if is_transient(error):
                    raise
                log.exception("sweep.case_failed", case=str(case_id))
                SWEEP_FAILURES.inc()
                await self._later(case_id)
        return len(due)

    async def _later(self, case_id: UUID) -> None:
        await self.database.statement(
            sql("""
                UPDATE cases SET next_action_at = now() + CAST(:pause AS interval)
                -- Somebody may have acted on it since.
                WHERE id = :id AND next_action_at <= now() AND state <> 'closed'
            """),
            {"id": case_id, "pause": FAILED_PAUSE},
        )


class Reachability:
    """Tests by itself whether volunteers can be reached, and ends the tests whose time is over."""

    EVERY_S = 10.0

    def __init__(
        self,
        database: Database,
        *,
        districts: Mapping[str, District],
        heard: Callable[[], HeardUntil] = lambda: ALL,
    ) -> None:
        self.database = database
        self.districts = districts
        # Until when all answers have been read: nobody is silent whom we have not heard.
        self.heard = heard

    async def run(self, turns: Loop) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            turns.beat()
            await self.look()
            await asyncio.sleep(self.EVERY_S)

    async def look(self) -> None:
        """End what is over, and ping those of whom nothing was heard for long."""
        heard = self.heard()
        async with self.database.transaction() as session:
            await reach.end_overdue(session, heard=heard)
        async with self.database.transaction() as session:
            asked = await reach.ping_the_quiet(session, districts=self.districts)
        if asked:
            log.info("volunteers.pinged", count=asked)
