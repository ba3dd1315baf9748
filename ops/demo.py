"""The demo: real reports in, messages out, and a count of what was lost, which must be none."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from aiokafka import AIOKafkaConsumer

from ops import embedded
from ops.embedded import PROJECT, Command, Output, Stack, production_command, running
from ops.synthetic import PlannedReport, make_district, read_reports
from services.assignment import volunteers
from shared import topics
from shared.database import is_transient
from shared.districts import load_districts
from shared.settings import SERVICES

SAMPLE_DISTRICT = "19.04"
SAMPLE = PROJECT / "districts" / SAMPLE_DISTRICT / "reports.csv"
# How many requests are under way at once when playing as fast as possible.
CLIENTS = 16
# Nothing has moved for so long: what is missing now will not come.
SETTLED_WITHIN_S = 60
LATEST_TRY_S = 60


@dataclass
class Percentiles:
    """Milliseconds."""

    p50: float | None
    p99: float | None


@dataclass
class Result:
    """What came of the reports. ``lost`` counts reports that were answered 202 and are missing from
    a database or from the public feed."""

    broker: str
    reports: int
    accepted: int
    refused: int
    cases: int
    offers: int
    messages_sent: int
    waiting: int
    escalated: int
    dead_letters: int
    lost: int
    report_to_message_ms: Percentiles
    seconds: float
    cases_per_second: float
    restarts: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


@dataclass
class Progress:
    """Where the demo is, for whoever shows it."""

    total: int
    accepted: int = 0
    cases: int = 0
    offers: int = 0
    messages: int = 0
    waiting: int = 0
    versions: int = 0


Watcher = Callable[[Progress], None]


class PublicFeed:
    """Reads the public feed as any agency would, from the beginning."""

    def __init__(self, stack: Stack) -> None:
        self.settings = stack.settings()
        self.versions: dict[str, list[int]] = {}
        self._seen: set[str] = set()

    async def read(self) -> None:
        """Read until cancelled."""
        consumer = AIOKafkaConsumer(
            self.settings.topic_prefix + topics.PUBLIC_CASES.name,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self.settings.kafka_fetch_max_wait_ms,
        )
        await consumer.start()
        try:
            async for record in consumer:
                event = json.loads(record.value)
                if event["id"] not in self._seen:
                    self._seen.add(event["id"])
                    self.versions.setdefault(event["subject"], []).append(event["data"]["version"])
        finally:
            await consumer.stop()

    def complete(self, case_id: str, version: int) -> bool:
        """Whether the versions of a case arrived as 1..version, in order."""
        return self.versions.get(case_id) == list(range(1, version + 1))


async def play(
    reports: Sequence[PlannedReport],
    url: str,
    *,
    speed: float | None,
    accepted: dict[str, str],
    refused: list[str],
) -> None:
    """Send reports as a client that does not give up: the same key until there is an answer.

    ``speed`` is how many times faster than the file's own times; None is as fast as possible.
    ``accepted`` (case id by key) and ``refused`` are filled in as answers come.
    """
    started, first = time.monotonic(), reports[0].at.timestamp()
    todo = iter(enumerate(reports))

    async def client(http: httpx2.AsyncClient) -> None:
        for number, report in todo:
            if speed is not None:
                due = started + (report.at.timestamp() - first) / speed
                await asyncio.sleep(max(due - time.monotonic(), 0))
            key = f"demo-{number}-{uuid4()}"
            body = {name: value for name, value in report.body.items() if name != "area"}
            answer = await _send(http, body, key)
            if answer.status_code == 202:
                accepted[key] = answer.json()["case_id"]
            else:
                refused.append(f"report {number + 1}: {answer.text}")

    async with httpx2.AsyncClient(base_url=url, timeout=10, verify=False) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))


async def _send(http: httpx2.AsyncClient, body: dict[str, Any], key: str) -> httpx2.Response:
    give_up = time.monotonic() + LATEST_TRY_S
    while True:
        try:
            answer = await http.post("/v1/reports", json=body, headers={"Idempotency-Key": key})
            if answer.status_code < 500 or time.monotonic() > give_up:
                return answer
        except httpx2.TransportError:
            if time.monotonic() > give_up:
                raise
        await asyncio.sleep(0.2)


async def observe(stack: Stack, progress: Progress) -> None:
    """Fill in where everything stands now."""
    (cases,), (messages,) = await asyncio.gather(
        stack.rows(
            "assignment",
            """SELECT (SELECT count(*) FROM cases) AS cases,
                      (SELECT count(*) FROM offers) AS offers,
                      (SELECT count(*) FROM cases WHERE state = 'waiting') AS waiting,
                      (SELECT coalesce(sum(version), 0) FROM cases) AS versions""",
        ),
        stack.rows("notification", "SELECT count(*) AS n FROM messages WHERE state = 'sent'"),
    )
    progress.cases, progress.offers, progress.waiting = cases.cases, cases.offers, cases.waiting
    progress.messages, progress.versions = messages.n, cases.versions


async def import_volunteers(stack: Stack, file: Path, code: str) -> int:
    """Bring a volunteers file into the running system; returns how many."""
    districts = load_districts(stack.settings().district_folders)
    district = districts[code]
    content = await asyncio.to_thread(file.read_text, encoding="utf-8")
    rows = volunteers.read_csv(content, district=district, districts=districts)
    async with stack.database("assignment").transaction() as session:
        await volunteers.store(session, rows, district=district)
    return len(rows)


async def demo(
    *,
    reports_file: Path | None,
    speed: float | None,
    output: Output,
    watch: Watcher,
    environment: dict[str, str] | None = None,
    data_dir: Path | None = None,
    interfere: Callable[[Stack], Any] | None = None,
    command: Command = production_command,
    limit: int | None = None,
    run: str | None = None,
) -> Result:
    """Start a fresh system, play the reports, wait until all has come to rest, and count.

    ``run`` names the databases and topics on given servers. ``interfere`` runs beside the
    reports; fault tests use it to kill things.

    Raises:
        BrokenReports, StackError, PostgresError: nothing could be played.
    """
    planned = read_reports(reports_file or SAMPLE)[:limit]
    scratch = data_dir or Path(tempfile.mkdtemp(prefix="jangkau-demo-"))
    scratch.chmod(0o755)
    try:
        folders, volunteers_file, code = str(PROJECT / "districts"), SAMPLE.parent, SAMPLE_DISTRICT
        volunteers_file = volunteers_file / "volunteers.csv"
        if reports_file is not None:
            folders = str(scratch / "districts")
            volunteers_file = make_district(planned, scratch / "districts")
            code = volunteers_file.parent.name
        async with running(
            scratch,
            output=output,
            districts=folders,
            environment=environment,
            run=run or f"demo{uuid4().hex[:8]}",
            command=command,
        ) as stack:
            await import_volunteers(stack, volunteers_file, code)
            result = await _run(stack, planned, speed=speed, watch=watch, interfere=interfere)
        await embedded.forget(stack)
        return result
    finally:
        if data_dir is None:
            shutil.rmtree(scratch, ignore_errors=True)


async def _run(
    stack: Stack,
    planned: Sequence[PlannedReport],
    *,
    speed: float | None,
    watch: Watcher,
    interfere: Callable[[Stack], Any] | None,
) -> Result:
    feed = PublicFeed(stack)
    reading = asyncio.create_task(feed.read())
    accepted: dict[str, str] = {}
    refused: list[str] = []
    started = time.monotonic()
    playing = asyncio.create_task(
        play(planned, stack.url("intake"), speed=speed, accepted=accepted, refused=refused)
    )
    disturbing = asyncio.create_task(interfere(stack)) if interfere else None
    progress = Progress(total=len(planned))
    try:
        await _settle(stack, progress, playing, disturbing, accepted, feed, watch)
        seconds = time.monotonic() - started
        await playing
        if disturbing is not None:
            await disturbing
        return await _count(stack, planned, accepted, refused, feed, seconds)
    finally:
        for task in (reading, playing, disturbing):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _settle(
    stack: Stack,
    progress: Progress,
    playing: "asyncio.Task[None]",
    disturbing: "asyncio.Task[Any] | None",
    accepted: dict[str, str],
    feed: PublicFeed,
    watch: Watcher,
) -> None:
    """Wait until every report has become a message or waits; give up when nothing moves."""
    before, moved_at = None, time.monotonic()
    while True:
        try:
            await observe(stack, progress)
        except Exception as error:
            if not is_transient(error):
                raise
        progress.accepted = len(accepted)
        watch(progress)
        ended = playing.done() and (disturbing is None or disturbing.done())
        if (
            ended
            and progress.cases == len(accepted)
            and progress.offers + progress.waiting >= progress.cases
            and progress.messages >= progress.offers
            and sum(map(len, feed.versions.values())) >= progress.versions
        ):
            return
        now = (*vars(progress).values(), len(feed.versions))
        if now != before:
            before, moved_at = now, time.monotonic()
        elif ended and time.monotonic() - moved_at > SETTLED_WITHIN_S:
            return
        await asyncio.sleep(0.25)


async def _count(
    stack: Stack,
    planned: Sequence[PlannedReport],
    accepted: dict[str, str],
    refused: list[str],
    feed: PublicFeed,
    seconds: float,
) -> Result:
    reports = {
        str(row.case_id) for row in await stack.rows("intake", "SELECT case_id FROM reports")
    }
    cases = {
        str(row.id): row
        for row in await stack.rows(
            "assignment",
            """SELECT c.id, c.version, c.state, o.id AS offer_id
               FROM cases c LEFT JOIN offers o ON o.case_id = c.id""",
        )
    }
    sent = [
        str(row.offer_id)
        for row in await stack.rows(
            "notification", "SELECT offer_id FROM messages WHERE state = 'sent'"
        )
    ]
    told = set(sent)
    (offers,) = await stack.rows("assignment", "SELECT count(*) AS n FROM offers")
    (timing,) = await stack.rows(
        "notification",
        """SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) AS p50,
                  percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) AS p99
           FROM (SELECT 1000 * extract(epoch FROM sent_at - reported_at)::float AS ms
                 FROM messages WHERE state = 'sent') AS sent""",
    )
    letters = [
        row.n
        for service in SERVICES
        for row in await stack.rows(
            service, "SELECT count(*) AS n FROM dead_letters WHERE state = 'parked'"
        )
    ]

    def arrived(case_id: str) -> bool:
        case = cases.get(case_id)
        if case is None or case_id not in reports or not feed.complete(case_id, case.version):
            return False
        return case.state == "waiting" or (case.offer_id and str(case.offer_id) in told)

    missing = [case_id for case_id in accepted.values() if not arrived(case_id)]
    return Result(
        broker=stack.broker,
        reports=len(planned),
        accepted=len(accepted),
        refused=len(refused),
        cases=len(cases),
        offers=offers.n,
        messages_sent=len(sent),
        waiting=sum(case.state == "waiting" for case in cases.values()),
        escalated=sum(case.state == "escalated" for case in cases.values()),
        dead_letters=sum(letters),
        lost=len(missing),
        report_to_message_ms=Percentiles(
            *(round(value, 1) if value is not None else None for value in timing)
        ),
        seconds=round(seconds, 2),
        cases_per_second=round(len(cases) / seconds, 1),
        restarts=sum(stack.restarts.values()),
        problems=[*refused[:5], *(f"lost: case {case_id}" for case_id in missing[:5])],
    )
