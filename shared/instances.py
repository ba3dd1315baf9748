"""Which processes run a service, and whether they make progress: one row each, renewed often.

Lets ``jangkau status`` see every replica with nothing but a database connection.
"""

from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Column, DateTime, Text, func
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.database import execute, sql

# Three reports missed: the process is gone or stuck.
SEEN_WITHIN = timedelta(seconds=10)
FORGOTTEN_AFTER = timedelta(days=1)


class InstanceRow(SQLModel, table=True):
    """One process of the service."""

    __tablename__ = "instances"

    name: str = Field(primary_key=True, sa_type=Text)
    started_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now())
    )
    seen_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now())
    )
    problems: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))


async def report(session: AsyncSession, name: str, problems: list[str]) -> None:
    """Say that the process ``name`` is here, and what is wrong with it."""
    await execute(
        session,
        sql("""
            INSERT INTO instances (name, problems) VALUES (:name, CAST(:problems AS text[]))
            ON CONFLICT (name) DO UPDATE SET seen_at = now(), problems = excluded.problems
        """),
        {"name": name, "problems": problems},
    )


async def alive(session: AsyncSession) -> list[InstanceRow]:
    """The processes that have reported lately."""
    query = (
        select(InstanceRow)
        .where(col(InstanceRow.seen_at) > func.now() - SEEN_WITHIN)
        .order_by(InstanceRow.name)
    )
    return list((await session.exec(query)).all())


async def purge(session: AsyncSession) -> None:
    """Forget processes that are long gone."""
    await execute(
        session,
        sql("DELETE FROM instances WHERE seen_at < now() - CAST(:age AS interval)"),
        {"age": FORGOTTEN_AFTER},
    )
