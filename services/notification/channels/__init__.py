"""Channels: the ways to reach a person. One small interface, and what a provider promises."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol
from uuid import UUID

# What a person sees: a short text on any telephone, a mail, or whatever else apprise reaches.
Kind = Literal["sms", "email", "other"]


@dataclass(frozen=True)
class Outgoing:
    """What is handed to a provider. ``idempotency_key`` is the message's id at every attempt."""

    idempotency_key: UUID
    address: str
    short_text: str
    subject: str
    long_text: str


@dataclass(frozen=True)
class Receipt:
    """What a provider says later about a message: by its own id, or by ours where it comes back."""

    provider_id: str | None
    message_id: UUID | None
    state: Literal["sent", "delivered", "undelivered"]
    error: str | None


@dataclass(frozen=True)
class Incoming:
    """A text that somebody sent us. ``provider_id`` tells a repeated webhook from a new text."""

    provider_id: str | None
    sender: str
    text: str


class PermanentFailure(Exception):
    """The provider refused for good: this channel never reaches this person."""


class TransientFailure(Exception):
    """The provider did not take it and says so: try again, not before ``retry_after``."""

    def __init__(self, reason: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class UnknownOutcome(Exception):
    """The provider may or may not have taken it: never send it again on this channel blindly."""


class Channel(Protocol):
    """A way to reach a person.

    ``send`` returns the provider's id for the message (or an empty text) once the provider has
    taken it, and raises one of the three errors above otherwise.
    """

    name: str
    kind: Kind
    # The provider knows our id again and sends nothing twice for it.
    supports_idempotency: bool
    # It can say whether it has taken a message.
    supports_lookup: bool
    # How long after a call it may not know of it yet, in seconds.
    lookup_after_s: float
    # It tells what became of a message.
    supports_receipts: bool
    # In the installation's currency; 0: free, not counted against a budget.
    cost_per_segment: float
    # What the provider takes at most; None: no limit.
    rate_per_second: float | None
    # How many calls at once.
    concurrency: int

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Where this channel would reach somebody; None if it cannot."""
        ...

    async def send(self, message: Outgoing) -> str:
        """Hand one message to the provider."""
        ...

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """The provider's id if it has taken the message since then; None if it surely has not.

        Only where ``supports_lookup``. Raises ``TransientFailure`` if it cannot say now.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
