"""The demo: real reports in, messages out, and a count of what was lost, which must be none."""

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from ops import embedded, outcome
from ops.embedded import PROJECT, Command, Output, Stack, production_command, running
from ops.gateway import Faults, Gateway, gateway
from ops.outcome import Played, PublicFeed, Result
from ops.people import HABITS, People
from ops.synthetic import POLICY, PlannedReport, make_district, read_reports, short_times
from services.assignment import volunteer_files, volunteers
from shared.database import is_transient
from shared.districts import Districts

SAMPLE_DISTRICT = "19.04"
SAMPLE = PROJECT / "districts" / SAMPLE_DISTRICT / "reports.csv"
# How many requests are under way at once when playing as fast as possible.
CLIENTS = 16
# Nothing has moved for so long: what is missing now will not come. A consumer that is dead and
# looks alive is found after 30 s, and it takes up to 45 s more until another has taken its place.
SETTLED_WITHIN_S = 120
LATEST_TRY_S = 60


@dataclass
class Progress:
    """Where the demo is, for whoever shows it."""

    total: int
    answered: bool = False
    accepted: int = 0
    cases: int = 0
    offers: int = 0
    open_offers: int = 0
    messages: int = 0
    told: int = 0
    unsent: int = 0
    waiting: int = 0
    taken: int = 0
    escalated: int = 0
    ended: int = 0
    answers: int = 0
    versions: int = 0


Watcher = Callable[[Progress], None]


async def play(
    reports: Sequence[PlannedReport], stack: Stack, *, speed: float | None, played: Played
) -> None:
    """Send reports as a desk that does not give up: the same key until there is an answer.

    ``speed`` is how many times faster than the file's own times; None is as fast as possible.
    What was answered goes into ``played`` as it comes.
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
                played.accepted[key] = answer.json()["case_id"]
            else:
                played.refused.append(f"report {number + 1}: {answer.text}")

    async with httpx2.AsyncClient(
        base_url=stack.url("intake"), headers=stack.signed_in, timeout=10, verify=False
    ) as http:
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
            """SELECT count(*) AS cases, count(*) FILTER (WHERE state = 'waiting') AS waiting,
                      count(*) FILTER (WHERE state IN ('accepted', 'arrived', 'closed')) AS taken,
                      count(*) FILTER (WHERE state = 'escalated') AS escalated,
                      count(*) FILTER (
                          WHERE state IN ('accepted', 'arrived', 'closed', 'escalated')
                             OR escalated_at IS NOT NULL) AS ended,
                      coalesce(sum(version), 0) AS versions,
                      (SELECT count(*) FROM offers) AS offers,
                      (SELECT count(*) FROM offers WHERE state = 'offered') AS open_offers
               FROM cases""",
        ),
        stack.rows(
            "notification",
            """SELECT count(*) FILTER (WHERE purpose IN ('offer', 'assigned')) AS offers,
                      count(*) FILTER (WHERE purpose = 'offer'
                                         AND state IN ('sent', 'delivered', 'unknown')) AS sent,
                      count(*) FILTER (WHERE state IN ('queued', 'sending')
                                          OR look_up_at IS NOT NULL) AS unsent
               FROM messages""",
        ),
    )
    progress.cases, progress.waiting, progress.taken = cases.cases, cases.waiting, cases.taken
    progress.escalated, progress.ended = cases.escalated, cases.ended
    progress.offers, progress.open_offers = cases.offers, cases.open_offers
    progress.versions = cases.versions
    progress.messages, progress.told = messages.sent, messages.offers
    progress.unsent = messages.unsent


async def import_volunteers(stack: Stack, file: Path, code: str) -> int:
    """Bring a volunteers file into the running system; returns how many."""
    districts = Districts(stack.settings().district_folders)
    district = districts.of(code)
    content = await asyncio.to_thread(file.read_bytes)
    rows = volunteer_files.read_file(content, district=district, districts=districts).values()
    async with stack.database("assignment").transaction() as session:
        await volunteers.store(session, rows, district=district)
    return len(rows)


@dataclass(frozen=True)
class Show:
    """What is played: the reports, how fast, and whether volunteers answer (see ``people``).

    ``answer_s`` is how long an offer is open when they do, in seconds. ``gateway``: messages go by
    SMS through a gateway at which that share (0 to 1) of the calls fails; what fails there goes on
    to the fake phones.
    """

    reports_file: Path | None = None
    speed: float | None = None
    limit: int | None = None
    answers: str | None = None
    answer_s: float = 4.0
    seed: int = 1
    gateway: float | None = None


async def demo(
    show: Show,
    *,
    output: Output,
    watch: Watcher,
    environment: dict[str, str] | None = None,
    data_dir: Path | None = None,
    interfere: Callable[[Stack], Any] | None = None,
    command: Command = production_command,
    run: str | None = None,
) -> Result:
    """Start a fresh system, play the reports, wait until all has come to rest, and count.

    ``run`` names the databases and topics on given servers. ``interfere`` runs beside the
    reports; fault tests use it to kill things.

    Raises:
        BrokenReports, StackError, PostgresError: nothing could be played.
    """
    planned = read_reports(show.reports_file or SAMPLE)[: show.limit]
    scratch = data_dir or Path(tempfile.mkdtemp(prefix="jangkau-demo-"))
    scratch.chmod(0o755)
    try:
        folder = _district(show, planned, scratch / "districts")
        async with AsyncExitStack() as opened:
            stub = await opened.enter_async_context(_gateway(show))
            stack = await opened.enter_async_context(
                running(
                    scratch,
                    output=output,
                    districts=str(folder.parent),
                    environment={**(by_gateway(stub) if stub else {}), **(environment or {})},
                    run=run or f"demo{uuid4().hex[:8]}",
                    command=command,
                )
            )
            if stub:
                stub.receipts_to = f"{stack.url('notification')}/v1/receipts/sms"
            await import_volunteers(stack, folder / "volunteers.csv", folder.name)
            result = await _Run(stack, planned, show, watch, stub).result(interfere)
        await embedded.forget(stack)
        return result
    finally:
        if data_dir is None:
            shutil.rmtree(scratch, ignore_errors=True)


@asynccontextmanager
async def _gateway(show: Show) -> AsyncIterator[Gateway | None]:
    if show.gateway is None:
        yield None
        return
    # Slow is late, but in time: what is later is a fault of its own.
    faults = replace(Faults.spread(show.gateway, seed=show.seed), slow_s=1)
    async with gateway(faults=faults, secret=secrets.token_urlsafe(16)) as stub:
        yield stub


def by_gateway(stub: Gateway) -> dict[str, str]:
    """What the services are told so that messages go by this gateway, and else to the sandbox."""
    named = {f"JANGKAU_{name.upper()}": str(value) for name, value in stub.sms_settings.items()}
    return {
        **named,
        "JANGKAU_CHANNELS": "sms,sandbox",
        "JANGKAU_SMS_RECEIPTS": "true",
        "JANGKAU_SMS_WEBHOOK_SECRET": stub.secret,
        "JANGKAU_PROVIDER_TIMEOUT_SECONDS": "2",
        "JANGKAU_LEASE_SECONDS": "5",
    }


def _district(show: Show, planned: Sequence[PlannedReport], target: Path) -> Path:
    """The district folder to play in: the sample's, or one made for the reports; with short times
    when volunteers answer."""
    policy = short_times(show.answer_s) if show.answers else POLICY
    if show.reports_file is not None:
        return make_district(planned, target, policy=policy).parent
    if not show.answers:
        return SAMPLE.parent
    shutil.copytree(SAMPLE.parent, target / SAMPLE_DISTRICT, dirs_exist_ok=True)
    (target / SAMPLE_DISTRICT / "policy.toml").write_text(policy, encoding="utf-8")
    return target / SAMPLE_DISTRICT


class _Run:
    """One play of reports on a running stack."""

    def __init__(
        self,
        stack: Stack,
        planned: Sequence[PlannedReport],
        show: Show,
        watch: Watcher,
        stub: Gateway | None = None,
    ) -> None:
        self.stack = stack
        self.planned = planned
        self.show = show
        self.watch = watch
        self.feed = PublicFeed(stack)
        self.played = Played(reports=len(planned), answered=show.answers is not None, gateway=stub)
        self.progress = Progress(total=len(planned), answered=show.answers is not None)
        self.people: People | None = None
        if show.answers:
            url = stack.url("notification")
            self.people = People(url, HABITS[show.answers], show.answer_s, seed=show.seed)

    async def result(self, interfere: Callable[[Stack], Any] | None) -> Result:
        """Play, wait until nothing moves any more, and count."""
        started = time.monotonic()
        playing = asyncio.create_task(
            play(
                self.planned,
                self.stack,
                speed=self.show.speed,
                played=self.played,
            )
        )
        disturbing = asyncio.create_task(interfere(self.stack)) if interfere else None
        beside = [asyncio.create_task(self.feed.read())]
        if self.people is not None:
            beside.append(asyncio.create_task(self.people.live()))
        try:
            await self._settle([task for task in (playing, disturbing) if task is not None])
            self.played.seconds = time.monotonic() - started
            await playing
            if disturbing is not None:
                await disturbing
            self.played.answers = self.people.answers if self.people else 0
            return await outcome.count(self.stack, self.played, self.feed)
        finally:
            for task in (*beside, playing, disturbing):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task

    async def _settle(self, acting: Sequence["asyncio.Task[Any]"]) -> None:
        """Wait until all has come to rest; give up when nothing moves."""
        before, moved_at = None, time.monotonic()
        while True:
            try:
                await observe(self.stack, self.progress)
            except Exception as error:
                if not is_transient(error):
                    raise
            self.progress.accepted = len(self.played.accepted)
            self.progress.answers = self.people.answers if self.people else 0
            self.watch(self.progress)
            ended = all(task.done() for task in acting)
            if ended and self._at_rest():
                return
            now = (*vars(self.progress).values(), self.feed.count)
            if now != before:
                before, moved_at = now, time.monotonic()
            elif ended and time.monotonic() - moved_at > SETTLED_WITHIN_S:
                return
            await asyncio.sleep(0.25)

    def _at_rest(self) -> bool:
        """Whether every report has become messages or waits and, when volunteers answer, has come
        to an end."""
        where = self.progress
        if where.cases != len(self.played.accepted) or self.feed.count < where.versions:
            return False
        if self.people is None:
            busy = where.waiting + where.escalated
            told = where.messages >= where.offers and where.unsent == 0
            return where.offers + busy >= where.cases and told
        return self.people.busy == 0 and where.ended == where.cases and where.told >= where.offers
