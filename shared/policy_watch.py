"""Keeps the districts of a running service as their folders say."""

import asyncio
from collections.abc import Mapping

import structlog
from prometheus_client import Gauge

from shared.districts import Districts
from shared.health import Loop

log = structlog.get_logger("policy")

POLICY_REFUSED = Gauge(
    "jangkau_policy_refused",
    "1 while any district's folder holds a file that is refused.",
)
DISTRICT_REFUSED = Gauge(
    "jangkau_district_refused",
    "1 for a district whose folder is refused: with in_force=yes the one before still counts, with "
    "no it is out of service until the folder is mended.",
    ["district", "in_force"],
)


class PolicyWatch:
    """Reads the districts' folders again when they have changed."""

    EVERY_S = 5.0

    def __init__(self, districts: Districts) -> None:
        self.districts = districts

    async def run(self, turns: Loop) -> None:
        """Look every few seconds, until cancelled; what is broken is told once, by district."""
        told: dict[str, str] = {}
        while True:
            turns.beat()
            for code in await asyncio.to_thread(self.districts.reload):
                log.info("policy.reloaded", district=code)
            told = self._tell(told)
            await asyncio.sleep(self.EVERY_S)

    def _tell(self, told: Mapping[str, str]) -> dict[str, str]:
        """Say what is new of what is refused; returns all of it."""
        refused = dict(self.districts.refused)
        DISTRICT_REFUSED.clear()
        for code, problem in refused.items():
            in_force = code in self.districts
            DISTRICT_REFUSED.labels(code, "yes" if in_force else "no").set(1)
            if told.get(code) != problem:
                log.error("policy.refused", district=code, in_force=in_force, problem=problem)
        POLICY_REFUSED.set(bool(refused))
        return refused

    def notices(self) -> list[str]:
        """What a person has to mend, for `jangkau status`: a sentence for each broken district."""
        return [
            f"district {code} is refused, "
            + ("and stays as it was before" if code in self.districts else "and out of service")
            + f": {problem}"
            for code, problem in self.districts.refused.items()
        ]
