"""What another agency sees with the example that it begins with."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import httpx2
from aiokafka import AIOKafkaProducer

from ops.embedded import PROJECT, Stack
from shared.events import PublicCase, PublicCaseOffered, PublicCaseOpened, PublicSubdistrict
from shared.kafka import create_topics
from shared.topics import PUBLIC_CASES
from tests import servers

SUBSCRIBER = PROJECT / "examples" / "subscriber.py"
WITHIN_S = 60


@dataclass
class Subscriber:
    """The running example and what it has printed."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def told(self, case_id: str, *, events: int) -> list[str]:
        """The lines about this case, once there are so many.

        Raises:
            TimeoutError, AssertionError: there are fewer in time, or the example has ended.
        """
        assert self.process.stdout is not None
        async with asyncio.timeout(WITHIN_S):
            while len(about := [line for line in self.lines if case_id in line]) < events:
                line = await self.process.stdout.readline()
                assert line, f"the subscriber ended; it said {self.lines[-10:]}"
                self.lines.append(line.decode().rstrip())
        return about


def _heeds_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def subscriber(stack: Stack, *, prefix: str | None = None) -> AsyncIterator[Subscriber]:
    """The example, told where the feed is and nothing else; Ctrl-C ends it well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SUBSCRIBER),
        env={
            "KAFKA_BOOTSTRAP_SERVERS": stack.environment["JANGKAU_KAFKA_BOOTSTRAP_SERVERS"],
            "JANGKAU_TOPIC_PREFIX": stack.settings().topic_prefix if prefix is None else prefix,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # As in a terminal: what a shell starts in the background ignores Ctrl-C, and so would it.
        preexec_fn=_heeds_ctrl_c,
    )
    running = Subscriber(process)
    try:
        yield running
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), timeout=10)
        running.lines += rest.decode().splitlines()
        assert process.returncode == 0, running.lines
        assert not [line for line in running.lines if "Traceback" in line]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_an_agency_reads_the_life_of_each_case(stack: Stack) -> None:
    report = {"category": "elderly_abandoned", "place": {"subdistrict": "Koba"}}
    async with httpx2.AsyncClient(
        base_url=stack.url("intake"), headers=stack.signed_in, timeout=10
    ) as client:

        async def send() -> str:
            answer = await client.post("/v1/reports", json=report)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["case_id"])

        before = await send()
        async with subscriber(stack) as agency:
            # What happened before it came, and what happens while it listens.
            await _is_a_life(agency, before)
            await _is_a_life(agency, await send())


async def _is_a_life(agency: Subscriber, case_id: str) -> None:
    opened, then = await agency.told(case_id, events=2)
    assert "elderly_abandoned in Koba  version 1: searching" in opened
    assert "version 2: offered" in then or "version 2: waiting (" in then
    assert "GAP" not in opened + then


async def test_an_agency_is_told_of_a_gap_and_sees_a_repeated_event_once(stack: Stack) -> None:
    case = uuid4()
    case_id = str(case)
    prefix = f"example-{case_id[:8]}."
    public = PublicCase(
        version=1,
        state="searching",
        category="homeless",
        urgency="normal",
        subdistrict=PublicSubdistrict(
            code="19.04.01", name="Koba", latitude=-2.493, longitude=106.408
        ),
        reported_at=datetime.now(UTC),
    )
    opened = PublicCaseOpened.of(
        public, case_id=case, district="19.04", time=datetime.now(UTC), drill=True
    )
    third = PublicCaseOffered.of(
        public.model_copy(update={"version": 3, "state": "offered"}),
        case_id=case,
        district="19.04",
        time=datetime.now(UTC),
    )
    fourth = PublicCaseOffered.of(
        public.model_copy(update={"version": 4, "state": "offered"}),
        case_id=case,
        district="19.04",
        time=datetime.now(UTC),
    )
    async with (
        _feed_of_its_own(stack, prefix) as publish,
        subscriber(stack, prefix=prefix) as agency,
    ):
        for event in (opened, opened, third, opened, fourth):
            await publish(case_id, event.to_json())
        first, second, last = await agency.told(case_id, events=3)
    assert "DRILL normal homeless in Koba  version 1: searching" in first
    assert "GAP" not in first
    assert second.endswith("version 3: offered  GAP: expected version 2")
    assert last.endswith("version 4: offered")


@asynccontextmanager
async def _feed_of_its_own(
    stack: Stack, prefix: str
) -> AsyncIterator[Callable[[str, str], Awaitable[object]]]:
    """A public feed that no service reads or writes; yields what publishes into it."""
    settings = stack.settings().model_copy(update={"topic_prefix": prefix})
    await create_topics(settings)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers.split(","), acks="all"
    )
    try:
        async with producer:
            yield lambda key, value: producer.send_and_wait(
                prefix + PUBLIC_CASES.name, key=key.encode(), value=value.encode()
            )
    finally:
        await servers.delete_topics(settings.kafka_bootstrap_servers, prefix=prefix)
