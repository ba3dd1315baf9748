"""Creating and changing the tables of a service, forward only.

Each service has its own history in ``services/<name>/migrations``. A migration is raw SQL under a
``lock_timeout``, and works while the version before it still runs.
"""

from pathlib import Path
from typing import Any

import asyncpg
from alembic import command, op
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

from shared.dead_letters import DeadLetter
from shared.inbox import InboxRow
from shared.instances import InstanceRow
from shared.outbox import OutboxRow
from shared.set_aside import SetAside

ROOT = Path(__file__).parent.parent
MIGRATION_LOCK = 0x4D494752  # "MIGR"

# The tables that every service has, beside its own.
SPINE_TABLES: tuple[type[SQLModel], ...] = (
    OutboxRow, InboxRow, DeadLetter, InstanceRow, SetAside,
)  # fmt: skip

# Each service's first migration begins with this. Later changes are migrations of their own.
SPINE_0001 = """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id uuid NOT NULL UNIQUE,
        topic text NOT NULL,
        key text NOT NULL,
        payload text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        published_at timestamptz
    );
    CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
    CREATE INDEX outbox_published_at ON outbox (published_at) WHERE published_at IS NOT NULL;

    CREATE TABLE inbox (
        consumer text NOT NULL,
        event_id uuid NOT NULL,
        handled_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, event_id)
    );
    CREATE INDEX inbox_handled_at ON inbox (handled_at);

    CREATE TABLE dead_letters (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        consumer text NOT NULL,
        record_id text NOT NULL,
        event_id uuid,
        topic text NOT NULL,
        partition integer NOT NULL,
        record_offset bigint NOT NULL,
        key bytea,
        payload bytea,
        headers text NOT NULL,
        error text NOT NULL,
        attempts integer NOT NULL,
        state text NOT NULL,
        first_failed_at timestamptz NOT NULL DEFAULT now(),
        last_failed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT dead_letters_once_per_record UNIQUE (consumer, record_id)
    );
    CREATE INDEX dead_letters_open ON dead_letters (consumer) WHERE state = 'parked';

    CREATE TABLE instances (
        name text PRIMARY KEY,
        started_at timestamptz NOT NULL DEFAULT now(),
        seen_at timestamptz NOT NULL DEFAULT now(),
        problems text[] NOT NULL
    );
"""

# Each service's migration 0020.
SPINE_0020 = """
    CREATE TABLE set_aside (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        consumer text NOT NULL,
        case_id uuid NOT NULL,
        event_id uuid NOT NULL,
        topic text NOT NULL,
        partition integer NOT NULL,
        record_offset bigint NOT NULL,
        key bytea,
        payload bytea NOT NULL,
        headers text NOT NULL,
        error text,
        attempts integer NOT NULL,
        set_aside_at timestamptz NOT NULL DEFAULT now(),
        next_try_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT set_aside_once_per_event UNIQUE (consumer, event_id)
    );
    CREATE INDEX set_aside_cases ON set_aside (consumer, case_id, id);
"""


def execute_all(sql: str) -> None:
    """Run the statements of a migration one by one, as asyncpg takes only one at a time."""
    for statement in sql.split(";\n"):
        if statement.strip():
            op.execute(statement)


def _config(service: str, connection: Connection, tables: set[str]) -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "shared" / "alembic"))
    config.set_main_option("version_locations", str(ROOT / "services" / service / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["tables"] = tables
    return config


async def _server(url: URL) -> Any:
    return await asyncpg.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database="postgres",
        timeout=10,
    )


async def create_database(url: URL) -> bool:
    """Create the database if it is missing; returns whether it was.

    Raises:
        OSError, asyncpg.PostgresError: the server is away or refuses.
    """
    server = await _server(url)
    try:
        found = await server.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", url.database)
        if found:
            return False
        name = str(url.database).replace('"', '""')
        try:
            await server.execute(f'CREATE DATABASE "{name}"')
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            return False  # another job was faster
        return True
    finally:
        await server.close()


async def drop_database(url: URL) -> None:
    """Drop the database with all that is in it: for runs that clean up after themselves."""
    server = await _server(url)
    try:
        name = str(url.database).replace('"', '""')
        await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await server.close()


async def migrate(service: str, url: URL) -> None:
    """Bring the database of a service to the newest version, one job at a time."""
    await _run(service, url, set(), lambda config: command.upgrade(config, "head"))


async def check(service: str, url: URL, tables: tuple[type[SQLModel], ...]) -> None:
    """Compare the models with the migrated database.

    Raises:
        alembic.util.exc.AutogenerateDiffsDetected: they differ, and how.
    """
    names = {str(table.__tablename__) for table in tables}
    await _run(service, url, names, command.check)


async def _run(service: str, url: URL, tables: set[str], action: Any) -> None:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.execute(
                text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK}
            )
            await connection.commit()
            await connection.run_sync(lambda sync: action(_config(service, sync, tables)))
            await connection.commit()
    finally:
        await engine.dispose()
