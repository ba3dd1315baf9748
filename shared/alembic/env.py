"""Alembic's entry point, the same for every service; called by ``shared.migrations``."""

from typing import Any

from alembic import context
from sqlmodel import SQLModel

config = context.config
tables = config.attributes["tables"]


def ours(obj: Any, name: str | None, kind: str, reflected: bool, _: Any) -> bool:
    """Only this service's tables: SQLModel keeps the tables of all services in one place."""
    if kind == "table" and not reflected:
        return name in tables
    return True


context.configure(
    connection=config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    include_object=ours,
)
with context.begin_transaction():
    context.run_migrations()
