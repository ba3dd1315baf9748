"""Assignment's tables. Each carries the district, so that the data can be spread by it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field, SQLModel

from shared.migrations import SPINE_TABLES


class Cube(UserDefinedType[str]):
    """PostgreSQL's ``cube``: a point on the earth's surface, as ``ll_to_earth`` makes it."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The name of the type in SQL."""
        return "cube"


# So that `alembic check` recognises the column when it reads the database.
ischema_names["cube"] = Cube


def _moment(**kwargs: Any) -> Any:
    return Column(DateTime(timezone=True), nullable=False, **kwargs)


class Volunteer(SQLModel, table=True):
    """Somebody trained who can be asked. Holds personal data."""

    __tablename__ = "volunteers"
    __table_args__ = (
        CheckConstraint("open_cases BETWEEN 0 AND capacity", name="volunteers_not_overloaded"),
        CheckConstraint("phone IS NOT NULL OR email IS NOT NULL", name="volunteers_reachable"),
        Index(
            "volunteers_phone",
            "district",
            "phone",
            unique=True,
            postgresql_where=text("phone IS NOT NULL"),
        ),
        Index(
            "volunteers_email",
            "district",
            "email",
            unique=True,
            postgresql_where=text("phone IS NULL"),
        ),
        Index("volunteers_nearest", "district", "available", "home", postgresql_using="gist"),
    )

    id: UUID = Field(primary_key=True)
    district: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    phone: str | None = Field(default=None, sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    language: str = Field(default="id", sa_column=Column(Text, nullable=False, server_default="id"))
    village: str | None = Field(default=None, sa_type=Text)
    latitude: float
    longitude: float
    # Empty: every category.
    categories: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    capacity: int
    open_cases: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    on_duty: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    # Computed columns are compared by value, so a claim that leaves somebody available touches no
    # index and stays a heap-only update.
    available: bool = Field(
        sa_column=Column(
            Boolean, Computed("on_duty AND open_cases < capacity", persisted=True), nullable=True
        )
    )
    home: str = Field(
        sa_column=Column(
            Cube, Computed("ll_to_earth(latitude, longitude)", persisted=True), nullable=True
        )
    )
    created_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    updated_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class Case(SQLModel, table=True):
    """A person or family in need, for whom a volunteer is looked for."""

    __tablename__ = "cases"
    __table_args__ = (
        CheckConstraint("state IN ('searching', 'waiting', 'offered')", name="cases_state"),
        Index("cases_due", "next_action_at", postgresql_where=text("state = 'waiting'")),
    )

    id: UUID = Field(primary_key=True)
    code: str = Field(sa_type=Text)
    district: str = Field(sa_type=Text)
    category: str = Field(sa_type=Text)
    urgency: str = Field(sa_type=Text)
    people: int
    latitude: float
    longitude: float
    approximate: bool
    subdistrict: str = Field(sa_type=Text)
    subdistrict_name: str = Field(sa_type=Text)
    village: str | None = Field(default=None, sa_type=Text)
    village_name: str | None = Field(default=None, sa_type=Text)
    centre_latitude: float
    centre_longitude: float
    drill: bool
    traceparent: str | None = Field(default=None, sa_type=Text)
    reported_at: datetime = Field(sa_column=_moment())
    state: str = Field(sa_type=Text)
    waiting_for: str | None = Field(default=None, sa_type=Text)
    # Of the public feed: 1..n, raised with every change that others may see.
    version: int
    changed_at: datetime = Field(default=None, sa_column=_moment(server_default=func.now()))
    next_action_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=True)
    )


class Offer(SQLModel, table=True):
    """One case offered to one volunteer until a deadline."""

    __tablename__ = "offers"
    __table_args__ = (
        UniqueConstraint("case_id", "volunteer_id", name="offers_asked_once"),
        CheckConstraint("state IN ('offered')", name="offers_state"),
        Index(
            "offers_one_open_per_case",
            "case_id",
            unique=True,
            postgresql_where=text("state = 'offered'"),
        ),
        Index(
            "offers_open_code",
            "answer_code",
            unique=True,
            postgresql_where=text("state = 'offered'"),
        ),
        Index("offers_volunteer", "volunteer_id"),
    )

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(foreign_key="cases.id")
    volunteer_id: UUID = Field(foreign_key="volunteers.id")
    district: str = Field(sa_type=Text)
    answer_code: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    distance_m: float
    # Why this volunteer: distance, rank, who was nearer and why not.
    reasons: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    made_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    respond_by: datetime = Field(sa_column=_moment())


# What the migrations of this service are checked against.
TABLES = (Volunteer, Case, Offer, *SPINE_TABLES)
