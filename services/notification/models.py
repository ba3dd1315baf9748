"""Notification's tables: messages and the attempts to send them, receipts, who was asked and what
came in, who wants no messages, what was spent, and the fake phones."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
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
            "state IN ('queued', 'sending', 'sent', 'delivered', 'failed', 'expired', 'unknown', "
            "'withdrawn')",
            name="messages_state",
        ),
        Index(
            "messages_due", "channel", "next_attempt_at", postgresql_where=text("state = 'queued'")
        ),
        Index("messages_case", "case_id"),
        Index("messages_offer", "offer_id"),
        Index("messages_receipt_by", "receipt_by", postgresql_where=text("receipt_by IS NOT NULL")),
        Index(
            "messages_look_up_at",
            "channel",
            "look_up_at",
            postgresql_where=text("look_up_at IS NOT NULL"),
        ),
        Index("messages_recipient", "recipient", "created_at"),
        Index(
            "messages_reporter_phone",
            "phone",
            "created_at",
            postgresql_where=text("purpose IN ('acknowledged', 'news_accepted', 'news_closed')"),
        ),
        Index(
            "messages_reporter_email",
            text("lower(email)"),
            "created_at",
            postgresql_where=text("purpose IN ('acknowledged', 'news_accepted', 'news_closed')"),
        ),
        # Whether we have ever written to somebody who writes to us.
        Index("messages_email", text("lower(email)"), postgresql_where=text("email IS NOT NULL")),
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
    # The channels by which this person can be reached, in the order in which they are tried.
    routes: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default="{}")
    )
    # Goes by SMS also when the day's budget is spent.
    urgent: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    # Of the short text: what it costs by SMS.
    segments: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
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
    # If no receipt has come until then, the next channel is tried.
    receipt_by: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # The provider may have taken it, and is asked then.
    look_up_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    look_ups: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    delivered_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class Attempt(SQLModel, table=True):
    """One call to one provider. Stored as ``sending`` before the call."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("state IN ('sending', 'sent', 'failed', 'unknown')", name="attempts_state"),
        Index("attempts_open", "lease_until", postgresql_where=text("state = 'sending'")),
        CheckConstraint("receipt IN ('sent', 'delivered', 'undelivered')", name="attempts_receipt"),
        Index("attempts_message", "message_id"),
        Index(
            "attempts_provider_id",
            "channel",
            "provider_id",
            postgresql_where=text("provider_id <> ''"),
        ),
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
    # What it cost; 0 where the provider did not take it.
    segments: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    # The farthest that the provider has told.
    receipt: str | None = Field(default=None, sa_type=Text)
    receipt_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class Receipt(SQLModel, table=True):
    """What a provider told of a message, once, whether or not we know the message yet."""

    __tablename__ = "receipts"
    __table_args__ = (
        CheckConstraint("state IN ('sent', 'delivered', 'undelivered')", name="receipts_state"),
        UniqueConstraint(
            "channel",
            "provider_id",
            "message_id",
            "state",
            name="receipts_once",
            postgresql_nulls_not_distinct=True,
        ),
        Index("receipts_received_at", "received_at"),
        Index(
            "receipts_message",
            "channel",
            "message_id",
            postgresql_where=text("message_id IS NOT NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    channel: str = Field(sa_type=Text)
    provider_id: str | None = Field(default=None, sa_type=Text)
    message_id: UUID | None = None
    state: str = Field(sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    received_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class Asked(SQLModel, table=True):
    """A volunteer who was asked: an offer, or a test whether they can be reached (``ping``).

    ``made`` is the data of the event that said so; ``reporter`` is known from the acceptance on.
    """

    __tablename__ = "asked"
    __table_args__ = (
        CheckConstraint("kind IN ('offer', 'ping')", name="asked_kind"),
        Index("asked_code", "answer_code", "asked_at"),
        Index("asked_phone", "phone", "asked_at"),
        Index("asked_email", text("lower(email)"), "asked_at"),
    )

    offer_id: UUID = Field(primary_key=True)
    kind: str = Field(sa_type=Text)
    case_id: UUID
    district: str = Field(sa_type=Text)
    drill: bool
    volunteer_id: UUID
    phone: str | None = Field(default=None, sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    language: str = Field(sa_type=Text)
    answer_code: str = Field(sa_type=Text)
    respond_by: datetime = Field(sa_column=_moment())
    made: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    reporter: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True)
    )
    # Why it is over, as it was last heard; null while it is not.
    outcome: str | None = Field(default=None, sa_type=Text)
    asked_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class Stop(SQLModel, table=True):
    """Somebody who wants no more messages at an address by a kind of channel."""

    __tablename__ = "stops"

    address: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(primary_key=True, sa_type=Text)
    since: datetime = Field(sa_column=_moment(server_default=func.now()))


class Spending(SQLModel, table=True):
    """SMS segments of a district on one of its own days."""

    __tablename__ = "spending"

    district: str = Field(primary_key=True, sa_type=Text)
    day: date = Field(sa_column=Column(Date, primary_key=True))
    segments: int
    warned_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    # When coordinators heard that nothing goes out by SMS any more.
    ceiling_told_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


class Inbound(SQLModel, table=True):
    """What somebody wrote to us, raw, and what it was taken for; each once."""

    __tablename__ = "inbound"
    __table_args__ = (
        UniqueConstraint("channel", "provider_id", name="inbound_once"),
        Index("inbound_sender", "sender", "received_at"),
        Index("inbound_received_at", "received_at"),
    )

    id: UUID = Field(primary_key=True)
    channel: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    # The provider's id of it, or one made from its content.
    provider_id: str = Field(sa_type=Text)
    sender: str = Field(sa_type=Text)
    body: str = Field(sa_type=Text)
    meaning: str = Field(sa_type=Text)
    why: str | None = Field(default=None, sa_type=Text)
    offer_id: UUID | None = None
    # To which district's officers it belongs, where it is about no offer.
    district: str | None = Field(default=None, sa_type=Text)
    received_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class ReportedBy(SQLModel, table=True):
    """Who reported a case and from where, so that what they write later finds its officer.

    Personal data: deleted with what came in (``keep_days``).
    """

    __tablename__ = "reported_by"
    __table_args__ = (
        Index("reported_by_phone", "phone", "reported_at"),
        Index("reported_by_email", text("lower(email)"), "reported_at"),
        Index("reported_by_kept_at", "kept_at"),
    )

    case_id: UUID = Field(primary_key=True)
    code: str = Field(sa_type=Text)
    district: str = Field(sa_type=Text)
    subdistrict: str = Field(sa_type=Text)
    phone: str | None = Field(default=None, sa_type=Text)
    email: str | None = Field(default=None, sa_type=Text)
    language: str = Field(sa_type=Text)
    drill: bool
    reported_at: datetime = Field(sa_column=_moment())
    kept_at: datetime = Field(sa_column=_moment(server_default=func.now()))


class CrowdedHour(SQLModel, table=True):
    """An hour in which more words came in than a district's officer was handed."""

    __tablename__ = "crowded_hours"

    district: str = Field(primary_key=True, sa_type=Text)
    hour: datetime = Field(sa_column=Column(DateTime(timezone=True), primary_key=True))
    # When the officer was told how many; null until then.
    told_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))


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
TABLES = (
    Message,
    Attempt,
    Receipt,
    Asked,
    Stop,
    Spending,
    Inbound,
    ReportedBy,
    CrowdedHour,
    OfferState,
    SandboxMessage,
    SandboxAnswer,
    *SPINE_TABLES,
)
