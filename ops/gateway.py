"""A gateway for messages that sends nothing, can fail in every way, and knows what it has taken.

    python -m ops.gateway [--port 0] [--faults 0.05] [--seed 1] [--receipts normal]

It speaks two dialects: a plain one (``POST /send`` with to, text and id; ``GET /messages/{id}``
says whether it has one) and Twilio's (messages, list, signed callbacks). What became of every
message is told at ``GET /stats`` in sums and ``GET /truth`` by id: ``accepted`` is how often it was
taken, which is how often a telephone would have rung.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal, cast, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import httpx2
from twilio.request_validator import RequestValidator

Fault = Literal[
    "too_many",  # 429 with Retry-After
    "refuse_400",
    "error_500",  # nothing was taken
    "error_500_after_accept",
    "timeout_before",  # no answer, nothing was taken
    "timeout_after",
    "drop_before",  # the connection ends instead
    "drop_after",
    "slow",  # a good answer, late
]
Receipts = Literal["normal", "early", "twice", "out_of_order", "undelivered", "never"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
AFTER_ACCEPT: tuple[Fault, ...] = ("error_500_after_accept", "timeout_after", "drop_after", "slow")

NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_TWILIO = re.compile(r"/2010-04-01/Accounts/(?P<account>[^/]+)/Messages\.json")
# What is told of a message, in the order in which it is told.
_STORIES: Mapping[Receipts, Sequence[str]] = {
    "normal": ("sent", "delivered"),
    "early": ("sent", "delivered"),
    "twice": ("sent", "sent", "delivered", "delivered"),
    "out_of_order": ("delivered", "sent"),
    "undelivered": ("sent", "undelivered"),
    "never": (),
}
_REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
            429: "Too Many Requests", 500: "Internal Server Error"}  # fmt: skip


@dataclass(frozen=True)
class Faults:
    """The share of the calls, 0 to 1, that each fault befalls; drawn in the order of the calls."""

    too_many: float = 0
    refuse_400: float = 0
    error_500: float = 0
    error_500_after_accept: float = 0
    timeout_before: float = 0
    timeout_after: float = 0
    drop_before: float = 0
    drop_after: float = 0
    slow: float = 0
    slow_s: float = 10
    retry_after: int = 1  # in seconds
    refuse_code: int = 21211  # Twilio's, for refuse_400
    receipts: Receipts = "normal"
    seed: int = 0

    @classmethod
    def spread(cls, share: float, *, seed: int = 0) -> "Faults":
        """That share of the calls fails, each fault as often as any other."""
        shares: dict[str, Any] = {fault: share / len(FAULTS) for fault in FAULTS}
        return cls(seed=seed, **shares)

    def draw(self, rng: random.Random) -> Fault | None:
        """What befalls the next call."""
        point = rng.random()
        for fault in FAULTS:
            point -= getattr(self, fault)
            if point < 0:
                return fault
        return None


@dataclass(frozen=True)
class Answer:
    """An answer that a script gives word for word; ``accept``: the message is taken with it."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    accept: bool = False


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The parameters in the target."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        """The parameters in the body, of a form or of JSON."""
        if "json" in self.headers.get("content-type", ""):
            read = json.loads(self.body)
            return {name: str(value) for name, value in read.items()}
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Taken:
    """A message that was taken."""

    provider_id: str
    message_id: str
    to: str
    text: str
    sender: str
    at: datetime
    callback: str | None
    twilio: bool
    status: str = "queued"


@dataclass
class Gateway:
    """The running gateway and the truth about it, by our message id.

    In Twilio's dialect our id is the ``message`` in the query of the callback; without one, the
    number and the text stand for it.
    """

    url: str = ""
    faults: Faults = field(default_factory=Faults)
    idempotent: bool = False
    account: str = "AC" + "0" * 32
    token: str = "the gateway's own token"  # noqa: S105 - nobody else's
    # Where the plain dialect tells what became of a message, and what it shows there.
    receipts_to: str | None = None
    secret: str = ""
    # A callback to this address is signed for it and made to that one: ours behind a proxy.
    behind: tuple[str, str] | None = None
    # What befalls the next calls, before anything is drawn; None: nothing.
    script: deque[Fault | Answer | None] = field(default_factory=deque)

    calls: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    befell: Counter[str] = field(default_factory=Counter)
    messages: list[Taken] = field(default_factory=list)
    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=1000))
    told: Counter[int] = field(default_factory=Counter)  # how our callbacks were answered

    def __post_init__(self) -> None:
        self._rng = random.Random(self.faults.seed)  # noqa: S311 - chance, not secrets
        self._by_id: dict[str, Taken] = {}
        self._by_number: defaultdict[str, list[Taken]] = defaultdict(list)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: httpx2.AsyncClient | None = None

    @property
    def sms_settings(self) -> dict[str, Any]:
        """The settings with which the channel sms speaks to this gateway."""
        return {
            "sms_url": f"{self.url}/send",
            "sms_success": "json:status=ok",
            "sms_message_id": "json:message_id",
            "sms_idempotent": self.idempotent,
        }

    @property
    def twilio_settings(self) -> dict[str, Any]:
        """The settings with which the channel twilio speaks to this gateway."""
        return {
            "twilio_url": self.url,
            "twilio_account_sid": self.account,
            "twilio_auth_token": self.token,
            "twilio_from": "+15005550006",
        }

    @property
    def lookup_url(self) -> str:
        """Where the plain dialect says whether it has a message, as a template."""
        return f"{self.url}/messages/{{id}}"

    @property
    def stats(self) -> dict[str, Any]:
        """Sums: a message that was taken more than once would have come twice."""
        return {
            "calls": self.calls.total(),
            "messages": len(self.calls),
            "accepted": self.accepted.total(),
            "reached": len(self.accepted),
            "more_than_once": sum(times > 1 for times in self.accepted.values()),
            "faults": dict(self.befell),
            "receipts": {str(status): count for status, count in self.told.items()},
        }

    async def say(self, url: str, *, sender: str, text: str, twilio: bool = True) -> int:
        """A person answers: the webhook at ``url`` is told; returns the HTTP status of its answer.

        Signed as Twilio does, or with the secret of the plain dialect.
        """
        if twilio:
            params = {
                "MessageSid": _sid(),
                "AccountSid": self.account,
                "From": sender,
                "To": self.twilio_settings["twilio_from"],
                "Body": text,
                "NumSegments": "1",
            }
            return await self._post_signed(url, params)
        told = {"message_id": uuid4().hex, "from": sender, "text": text}
        return await self._post(url, json=told, headers={"X-Jangkau-Secret": self.secret})

    # --- calls ---------------------------------------------------------------------------------

    def _serve(self, request: Request, connection: "_Connection") -> None:
        self.requests.append(request)
        twilio = _TWILIO.fullmatch(request.path)
        try:
            if twilio is not None:
                self._twilio(request, twilio["account"], connection)
            elif request.path == "/send":
                self._plain(request, connection)
            elif request.path.startswith("/messages/"):
                taken = self._by_id.get(request.path.removeprefix("/messages/"))
                found = {"status": "ok", "message_id": taken.provider_id} if taken else {}
                connection.answer(200 if taken else 404, found)
            elif request.path == "/stats":
                connection.answer(200, self.stats)
            elif request.path == "/truth":
                connection.answer(
                    200, {key: [calls, self.accepted[key]] for key, calls in self.calls.items()}
                )
            else:
                connection.answer(404, {"status": "error", "error": "no such address"})
        except (ValueError, AttributeError):
            connection.answer(400, {"status": "error", "error": "this cannot be read"})

    def _plain(self, request: Request, connection: "_Connection") -> None:
        given = {**request.query, **request.form}
        to, text = given.get("to", ""), given.get("text", "")
        message = Taken(
            provider_id=uuid4().hex,
            message_id=given.get("id") or f"{to}\n{text}",
            to=to,
            text=text,
            sender="",
            at=datetime.now(UTC),
            callback=self.receipts_to,
            twilio=False,
        )
        self._take(message, connection)

    def _twilio(self, request: Request, account: str, connection: "_Connection") -> None:
        credentials = base64.b64encode(f"{self.account}:{self.token}".encode()).decode()
        if (
            account != self.account
            or request.headers.get("authorization") != f"Basic {credentials}"
        ):
            connection.answer(401, _twilio_error(401, 20003, "Authenticate"))
            return
        if request.method == "GET":
            connection.answer(200, self._listed(request))
            return
        given = request.form
        to, text, callback = given.get("To", ""), given.get("Body", ""), given.get("StatusCallback")
        ours = dict(parse_qsl(urlsplit(callback).query)) if callback else {}
        message = Taken(
            provider_id=_sid(),
            message_id=ours.get("message") or f"{to}\n{text}",
            to=to,
            text=text,
            sender=given.get("From") or given.get("MessagingServiceSid", ""),
            at=datetime.now(UTC),
            callback=callback,
            twilio=True,
        )
        if not NUMBER.fullmatch(to):
            self._count(message)
            connection.answer(400, _twilio_error(400, 21211, f"Invalid 'To' Phone Number: {to}"))
        elif not message.sender or not text:
            self._count(message)
            connection.answer(400, _twilio_error(400, 21603, "A 'From' or a 'Body' is missing"))
        else:
            self._take(message, connection)

    def _count(self, message: Taken) -> None:
        self.calls[message.message_id] += 1
        self.times[message.message_id].append(time.time())

    def _take(self, message: Taken, connection: "_Connection") -> None:
        """Take the message or not, answer or not."""
        self._count(message)
        fault = self.script.popleft() if self.script else self.faults.draw(self._rng)
        if isinstance(fault, Answer):
            if fault.accept:
                self._accept(message)
            connection.answer(fault.status, fault.body, headers=fault.headers)
            return
        if fault is not None:
            self.befell[fault] += 1
        if fault is None or fault in AFTER_ACCEPT:
            message = self._accept(message)
        if fault == "too_many":
            retry_after = {"retry-after": str(self.faults.retry_after)}
            connection.answer(429, _error(message, 429, 20429), headers=retry_after)
        elif fault == "refuse_400":
            connection.answer(400, _error(message, 400, self.faults.refuse_code))
        elif fault in ("error_500", "error_500_after_accept"):
            connection.answer(500, _error(message, 500, 20500))
        elif fault in ("drop_before", "drop_after"):
            connection.abort()
        elif fault == "slow":
            self._start(self._late(message, connection))
        elif fault is None:
            self._well(message, connection)
        # What is left gets no answer until the caller has hung up.

    def _accept(self, message: Taken) -> Taken:
        """Take a message, unless it has been taken and this gateway knows ids again."""
        known = self._by_id.get(message.message_id)
        if self.idempotent and known is not None:
            return known
        self.accepted[message.message_id] += 1
        self.messages.append(message)
        self._by_id[message.message_id] = message
        self._by_number[message.to].append(message)
        if message.callback and self.faults.receipts not in ("never", "early"):
            self._start(self._tell_all(message))
        return message

    async def _late(self, message: Taken, connection: "_Connection") -> None:
        await asyncio.sleep(self.faults.slow_s)
        self._well(message, connection)

    def _well(self, message: Taken, connection: "_Connection") -> None:
        if message.callback and self.faults.receipts == "early":
            self._start(self._early(message, connection))
        else:
            connection.answer(201 if message.twilio else 200, _good(message, self.account))

    async def _early(self, message: Taken, connection: "_Connection") -> None:
        await self._tell_all(message)
        connection.answer(201 if message.twilio else 200, _good(message, self.account))

    def _listed(self, request: Request) -> dict[str, Any]:
        """Twilio's list, the newest first; what has not been sent has no date of it."""
        wanted = request.query
        size, page = int(wanted.get("PageSize", 50)), int(wanted.get("Page", 0))
        since = wanted.get("DateSent>", "")
        found = [
            message
            for message in reversed(
                self._by_number[wanted["To"]] if "To" in wanted else self.messages
            )
            if message.twilio
            and wanted.get("From", message.sender) == message.sender
            and (not since or (message.status != "queued" and message.at.isoformat() >= since))
        ]
        more = {**wanted, "Page": str(page + 1)} if len(found) > (page + 1) * size else None
        return {
            "messages": [
                _good(message, self.account) for message in found[page * size : (page + 1) * size]
            ],
            "page": page,
            "page_size": size,
            "next_page_uri": f"{request.path}?{urlencode(more)}" if more else None,
        }

    # --- callbacks -----------------------------------------------------------------------------

    async def _tell_all(self, message: Taken) -> None:
        for status in _STORIES[self.faults.receipts]:
            with suppress(httpx2.RequestError):
                await self._tell(message, status)

    async def _tell(self, message: Taken, status: str) -> None:
        message.status = status
        if message.callback is None:
            return
        if message.twilio:
            params = {
                "MessageSid": message.provider_id,
                "MessageStatus": status,
                "AccountSid": self.account,
                "To": message.to,
                "From": message.sender,
                **({"ErrorCode": "30003"} if status == "undelivered" else {}),
            }
            answered = await self._post_signed(message.callback, params)
        else:
            told = {"message_id": message.provider_id, "id": message.message_id, "status": status}
            answered = await self._post(
                message.callback, json=told, headers={"X-Jangkau-Secret": self.secret}
            )
        self.told[answered] += 1

    async def _post_signed(self, url: str, params: Mapping[str, str]) -> int:
        signature = RequestValidator(self.token).compute_signature(url, params)
        return await self._post(url, data=params, headers={"X-Twilio-Signature": signature})

    async def _post(self, url: str, **given: Any) -> int:
        if self.behind is not None:
            public, real = self.behind
            url = real + url.removeprefix(public) if url.startswith(public) else url
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=10, trust_env=False)
        return (await self._client.post(url, **given)).status_code

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until all that has to be told has been told."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort()
        if self._client is not None:
            await self._client.aclose()


def _sid() -> str:
    return f"SM{uuid4().hex}"


def _good(message: Taken, account: str) -> dict[str, Any]:
    if not message.twilio:
        return {"status": "ok", "message_id": message.provider_id}
    return {
        "sid": message.provider_id,
        "account_sid": account,
        "to": message.to,
        "from": message.sender,
        "body": message.text,
        "status": message.status,
        "direction": "outbound-api",
        "date_created": format_datetime(message.at),
        "date_sent": None if message.status == "queued" else format_datetime(message.at),
        "error_code": None,
    }


def _error(message: Taken, status: int, code: int) -> dict[str, Any]:
    if message.twilio:
        return _twilio_error(status, code, "as ordered")
    return {"status": "error", "error": "as ordered"}


def _twilio_error(status: int, code: int, words: str) -> dict[str, Any]:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": words, "more_info": more, "status": status}


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a client of ours needs it; written by hand to be faster than they are."""

    def __init__(self, stub: Gateway) -> None:
        self.stub = stub
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.stub._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.stub._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (request := self._next()) is not None:
            self.stub._serve(request, self)

    def _next(self) -> Request | None:
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length") or 0)
        if len(rest) < length:
            return None
        self.buffer = rest[length:]
        method, target, _ = first.split(" ")
        return Request(method, target, headers, rest[:length])

    def answer(self, status: int, body: Any, *, headers: Mapping[str, str] | None = None) -> None:
        if self.transport is None:
            return
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        kind = "text/plain" if isinstance(body, str) else "application/json"
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.transport.write(
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Said')}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(content)}\r\n{more}\r\n".encode()
            + content
        )

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


@asynccontextmanager
async def gateway(
    *, port: int = 0, faults: Faults | None = None, **given: Any
) -> AsyncIterator[Gateway]:
    """Listen on 127.0.0.1 (a free port, if none is given) until the end of the block.

    ``given``: other fields of :class:`Gateway`.
    """
    stub = Gateway(faults=faults or Faults(), **given)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(stub), "127.0.0.1", port, backlog=1024)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
        await stub._close()


async def serve(arguments: argparse.Namespace) -> None:
    """Say the address, and listen until a signal comes."""
    faults = replace(
        Faults.spread(arguments.faults, seed=arguments.seed),
        receipts=arguments.receipts,
        slow_s=arguments.slow_s,
        **dict(arguments.fault),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with gateway(
        port=arguments.port,
        faults=faults,
        idempotent=arguments.idempotent,
        receipts_to=arguments.receipts_to,
        secret=arguments.secret,
        **({"token": arguments.token} if arguments.token else {}),
    ) as stub:
        print(stub.url, flush=True)
        await stop.wait()


def _fault(words: str) -> tuple[str, float]:
    name, _, share = words.partition("=")
    if name not in FAULTS or not share:
        raise argparse.ArgumentTypeError(f"{words!r} is no fault=share")
    return name, float(share)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ops.gateway", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=float, default=0, help="share of calls that fail somehow")
    parser.add_argument("--fault", type=_fault, action="append", default=[], help="timeout_after=1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow-s", type=float, default=10)
    parser.add_argument("--receipts", choices=get_args(Receipts), default="normal")
    parser.add_argument("--receipts-to", help="where the plain dialect tells what became of it")
    parser.add_argument("--secret", default="", help="what it shows there")
    parser.add_argument("--token", help="the token of Twilio's dialect")
    parser.add_argument("--idempotent", action="store_true", help="it knows our ids again")
    arguments = parser.parse_args()
    if sys.platform == "win32":
        asyncio.run(serve(arguments))
    else:
        import uvloop

        uvloop.run(serve(arguments))


if __name__ == "__main__":
    main()
