"""Channels: the ways to reach a person. One small interface, and what a provider promises."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True)
class Outgoing:
    """What is handed to a provider. ``idempotency_key`` stays the same for the same message."""

    idempotency_key: UUID
    address: str
    short_text: str
    subject: str
    long_text: str


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
    supports_idempotency: bool

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Where this channel would reach somebody; None if it cannot."""
        ...

    async def send(self, message: Outgoing) -> str:
        """Hand one message to the provider."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
