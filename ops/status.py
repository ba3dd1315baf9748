"""Where everything stands: services, queues, outboxes, dead letters, and who waits the longest."""

import asyncio
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from aiokafka.errors import KafkaError

from shared import dead_letters, instances, outbox, set_aside, topics
from shared.database import Database, execute, is_transient, sql
from shared.kafka import Lag, lag_of
from shared.settings import SERVICES, Settings
from shared.topics import Topic

# Every queue of the system: which group reads which topic.
QUEUES = tuple(
    (topics.group_of(service, topic), topic)
    for topic in topics.ALL
    for service in topic.read_by
    if service in SERVICES
)


@dataclass
class ServiceStatus:
    """One service: its processes, what is wrong with them, and what it has not yet published."""

    name: str
    up: bool = False
    instances: int = 0
    problems: list[str] = field(default_factory=list)
    # None: nobody knows, as its database does not answer.
    outbox_events: int | None = None
    outbox_age_seconds: float | None = None
    dead_letters: int | None = None
    # One sentence for each consumer of which cases wait behind a record that cannot go on.
    set_aside: list[str] = field(default_factory=list)


@dataclass
class QueueStatus:
    """One queue: how much waits, and for how long the oldest has."""

    group: str
    topic: str
    lag_events: int | None = None
    lag_seconds: float | None = None
    problem: str | None = None


@dataclass
class SystemStatus:
    """The whole system. ``ok`` if nothing needs a person."""

    ok: bool
    services: list[ServiceStatus]
    queues: list[QueueStatus]
    cases: dict[str, int] | None
    # Of those for whom nobody is asked now: waiting, or with the coordinator.
    oldest_waiting_seconds: float | None
    # Their moment has passed and nothing has been done about it: the sweep is behind, or fails.
    overdue_cases: int | None
    messages: dict[str, int] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


async def status(settings: Settings) -> SystemStatus:
    """Ask every database and Kafka; whatever does not answer is part of the answer."""
    services, queues = await asyncio.gather(
        asyncio.gather(*(_service(settings, name) for name in SERVICES)),
        asyncio.gather(*(_queue(settings, group, topic) for group, topic in QUEUES)),
    )
    cases, oldest, overdue = await _cases(settings)
    messages = await _messages(settings)
    ok = all(s.up and not s.problems and not s.dead_letters and not s.set_aside for s in services)
    ok = ok and all(queue.problem is None for queue in queues) and not overdue
    return SystemStatus(ok, list(services), list(queues), cases, oldest, overdue, messages)


async def _ask(settings: Settings, service: str, query: str) -> list[Any] | None:
    database = Database(settings.database_url_of(service), pool_size=1)
    try:
        async with database.transaction() as session:
            return await execute(session, sql(query))
    except Exception as error:
        if not is_transient(error):
            raise
        return None
    finally:
        await database.close()


async def _service(settings: Settings, name: str) -> ServiceStatus:
    found = ServiceStatus(name)
    database = Database(settings.database_url_of(name), pool_size=1)
    try:
        async with database.transaction() as session:
            alive = await instances.alive(session)
            found.outbox_events, found.outbox_age_seconds = await outbox.unpublished(session)
            letters = await dead_letters.open_per_consumer(session)
            found.set_aside = [
                *set_aside.in_words(await set_aside.listed(session)),
                *outbox.in_words(letters.get(outbox.letters_of(name), 0)),
            ]
            found.dead_letters = sum(letters.values())
    except Exception as error:
        if not is_transient(error):
            raise
        found.problems = [f"its database does not answer: {type(error).__name__}"]
        return found
    finally:
        await database.close()
    found.instances = len(alive)
    found.problems = [problem for instance in alive for problem in instance.problems]
    found.up = bool(alive)
    if not alive:
        found.problems = [
            f"no process has reported within {instances.SEEN_WITHIN.total_seconds():.0f} s"
        ]
    return found


async def _queue(settings: Settings, group: str, topic: Topic) -> QueueStatus:
    found = QueueStatus(group, topic.name)
    try:
        lag: Lag = await lag_of(settings, group, topic, timeout=timedelta(seconds=10))
    except (KafkaError, OSError) as error:
        found.problem = f"Kafka does not answer: {type(error).__name__}"
        return found
    found.lag_events, found.lag_seconds = lag.events, round(lag.seconds, 1)
    return found


async def _cases(
    settings: Settings,
) -> tuple[dict[str, int] | None, float | None, int | None]:
    rows = await _ask(
        settings,
        "assignment",
        """SELECT state, count(*) AS n,
                  round(extract(epoch FROM now() - min(reported_at)), 1)::float AS oldest,
                  count(*) FILTER (WHERE next_action_at < now() - interval '30 s') AS overdue
           FROM cases GROUP BY state ORDER BY state""",
    )
    if rows is None:
        return None, None, None
    oldest = max((r.oldest for r in rows if r.state in ("waiting", "escalated")), default=None)
    return {row.state: row.n for row in rows}, oldest, sum(row.overdue for row in rows)


async def _messages(settings: Settings) -> dict[str, int] | None:
    rows = await _ask(
        settings,
        "notification",
        "SELECT state, count(*) AS n FROM messages GROUP BY state ORDER BY state",
    )
    return None if rows is None else {row.state: row.n for row in rows}
