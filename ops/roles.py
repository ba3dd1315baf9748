"""One PostgreSQL role per service, which owns its own database and can enter no other.

Whoever gets into intake, whose door is open to everybody, must not get at the volunteers. The roles
are made, and databases of before are handed over, by ``jangkau migrate`` with the server's own
user; the services never see that user's password.
"""

from typing import Annotated, Any

import asyncpg
from pydantic import SecretStr
from sqlalchemy.engine import URL

from shared.secret_rules import Ours
from shared.settings import Settings

# What only the server's own user may install.
EXTENSIONS = {"assignment": ("cube", "earthdistance", "btree_gist")}

RolePassword = Annotated[SecretStr | None, Ours(outside_development_only=True)]


class RoleSettings(Settings):
    """The password of each service's role; without any, there is one user for everything."""

    intake_database_password: RolePassword = None
    assignment_database_password: RolePassword = None
    notification_database_password: RolePassword = None

    def password_of(self, service: str) -> str | None:
        """The password of a service's role, if it has one of its own."""
        found: SecretStr | None = getattr(self, f"{service}_database_password")
        return found.get_secret_value() if found else None


def role_of(url: URL) -> str:
    """The role that owns a database is named as it."""
    return str(url.database)


async def give(service: str, url: URL, *, password: str) -> None:
    """Let the database of ``url`` belong to a role of its own, and all in it; changes nothing the
    second time. ``url`` is that of the server's own user, the database exists.

    Raises:
        OSError, asyncpg.PostgresError: the server is away or refuses.
    """
    role = role_of(url)
    connection = await asyncpg.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database=url.database,
        timeout=10,
    )
    try:
        # Roles belong to the whole server: two jobs at once would make one twice.
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '10s'")
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('jangkau roles'))")
            await _make_role(connection, role, password)
            for extension in EXTENSIONS.get(service, ()):
                await connection.execute(f'CREATE EXTENSION IF NOT EXISTS "{extension}"')
            await _hand_over(connection, role)
    finally:
        await connection.close()


async def _make_role(connection: Any, role: str, password: str) -> None:
    name, secret = await connection.fetchrow(
        "SELECT quote_ident($1), quote_literal($2)", role, password
    )
    there = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    verb = "ALTER" if there else "CREATE"
    await connection.execute(f"{verb} ROLE {name} {rights} PASSWORD {secret}")


# Everything that a migration makes, but for what an extension has brought along.
_NOT_THEIRS = """
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW'
                          WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END || ' '
           || c.oid::regclass AS object
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND pg_get_userbyid(c.relowner) <> $1
      -- A sequence of a column goes with its table.
      AND NOT EXISTS (SELECT 1 FROM pg_depend d
                      WHERE d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))
    UNION ALL
    SELECT 'ROUTINE ' || p.oid::regprocedure
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND pg_get_userbyid(p.proowner) <> $1
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    UNION ALL
    SELECT 'TYPE ' || t.oid::regtype FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = 'public' AND t.typtype IN ('e', 'd') AND pg_get_userbyid(t.typowner) <> $1
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
"""


async def _hand_over(connection: Any, role: str) -> None:
    database, name = await connection.fetchrow(
        "SELECT quote_ident(current_database()), quote_ident($1)", role
    )
    await connection.execute(f"ALTER DATABASE {database} OWNER TO {name}")
    # By default every role may enter every database.
    await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
    await connection.execute(f"ALTER SCHEMA public OWNER TO {name}")
    for row in await connection.fetch(_NOT_THEIRS, role):
        await connection.execute(f"ALTER {row['object']} OWNER TO {name}")
