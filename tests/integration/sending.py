"""Sending in tests: the deliveries of all channels as one process has them, and a channel whose
calls come out as they are told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from services.notification.app import make_delivery, make_office
from services.notification.channels import Channel, Kind, Outgoing, Receipt
from services.notification.handlers import on_assignment_offers, on_intake_cases
from services.notification.receipts import take
from services.notification.settings import NotificationSettings
from shared import topics
from shared.database import Database
from shared.events import CaseReported, Event
from tests.integration.conftest import rows, run


class Senders:
    """The deliveries of all channels, as one process has them; ``channels`` in place of those of
    the settings."""

    def __init__(
        self,
        database: Database,
        settings: NotificationSettings,
        *,
        channels: Sequence[Channel] | None = None,
        districts: Any = None,
    ) -> None:
        self.database = database
        self.office = make_office(settings, database)
        if channels is not None:
            object.__setattr__(self.office.routes, "channels", channels)
        if districts is not None:
            object.__setattr__(self.office.routes, "districts", districts)
        self.of = {
            channel.name: make_delivery(settings, database, channel, self.office.routes)
            for channel in self.office.routes.channels
        }

    async def queue(self, *events: Event[Any]) -> None:
        """Handle events of assignment, in one transaction."""
        async with self.database.transaction() as session:
            await on_assignment_offers(self.office)(session, list(events))

    async def report(self, *events: CaseReported) -> None:
        """Handle events of intake."""
        async with self.database.transaction() as session:
            await on_intake_cases(self.office)(session, list(events))

    async def send(self, channel: str) -> int:
        """Send what is due on this channel; returns how many."""
        return await self.of[channel].send_due()

    async def send_again(self, channel: str) -> int:
        """Send also what is to be tried again later."""
        await run(self.database, "UPDATE messages SET next_attempt_at = now()")
        return await self.send(channel)

    async def receive(self, channel: str, *receipts: Receipt) -> None:
        """Take receipts, each in its own transaction, as webhooks do."""
        for receipt in receipts:
            async with self.database.transaction() as session:
                await take(session, channel, [receipt], routes=self.office.routes)

    async def close(self) -> None:
        """Let go of the channels' connections."""
        for channel in self.office.routes.channels:
            await channel.close()


async def message(senders: Senders) -> Any:
    """The only message there is."""
    (found,) = await rows(senders.database, "SELECT * FROM messages")
    return found


async def messages(senders: Senders) -> list[tuple[str, str]]:
    """Purpose and state of each message, in the order in which they were made."""
    found = await rows(
        senders.database, "SELECT purpose, state FROM messages ORDER BY created_at, id"
    )
    return [(row.purpose, row.state) for row in found]


async def attempts(senders: Senders) -> list[tuple[str, str]]:
    """Channel and outcome of each call, in order."""
    found = await rows(senders.database, "SELECT channel, state FROM attempts ORDER BY started_at")
    return [(row.channel, row.state) for row in found]


async def said(database: Database) -> list[Any]:
    """The events that were published, in order."""
    payloads = await rows(database, "SELECT payload FROM outbox ORDER BY id")
    return [topics.NOTIFICATION_ANSWERS.decode(row.payload.encode()) for row in payloads]


@dataclass
class Scripted:
    """A channel of which each call comes out as it is told: an id, or an error to raise.

    The last outcome stays. ``sent`` is what it was handed.
    """

    outcomes: list[str | Exception] = field(default_factory=lambda: ["id-1"])
    name: str = "sms"
    kind: Kind = "sms"
    supports_idempotency: bool = False
    supports_lookup: bool = False
    lookup_after_s: float = 0.0
    supports_receipts: bool = False
    cost_per_segment: float = 250.0
    rate_per_second: float | None = None
    concurrency: int = 50
    looked_up: list[str | Exception | None] = field(default_factory=list)
    sent: list[Outgoing] = field(default_factory=list)

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """The telephone number, or for e-mail the mail address."""
        return email if self.kind == "email" else phone

    async def send(self, message: Outgoing) -> str:
        """The next outcome."""
        self.sent.append(message)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """The next answer about what was sent."""
        found = self.looked_up.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        """Nothing is open."""


def receipt(
    state: Any, *, provider_id: str | None = "id-1", message: UUID | None = None
) -> Receipt:
    """What a provider tells of a message."""
    return Receipt(provider_id, message, state, None)
