"""Assignment's tables. Each carries the district, so that the data can be spread by it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Identity,
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


def _moment(*, nullable: bool = False, **kwargs: Any) -> Any:
    return Column(DateTime(timezone=True), nullable=nullable, **kwargs)


class Volunteer(SQLModel, table=True):
    """Somebody trained who can be asked. Holds personal data."""

    __tablename__ = "volunteers"
    __table_args__ = (
        CheckConstraint("open_cases BETWEEN 0 AND capacity", name="volunteers_not_overloaded"),
        CheckConstraint("open_offers >= 0", name="volunteers_offers"),
        CheckConstraint("open_drills >= 0", name="volunteers_drills"),
        # Nobody can be asked who cannot be reached.
        CheckConstraint(
            "NOT on_duty OR phone IS NOT NULL OR email IS NOT NULL", name="volunteers_reachable"
        ),
        CheckConstraint("channel IN ('sms', 'email', 'other')", name="volunteers_channel"),
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
        Index(
            "volunteers_ready_changes_at",
            "ready_changes_at",
            postgresql_where=text("ready_changes_at IS NOT NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    district: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    phone: str | None = Field(default=None, sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    language: str = Field(default="id", sa_column=Column(Text, nullable=False, server_default="id"))
    # What they would rather be reached by: sms, email or other.
    channel: str | None = Field(default=None, sa_type=Text)
    # By what they want no more messages, and whether anything is left; see reach.py.
    stopped: list[str] = Field(
        default_factory=list,
        sa_column=Column(ARRAY(Text), nullable=False, server_default="{}"),
    )
    reachable: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    village: str | None = Field(default=None, sa_type=Text)
    latitude: float
    longitude: float
    # Empty: every category.
    categories: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    # What they have learnt, in the district's own words, such as mental_health.
    trainings: list[str] = Field(
        default_factory=list,
        sa_column=Column(ARRAY(Text), nullable=False, server_default="{}"),
    )
    capacity: int
    # Cases in hand, offers that wait for an answer, and drills in either state, which count in
    # neither. Triggers on `offers` count them, whoever writes; what a statement sets is not stored.
    open_cases: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    open_offers: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    open_drills: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    # The switch that a person sets; times, leave and rest are below and come together in `ready`.
    on_duty: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    # Weekly, in the district's time; empty: always. See duty.py.
    duty_times: list[dict[str, Any]] = Field(
        default_factory=list, sa_column=Column(JSONB, nullable=False, server_default="[]")
    )
    off_until: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    rest_until: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # Whether times, leave and rest allow it now, and they can be reached at all; and when that
    # changes. Kept by the sweep.
    ready: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    ready_changes_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    last_reached_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # Whether they could take another case. Computed columns are compared by value, so what leaves
    # somebody available touches no index and stays a heap-only update.
    available: bool = Field(
        sa_column=Column(
            Boolean,
            Computed("on_duty AND ready AND open_cases < capacity", persisted=True),
            nullable=True,
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
        CheckConstraint(
            "state IN ('searching', 'waiting', 'offered', 'escalated', 'accepted', 'arrived', "
            "'closed')",
            name="cases_state",
        ),
        Index("cases_due", "next_action_at", postgresql_where=text("next_action_at IS NOT NULL")),
        Index(
            "cases_unserved",
            "district",
            postgresql_where=text("state IN ('searching', 'waiting', 'escalated')"),
        ),
        Index("cases_code", "code"),
        Index("cases_open", "reported_at", "id", postgresql_where=text("state <> 'closed'")),
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
    # When the sweep looks at it next: a deadline, an escalation, another try. Null when closed.
    next_action_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # How many are asked at once.
    parallel: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    # Where the search is: the stage of the policy's plan, and how many were asked in it.
    stage: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    asked_in_stage: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    escalate_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    escalated_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    escalated_for: str | None = Field(default=None, sa_type=Text)
    outcome: str | None = Field(default=None, sa_type=Text)
    closed_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class HeldCase(SQLModel, table=True):
    """A case that the duty officer looks at before volunteers are asked; gone when they have.

    ``begun_at``: nobody has looked in time, and its search has begun behind all others.
    """

    __tablename__ = "held_cases"
    __table_args__ = (
        Index(
            "held_cases_waiting",
            "district",
            text("urgent DESC"),
            "look_by",
            postgresql_where=text("begun_at IS NULL"),
        ),
        Index("held_cases_begun", "district", postgresql_where=text("begun_at IS NOT NULL")),
        Index("held_cases_untold", "district", postgresql_where=text("NOT told")),
    )

    case_id: UUID = Field(primary_key=True, foreign_key="cases.id")
    district: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    urgent: bool
    # Until then somebody is to look.
    look_by: datetime = Field(sa_column=_moment())
    # Whether the coordinators know of it.
    told: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    begun_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class HeldTold(SQLModel, table=True):
    """When the coordinators of a district were last told of what is held back."""

    __tablename__ = "held_told"

    district: str = Field(primary_key=True, sa_type=Text)
    told_at: datetime = Field(sa_column=_moment())


class ReporterRow(SQLModel, table=True):
    """Who reported a case, if they left a contact; deleted when it is closed. Personal data.

    A table of its own: nobody who reads cases reads it along with them.
    """

    __tablename__ = "reporters"

    case_id: UUID = Field(primary_key=True, foreign_key="cases.id")
    # shared.events.Reporter.
    contact: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    # They hear once that somebody is coming, not again after a hand-back.
    told_of_help: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


class Offer(SQLModel, table=True):
    """One case offered to one volunteer until a deadline."""

    __tablename__ = "offers"
    __table_args__ = (
        UniqueConstraint("case_id", "volunteer_id", name="offers_asked_once"),
        CheckConstraint(
            "state IN ('offered', 'accepted', 'arrived', 'done', 'declined', 'expired', "
            "'withdrawn', 'unreachable', 'unsent', 'handed_back', 'lapsed', 'called_off')",
            name="offers_state",
        ),
        CheckConstraint("slot BETWEEN 1 AND slots", name="offers_slots"),
        Index(
            "offers_open_slots",
            "case_id",
            "slot",
            unique=True,
            postgresql_where=text("state = 'offered'"),
        ),
        Index(
            "offers_one_acceptance",
            "case_id",
            unique=True,
            postgresql_where=text("state IN ('accepted', 'arrived')"),
        ),
        Index(
            "offers_open_code",
            "answer_code",
            unique=True,
            postgresql_where=text("state = 'offered'"),
        ),
        Index("offers_volunteer", "volunteer_id", "made_at"),
        Index(
            "offers_open",
            "volunteer_id",
            postgresql_where=text("state IN ('offered', 'accepted', 'arrived')"),
        ),
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
    # One of `slots` that may be open at once for the case.
    slot: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    slots: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    answered_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # The volunteer's own, as they came with the last answer.
    words: str | None = Field(default=None, sa_type=Text)
    # The coordinator who gave the case to this volunteer, instead of asking.
    assigned_by: str | None = Field(default=None, sa_type=Text)
    # Of a rehearsal: it does not count as having been asked of late.
    drill: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


class AnswerRow(SQLModel, table=True):
    """Every answer that came in, and what became of it."""

    __tablename__ = "answers"
    __table_args__ = (Index("answers_case", "case_id"),)

    event_id: UUID = Field(primary_key=True)
    offer_id: UUID
    case_id: UUID
    answer: str = Field(sa_type=Text)
    outcome: str | None = Field(default=None, sa_type=Text)
    words: str | None = Field(default=None, sa_type=Text)
    channel: str = Field(sa_type=Text)
    verdict: str = Field(sa_type=Text)
    answered_at: datetime = Field(sa_column=_moment())
    recorded_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class Ping(SQLModel, table=True):
    """A test whether a volunteer can be reached, and what came of it."""

    __tablename__ = "pings"
    __table_args__ = (
        CheckConstraint(
            "state IN ('asked', 'answered', 'unanswered', 'unreachable')", name="pings_state"
        ),
        Index(
            "pings_one_open", "volunteer_id", unique=True, postgresql_where=text("state = 'asked'")
        ),
        Index(
            "pings_open_code", "answer_code", unique=True, postgresql_where=text("state = 'asked'")
        ),
        Index("pings_respond_by", "respond_by", postgresql_where=text("state = 'asked'")),
        Index("pings_volunteer", "volunteer_id", "asked_at"),
    )

    id: UUID = Field(primary_key=True)
    volunteer_id: UUID = Field(foreign_key="volunteers.id")
    district: str = Field(sa_type=Text)
    # From the sequence of the offers' codes: no two that are open are the same.
    answer_code: str = Field(sa_type=Text)
    state: str = Field(default="asked", sa_column_kwargs={"server_default": "asked"}, sa_type=Text)
    drill: bool
    asked_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    respond_by: datetime = Field(sa_column=_moment())
    ended_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # The volunteer's own.
    words: str | None = Field(default=None, sa_type=Text)
    # Why they could not be reached.
    reason: str | None = Field(default=None, sa_type=Text)


class LogLine(SQLModel, table=True):
    """One line of a case's story: what happened, who did it, and why."""

    __tablename__ = "case_log"
    __table_args__ = (Index("case_log_case", "case_id", "id"),)

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    case_id: UUID = Field(foreign_key="cases.id")
    at: datetime = Field(sa_column=_moment(server_default=func.now()))
    what: str = Field(sa_type=Text)
    who: str | None = Field(default=None, sa_type=Text)
    offer_id: UUID | None = None
    why: str | None = Field(default=None, sa_type=Text)


class Opening(SQLModel, table=True):
    """Somebody has become available in a district: the sweep lets its cases look again."""

    __tablename__ = "openings"

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    district: str = Field(sa_type=Text)


# What the migrations of this service are checked against.
TABLES = (
    Volunteer,
    Case,
    HeldCase,
    HeldTold,
    ReporterRow,
    Offer,
    AnswerRow,
    Ping,
    LogLine,
    Opening,
    *SPINE_TABLES,
)
