"""What every service process is: HTTP, the outbox relay, the consumers and its own loops.

A loop that raises ends the process (crash-only): whoever supervises it starts a fresh one, and
everything it was about to do is in the database.
"""

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlmodel.ext.asyncio.session import AsyncSession
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shared import (
    api_documents,
    dead_letters,
    doors,
    errors,
    inbox,
    instances,
    metrics_server,
    outbox,
    set_aside,
    topics,
)
from shared.consume import Consumer, Handler
from shared.database import Database, brief, execute, is_transient, sql
from shared.districts import Districts
from shared.health import Health, Loop
from shared.kafka import Publisher, Subscriptions
from shared.policy_watch import PolicyWatch
from shared.settings import Settings
from shared.telemetry import (
    DEAD_LETTERS,
    LOOP_AGE,
    OUTBOX_AGE,
    OUTBOX_ROWS,
    SET_ASIDE,
    configure_logging,
)
from shared.topics import Topic

log = structlog.get_logger("service")

REPORT_EVERY = timedelta(seconds=3)
PURGE_EVERY = timedelta(hours=1)
WATCH_EVERY = timedelta(seconds=5)
TAKE_UP_EVERY = timedelta(seconds=1)
# So many times its limit: the health check has said so long before.
STUCK_AFTER = 4

Work = Callable[[Loop], Awaitable[None]]


class Liveness(BaseModel):
    """Whether a process makes progress, and what hinders it, in words."""

    status: Literal["ok", "stuck"]
    problems: list[str]
    notes: list[str] = Field(description="what waits and does not hinder the process")


class Readiness(BaseModel):
    """Whether requests can be served."""

    status: Literal["ok", "database away"]
    joining: list[str] = Field(default=[], description="consumers without a partition yet")


@dataclass
class Service:
    """One service, as its ``app.py`` composes it."""

    name: str
    settings: Settings
    title: str
    description: str
    routers: Sequence[APIRouter] = ()
    database: Database = field(init=False)
    health: Health = field(default_factory=Health)
    consumers: list[Consumer] = field(default_factory=list)
    work: list[tuple[Loop, Work]] = field(default_factory=list)
    measures: list[Callable[[AsyncSession], Awaitable[None]]] = field(default_factory=list)
    purges: list[Callable[[AsyncSession], Awaitable[None]]] = field(default_factory=list)
    closing: Sequence[Callable[[], Awaitable[None]]] = ()
    # Of paths that take larger bodies than others, in bytes.
    body_limits: Mapping[str, int] = field(default_factory=dict)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        instance = f"jangkau-{self.name}-{socket.gethostname()}-{os.getpid()}"
        self.database = Database(
            self.settings.database_url_of(self.name),
            pool_size=self.settings.database_pool_size,
            lock_timeout_s=self.settings.lock_timeout_seconds,
            application=instance[:63],
        )
        self._publisher = Publisher(self.settings, client_id=instance)
        self._relay = outbox.Relay(self.database, self._publisher.publish, service=self.name)
        self._subscriptions = Subscriptions(self.settings, self.consumers, client_id=instance)
        self.loop("relay", self._relay.run, limit=timedelta(seconds=60))
        self.loop("report", self._report)
        self.loop("purge", self._purge, limit=PURGE_EVERY * 2)
        self._instance = instance

    def consume(self, topic: Topic, handler: Handler) -> Consumer:
        """Let ``handler`` handle the events of ``topic``, each once; returns who reads them."""
        consumer = Consumer(
            topics.group_of(self.name, topic),
            topic,
            handler,
            database=self.database,
            max_parked_in_a_row=self.settings.max_parked_in_a_row,
            tries_together=self.settings.tries_together,
            stalled_after=self.settings.stalled_after,
        )
        self.consumers.append(consumer)
        self.health.checks.append(lambda: consumer.problem)
        return consumer

    def keep_districts(self, districts: Districts) -> None:
        """Read the districts' folders again when they change, and tell which are refused."""
        watch = PolicyWatch(districts)
        self.loop("policy", watch.run)
        self.health.notices.append(watch.notices)

    def loop(self, name: str, work: Work, *, limit: timedelta | None = None) -> None:
        """Let ``work`` run for as long as the process; it beats its loop at every turn."""
        loop = self.health.loop(name, limit or self.settings.stalled_after)
        LOOP_AGE.labels(name).set_function(lambda: loop.age.total_seconds())
        self.work.append((loop, work))

    def app(self) -> FastAPI:
        """The ASGI application; its lifespan is the life of the service."""
        app = FastAPI(
            title=self.title,
            description=self.description,
            version="1",
            lifespan=lambda _: self._life(),
            # Swagger UI comes from a CDN and lets anybody try things out; the document stays.
            docs_url=None,
            redoc_url=None,
            responses=errors.RESPONSES,
        )
        app.state.service = self
        app.include_router(self._operations())
        for router in self.routers:
            app.include_router(router)
        errors.install(app, body_limits=self.body_limits)
        if self.settings.proxies:
            app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=self.settings.proxies)
        doors.install(app)
        api_documents.install(app)
        return app

    @asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        """HTTP answers from the first moment; all else begins when the tables are there."""
        running: list[asyncio.Task[None]] = []
        starting = asyncio.create_task(self._start(running), name="start")
        try:
            yield
        finally:
            # Consumers first: what they have begun is committed or comes again.
            for task in (starting, *reversed(running)):
                task.cancel()
                await asyncio.wait([task], timeout=15)
            for close in (*self.closing, self._publisher.close):
                await close()
            await self.database.close()
            log.info("service.stopped")

    async def _start(self, running: list["asyncio.Task[None]"]) -> None:
        try:
            await self._wait_for_tables()
        except Exception as error:
            log.error("service.not_started", error=str(error))
            self.failure = error
            self.stop()
            return
        work = list(self.work)
        if self.consumers:
            limit = timedelta(seconds=120)
            work.append((self.health.loop("subscriptions", limit), self._subscriptions.run))
            # One record may wait for a lock and then take as long as a command may.
            work.append((self.health.loop("set-aside", limit), self._take_up))
        # What start-up has made stays for good: the collector need not walk through it again, which
        # at every full collection would hold up everything for tens of milliseconds.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        running += [
            asyncio.create_task(self._guarded(loop, turn), name=loop.name) for loop, turn in work
        ]
        log.info("service.started", port=self.settings.port)

    async def _wait_for_tables(self) -> None:
        """Wait for the database, as it may come up after us.

        Raises:
            RuntimeError: it is there, but its tables are not: somebody has to migrate.
        """
        while True:
            try:
                async with self.database.transaction() as session:
                    (found,) = await execute(session, sql("SELECT to_regclass('outbox')"))
                    if found[0] is None:
                        raise RuntimeError(
                            f"The database of {self.name} has no tables; run `jangkau migrate`."
                        )
                    return
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("database.away", error=brief(error))
                for loop in self.health.loops:
                    loop.failed(brief(error))
                await asyncio.sleep(1)

    async def _guarded(self, loop: Loop, work: Work) -> None:
        """Run one loop; wait out what passes by itself, end the process on anything else.

        What passes by itself and does not is seen: a loop that fails does not beat.
        """
        failures = 0
        while True:
            try:
                await work(loop)
                return
            except Exception as error:
                if not is_transient(error):
                    log.exception("loop.failed", loop=loop.name)
                    self.failure = error
                    self.stop()
                    return
                failures = 1 if loop.error is None else failures + 1
                loop.failed(brief(error))
                log.warning("loop.retry", loop=loop.name, error=brief(error))
                await asyncio.sleep(min(0.2 * 2 ** min(failures, 5), 5))

    def watch(self) -> None:
        """End the process if a loop is stuck for so long that it will not come back.

        A thread, because a stuck event loop cannot watch itself. Whoever supervises the process
        starts a fresh one, and everything it was about to do is in the database.
        """
        while True:
            time.sleep(WATCH_EVERY.total_seconds())
            stuck = [loop for loop in self.health.loops if loop.silence > loop.limit * STUCK_AFTER]
            if stuck:
                log.critical("process.stuck", loops=[loop.name for loop in stuck])
                os._exit(70)

    def stop(self) -> None:
        """Ask the process to end; replaced by :func:`serve` with uvicorn's own way."""
        raise SystemExit(1)

    def _operations(self) -> APIRouter:
        router = APIRouter(tags=["operations"])

        stuck: dict[int | str, Any] = {503: {"model": Liveness, "description": "Stuck"}}
        away: dict[int | str, Any] = {503: {"model": Readiness, "description": "Not ready"}}

        @router.get("/health/live", response_model=Liveness, responses=stuck)
        async def live() -> Response:
            """Whether the loops of this process make progress."""
            problems = self.health.problems()
            return JSONResponse(
                {
                    "status": "stuck" if problems else "ok",
                    "problems": problems,
                    "notes": self.health.notes,
                },
                503 if problems else 200,
            )

        @router.get("/health/ready", response_model=Readiness, responses=away)
        async def ready() -> Response:
            """Whether requests can be served, and which consumers have not joined yet."""
            try:
                async with asyncio.timeout(2):
                    await self.database.statement(sql("SELECT 1"))
            except Exception as error:
                if not is_transient(error):
                    raise
                return JSONResponse({"status": "database away"}, 503)
            return JSONResponse(
                {"status": "ok", "joining": [c.name for c in self.consumers if not c.joined]}
            )

        return router

    async def _report(self, loop: Loop) -> None:
        """Every few seconds: sizes and ages into the metrics, our state into the database."""
        while True:
            loop.beat()
            async with self.database.transaction() as session:
                size, age = await outbox.unpublished(session)
                OUTBOX_ROWS.labels(self.name).set(size)
                OUTBOX_AGE.labels(self.name).set(age)
                parked = await dead_letters.open_per_consumer(session)
                waiting = await set_aside.listed(session)
                too_large = parked.get(outbox.letters_of(self.name), 0)
                DEAD_LETTERS.labels(outbox.letters_of(self.name)).set(too_large)
                self.health.notes = [*set_aside.in_words(waiting), *outbox.in_words(too_large)]
                for consumer in self.consumers:
                    mine = (one.records for one in waiting if one.consumer == consumer.name)
                    SET_ASIDE.labels(consumer.name).set(sum(mine))
                    DEAD_LETTERS.labels(consumer.name).set(parked.get(consumer.name, 0))
                for measure in self.measures:
                    await measure(session)
                wrong = [*self.health.problems(), *self.health.noticed()]
                await instances.report(session, self._instance, wrong)
            await asyncio.sleep(REPORT_EVERY.total_seconds())

    async def _take_up(self, loop: Loop) -> None:
        """Every second: what was set aside is tried again, as far as it is due."""
        while True:
            loop.beat()
            due = await set_aside.due_consumers(self.database)
            for consumer in self.consumers:
                while consumer.name in due and await consumer.take_up_one():
                    loop.beat()
            await asyncio.sleep(TAKE_UP_EVERY.total_seconds())

    async def _purge(self, loop: Loop) -> None:
        """Once an hour: forget what can no longer matter."""
        while True:
            loop.beat()
            async with self.database.transaction() as session:
                await outbox.purge_journal(session)
                await inbox.purge(
                    session, older_than=timedelta(days=self.settings.inbox_retention_days)
                )
                await dead_letters.purge(session, older_than=topics.WEEK)
                await instances.purge(session)
                for purge in self.purges:
                    await purge(session)
            await asyncio.sleep(PURGE_EVERY.total_seconds())


def serve(service: Service) -> int:
    """Run a service until it is told to stop; returns the exit code (1 after a failure)."""
    settings = service.settings
    configure_logging(
        service.name, level=settings.log_level, json=settings.environment != "development"
    )
    server = uvicorn.Server(
        uvicorn.Config(
            service.app(),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            # Its default believes whatever this machine says; who may say it is a setting.
            proxy_headers=False,
            timeout_graceful_shutdown=10,
        )
    )

    def stop() -> None:
        server.should_exit = True

    service.stop = stop  # type: ignore[method-assign]
    threading.Thread(target=service.watch, name="watchdog", daemon=True).start()
    with metrics_server.serving(settings.host, settings.port_of_metrics) as port:
        log.info("metrics.served", port=port)
        server.run()
    return 1 if service.failure is not None or not server.started else 0
