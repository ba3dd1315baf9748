"""Messages a second through a channel and through the whole delivery, beside a bare client.

    python -m bench.gateway [--messages 4000] [--concurrency 50] [--rounds 3] [--json]

The gateway is ops.gateway in a process of its own. What is compared is measured in turns, in one
run on one connection pool of the same size: ratios travel, absolute figures are this machine's.
``delivery`` is all that happens to a stored message in one process: taken, its attempt stored,
handed over by the channel sms, and what came of it stored, in a PostgreSQL on the same machine.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import httpx2
from sqlalchemy.engine import make_url

from ops import embedded_postgres
from ops.processes import ends_with_us
from services.notification.app import make_delivery
from services.notification.channels import Channel, Outgoing
from services.notification.channels.sms import Sms
from services.notification.channels.twilio import Twilio
from services.notification.routes import Routes
from services.notification.settings import NotificationSettings
from shared import migrations
from shared.database import Database, sql
from shared.health import Loop

# What a delivery of one process has to reach: messages a second, and of bare httpx2.
LEAST, SHARE = 500, 0.5
Send = Callable[[Outgoing], Awaitable[object]]
TEXT = "JANGKAU K7P2M: lansia terlantar di Berok, Kec. Koba, 1,2 km. Bisa? Balas K7P2M YA / TIDAK"
ACCOUNT, TOKEN = "AC" + "0" * 32, "the gateway's own token"


@contextmanager
def gateway() -> Iterator[str]:
    """The address of a gateway in a process of its own."""
    command = ends_with_us([sys.executable, "-m", "ops.gateway", "--receipts", "never"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def settings(url: str, *, concurrency: int) -> NotificationSettings:
    """Both channels, against that gateway."""
    given: dict[str, Any] = {
        "channels": "sms,twilio",
        "concurrency": concurrency,
        "sms_url": f"{url}/send",
        "sms_success": "json:status=ok",
        "sms_message_id": "json:message_id",
        "twilio_url": url,
        "twilio_account_sid": ACCOUNT,
        "twilio_auth_token": TOKEN,
        "twilio_from": "+15005550006",
    }
    return NotificationSettings(**given)


@asynccontextmanager
async def channel(made: Channel) -> AsyncIterator[Send]:
    """A channel as delivery calls it."""
    yield made.send
    await made.close()


@asynccontextmanager
async def bare_httpx(url: str, *, concurrency: int) -> AsyncIterator[Send]:
    """The request of the channel sms, on httpx2 alone."""
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx2.AsyncClient(limits=limits) as client:

        async def send(message: Outgoing) -> None:
            answer = await client.post(f"{url}/send", json=body(message))
            assert answer.json()["status"] == "ok"

        yield send


@asynccontextmanager
async def bare_aiohttp(url: str, *, concurrency: int) -> AsyncIterator[Send]:
    """The same on aiohttp, which comes with Twilio's library."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as client:

        async def send(message: Outgoing) -> None:
            async with client.post(f"{url}/send", json=body(message)) as answer:
                assert (await answer.json())["status"] == "ok"

        yield send


def body(message: Outgoing) -> dict[str, str]:
    """What the channel sms says by default."""
    return {
        "to": message.address,
        "text": message.short_text,
        "id": str(message.idempotency_key),
    }


async def rate(send: Send, *, messages: int, concurrency: int) -> float:
    """Messages a second, with so many calls under way at once."""
    outgoing = [
        Outgoing(uuid4(), f"+62812{number:08}", TEXT, "subject", "long text")
        for number in range(messages)
    ]
    waiting = iter(outgoing)

    async def work() -> None:
        for message in waiting:
            await send(message)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return messages / (time.perf_counter() - began)


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """An empty database of notification."""
    with tempfile.TemporaryDirectory(prefix="jangkau-bench-") as folder:
        await asyncio.to_thread(Path(folder).chmod, 0o755)
        async with embedded_postgres.running(Path(folder)) as server:
            where = make_url(f"{server}/bench_notification")
            await migrations.create_database(where)
            await migrations.migrate("notification", where)
            opened = Database(where)
            yield opened
            await opened.close()


async def delivery_rate(opened: Database, given: NotificationSettings, messages: int) -> float:
    """Stored messages a second, through a delivery of one process."""
    sms = Sms(given)
    delivery = make_delivery(given, opened, sms, Routes([sms]))
    await opened.statement(sql("TRUNCATE messages CASCADE"))
    await opened.statement(_FILL, {"messages": messages, "text": TEXT})
    began = time.perf_counter()
    running = asyncio.create_task(delivery.run(Loop("deliver", timedelta(minutes=5))))
    try:
        while True:
            (row,) = await opened.statement(_LEFT)
            if not row.n:
                return messages / (time.perf_counter() - began)
            await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sms.close()


_FILL = sql("""
    INSERT INTO messages (id, event_id, case_id, recipient, purpose, district, drill, phone,
        short_text, subject, long_text, state, channel, routes, attempts, send_before)
    SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), number, 'offer', '19.04',
           false, '+62812' || lpad(CAST(number AS text), 8, '0'), :text, 'subject', 'long text',
           'queued', 'sms', '{sms}', 0, now() + interval '1 hour'
    FROM generate_series(1, CAST(:messages AS int)) AS number
""")
_LEFT = sql("SELECT count(*) AS n FROM messages WHERE state <> 'sent'")


async def measure(url: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The median rate of each, measured in turns."""
    concurrency = arguments.concurrency
    given = settings(url, concurrency=concurrency)
    rates: dict[str, list[float]] = {}
    async with (
        bare_httpx(url, concurrency=concurrency) as on_httpx,
        bare_aiohttp(url, concurrency=concurrency) as on_aiohttp,
        channel(Sms(given)) as sms,
        channel(Twilio(given)) as twilio,
        database() as opened,
    ):
        senders = {"httpx2": on_httpx, "aiohttp": on_aiohttp, "sms": sms, "twilio": twilio}
        for send in senders.values():  # connections and caches are made before it counts
            await rate(send, messages=concurrency * 2, concurrency=concurrency)
        for _ in range(arguments.rounds):
            for name, send in senders.items():
                found = await rate(send, messages=arguments.messages, concurrency=concurrency)
                rates.setdefault(name, []).append(found)
            found = await delivery_rate(opened, given, arguments.messages)
            rates.setdefault("delivery", []).append(found)
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with gateway() as url:
        rates = asyncio.run(measure(url, arguments))
        stats = httpx2.get(f"{url}/stats").json()
    assert stats["calls"] == stats["accepted"], "the gateway has not taken every message"
    reached = rates["delivery"] >= LEAST and rates["delivery"] >= SHARE * rates["httpx2"]
    if arguments.json:
        print(json.dumps(rates))
        raise SystemExit(not reached)
    print(f"{arguments.messages} messages, {arguments.concurrency} at once; per second:")
    for name, found in rates.items():
        print(
            f"  {name:8} {found:7.0f}   {found / rates['httpx2']:.2f} of bare httpx2, "
            f"{found / rates['aiohttp']:.2f} of bare aiohttp"
        )
    print(f"aim: delivery at least {LEAST} a second, and {SHARE} of bare httpx2")
    raise SystemExit(not reached)


if __name__ == "__main__":
    main()
