"""Volunteers of the demo: they answer on their sandbox phones as people do, or do not.

Each decision follows from the seed, the case and the volunteer, so that a run can be repeated.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

READ_EVERY_S = 0.1
READ_AT_ONCE = 500
# How many answers are under way at once.
THUMBS = 16


@dataclass(frozen=True)
class Habits:
    """How volunteers behave: shares of all offers, or of the accepted ones where it says so.

    ``within_s`` is how long an answer takes at most, in seconds; whoever answers neither yes nor no
    stays silent.
    """

    accept: float
    decline: float
    within_s: float
    late: float = 0.0  # say yes after the deadline
    obstacle: float = 0.0  # of those who have accepted
    hand_back: float = 0.0  # of those who have accepted
    vanish: float = 0.0  # of those who have accepted: never heard of again


HABITS: Mapping[str, Habits] = {
    "mixed": Habits(
        accept=0.3, decline=0.2, late=0.05, within_s=3, obstacle=0.1, hand_back=0.1, vanish=0.03
    ),
    # The worst of comparable systems: 83 % of the alerts stay without an answer.
    "quiet": Habits(accept=0.12, decline=0.05, within_s=3),
}


@dataclass
class People:
    """All volunteers at their phones. ``answer_s`` is the time an offer is open, in seconds."""

    url: str
    habits: Habits
    answer_s: float
    seed: int = 1
    answers: int = 0
    busy: int = 0  # who has accepted and will be heard of again
    _acting: set["asyncio.Task[None]"] = field(default_factory=set)

    async def live(self) -> None:
        """Read and answer until cancelled."""
        thumbs = asyncio.Semaphore(THUMBS)
        after = 0
        async with httpx2.AsyncClient(base_url=self.url, timeout=10, verify=False) as http:
            try:
                while True:
                    messages = await self._messages(http, after)
                    for message in messages:
                        after = message["id"]
                        if message["purpose"] == "offer":
                            self._act(http, thumbs, message)
                    if len(messages) < READ_AT_ONCE:
                        await asyncio.sleep(READ_EVERY_S)
            finally:
                for task in self._acting:
                    task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.gather(*self._acting, return_exceptions=True)

    async def _messages(self, http: httpx2.AsyncClient, after: int) -> list[dict[str, Any]]:
        query = {"limit": READ_AT_ONCE, "after": after}
        try:
            answer = await http.get("/sandbox/messages", params=query)
        except httpx2.TransportError:
            return []  # the service is being started again
        found: list[dict[str, Any]] = answer.json()["messages"] if answer.is_success else []
        return found

    def _act(
        self, http: httpx2.AsyncClient, thumbs: asyncio.Semaphore, offer: dict[str, Any]
    ) -> None:
        task = asyncio.create_task(self._decide(http, thumbs, offer))
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    async def _decide(
        self, http: httpx2.AsyncClient, thumbs: asyncio.Semaphore, offer: dict[str, Any]
    ) -> None:
        luck = random.Random(f"{self.seed}/{offer['case_id']}/{offer['address']}")  # noqa: S311
        habits, mood = self.habits, luck.random()
        pause = luck.uniform(0.1, min(habits.within_s, self.answer_s * 0.8))
        if mood < habits.accept:
            await asyncio.sleep(pause)
            self.busy += 1
            try:
                await self._answer(http, thumbs, offer, "accept", words="siap, saya berangkat")
                await self._attend(http, thumbs, offer, luck)
            finally:
                self.busy -= 1
        elif mood < habits.accept + habits.decline:
            await asyncio.sleep(pause)
            await self._answer(http, thumbs, offer, "decline", words="maaf, sedang di luar kota")
        elif mood < habits.accept + habits.decline + habits.late:
            await asyncio.sleep(self.answer_s + luck.uniform(1.5, 3))
            await self._answer(http, thumbs, offer, "accept", words="maaf baru baca, masih perlu?")

    async def _attend(
        self,
        http: httpx2.AsyncClient,
        thumbs: asyncio.Semaphore,
        offer: dict[str, Any],
        luck: random.Random,
    ) -> None:
        """What follows an acceptance. If it came too late, the answers to it say so politely."""
        habits, fate = self.habits, luck.random()
        await asyncio.sleep(luck.uniform(0.2, 1))
        if fate < habits.vanish:
            return
        if fate < habits.vanish + habits.hand_back:
            await self._answer(http, thumbs, offer, "hand_back", words="anak saya sakit")
            return
        if fate < habits.vanish + habits.hand_back + habits.obstacle:
            await self._answer(http, thumbs, offer, "obstacle", words="jalan banjir, memutar")
            await asyncio.sleep(luck.uniform(0.2, 1))
        await self._answer(http, thumbs, offer, "arrived")
        await asyncio.sleep(luck.uniform(0.2, 1))
        outcome = luck.choice(["resolved", "resolved", "referred", "not_found"])
        await self._answer(http, thumbs, offer, "done", outcome=outcome)

    async def _answer(
        self,
        http: httpx2.AsyncClient,
        thumbs: asyncio.Semaphore,
        offer: dict[str, Any],
        word: str,
        **more: str,
    ) -> None:
        """Answer, and try again while the service is away: a person would too."""
        body = {"offer_id": offer["offer_id"], "answer": word, **more}
        key = f"{offer['offer_id']}-{word}"
        for _ in range(60):
            with suppress(httpx2.TransportError):
                async with thumbs:
                    answer = await http.post(
                        "/sandbox/answers", json=body, headers={"Idempotency-Key": key}
                    )
                if answer.status_code < 500:
                    self.answers += answer.status_code == 202
                    return
            await asyncio.sleep(0.5)
