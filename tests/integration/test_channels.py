"""Channels against real servers: mail over aiosmtpd, HTTP over our own gateway with its faults."""

import asyncio
import base64
import contextlib
import json
import random
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import httpx2
import pytest
import uvicorn
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from ops.gateway import FAULTS, Answer, Fault, Faults, Gateway, Receipts, gateway
from ops.processes import free_port
from services.notification.channels import (
    Channel,
    Incoming,
    Outgoing,
    PermanentFailure,
    Receipt,
    TransientFailure,
    UnknownOutcome,
    sms,
    twilio,
)
from services.notification.channels.apprise import Apprise
from services.notification.channels.email import Email
from services.notification.channels.sms import Sms
from services.notification.channels.twilio import Twilio
from services.notification.settings import NotificationSettings

PHONE, ADDRESS = "+6281234567890", "siti@example.org"
TIMEOUT_S = 0.6


def outgoing(address: str, **values: Any) -> Outgoing:
    given: dict[str, Any] = {
        "idempotency_key": uuid4(),
        "address": address,
        "short_text": "JANGKAU K7P2M: bisa datang? Balas K7P2M YA",
        "subject": "lansia terlantar di Berok",
        "long_text": "Yth. Siti,\n\nBisa datang? Selamat pagi — «terima kasih» é.\n",
        **values,
    }
    return Outgoing(**given)


@asynccontextmanager
async def using(
    kind: Callable[[NotificationSettings], Channel], **given: Any
) -> AsyncIterator[Any]:
    """A channel with these settings, closed at the end."""
    given = {"provider_timeout_seconds": 5, **given}
    channel = kind(NotificationSettings(**given))
    try:
        yield channel
    finally:
        await channel.close()


# --- e-mail ---------------------------------------------------------------------------------------


@dataclass
class Mailbox:
    """A real SMTP server that answers as it is told; ``mails`` is what it took."""

    tls: ssl.SSLContext | None = None
    implicit: bool = False
    utf8: bool = False  # it takes addresses that are not ASCII
    password: str | None = None
    mails: list[EmailMessage] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    connections: list[SMTP] = field(default_factory=list)
    at_sender: str = "250 OK"
    at_recipient: str = "250 OK"
    at_data: str = "250 OK"
    drop: str = ""  # sender, recipient or data: where the connection ends
    silent: str = ""  # where nothing is answered any more
    encrypted: list[bool] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    @property
    def settings(self) -> dict[str, Any]:
        return {"smtp_port": self.port, "smtp_from": "Jangkau <jangkau@example.org>"}

    @property
    def open(self) -> int:
        return sum(
            each.transport is not None and not each.transport.is_closing()
            for each in self.connections
        )

    def hang_up(self) -> None:
        """End all connections, as a server does that has waited long enough."""
        for each in self.connections:
            if each.transport is not None:
                each.loop.call_soon_threadsafe(each.transport.abort)  # type: ignore[attr-defined]
        wait_until(lambda: self.open == 0)

    async def _maybe(self, where: str, server: SMTP) -> None:
        if self.drop == where:
            server.transport.abort()  # type: ignore[union-attr]
        if self.silent == where:
            await asyncio.sleep(60)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await self._maybe("sender", server)
        if self.at_sender.startswith("250"):
            envelope.mail_from = address
        return self.at_sender

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await self._maybe("recipient", server)
        if self.at_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.at_recipient

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.at_data.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            self.raw.append(content)
            self.mails.append(message_from_bytes(content, policy=policy.default))
            self.encrypted.append(session.ssl is not None or self.implicit)
        await self._maybe("data", server)
        return self.at_data

    def login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        # Not handled: the server itself says what came of it.
        return AuthResult(success=data.password.decode() == self.password, handled=False)


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 90  # it happens at once, or on a slow machine later
    while not holds():
        assert time.monotonic() < ends, "it has not come to that"
        time.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not holds():  # noqa: ASYNC110 - the server lives in another thread
            await asyncio.sleep(0.01)


@contextmanager
def smtp(**given: Any) -> Iterator[Mailbox]:
    """A mailbox on a free port, in a thread of its own."""
    mailbox = Mailbox(**given)

    class Counted(Controller):
        def factory(self) -> SMTP:
            made: SMTP = super().factory()  # type: ignore[no-untyped-call]
            mailbox.connections.append(made)
            return made

    login: dict[str, Any] = {}
    if mailbox.password is not None:
        login = {
            "authenticator": mailbox.login,
            "auth_required": not mailbox.implicit,
            # It knows only of TLS that began with STARTTLS.
            "auth_require_tls": not mailbox.implicit,
        }
    controller = Counted(
        mailbox,
        hostname="127.0.0.1",
        port=mailbox.port,
        ssl_context=mailbox.tls if mailbox.implicit else None,
        tls_context=None if mailbox.implicit else mailbox.tls,
        enable_SMTPUTF8=mailbox.utf8,
        **login,
    )
    controller.start()
    # aiosmtpd looks with a connection of its own whether it has started.
    wait_until(lambda: mailbox.open == 0)
    mailbox.connections.clear()
    try:
        yield mailbox
    finally:
        controller.stop()


@dataclass
class Certificate:
    """Made by ourselves for 127.0.0.1."""

    file: Path
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return Certificate(folder / "cert.pem", context)


async def test_many_mails_go_over_one_connection() -> None:
    with smtp() as box:
        async with using(Email, **box.settings) as mail:
            for _ in range(20):
                await mail.send(outgoing(ADDRESS))
            assert len(box.connections) == 1
            assert box.open == 1
        assert len(box.mails) == 20
        await until(lambda: box.open == 0)


async def test_a_burst_takes_as_many_connections_as_are_allowed() -> None:
    with smtp() as box:
        async with using(Email, **box.settings, smtp_connections=3) as mail:
            assert mail.concurrency == 3
            await asyncio.gather(*(mail.send(outgoing(ADDRESS)) for _ in range(30)))
            assert len(box.mails) == 30
            assert len(box.connections) <= 3


async def test_a_connection_that_the_server_has_closed_is_made_anew() -> None:
    with smtp() as box:
        async with using(Email, **box.settings) as mail:
            await mail.send(outgoing(ADDRESS))
            box.hang_up()
            await mail.send(outgoing(ADDRESS))
            assert len(box.connections) == 2
        assert len(box.mails) == 2


async def test_a_connection_that_dies_just_as_it_is_taken_again_is_made_anew() -> None:
    """The server hangs up, or says 421, in answer to MAIL: nothing has been taken."""
    for drop, at_sender in (("sender", "250 OK"), ("", "421 idle for too long")):
        with smtp() as box:
            async with using(Email, **box.settings) as mail:
                await mail.send(outgoing(ADDRESS))
                box.drop, box.at_sender = drop, at_sender
                sending = asyncio.create_task(mail.send(outgoing(ADDRESS)))
                await until(lambda: len(box.connections) == 2)
                with pytest.raises(TransientFailure):
                    await sending  # the new one fared no better
                box.drop, box.at_sender = "", "250 OK"
                await mail.send(outgoing(ADDRESS))
            assert len(box.mails) == 2


async def test_a_connection_that_nobody_uses_is_closed() -> None:
    with smtp() as box:
        async with using(Email, **box.settings, smtp_idle_seconds=0.2) as mail:
            await mail.send(outgoing(ADDRESS))
            assert box.open == 1
            await until(lambda: box.open == 0)
            await mail.send(outgoing(ADDRESS))
            assert len(box.connections) == 2


@pytest.mark.parametrize(
    ("fault", "kind", "taken"),
    [
        ({"drop": "sender"}, TransientFailure, 0),
        ({"drop": "recipient"}, TransientFailure, 0),
        ({"drop": "data"}, UnknownOutcome, 1),
        ({"silent": "sender"}, TransientFailure, 0),
        ({"silent": "recipient"}, TransientFailure, 0),
        ({"silent": "data"}, UnknownOutcome, 1),
        ({"at_sender": "421 closing"}, TransientFailure, 0),
        # Who may send is about us, not about the person.
        ({"at_sender": "550 who are you"}, TransientFailure, 0),
        ({"at_recipient": "421 closing"}, TransientFailure, 0),
        ({"at_recipient": "451 greylisted"}, TransientFailure, 0),
        ({"at_recipient": "550 no such mailbox"}, PermanentFailure, 0),
        ({"at_data": "421 closing"}, TransientFailure, 0),
        ({"at_data": "451 disk full"}, TransientFailure, 0),
        ({"at_data": "550 no"}, PermanentFailure, 0),
    ],
)
async def test_a_fault_of_the_mail_server_is_of_its_kind(
    fault: dict[str, str], kind: type[Exception], taken: int
) -> None:
    with smtp(**fault) as box:
        async with using(Email, **box.settings, provider_timeout_seconds=TIMEOUT_S) as mail:
            with pytest.raises(kind):
                await mail.send(outgoing(ADDRESS))
            assert len(box.mails) == taken
            for name in fault:
                setattr(box, name, getattr(Mailbox(), name))
            await mail.send(outgoing(ADDRESS))
            assert len(box.mails) == taken + 1


@pytest.mark.parametrize("where", ["at_recipient", "at_data"])
async def test_a_refused_recipient_costs_no_connection(where: str) -> None:
    with smtp() as box:
        async with using(Email, **box.settings) as mail:
            setattr(box, where, "550 no such mailbox")
            with pytest.raises(PermanentFailure):
                await mail.send(outgoing(ADDRESS))
            setattr(box, where, "250 OK")
            await mail.send(outgoing(ADDRESS))
            assert (len(box.connections), len(box.mails)) == (1, 1)


async def test_a_server_that_is_away_took_nothing() -> None:
    async with using(Email, smtp_port=free_port()) as mail:
        with pytest.raises(TransientFailure):
            await mail.send(outgoing(ADDRESS))


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_and_password_go_over_tls(certificate: Certificate, security: str) -> None:
    with smtp(tls=certificate.context, implicit=security == "tls", password="hush") as box:
        secure = {
            **box.settings,
            "smtp_security": security,
            "smtp_ca_file": str(certificate.file),
            "smtp_username": "jangkau",
        }
        async with using(Email, **secure, smtp_password="hush") as mail:
            await mail.send(outgoing(ADDRESS))
            await mail.send(outgoing(ADDRESS))
        assert box.encrypted == [True, True]
        assert len(box.connections) == 1
        async with using(Email, **secure, smtp_password="wrong") as mail:
            with pytest.raises(TransientFailure, match="535"):
                await mail.send(outgoing(ADDRESS))
        assert len(box.mails) == 2


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_gets_no_mail(
    certificate: Certificate, security: str
) -> None:
    with smtp(tls=certificate.context, implicit=security == "tls") as box:
        async with using(Email, **box.settings, smtp_security=security) as mail:
            with pytest.raises(TransientFailure):
                await mail.send(outgoing(ADDRESS))
        assert box.mails == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_server_without_tls_gets_no_mail_that_asks_for_it(security: str) -> None:
    with smtp() as box:
        settings = {**box.settings, "provider_timeout_seconds": TIMEOUT_S}
        async with using(Email, **settings, smtp_security=security) as mail:
            with pytest.raises(TransientFailure):
                await mail.send(outgoing(ADDRESS))
        assert box.mails == []


async def test_a_mail_says_what_it_is_and_where_answers_go() -> None:
    with smtp() as box:
        async with using(Email, **box.settings, smtp_reply_to="desk@example.org") as mail:
            message = outgoing(ADDRESS)
            await mail.send(message)
            await mail.send(message)
            await mail.send(outgoing(ADDRESS))
    first, again, other = box.mails
    assert first["To"] == ADDRESS
    assert first["From"] == "Jangkau <jangkau@example.org>"
    assert first["Subject"] == "lansia terlantar di Berok"
    assert first["Reply-To"] == "desk@example.org"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Message-ID"] == f"<{message.idempotency_key}@example.org>"
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert first["Date"].datetime - datetime.now(UTC) < timedelta(minutes=1)
    assert first.get_content().splitlines() == message.long_text.splitlines()
    assert all(raw.isascii() for raw in box.raw), "a server need not take eight bits"


@pytest.mark.parametrize(
    "address",
    [
        "søren@example.org",
        "a b@c",
        ",@x",
        "<@>",
        '"@x',
        "a@b>",
        "@",
        "",
        "a@b\nBcc: c@d",
        "a,b@c.d",
    ],
)
async def test_an_address_that_no_server_takes_is_refused_for_good(address: str) -> None:
    with smtp() as box:
        async with using(Email, **box.settings) as mail:
            with pytest.raises(PermanentFailure):
                await mail.send(outgoing(address))
            await mail.send(outgoing(ADDRESS))
        assert [found["To"] for found in box.mails] == [ADDRESS]


async def test_an_address_in_other_letters_gets_its_mail_from_a_server_that_takes_it() -> None:
    with smtp(utf8=True) as box:
        async with using(Email, **box.settings) as mail:
            await mail.send(outgoing("søren@example.org"))
        assert [found["To"] for found in box.mails] == ["søren@example.org"]


# --- a gateway over HTTP --------------------------------------------------------------------------

# What comes of a call, and how often a telephone would have rung.
MATRIX: list[tuple[Fault, type[Exception] | None, int]] = [
    ("too_many", TransientFailure, 0),
    ("refuse_400", PermanentFailure, 0),
    ("error_500", UnknownOutcome, 0),
    ("error_500_after_accept", UnknownOutcome, 1),
    ("timeout_before", UnknownOutcome, 0),
    ("timeout_after", UnknownOutcome, 1),
    ("drop_before", UnknownOutcome, 0),
    ("drop_after", UnknownOutcome, 1),
    ("slow", None, 1),
]
KINDS: list[Callable[[NotificationSettings], Channel]] = [Sms, Twilio]


def settings_of(kind: Callable[..., Channel], stub: Gateway) -> dict[str, Any]:
    return stub.sms_settings if kind is Sms else stub.twilio_settings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "error", "rung"), MATRIX)
async def test_a_fault_of_the_gateway_is_of_its_kind_and_the_call_is_made_once(
    kind: Callable[[NotificationSettings], Channel],
    fault: Fault,
    error: type[Exception] | None,
    rung: int,
) -> None:
    async with gateway(faults=Faults(slow_s=0.2, retry_after=7, receipts="never")) as stub:
        given = {**settings_of(kind, stub), "provider_timeout_seconds": TIMEOUT_S}
        async with using(kind, **given) as channel:
            await channel.send(outgoing(PHONE))  # on a connection that is kept
            message = outgoing(PHONE, short_text=f"another text {uuid4()}")
            stub.script.append(fault)
            if error is None:
                assert await channel.send(message) == stub.messages[-1].provider_id
            else:
                with pytest.raises(error) as failure:
                    await channel.send(message)
                if isinstance(failure.value, TransientFailure):
                    assert failure.value.retry_after == timedelta(seconds=7)
            assert stub.calls.total() == 2, "one call, and the one before"
            assert stub.accepted.total() == 1 + rung
            await channel.send(outgoing(PHONE))  # and goes on


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_a_get_is_not_repeated_behind_our_back(method: str) -> None:
    """HTTP libraries repeat what they hold for harmless: a GET that sends an SMS is not."""
    async with gateway() as stub:
        url = f"{stub.url}/send?to={{to}}&text={{text}}&id={{id}}"
        async with using(Sms, sms_url=url, sms_method=method) as channel:
            await channel.send(outgoing(PHONE))
            message = outgoing(PHONE)
            stub.script.append("drop_after")
            with pytest.raises(UnknownOutcome):
                await channel.send(message)
            assert stub.calls[str(message.idempotency_key)] == 1


async def test_a_gateway_gets_the_number_the_text_and_our_id() -> None:
    async with gateway() as stub:
        given = {
            **stub.sms_settings,
            "sms_authorization": "Key hush",
            "sms_headers": {"X-Account": "{user}", "X-Key": "{secret}"},
            "sms_user": "dinsos",
            "sms_secret": "hush2",
        }
        async with using(Sms, **given) as channel:
            message = outgoing(PHONE, short_text='"ya" & tidak?\n{id}')
            assert await channel.send(message) == stub.messages[0].provider_id
    (asked,) = stub.requests
    assert json.loads(asked.body) == {
        "to": PHONE,
        "text": message.short_text,
        "id": str(message.idempotency_key),
    }
    assert asked.headers["authorization"] == "Key hush"
    assert (asked.headers["x-account"], asked.headers["x-key"]) == ("dinsos", "hush2")
    assert asked.headers["idempotency-key"] == str(message.idempotency_key)


async def test_a_get_with_everything_in_its_address_arrives_as_it_was_meant() -> None:
    async with gateway() as stub:
        url = f"{stub.url}/send?to={{to}}&text={{text}}&id={{id}}&key={{secret}}"
        given = {"sms_url": url, "sms_method": "GET", "sms_secret": "a+b&c=d"}
        async with using(Sms, **given) as channel:
            message = outgoing(PHONE, short_text="50% & +1; «ya»? #a=b")
            await channel.send(message)
        (asked,) = stub.requests
        assert asked.query == {
            "to": PHONE,
            "text": message.short_text,
            "id": str(message.idempotency_key),
            "key": "a+b&c=d",
        }
        assert asked.body == b""


async def test_a_gateway_that_knows_our_id_again_sends_nothing_twice() -> None:
    async with gateway(idempotent=True) as stub, using(Sms, **stub.sms_settings) as channel:
        assert channel.supports_idempotency
        message = outgoing(PHONE)
        stub.script.append("error_500_after_accept")
        with pytest.raises(UnknownOutcome):
            await channel.send(message)
        assert await channel.send(message) == stub.messages[0].provider_id
        assert stub.calls.total() == 2
        assert stub.accepted.total() == 1


async def test_a_gateway_can_be_asked_what_became_of_an_unknown_call() -> None:
    async with gateway() as stub:
        given = {**stub.sms_settings, "sms_lookup_url": stub.lookup_url}
        async with using(Sms, **given) as channel:
            assert channel.supports_lookup
            taken, lost = outgoing(PHONE), outgoing(PHONE)
            now = datetime.now(UTC)
            for message, fault in ((taken, "drop_after"), (lost, "drop_before")):
                stub.script.append(fault)  # type: ignore[arg-type]
                with pytest.raises(UnknownOutcome):
                    await channel.send(message)
            assert await channel.lookup(taken, since=now) == stub.messages[0].provider_id
            assert await channel.lookup(lost, since=now) is None
        away = {**given, "sms_lookup_url": f"http://127.0.0.1:{free_port()}/{{id}}"}
        unclear = {**given, "sms_lookup_url": f"{stub.url}/stats?{{id}}"}
        for other in (away, unclear):
            async with using(Sms, **other) as channel:
                with pytest.raises(TransientFailure):
                    await channel.lookup(taken, since=now)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_gateway_that_is_away_took_nothing(
    kind: Callable[[NotificationSettings], Channel],
) -> None:
    stub = Gateway(f"http://127.0.0.1:{free_port()}")
    async with using(kind, **settings_of(kind, stub)) as channel:
        with pytest.raises(TransientFailure):
            await channel.send(outgoing(PHONE))


@contextmanager
def deaf() -> Iterator[str]:
    """The address of a host that never takes a connection: its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_a_gateway_that_takes_no_connection_took_nothing_and_gives_up_in_time() -> None:
    with deaf() as url:
        given = {"sms_url": f"{url}/send", "provider_timeout_seconds": TIMEOUT_S}
        async with using(Sms, **given) as channel:
            with pytest.raises(TransientFailure, match="ConnectionTimeoutError"):
                await channel.send(outgoing(PHONE))


async def test_a_gateway_whose_certificate_nobody_vouches_for_gets_nothing(
    certificate: Certificate,
) -> None:
    asked = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with using(Sms, sms_url=url) as channel:
            with pytest.raises(TransientFailure, match="Certificate"):
                await channel.send(outgoing(PHONE))
    assert asked == []


async def test_no_error_repeats_a_key_or_a_number() -> None:
    """They are stored and shown, and the address of a GET holds both."""
    query = "/send?to={digits}&text={text}&key={secret}"
    faults: list[Fault] = ["drop_after", "timeout_before", "error_500", "refuse_400", "too_many"]
    async with gateway() as stub:
        with deaf() as nowhere:
            closed = f"http://127.0.0.1:{free_port()}"
            for base in (stub.url, closed, nowhere, "http://no-such-host.invalid"):
                given = {
                    "sms_url": base + query,
                    "sms_lookup_url": base + query + "&id={id}",
                    "sms_body": "{id}",
                    "sms_content_type": "text/plain",
                    "sms_secret": "canary-key",
                    "provider_timeout_seconds": TIMEOUT_S,
                }
                async with using(Sms, **given, sms_method="PUT") as channel:
                    for fault in faults if base == stub.url else faults[:1]:
                        stub.script.append(fault)
                        for work in (
                            channel.send(outgoing(PHONE)),
                            channel.lookup(outgoing(PHONE), since=datetime.now(UTC)),
                        ):
                            try:
                                await work
                            except (PermanentFailure, TransientFailure, UnknownOutcome) as error:
                                assert "canary" not in str(error)
                                assert "81234567890" not in str(error)
                        stub.script.clear()


# --- our own gateway ------------------------------------------------------------------------------


def test_a_share_of_faults_is_drawn_as_ordered_and_the_same_again() -> None:
    faults = Faults.spread(0.09, seed=7)
    drawn = [
        [faults.draw(rng) for _ in range(20_000)] for rng in (random.Random(7), random.Random(7))
    ]
    assert drawn[0] == drawn[1]
    counts = Counter(drawn[0])
    assert set(counts) == {None, *FAULTS}
    for fault in FAULTS:
        assert 0.005 < counts[fault] / 20_000 < 0.016, fault
    assert Faults(timeout_after=1).draw(random.Random(1)) == "timeout_after"
    assert Faults().draw(random.Random(1)) is None


async def test_our_gateway_runs_by_itself_and_tells_the_truth() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ops.gateway", "--fault", "error_500_after_accept=1", "--seed", "3",
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        async with using(Sms, **Gateway(url).sms_settings) as channel:
            message = outgoing(PHONE)
            for _ in range(2):
                with pytest.raises(UnknownOutcome):
                    await channel.send(message)
        async with httpx2.AsyncClient() as client:
            stats = (await client.get(f"{url}/stats")).json()
            truth = (await client.get(f"{url}/truth")).json()
        assert (stats["calls"], stats["accepted"], stats["reached"]) == (2, 2, 1)
        assert stats["more_than_once"] == 1
        assert stats["faults"] == {"error_500_after_accept": 2}
        assert truth == {str(message.idempotency_key): [2, 2]}
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0


# --- gateways of the country, by what is publicly known of them (docs/how-to/channels.md) ---------

ZENZIVA = {
    "sms_method": "POST",
    "sms_content_type": "application/x-www-form-urlencoded",
    "sms_body": "userkey={user}&passkey={secret}&to={local}&message={text}",
    "sms_user": "userkey",
    "sms_secret": "passkey",
    "sms_success": "json:status=1",
    "sms_message_id": "json:messageId",
}


def zenziva(status: str, text: str) -> str:
    found = {"messageId": "1412", "to": "081234567890", "status": status, "text": text, "cost": 1}
    return json.dumps(found)


async def test_zenziva_is_a_template_and_two_rules() -> None:
    async with gateway() as stub:
        async with using(Sms, **ZENZIVA, sms_url=f"{stub.url}/send") as channel:
            stub.script.append(Answer(200, zenziva("1", "Success"), accept=True))
            assert await channel.send(outgoing(PHONE)) == "1412"
            (asked,) = stub.requests
            assert dict(parse_qsl(asked.body.decode())) == {
                "userkey": "userkey",
                "passkey": "passkey",
                "to": "081234567890",
                "message": outgoing(PHONE).short_text,
            }
            # Its words for errors are not documented: what they are, they are no success.
            stub.script.append(Answer(200, zenziva("0", "Insufficient balance")))
            with pytest.raises(UnknownOutcome, match="Insufficient balance"):
                await channel.send(outgoing(PHONE))
        learnt = {**ZENZIVA, "sms_transient": "re:(?i)balance", "sms_permanent": "re:(?i)number"}
        async with using(Sms, **learnt, sms_url=f"{stub.url}/send") as channel:
            stub.script.append(Answer(200, zenziva("0", "Insufficient balance")))
            with pytest.raises(TransientFailure):
                await channel.send(outgoing(PHONE))
            stub.script.append(Answer(200, zenziva("0", "Invalid number")))
            with pytest.raises(PermanentFailure):
                await channel.send(outgoing(PHONE))


RAJASMS = {
    "sms_body": '{"apikey": "{secret}", "callbackurl": "", "datapacket": '
    '[{"number": "{digits}", "message": "{text}", "sendingdatetime": ""}]}',
    "sms_secret": "0123456789abcdef0123456789abcdef",
    "sms_success": "json:sending_respon.0.datapacket.0.packet.sendingstatus=10",
    "sms_message_id": "json:sending_respon.0.datapacket.0.packet.sendingid",
    "sms_permanent": r're:"sendingstatus"\s*:\s*"?(60|70)\b',
    "sms_transient": r're:"globalstatus"\s*:\s*"?[2345][05]\b|"sendingstatus"\s*:\s*"?80\b',
}


def rajasms(globalstatus: int, sendingstatus: int | None = None) -> str:
    packet = {
        "number": "6281234567890",
        "sendingid": 177221,
        "sendingstatus": sendingstatus,
        "sendingstatustext": "words",
        "price": 350,
    }
    respon: dict[str, Any] = {"globalstatus": globalstatus, "globalstatustext": "words"}
    if sendingstatus is not None:
        respon["datapacket"] = [{"packet": packet}]
    return json.dumps({"sending_respon": [respon]})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (rajasms(10, 60), PermanentFailure),  # the number
        (rajasms(10, 70), PermanentFailure),  # the text
        (rajasms(10, 80), TransientFailure),  # the balance
        (rajasms(30), TransientFailure),  # the key
        (rajasms(35), TransientFailure),  # too many
        (rajasms(50), TransientFailure),  # expired
        (rajasms(10, 90), UnknownOutcome),  # "system error"
        (rajasms(99), UnknownOutcome),
    ],
)
async def test_rajasms_is_a_template_and_four_rules(answer: str, kind: type[Exception]) -> None:
    async with (
        gateway() as stub,
        using(Sms, **RAJASMS, sms_url=f"{stub.url}/send") as channel,
    ):
        stub.script.append(Answer(200, rajasms(10, 10), accept=True))
        assert await channel.send(outgoing(PHONE)) == "177221"
        asked = json.loads(stub.requests[0].body)
        assert asked["datapacket"][0]["number"] == "6281234567890"
        assert asked["datapacket"][0]["message"] == outgoing(PHONE).short_text
        stub.script.append(Answer(200, answer))
        with pytest.raises(kind):
            await channel.send(outgoing(PHONE))


# --- Twilio ---------------------------------------------------------------------------------------


async def test_twilio_is_spoken_to_as_it_wants() -> None:
    async with gateway() as stub:
        given = {**stub.twilio_settings, **REAL, "public_url": "https://relawan.example/"}
        stub.faults = Faults(receipts="never")
        message = outgoing(PHONE, short_text="50% & +1; «ya»?")
        async with using(Twilio, **given) as channel:
            sid = await channel.send(message)
        (asked,) = stub.requests
        assert asked.path == f"/2010-04-01/Accounts/{stub.account}/Messages.json"
        credentials = asked.headers["authorization"].removeprefix("Basic ")
        assert base64.b64decode(credentials).decode() == f"{stub.account}:{stub.token}"
        assert asked.form == {
            "To": PHONE,
            "From": "+15005550006",
            "Body": message.short_text,
            "StatusCallback": "https://relawan.example/v1/receipts/twilio"
            f"?message={message.idempotency_key}",
        }
        assert sid == stub.messages[0].provider_id
        service = {**given, "twilio_from": "", "twilio_messaging_service_sid": "MG1"}
        async with using(Twilio, **service, twilio_receipts=False) as channel:
            await channel.send(message)
        form = stub.requests[-1].form
        assert form["MessagingServiceSid"] == "MG1"
        assert not {"From", "StatusCallback"} & set(form)


async def test_twilio_that_does_not_know_us_took_nothing() -> None:
    async with gateway() as stub:
        given = {**stub.twilio_settings, "twilio_auth_token": "wrong"}
        async with using(Twilio, **given) as channel:
            with pytest.raises(TransientFailure, match="20003"):
                await channel.send(outgoing(PHONE))
            with pytest.raises(TransientFailure):
                await channel.lookup(outgoing(PHONE), since=datetime.now(UTC))


async def test_twilio_refuses_a_number_that_is_none() -> None:
    async with gateway() as stub, using(Twilio, **stub.twilio_settings) as channel:
        with pytest.raises(PermanentFailure, match="21211"):
            await channel.send(outgoing("+12"))
        assert stub.accepted.total() == 0


async def test_twilios_list_says_what_became_of_an_unknown_call() -> None:
    async with gateway() as stub:
        given = {**stub.twilio_settings, "twilio_lookup_after_seconds": 0}
        async with using(Twilio, **given) as channel:
            now = datetime.now(UTC)
            taken = outgoing(PHONE, short_text="one")
            lost = outgoing(PHONE, short_text="two")
            stub.script.extend(["timeout_after", "error_500"])
            channel._provider.timeout_s = TIMEOUT_S
            for message in (taken, lost):
                with pytest.raises(UnknownOutcome):
                    await channel.send(message)
            assert await channel.lookup(taken, since=now) == stub.messages[0].provider_id
            assert await channel.lookup(lost, since=now) is None
            elsewhere = outgoing("+6281234567891", short_text="one")
            assert await channel.lookup(elsewhere, since=now) is None
            # The same text of last week is not this message.
            stub.messages[0].at -= timedelta(days=7)
            assert await channel.lookup(taken, since=now) is None


async def test_a_message_that_twilio_has_not_sent_yet_is_found_too() -> None:
    """It has no date of sending, which is why that date is not asked for."""
    async with gateway(faults=Faults(receipts="never")) as stub:
        given = {**stub.twilio_settings, "twilio_lookup_after_seconds": 0}
        async with using(Twilio, **given) as channel:
            now = datetime.now(UTC)
            message = outgoing(PHONE)
            sid = await channel.send(message)
            assert stub.messages[0].status == "queued"
            assert await channel.lookup(message, since=now) == sid


async def test_a_message_is_found_on_a_later_page_of_twilios_list() -> None:
    async with gateway() as stub:
        given = {**stub.twilio_settings, "twilio_lookup_after_seconds": 0}
        async with using(Twilio, **given) as channel:
            now = datetime.now(UTC)
            messages = [outgoing(PHONE, short_text=f"text {n}") for n in range(230)]
            for message in messages:
                await channel.send(message)
            found = await channel.lookup(messages[0], since=now)
            assert found == stub.messages[0].provider_id
            assert await channel.lookup(outgoing(PHONE, short_text="none"), since=now) is None


# --- webhooks -------------------------------------------------------------------------------------


@dataclass
class Door:
    """A real HTTP server of ours that keeps what it is told."""

    url: str = ""
    told: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        body = (await receive()).get("body", b"")
        query = scope["query_string"].decode()
        path = scope["path"] + (f"?{query}" if query else "")
        self.told.append((path, {k.decode(): v.decode() for k, v in scope["headers"]}, body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def signed(self, settings: NotificationSettings) -> list[dict[str, str]]:
        """The parameters of what was told, all of it signed by Twilio for our public address."""
        found = []
        for path, headers, body in self.told:
            params = dict(parse_qsl(body.decode(), keep_blank_values=True))
            signature = headers.get("x-twilio-signature")
            assert twilio.is_signed(path, params, signature, settings=settings)
            assert not twilio.is_signed(path, {**params, "x": "y"}, signature, settings=settings)
            found.append({**dict(parse_qsl(path.partition("?")[2])), **params})
        return found


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    port = free_port()
    made.url = f"http://127.0.0.1:{port}"
    config = uvicorn.Config(made, host="127.0.0.1", port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())  # without taking over pytest's signals
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield made
    server.should_exit = True
    await serving


PUBLIC = "https://relawan.example"
REAL = {
    "channels": "twilio",
    "environment": "production",
    "link_keys": "a key of this year",
    "public_url": PUBLIC,
}


@pytest.mark.parametrize(
    ("mode", "states"),
    [
        ("normal", ["sent", "delivered"]),
        ("early", ["sent", "delivered"]),
        ("twice", ["sent", "sent", "delivered", "delivered"]),
        ("out_of_order", ["delivered", "sent"]),
        ("undelivered", ["sent", "undelivered"]),
        ("never", []),
    ],
)
async def test_twilio_tells_signed_what_became_of_a_message(
    door: Door, mode: Receipts, states: list[str]
) -> None:
    async with gateway(faults=Faults(receipts=mode), behind=(PUBLIC, door.url)) as stub:
        given = {**stub.twilio_settings, **REAL}
        async with using(Twilio, **given) as channel:
            message = outgoing(PHONE)
            sid = await channel.send(message)
            told_before = len(door.told)
            await stub.settled()
            receipts = [twilio.read_receipt(each) for each in door.signed(channel.settings)]
            assert [found.state for found in receipts if found] == states
            assert all(
                found and (found.provider_id, found.message_id) == (sid, message.idempotency_key)
                for found in receipts
            )
            assert told_before == (2 if mode == "early" else 0)
            errors = {found.error for found in receipts if found}
            assert errors <= {None, "Twilio's code 30003"}
            assert stub.told.total() == len(states) == stub.told[204]


async def test_a_person_answers_by_twilio(door: Door) -> None:
    async with gateway(behind=(PUBLIC, door.url)) as stub:
        settings = NotificationSettings(**{**stub.twilio_settings, **REAL})
        status = await stub.say(f"{PUBLIC}/v1/inbound/twilio", sender=PHONE, text="K7P2M ya")
        assert status == 204
    ((params),) = door.signed(settings)
    found = twilio.read_incoming(params)
    assert found == Incoming(params["MessageSid"], PHONE, "K7P2M ya")


async def test_a_gateway_tells_with_the_secret_what_became_of_a_message(door: Door) -> None:
    secret = "a secret of the gateway"
    async with gateway(receipts_to=f"{door.url}/v1/receipts/sms", secret=secret) as stub:
        given = {**stub.sms_settings, "sms_webhook_secret": secret, "sms_receipts": True}
        async with using(Sms, **given) as channel:
            message = outgoing(PHONE)
            gateways = await channel.send(message)
            await stub.settled()
            await stub.say(f"{door.url}/v1/inbound/sms", sender=PHONE, text="ya", twilio=False)
            settings = channel.settings
    bodies = []
    for _, headers, raw in door.told:
        assert settings.sms_webhook_secret is not None
        assert headers["x-jangkau-secret"] == settings.sms_webhook_secret.get_secret_value()
        bodies.append(sms.read_body(raw, headers["content-type"]))
    sent, delivered, answer = bodies
    assert sms.read_receipt(sent, settings=settings) is None  # nothing new: it has been taken
    assert sms.read_receipt(delivered, settings=settings) == Receipt(
        gateways, message.idempotency_key, "delivered", None
    )
    found = sms.read_incoming(answer, settings=settings)
    assert found is not None
    assert (found.sender, found.text) == (PHONE, "ya")


# --- apprise --------------------------------------------------------------------------------------


async def test_apprise_hands_the_letter_to_whatever_its_url_names() -> None:
    async with gateway() as stub:
        url = stub.url.replace("http", "json") + "/send?:to={phone}&:message=text"
        async with using(Apprise, channels="apprise", apprise_url=url) as channel:
            message = outgoing(PHONE)
            assert await channel.send(message) == ""
            (taken,) = stub.messages
            assert taken.to == PHONE
            assert taken.text.rstrip() == message.long_text.rstrip()
            assert json.loads(stub.requests[0].body)["title"] == message.subject


@pytest.mark.parametrize(
    ("fault", "rung"),
    [("error_500", 0), ("error_500_after_accept", 1), ("drop_after", 1), ("timeout_after", 1)],
)
async def test_what_apprise_could_not_do_is_unknown_and_not_repeated(
    fault: Fault, rung: int
) -> None:
    async with gateway() as stub:
        url = stub.url.replace("http", "json") + "/send?:to={phone}&:message=text"
        given = {"apprise_url": url, "provider_timeout_seconds": TIMEOUT_S}
        async with using(Apprise, channels="apprise", **given) as channel:
            stub.script.append(fault)
            with pytest.raises(UnknownOutcome):
                await channel.send(outgoing(PHONE))
        assert (stub.calls.total(), stub.accepted.total()) == (1, rung)


async def test_one_that_apprise_waits_for_does_not_hold_up_another() -> None:
    async with gateway(faults=Faults(slow_s=0.5)) as stub:
        url = stub.url.replace("http", "json") + "/send?:to={phone}&:message=text"
        async with using(Apprise, channels="apprise", apprise_url=url) as channel:
            stub.script.extend(["slow", "slow", "slow"])
            await asyncio.gather(*(channel.send(outgoing(PHONE)) for _ in range(3)))
        begun = sorted(at for times in stub.times.values() for at in times)
        # Each is answered after half a second: one after the other they would begin a second apart.
        assert begun[-1] - begun[0] < 0.5
