"""What every test can ask for: servers, fresh databases, settings, the whole system."""

import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import hypothesis
import pytest

from ops import embedded
from ops.demo import import_volunteers
from services.assignment.settings import AssignmentSettings
from services.intake.settings import IntakeSettings
from services.notification.settings import NotificationSettings
from shared.database import Database
from shared.districts import District, Districts
from shared.kafka import create_topics
from shared.settings import SERVICES, Settings
from tests import servers
from tests.servers import PROJECT, Databases

SAMPLE_DISTRICT = "19.04"
_OF_KIND: Mapping[type[Settings], tuple[str, ...]] = {
    IntakeSettings: ("intake",),
    AssignmentSettings: ("assignment",),
    NotificationSettings: ("notification",),
}
_RUN = f"test{uuid4().hex[:8]}"
_counter = itertools.count(1)

S = TypeVar("S", bound=Settings)

# A slow machine is no failure, and the same examples everywhere make a failure repeatable.
hypothesis.settings.register_profile(
    "jangkau",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    database=None,
)
hypothesis.settings.load_profile("jangkau")


def pytest_report_header() -> str:
    return servers.described()


@pytest.fixture(scope="session")
async def postgres_url() -> AsyncIterator[str]:
    """A PostgreSQL server, as ``postgresql+asyncpg://user:password@host:port``."""
    async with servers.postgres() as url:
        yield url


@pytest.fixture(scope="session")
async def kafka() -> AsyncIterator[str]:
    """The bootstrap servers of a Kafka broker."""
    async with servers.kafka() as address:
        yield address


@pytest.fixture(scope="session")
async def databases(postgres_url: str) -> AsyncIterator[Databases]:
    """Makes migrated databases quickly; all of them are dropped at the end."""
    made = Databases(postgres_url, _RUN)
    yield made
    await made.drop()


@dataclass
class MakeSettings:
    """Settings for one test: databases of its own, and topics of its own where Kafka is used."""

    databases: Databases
    name: str
    common: dict[str, Any]
    with_topics: bool
    _services: set[str] = field(default_factory=set)
    _topics_made: bool = False

    async def __call__(self, kind: type[S], **overrides: Any) -> S:
        """Settings of this kind; a service's own kind makes its database, ``Settings`` all."""
        made = kind(**{**self.common, **overrides})
        for service in _OF_KIND.get(kind, SERVICES):
            await self.database(service)
        if self.with_topics and not self._topics_made:
            await create_topics(made)
            self._topics_made = True
        return made

    async def database(self, service: str) -> str:
        """The name of the service's database in this test, made and migrated."""
        name = f"{self.name}_{service}"
        if service not in self._services:
            await self.databases.create(service, name)
            self._services.add(service)
        return name

    async def drop(self) -> None:
        """Leave nothing behind."""
        if self._topics_made:
            await servers.delete_topics(
                self.common["kafka_bootstrap_servers"], prefix=self.common["topic_prefix"]
            )
        await self.databases.drop([f"{self.name}_{service}" for service in self._services])


def _make(databases: Databases, **common: Any) -> MakeSettings:
    name = f"jangkau_{_RUN}_{next(_counter)}"
    return MakeSettings(
        databases,
        name,
        {
            "database_url": f"{databases.server}/{name}_{{service}}",
            "database_pool_size": 8,
            "districts": str(PROJECT / "districts"),
            "topic_prefix": f"{name.removeprefix('jangkau_')}.",
            **common,
        },
        with_topics="kafka_idempotence" in common or "kafka_bootstrap_servers" in common,
    )


@pytest.fixture
async def settings(databases: Databases, kafka: str) -> AsyncIterator[MakeSettings]:
    """``await settings(IntakeSettings, …)``: fresh databases and topics for this test alone."""
    made = _make(databases, kafka_bootstrap_servers=kafka, **servers.kafka_options())
    yield made
    await made.drop()


@pytest.fixture
async def settings_without_kafka(databases: Databases) -> AsyncIterator[MakeSettings]:
    """The same for tests that need no broker: Kafka is away."""
    made = _make(databases)
    made.common["kafka_bootstrap_servers"] = f"127.0.0.1:{servers.NOBODY_LISTENS}"
    yield made
    await made.drop()


async def _fresh(databases: Databases, service: str) -> AsyncIterator[Database]:
    name = f"jangkau_{_RUN}_{next(_counter)}_{service}"
    await databases.create(service, name)
    database = Database(databases.url(name))
    yield database
    await database.close()
    await databases.drop([name])


@pytest.fixture
async def intake_database(databases: Databases) -> AsyncIterator[Database]:
    """Intake's database, empty."""
    async for database in _fresh(databases, "intake"):
        yield database


@pytest.fixture
async def assignment_database(databases: Databases) -> AsyncIterator[Database]:
    """Assignment's database, empty."""
    async for database in _fresh(databases, "assignment"):
        yield database


@pytest.fixture
async def notification_database(databases: Databases) -> AsyncIterator[Database]:
    """Notification's database, empty."""
    async for database in _fresh(databases, "notification"):
        yield database


@pytest.fixture(scope="session")
def districts() -> dict[str, District]:
    """The districts that come with the project, with their villages."""
    return dict(Districts([PROJECT / "districts"]))


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[embedded.Stack]:
    """The whole system with the sample volunteers, as `make up` runs it.

    On given servers and containers it gets databases and topics of its own there; otherwise it
    starts its own embedded servers, as a newcomer does.
    """
    lines = (tmp_path_factory.mktemp("stack") / "stack.log").open("w", encoding="utf-8")

    def output(source: str, line: str) -> None:
        print(f"{source}: {line}", file=lines, flush=True)

    volunteers = PROJECT / "districts" / SAMPLE_DISTRICT / "volunteers.csv"
    with lines, servers.scratch("jangkau-test-") as folder:
        async with (
            servers.for_a_stack(run=f"{_RUN}_stack"),
            embedded.running(folder, output=output, run=f"{_RUN}_stack") as running,
        ):
            await import_volunteers(running, volunteers, SAMPLE_DISTRICT)
            yield running
