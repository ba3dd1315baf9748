"""The next version's tables under this version's processes, which go on working.

That is how a rolling upgrade goes: the migration first, then one process after the other.
"""

import asyncio

from ops.demo import Show
from ops.embedded import Stack
from shared.database import Row, is_transient
from shared.settings import SERVICES
from tests.playing import nothing_is_lost, play

# What makes a migration that old processes can live with: what is added has a default or may be
# empty, and numbers only get wider. What a generated column or a check is made of cannot change.
ADDED = """
    SELECT format('ALTER TABLE %I ADD COLUMN next_version integer NOT NULL DEFAULT 1, '
                  'ADD COLUMN next_word text', tablename) AS change
    FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY random()
"""
WIDENED = """
    SELECT format('ALTER TABLE %I ALTER COLUMN %I TYPE bigint', table_name, column_name) AS change
    FROM information_schema.columns c
    WHERE table_schema = 'public' AND data_type = 'integer' AND is_identity = 'NO'
      AND column_name <> 'next_version'
      AND NOT EXISTS (SELECT FROM information_schema.columns g
                      WHERE g.table_name = c.table_name AND g.is_generated = 'ALWAYS')
    ORDER BY random()
"""


async def apply(stack: Stack, service: str, change: str) -> None:
    """As our migrations do: give up a lock that does not come at once, and try again."""
    while True:
        try:
            async with stack.database(service).transaction() as session:
                raw = session.info["asyncpg connection"]
                await raw.execute("SET LOCAL lock_timeout = '200ms'")
                await raw.execute(change)
            return
        except Exception as error:
            if not is_transient(error):
                raise
            await asyncio.sleep(0.05)


async def test_the_next_versions_tables_stop_no_process_of_this_one() -> None:
    changed: list[str] = []

    async def migrate(stack: Stack) -> None:
        await asyncio.sleep(1)
        for changes in (ADDED, WIDENED):
            found: list[tuple[str, Row]] = [
                (service, row) for service in SERVICES for row in await stack.rows(service, changes)
            ]
            for service, row in found:
                await apply(stack, service, row.change)
                changed.append(row.change)
                await asyncio.sleep(0.05)

    result = await play(Show(answers="mixed", answer_s=1.5, limit=20), interfere=migrate)
    nothing_is_lost(result)
    assert result.restarts == 0, "no process may end of it"
    assert len([change for change in changed if "ADD COLUMN" in change]) > 20
    assert len([change for change in changed if "TYPE bigint" in change]) > 10
