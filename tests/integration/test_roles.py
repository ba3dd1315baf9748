"""Each service has a role of its own, which can enter its own database and no other."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import URL

from ops import roles
from shared import migrations
from shared.settings import SERVICES
from tests.servers import Databases

PASSWORD = "6f1d0b9c2e7a4853"


@dataclass
class Server:
    databases: Databases
    names: dict[str, str]

    def admin(self, service: str) -> URL:
        return self.databases.url(self.names[service])

    def own(self, service: str, *, into: str | None = None) -> URL:
        """How a service's role gets into its own database, or tries to get ``into`` another's."""
        url = self.admin(into or service)
        return url.set(username=self.names[service], password=f"{PASSWORD}{service}")

    async def migrate(self, service: str) -> None:
        """As `jangkau migrate` does."""
        await migrations.create_database(self.admin(service))
        await roles.give(service, self.admin(service), password=f"{PASSWORD}{service}")
        await migrations.migrate(service, self.own(service))


async def connected(url: URL) -> Any:
    return await asyncpg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password,
        database=url.database, timeout=10,
    )  # fmt: skip


@pytest.fixture
async def server(databases: Databases) -> AsyncIterator[Server]:
    made = Server(databases, {name: f"jangkau_{databases.run}_role_{name}" for name in SERVICES})
    yield made
    for name in made.names.values():
        await databases.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await databases.execute(f'DROP ROLE IF EXISTS "{name}"')


async def test_no_service_can_enter_the_database_of_another(server: Server) -> None:
    for service in SERVICES:
        await server.migrate(service)
    for service in SERVICES:
        for other in SERVICES:
            if other == service:
                continue
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connected(server.own(service, into=other))


async def test_a_role_is_no_superuser_and_makes_no_others(server: Server) -> None:
    await server.migrate("intake")
    own = await connected(server.own("intake"))
    try:
        for forbidden in (
            'CREATE ROLE "another_one"',
            'CREATE DATABASE "another_one"',
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT pg_read_file('PG_VERSION')",
            "SELECT passwd FROM pg_shadow",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(forbidden)
    finally:
        await own.close()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_database_of_one_user_for_everything_is_handed_over(
    server: Server, service: str
) -> None:
    """As an installation of before has it: the tables belong to the server's own user."""
    await migrations.create_database(server.admin(service))
    await migrations.migrate(service, server.admin(service))
    for _ in range(2):
        await server.migrate(service)
    own = await connected(server.own(service))
    try:
        assert await own.fetchval("SELECT count(*) FROM outbox") == 0
        await own.execute("ALTER TABLE outbox ADD COLUMN of_the_next_version int")
        left = await own.fetch(roles._NOT_THEIRS, server.names[service])
        assert left == []
    finally:
        await own.close()


async def test_a_password_is_changed_by_the_next_migration(server: Server) -> None:
    await server.migrate("intake")
    await roles.give("intake", server.admin("intake"), password='it\'s "quoted" \\ $$')
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connected(server.own("intake"))
    url = server.own("intake").set(password='it\'s "quoted" \\ $$')
    await (await connected(url)).close()
