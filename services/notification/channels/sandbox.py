"""Sandbox: fake phones for development. Messages are stored and shown on a page, never sent."""

from services.notification.channels import Outgoing
from shared.database import Database, sql

_ARRIVE = sql("""
    INSERT INTO sandbox_messages (idempotency_key, address, body)
    VALUES (:key, :address, :body)
    ON CONFLICT (idempotency_key) DO NOTHING
""")


class Sandbox:
    """A channel that reaches nobody."""

    name = "sandbox"
    supports_idempotency = True

    def __init__(self, database: Database) -> None:
        self.database = database

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
        return f"sandbox-{message.idempotency_key}"

    async def close(self) -> None:
        """Nothing to let go of: the database belongs to the service."""
