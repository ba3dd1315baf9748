"""Notification: tells whom it concerns, on the first channel that works; hears the answers."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog
from prometheus_client import Gauge
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import api, handlers, officers, pages, texts, webhooks
from services.notification.channels import Channel
from services.notification.channels.apprise import Apprise
from services.notification.channels.email import Email
from services.notification.channels.sandbox import Sandbox
from services.notification.channels.sms import Sms
from services.notification.channels.twilio import Twilio
from services.notification.delivery import Delivery
from services.notification.handlers import Office
from services.notification.inbound import forget
from services.notification.links import respond_link
from services.notification.routes import Routes, policy_problem
from services.notification.settings import NotificationSettings
from shared import topics
from shared.database import Database, execute, sql
from shared.districts import Districts
from shared.service import Service

log = structlog.get_logger("notification")

STATES = (
    "queued", "sending", "sent", "delivered", "failed", "expired", "unknown", "withdrawn"
)  # fmt: skip
MESSAGES = Gauge("jangkau_messages", "Messages by state. Queued should be near zero.", ["state"])


def compose(settings: NotificationSettings | None = None) -> Service:
    """The whole service on one screen.

    Raises:
        DistrictError: no district can be used here.
        BrokenTexts: a text cannot be written, which is found out now and not at night.
    """
    settings = settings or NotificationSettings()
    texts.use(settings.texts)
    texts.check()
    service = Service(
        name="notification",
        settings=settings,
        title="Jangkau notification",
        description="Messages to volunteers, coordinators and reporters, and their answers.",
    )
    office = make_office(settings, service.database)
    service.consume(topics.INTAKE_CASES, handlers.on_intake_cases(office))
    service.consume(topics.ASSIGNMENT_OFFERS, handlers.on_assignment_offers(office))
    service.keep_districts(office.districts)
    service.loop("crowded-hours", officers.CrowdedHours(service.database, office).run)
    for channel in office.routes.channels:
        delivery = make_delivery(settings, service.database, channel, office.routes)
        service.loop(f"deliver-{channel.name}", delivery.run)
    service.routers = [
        pages.router(
            service.database,
            links=settings.links,
            max_age=timedelta(days=settings.respond_link_days),
        ),
        webhooks.router(service.database, settings=settings, office=office),
    ]
    if "sandbox" in settings.channel_names:
        service.routers.append(api.router(service.database, office=office))
    service.purges = [partial(forget, older_than=timedelta(days=settings.keep_days))]
    service.body_limits = webhooks.BODY_LIMITS
    service.measures = [measure_messages]
    service.closing = [channel.close for channel in office.routes.channels]
    return service


def make_office(settings: NotificationSettings, database: Database) -> Office:
    """How people are reached here, and where they answer.

    Raises:
        DistrictError: no district can be used here. One alone that cannot be, as it names a channel
            that there is not or has a budget for one that costs nothing, is refused by itself.
    """
    channels = make_channels(settings, database)
    districts = Districts(
        settings.district_folders,
        villages=False,
        check=partial(policy_problem, channels),
    )
    routes = Routes(channels, districts)
    if settings.strangers_district is not None and settings.strangers_district not in districts:
        # It may be mended while we run; until then the first district has them.
        log.warning("strangers.unknown_district", district=settings.strangers_district)
    return Office(
        routes,
        partial(_link, settings),
        districts,
        strangers=settings.strangers_district,
        forwarded_each=settings.forwarded_each_hour,
        forwarded_in_all=settings.forwarded_each_hour_in_all,
    )


def _link(settings: NotificationSettings, offer_id: UUID, answer_code: str) -> str | None:
    if not settings.public_url:
        return None
    return respond_link(
        settings.links,
        public_url=settings.public_url,
        offer_id=offer_id,
        answer_code=answer_code,
    )


def make_channels(settings: NotificationSettings, database: Database) -> list[Channel]:
    """The channels of this installation, in the order in which they are tried."""
    make: dict[str, Callable[[], Channel]] = {
        "sandbox": lambda: Sandbox(database, settings),
        "sms": lambda: Sms(settings),
        "twilio": lambda: Twilio(settings),
        "email": lambda: Email(settings),
        "apprise": lambda: Apprise(settings),
    }
    return [make[name]() for name in settings.channel_names]


def make_delivery(
    settings: NotificationSettings, database: Database, channel: Channel, routes: Routes
) -> Delivery:
    """The loop that sends the messages of one channel."""
    return Delivery(
        database,
        channel,
        routes,
        timeout=timedelta(seconds=settings.provider_timeout_seconds),
        lease=timedelta(seconds=settings.lease_seconds),
        receipt_within=timedelta(seconds=settings.receipt_seconds),
    )


async def measure_messages(session: AsyncSession) -> None:
    """Put the number of messages by state into the metrics."""
    rows = await execute(session, sql("SELECT state, count(*) AS n FROM messages GROUP BY state"))
    counts = {row.state: row.n for row in rows}
    for state in STATES:
        MESSAGES.labels(state).set(counts.get(state, 0))
