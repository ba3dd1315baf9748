"""One of several processes that let many volunteers accept the same case at the same moment.

    python -m tests.chaos.accepting DATABASE_URL OFFERS.json COUNT

Prints the verdicts as JSON. Nothing but the database keeps the processes apart.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

from sqlalchemy.engine import make_url

from shared.database import Database
from shared.districts import Districts
from tests.integration.cases import answer, with_policy

AT_ONCE = 6
DISTRICTS = Path(__file__).parents[2] / "districts"


async def accept(url: str, offers: list[dict[str, str]], count: int) -> Counter[str]:
    """Accept ``count`` times, going through the offers."""
    database = Database(make_url(url), pool_size=AT_ONCE)
    policy = with_policy(Districts([DISTRICTS], villages=False))
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        offer = {name: UUID(value) for name, value in offers[number % len(offers)].items()}
        async with limit:
            return await answer(database, policy, SimpleNamespace(**offer), "accept")

    try:
        return Counter(await asyncio.gather(*(one(number) for number in range(count))))
    finally:
        await database.close()


if __name__ == "__main__":
    _, url, file, count = sys.argv
    offers = json.loads(Path(file).read_text(encoding="utf-8"))
    print(json.dumps(asyncio.run(accept(url, offers, int(count)))))
