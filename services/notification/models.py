"""Notification's tables: messages, attempts to send them, what is known of offers, fake phones."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlmodel import Field, SQLModel

from shared.migrations import SPINE_TABLES


def _moment(*, nullable: bool = False, **kwargs: Any) -> Any:
    return Column(DateTime(timezone=True), nullable=nullable, **kwargs)


class Message(SQLModel, table=True):
    """Something one person is to be told, once. Stored before any provider is called."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("event_id", "recipient", "purpose", name="messages_once"),
        CheckConstraint(
            "state IN ('queued', 'sending', 'sent', 'failed', 'expired', 'unknown', 'withdrawn')",
            name="messages_state",
        ),
        Index(
            "messages_due", "channel", "next_attempt_at", postgresql_where=text("state = 'queued'")
        ),
        Index("messages_case", "case_id"),
        Index("messages_offer", "offer_id"),
    )

    id: UUID = Field(primary_key=True)
    event_id: UUID
    case_id: UUID
    # Null where it is about the case as a whole: an escalation.
    offer_id: UUID | None = None
    # A volunteer's id, or "coordinator:" or "unknown:" and their phone or e-mail.
    recipient: str = Field(sa_type=Text)
    purpose: str = Field(sa_type=Text)
    answer_code: str | None = Field(default=None, sa_type=Text)
    district: str = Field(sa_type=Text)
    drill: bool
    phone: str | None = Field(default=None, sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    short_text: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text)
    long_text: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    # The channel that is tried now; null when none is left.
    channel: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    attempts: int = 0
    # Of the case; null where the event does not say it.
    reported_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    created_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    next_attempt_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    send_before: datetime = Field(sa_column=_moment())
    sent_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class Attempt(SQLModel, table=True):
    """One call to one provider. Stored as ``sending`` before the call."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("state IN ('sending', 'sent', 'failed', 'unknown')", name="attempts_state"),
        Index("attempts_open", "lease_until", postgresql_where=text("state = 'sending'")),
        Index("attempts_message", "message_id"),
    )

    id: UUID = Field(primary_key=True)
    message_id: UUID = Field(foreign_key="messages.id")
    channel: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    provider_id: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    started_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    lease_until: datetime = Field(sa_column=_moment())
    ended_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class OfferState(SQLModel, table=True):
    """What was last heard of an offer. No row: it was made, and nobody has said more.

    ``open``: asked. ``accepted``, ``arrived``: its volunteer has the case. ``ended``: nothing about
    it may be sent any more.
    """

    __tablename__ = "offer_states"
    __table_args__ = (
        CheckConstraint(
            "state IN ('open', 'accepted', 'arrived', 'ended')", name="offer_states_state"
        ),
    )

    offer_id: UUID = Field(primary_key=True)
    state: str = Field(sa_type=Text)
    changed_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    # Of the newest event about it, whether or not it changed anything.
    heard_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class SandboxMessage(SQLModel, table=True):
    """What arrived on a fake phone; the key makes a repeated send arrive once."""

    __tablename__ = "sandbox_messages"
    __table_args__ = (
        Index("sandbox_messages_received_at", "received_at"),
        Index("sandbox_messages_arrival", "arrival"),
        Index("sandbox_messages_address", "address", "received_at"),
    )

    idempotency_key: UUID = Field(primary_key=True)
    address: str = Field(sa_type=Text)
    body: str = Field(sa_type=Text)
    received_at: datetime = Field(sa_column=_moment(server_default=func.now()))
    # The transaction in which it arrived: below the oldest one that still runs nothing can appear
    # any more, so whoever reads on from a number misses none.
    arrival: int = Field(
        sa_column=Column(
            BigInteger,
            nullable=False,
            server_default=text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
        )
    )


class SandboxAnswer(SQLModel, table=True):
    """What was answered on a fake phone, as its owner sees it there."""

    __tablename__ = "sandbox_answers"
    __table_args__ = (
        Index("sandbox_answers_address", "address", "given_at"),
        Index("sandbox_answers_offer", "offer_id"),
    )

    event_id: UUID = Field(primary_key=True)
    offer_id: UUID
    address: str = Field(sa_type=Text)
    body: str = Field(sa_type=Text)
    given_at: datetime = Field(sa_column=_moment(server_default=func.now()))


# What the migrations of this service are checked against.
TABLES = (Message, Attempt, OfferState, SandboxMessage, SandboxAnswer, *SPINE_TABLES)
