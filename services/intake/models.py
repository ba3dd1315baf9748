"""Intake's tables. Reports hold personal data, and so do events on their way (positions)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, DateTime, Index, Text, func, text
from sqlmodel import Field, SQLModel

from shared.limit_storage import LimitHits
from shared.migrations import SPINE_TABLES

_STRANGERS = "caller IS NOT NULL"


class Report(SQLModel, table=True):
    """What one person told us."""

    __tablename__ = "reports"
    # For the limits. They hold a day of what strangers sent and nothing else.
    __table_args__ = (
        Index("reports_caller", "caller", "received_at", postgresql_where=text(_STRANGERS)),
        Index(
            "reports_phone",
            "reporter_phone",
            "received_at",
            postgresql_where=text(f"{_STRANGERS} AND reporter_phone IS NOT NULL"),
        ),
        Index(
            "reports_email",
            text("lower(reporter_email)"),
            "received_at",
            postgresql_where=text(f"{_STRANGERS} AND reporter_email IS NOT NULL"),
        ),
        Index(
            "reports_district",
            "district",
            "received_at",
            postgresql_where=text(f"{_STRANGERS} AND review IS NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    case_id: UUID = Field(index=True)
    code: str = Field(unique=True, sa_type=Text)
    # The client's, or one of our own: a request is stored once however often it is tried.
    idempotency_key: str = Field(unique=True, sa_type=Text)
    body_hash: str = Field(sa_type=Text)
    district: str = Field(sa_type=Text)
    category: str = Field(sa_type=Text)
    urgency: str = Field(sa_type=Text)
    people: int
    description: str | None = Field(default=None, sa_type=Text)
    channel: str = Field(sa_type=Text)
    latitude: float
    longitude: float
    approximate: bool
    subdistrict: str = Field(sa_type=Text)
    subdistrict_name: str = Field(sa_type=Text)
    village: str | None = Field(default=None, sa_type=Text)
    reporter_name: str | None = Field(default=None, sa_type=Text)
    reporter_phone: str | None = Field(default=None, sa_type=Text)
    reporter_email: str | None = Field(default=None, sa_type=Text)
    reporter_language: str = Field(
        default="id", sa_column=Column(Text, nullable=False, server_default="id")
    )
    # Whether they want to be told what becomes of it; else a contact is for the volunteer only.
    reporter_wants_news: bool = Field(
        default=True, sa_column_kwargs={"server_default": text("true")}
    )
    drill: bool
    # The address of a stranger (of IPv6 the /64), forgotten when no limit counts it any more.
    caller: str | None = Field(default=None, sa_type=Text)
    # Why the duty officer looks at it before volunteers are asked; null: they need not.
    review: str | None = Field(default=None, sa_type=Text)
    received_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.now())
    )


class CaseState(SQLModel, table=True):
    """The newest public state of a case, as read from the public feed."""

    __tablename__ = "case_states"

    case_id: UUID = Field(primary_key=True)
    version: int
    state: str = Field(sa_type=Text)
    waiting_for: str | None = Field(default=None, sa_type=Text)
    changed_at: datetime = Field(sa_type=DateTime(timezone=True))


# What the migrations of this service are checked against.
TABLES = (Report, CaseState, LimitHits, *SPINE_TABLES)
