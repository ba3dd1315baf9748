"""Notification: tells whom it concerns, once, on the first channel that works."""

from collections.abc import Callable
from datetime import timedelta

from prometheus_client import Gauge
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import api, handlers
from services.notification.channels import Channel
from services.notification.channels.email import Email
from services.notification.channels.sandbox import Sandbox
from services.notification.channels.sms import Sms
from services.notification.delivery import Delivery
from services.notification.settings import NotificationSettings
from shared import topics
from shared.database import Database, execute, sql
from shared.service import Service

MESSAGES = Gauge("jangkau_messages", "Messages by state. Queued should be near zero.", ["state"])


def compose(settings: NotificationSettings | None = None) -> Service:
    """The whole service on one screen."""
    settings = settings or NotificationSettings()
    service = Service(
        name="notification",
        settings=settings,
        title="Jangkau notification",
        description="Messages to volunteers and coordinators, and their answers.",
    )
    channels = make_channels(settings, service.database)
    service.consume(topics.ASSIGNMENT_OFFERS, handlers.on_assignment_offers(channels))
    for channel in channels:
        delivery = Delivery(
            service.database,
            channel,
            channels,
            concurrency=settings.concurrency,
            timeout=timedelta(seconds=settings.provider_timeout_seconds),
            lease=timedelta(seconds=settings.lease_seconds),
        )
        service.loop(f"deliver-{channel.name}", delivery.run)
    if "sandbox" in settings.channel_names:
        service.routers = [api.router(service.database)]
    service.measures = [measure_messages]
    service.closing = [channel.close for channel in channels]
    return service


def make_channels(settings: NotificationSettings, database: Database) -> list[Channel]:
    """The channels of this installation, in the order in which they are tried."""
    make: dict[str, Callable[[], Channel]] = {
        "sandbox": lambda: Sandbox(database),
        "sms": lambda: Sms(settings),
        "email": lambda: Email(settings),
    }
    return [make[name]() for name in settings.channel_names]


async def measure_messages(session: AsyncSession) -> None:
    """Put the number of messages by state into the metrics."""
    rows = await execute(session, sql("SELECT state, count(*) AS n FROM messages GROUP BY state"))
    counts = {row.state: row.n for row in rows}
    for state in ("queued", "sending", "sent", "failed", "expired", "unknown", "withdrawn"):
        MESSAGES.labels(state).set(counts.get(state, 0))
