"""Keeps the districts of a running service as their folders say."""

import asyncio

import structlog
from prometheus_client import Gauge

from shared.districts import Districts
from shared.health import Loop

log = structlog.get_logger("policy")

POLICY_REFUSED = Gauge(
    "jangkau_policy_refused",
    "1 while a district's folder holds a file that is refused; the one before stays in force.",
)


class PolicyWatch:
    """Reads the districts' folders again when they have changed."""

    EVERY_S = 5.0

    def __init__(self, districts: Districts) -> None:
        self.districts = districts

    async def run(self, turns: Loop) -> None:
        """Look every few seconds, until cancelled; a broken file changes nothing and is told."""
        while True:
            turns.beat()
            before = self.districts.problem
            for code in await asyncio.to_thread(self.districts.reload):
                log.info("policy.reloaded", district=code)
            POLICY_REFUSED.set(self.districts.problem is not None)
            if self.districts.problem and self.districts.problem != before:
                log.error("policy.refused", problem=self.districts.problem)
            await asyncio.sleep(self.EVERY_S)
