"""What assignment does when something happened elsewhere, or when a moment has come."""

import asyncio
from collections.abc import Mapping

from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import offers
from shared.consume import Handler
from shared.database import Database
from shared.districts import District
from shared.events import CaseReported
from shared.health import Loop


def on_intake_cases(districts: Mapping[str, District]) -> Handler:
    """Open a case for each report and ask the nearest volunteer."""

    async def handle(session: AsyncSession, reported: list[CaseReported]) -> None:
        await offers.open_cases(session, reported, districts=districts)

    return handle


class Sweep:
    """Tries waiting cases again when their time has come."""

    def __init__(
        self, database: Database, *, districts: Mapping[str, District], every_s: float
    ) -> None:
        self.database = database
        self.districts = districts
        self.every_s = every_s

    async def run(self, loop: Loop) -> None:
        """Sweep until cancelled."""
        while True:
            loop.beat()
            async with self.database.transaction() as session:
                tried = await offers.retry_waiting(session, districts=self.districts)
            if tried < offers.SWEEP_SIZE:
                await asyncio.sleep(self.every_s)
