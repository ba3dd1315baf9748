"""Sandbox: fake phones for development. Messages are stored and shown on a page, never sent."""

from datetime import datetime

from services.notification.channels import Kind, Outgoing
from services.notification.settings import NotificationSettings
from shared.database import Database, sql

_ARRIVE = sql("""
    INSERT INTO sandbox_messages (idempotency_key, address, body)
    VALUES (:key, :address, :body)
    ON CONFLICT (idempotency_key) DO NOTHING
""")
_ARRIVED = sql("SELECT FROM sandbox_messages WHERE idempotency_key = :key")


class Sandbox:
    """A channel that reaches nobody."""

    name = "sandbox"
    kind: Kind = "sms"
    supports_idempotency = True
    supports_lookup = True
    lookup_after_s = 0.0
    supports_receipts = False
    rate_per_second: float | None = None

    def __init__(self, database: Database, settings: NotificationSettings | None = None) -> None:
        settings = settings or NotificationSettings()
        self.database = database
        self.cost_per_segment = settings.sandbox_cost_per_segment
        self.concurrency = settings.concurrency

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Everybody has a fake phone."""
        return phone or email

    async def send(self, message: Outgoing) -> str:
        """Let the message arrive on the fake phone, once."""
        await self.database.statement(
            _ARRIVE,
            {
                "key": message.idempotency_key,
                "address": message.address,
                "body": message.short_text,
            },
        )
        return _id(message)

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """Whether it has arrived."""
        arrived = await self.database.statement(_ARRIVED, {"key": message.idempotency_key})
        return _id(message) if arrived else None

    async def close(self) -> None:
        """Nothing to let go of: the database belongs to the service."""


def _id(message: Outgoing) -> str:
    return f"sandbox-{message.idempotency_key}"
