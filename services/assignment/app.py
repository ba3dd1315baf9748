"""Assignment: finds the nearest available volunteer for each case and asks."""

from functools import partial
from uuid import UUID

from prometheus_client import Gauge
from sqlmodel.ext.asyncio.session import AsyncSession

from services.assignment import api, cases_api, handlers, pages
from services.assignment.settings import AssignmentSettings
from services.assignment.turn import OPEN_STATES
from shared import topics
from shared.database import execute, sql
from shared.districts import Districts
from shared.service import Service

CASES = Gauge("jangkau_cases", "Open cases by state, without drills.", ["state"])
OLDEST_WAITING = Gauge(
    "jangkau_oldest_waiting_seconds",
    "How long the oldest case, no drill, has waited for a volunteer. A rise: too few volunteers on "
    "duty.",
)
OVERDUE = Gauge(
    "jangkau_overdue_cases",
    "Cases whose moment passed 30 s ago and more. Any: the sweep is behind, or fails on them.",
)
HELD_BACK = Gauge(
    "jangkau_held_cases",
    "Cases that wait for the duty officer, as too many came at once. A rise: a flood, or a "
    "disaster.",
)


def compose(settings: AssignmentSettings | None = None) -> Service:
    """The whole service on one screen."""
    settings = settings or AssignmentSettings()
    districts = Districts(settings.district_folders)
    service = Service(
        name="assignment",
        settings=settings,
        title="Jangkau assignment",
        description="Volunteers, cases, and who is asked for which of them.",
    )
    token = settings.agency_token
    service.routers = [
        api.router(service.database, token=token, districts=districts),
        cases_api.router(service.database, token=token, districts=districts),
        pages.router(
            service.database,
            links=settings.links,
            max_age=settings.duty_link_age,
            districts=districts,
        ),
    ]
    service.consume(topics.INTAKE_CASES, handlers.on_intake_cases(districts))
    answered = service.consume(
        topics.NOTIFICATION_ANSWERS,
        handlers.on_notification_answers(districts, duty_link=partial(_duty_link, settings)),
    )
    sweep = handlers.Sweep(
        service.database,
        districts=districts,
        every_s=settings.sweep_seconds,
        heard=answered.heard,
    )
    service.loop("sweep", sweep.run)
    reachability = handlers.Reachability(
        service.database, districts=districts, heard=answered.heard
    )
    service.loop("reachability", reachability.run)
    service.keep_districts(districts)
    service.measures = [measure_cases]
    return service


def _duty_link(settings: AssignmentSettings, volunteer_id: UUID) -> str | None:
    if not settings.public_url:
        return None
    return pages.duty_link(settings.links, volunteer_id, public_url=settings.public_url)


async def measure_cases(session: AsyncSession) -> None:
    """Put the number of cases by state, and the longest wait, into the metrics.

    A drill is no case, but what the sweep fails on is a fault all the same.
    """
    rows = await execute(
        session,
        sql("""
            SELECT state, count(*) FILTER (WHERE NOT drill) AS cases,
                   extract(epoch FROM now() - min(reported_at) FILTER (WHERE NOT drill))::float
                       AS oldest,
                   count(*) FILTER (WHERE next_action_at < now() - interval '30 s') AS overdue
            FROM cases WHERE state <> 'closed' GROUP BY state
        """),
    )
    counts = {row.state: row for row in rows}
    for state in OPEN_STATES:
        CASES.labels(state).set(counts[state].cases if state in counts else 0)
    unserved = [row.oldest or 0 for row in rows if row.state in ("waiting", "escalated")]
    OLDEST_WAITING.set(max(unserved, default=0))
    OVERDUE.set(sum(row.overdue for row in rows))
    (waiting,) = await execute(
        session, sql("SELECT count(*) AS n FROM held_cases WHERE begun_at IS NULL")
    )
    HELD_BACK.set(waiting.n)
