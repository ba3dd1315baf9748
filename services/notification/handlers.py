"""What notification does when something happened elsewhere."""

from collections.abc import Sequence

from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import delivery
from services.notification.channels import Channel
from shared.consume import Handler
from shared.events import OfferMade


def on_assignment_offers(channels: Sequence[Channel]) -> Handler:
    """One message for each offer, stored before any provider is called."""

    async def handle(session: AsyncSession, made: list[OfferMade]) -> None:
        await delivery.queue_offers(session, made, channels=channels)

    return handle
