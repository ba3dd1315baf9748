"""Messages a second through a channel, beside the same loop on a bare client.

    python -m bench.gateway [--messages 4000] [--concurrency 50] [--rounds 3] [--json]

The gateway is ops.gateway in a process of its own. What is compared is measured in turns, in one
run on one connection pool of the same size: ratios travel, absolute figures are this machine's.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import httpx2

from ops.processes import ends_with_us
from services.notification.channels import Channel, Outgoing
from services.notification.channels.sms import Sms
from services.notification.channels.twilio import Twilio
from services.notification.settings import NotificationSettings

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
    ):
        senders = {"httpx2": on_httpx, "aiohttp": on_aiohttp, "sms": sms, "twilio": twilio}
        for send in senders.values():  # connections and caches are made before it counts
            await rate(send, messages=concurrency * 2, concurrency=concurrency)
        for _ in range(arguments.rounds):
            for name, send in senders.items():
                found = await rate(send, messages=arguments.messages, concurrency=concurrency)
                rates.setdefault(name, []).append(found)
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
    if arguments.json:
        print(json.dumps(rates))
        return
    print(f"{arguments.messages} messages, {arguments.concurrency} at once; per second:")
    for name, found in rates.items():
        print(
            f"  {name:8} {found:7.0f}   {found / rates['httpx2']:.2f} of bare httpx2, "
            f"{found / rates['aiohttp']:.2f} of bare aiohttp"
        )


if __name__ == "__main__":
    main()
