"""The servers that the tests use: given ones, containers, or the embedded ones of `make test`.

`DATABASE_URL` and `KAFKA_BOOTSTRAP_SERVERS` each name a given server. Without them
`JANGKAU_TEST_SERVERS=containers` takes the images of docker-compose.yml; otherwise everything comes
from wheels.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from sqlalchemy.engine import URL, make_url

from ops import embedded, embedded_postgres
from ops.processes import free_port
from shared import migrations, topics

PROJECT = Path(__file__).parents[1]
READY_WITHIN_S = 120
# A port on which nobody listens: what "the server is away" looks like.
NOBODY_LISTENS = 1


def kind_of(variable: str) -> str:
    """Where a server comes from: ``given``, ``containers`` or ``embedded``."""
    if os.environ.get(variable):
        return "given"
    asked = os.environ.get("JANGKAU_TEST_SERVERS") or "embedded"
    if asked not in ("embedded", "containers"):
        raise ValueError(f"JANGKAU_TEST_SERVERS is {asked!r}; known are embedded and containers")
    return asked


def described() -> str:
    """Which servers this run uses, in one line."""
    postgres, kafka = kind_of("DATABASE_URL"), kind_of("KAFKA_BOOTSTRAP_SERVERS")
    words = {
        "given": "given by {}",
        "containers": "container of docker-compose.yml's image",
        "embedded": "embedded",
    }
    return (
        f"jangkau: PostgreSQL {words[postgres].format('DATABASE_URL')}; "
        f"Kafka {words[kafka].format('KAFKA_BOOTSTRAP_SERVERS')}"
    )


def image_of(container: str) -> str:
    """The image of a container of docker-compose.yml, so that tests use what production does."""
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text(encoding="utf-8"))
    return str(compose["services"][container]["image"])


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A folder that the embedded server's own user can reach, unlike pytest's; removed at the end.

    PostgreSQL does not run as root, and pytest's folders are closed to everybody else.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def postgres() -> AsyncIterator[str]:
    """A PostgreSQL server; yields its URL without a database's name."""
    match kind_of("DATABASE_URL"):
        case "given":
            yield os.environ["DATABASE_URL"].rpartition("/")[0]
        case "containers":
            from testcontainers.community.postgres import PostgresContainer

            container = PostgresContainer(image_of("postgres"), driver="asyncpg")
            await asyncio.to_thread(container.start)
            try:
                yield container.get_connection_url().rpartition("/")[0]
            finally:
                await asyncio.to_thread(container.stop)
        case _:
            with scratch("jangkau-test-") as folder:
                async with embedded_postgres.running(folder) as url:
                    yield url


@asynccontextmanager
async def kafka() -> AsyncIterator[str]:
    """A Kafka broker that answers; yields its bootstrap servers."""
    match kind_of("KAFKA_BOOTSTRAP_SERVERS"):
        case "given":
            yield os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        case "containers":
            async with _apache_kafka_container() as address:
                yield address
        case _:
            with scratch("jangkau-test-") as folder:
                async with _embedded_broker(folder) as address:
                    yield address


@asynccontextmanager
async def _embedded_broker(folder: Path) -> AsyncIterator[str]:
    port = free_port()
    process = await embedded.start_broker(port, log_file=folder / "broker.log")
    try:
        await _wait_until_it_answers(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()  # it keeps nothing that would be worth a farewell
        await process.wait()


@asynccontextmanager
async def _apache_kafka_container() -> AsyncIterator[str]:
    """Apache's own image; testcontainers' KafkaContainer knows only Confluent's scripts."""
    from testcontainers.core.container import DockerContainer

    port = free_port()  # known before the start, as the broker advertises it
    container = DockerContainer(image_of("kafka")).with_bind_ports(9092, port)
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": "PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    for name, value in environment.items():
        container = container.with_env(name, value)
    await asyncio.to_thread(container.start)
    try:
        await _wait_until_it_answers(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(container.stop)


async def _wait_until_it_answers(address: str) -> None:
    async with asyncio.timeout(READY_WITHIN_S):
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=address)
            try:
                await admin.start()
                await admin.list_topics()
                return
            except (KafkaError, OSError):
                await asyncio.sleep(0.1)
            finally:
                await admin.close()


def kafka_options() -> dict[str, Any]:
    """What the services have to know of the broker beside its address."""
    if kind_of("KAFKA_BOOTSTRAP_SERVERS") != "embedded":
        return {}
    return {
        "kafka_idempotence": embedded.EMBEDDED_BROKER["JANGKAU_KAFKA_IDEMPOTENCE"] == "true",
        "kafka_fetch_max_wait_ms": int(embedded.EMBEDDED_BROKER["JANGKAU_KAFKA_FETCH_MAX_WAIT_MS"]),
    }


@dataclass
class Databases:
    """Fresh databases on one server: each service is migrated once, then copied for each test."""

    server: str
    run: str
    _made: list[str] = field(default_factory=list)
    _templates: dict[str, str] = field(default_factory=dict)

    def url(self, name: str) -> URL:
        """The URL of a database of this server."""
        return make_url(f"{self.server}/{name}")

    async def create(self, service: str, name: str) -> None:
        """Make a migrated database called ``name``."""
        template = self._templates.get(service)
        if template is None:
            template = f"jangkau_{self.run}_template_{service}"
            await migrations.create_database(self.url(template))
            self._made.append(template)
            await migrations.migrate(service, self.url(template))
            self._templates[service] = template
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)

    async def drop(self, names: list[str] | None = None) -> None:
        """Drop these databases, or all that were made here."""
        for name in names if names is not None else list(self._made):
            await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            self._made.remove(name)

    async def execute(self, sql: str) -> None:
        """Run one statement on the server."""
        url = self.url("postgres")
        connection = await asyncpg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            database="postgres",
            timeout=10,
        )
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


async def delete_topics(address: str, *, prefix: str) -> None:
    """Delete the declared topics under this prefix, so that a given broker does not fill up."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.delete_topics([prefix + topic.name for topic in topics.ALL])
    finally:
        await admin.close()


@asynccontextmanager
async def for_a_stack(*, run: str) -> AsyncIterator[None]:
    """What `ops.embedded.running` finds in its environment, and no trace of the run afterwards.

    Embedded it starts servers of its own, so there is nothing to do.
    """
    async with AsyncExitStack() as opened:
        environment = opened.enter_context(pytest.MonkeyPatch.context())
        for variable, server in (("DATABASE_URL", postgres), ("KAFKA_BOOTSTRAP_SERVERS", kafka)):
            if kind_of(variable) == "embedded":
                continue
            address = await opened.enter_async_context(server())
            environment.setenv(variable, f"{address}/x" if server is postgres else address)
        yield
        stack = embedded.Stack(
            data_dir=Path(),
            broker="given",
            output=lambda source, line: None,
            environment={
                "JANGKAU_DATABASE_URL": f"{os.environ.get('DATABASE_URL', '').rpartition('/')[0]}"
                f"/jangkau_{run}_{{service}}",
                "JANGKAU_KAFKA_BOOTSTRAP_SERVERS": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", ""),
                "JANGKAU_TOPIC_PREFIX": f"{run}.",
                "JANGKAU_DISTRICTS": "",
            },
        )
        await embedded.forget(stack)
