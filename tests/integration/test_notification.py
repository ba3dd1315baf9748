"""Messages: one for each offer, stored before anybody is called, and never blindly sent again."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any

import pytest
import uvicorn
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from ops.processes import free_port
from services.notification import delivery
from services.notification.app import compose, make_channels
from services.notification.channels import Channel
from services.notification.delivery import Delivery
from services.notification.handlers import on_assignment_offers
from services.notification.settings import NotificationSettings
from shared.database import Database
from shared.events import OfferedVolunteer, OfferMade
from shared.health import Loop
from tests.conftest import MakeSettings
from tests.factories import made_offer, offer_made
from tests.integration.conftest import one, open_door, rows, run

PHONE, ADDRESS = "+6281234567890", "siti@example.org"


class Senders:
    """The deliveries of all channels, as one process has them."""

    def __init__(self, database: Database, settings: NotificationSettings) -> None:
        self.database = database
        self.channels: list[Channel] = make_channels(settings, database)
        self.of = {
            channel.name: Delivery(
                database,
                channel,
                self.channels,
                concurrency=settings.concurrency,
                timeout=timedelta(seconds=settings.provider_timeout_seconds),
                lease=timedelta(seconds=settings.lease_seconds),
            )
            for channel in self.channels
        }

    async def queue(self, *offers: OfferMade) -> None:
        async with self.database.transaction() as session:
            await on_assignment_offers(self.channels)(session, list(offers))

    async def send(self, channel: str) -> int:
        return await self.of[channel].send_due()

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()


Make = Callable[..., Senders]


@pytest.fixture
async def senders(notification_database: Database) -> AsyncIterator[Make]:
    """``senders(channels="sms,email", …)``"""
    made: list[Senders] = []

    def make(**settings: Any) -> Senders:
        made.append(Senders(notification_database, NotificationSettings(**settings)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def message(senders: Senders) -> Any:
    """The only message there is."""
    (found,) = await rows(senders.database, "SELECT * FROM messages")
    return found


async def attempts(senders: Senders) -> list[tuple[str, str]]:
    """Channel and outcome of each call, in order."""
    found = await rows(senders.database, "SELECT channel, state FROM attempts ORDER BY started_at")
    return [(row.channel, row.state) for row in found]


# --- one message per offer ------------------------------------------------------------------------


async def test_an_offer_is_one_message_even_if_it_comes_twice(senders: Make) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    await sandbox.queue(offer)
    await sandbox.queue(offer, offer)
    assert await one(sandbox.database, "SELECT count(*) FROM messages") == 1
    assert await sandbox.send("sandbox") == 1
    assert await sandbox.send("sandbox") == 0
    assert await one(sandbox.database, "SELECT count(*) FROM sandbox_messages") == 1


async def test_a_message_arrives_on_the_fake_phone(senders: Make) -> None:
    sandbox = senders()
    await sandbox.queue(offer_made())
    await sandbox.send("sandbox")
    sent = await message(sandbox)
    assert (sent.state, sent.attempts, sent.error) == ("sent", 1, None)
    assert sent.sent_at is not None
    (arrived,) = await rows(sandbox.database, "SELECT * FROM sandbox_messages")
    assert (arrived.address, arrived.body) == (PHONE, sent.short_text)
    assert arrived.body.startswith("JANGKAU K7P2M: lansia terlantar")
    assert await attempts(sandbox) == [("sandbox", "sent")]


async def test_the_sandbox_page_shows_the_message_and_no_script_of_it(
    settings_without_kafka: MakeSettings,
) -> None:
    door = open_door(compose(await settings_without_kafka(NotificationSettings)))
    insert = """INSERT INTO sandbox_messages (idempotency_key, address, body)
                VALUES (gen_random_uuid(), '+62811', '<script>alert(1)</script> JANGKAU K7P2M')"""
    await run(door.database, insert)
    page = await door.http.get("/sandbox")
    assert page.status_code == 200
    assert "JANGKAU K7P2M" in page.text
    assert "<script>alert" not in page.text
    await door.close()


async def test_whoever_has_no_address_on_any_channel_is_a_failure_at_once(senders: Make) -> None:
    mail = senders(channels="email")
    nobody = OfferedVolunteer(id=made_offer().offer_id, name="Siti", phone=PHONE)
    await mail.queue(offer_made(volunteer=nobody))
    found = await message(mail)
    assert (found.state, found.channel) == ("failed", None)
    assert "no channel has an address" in found.error


async def test_what_has_expired_is_never_sent(senders: Make) -> None:
    sandbox = senders()
    await sandbox.queue(offer_made(respond_by=datetime.now(UTC) - timedelta(seconds=1)))
    assert await sandbox.send("sandbox") == 0
    await sandbox.of["sandbox"].reconcile()
    found = await message(sandbox)
    assert (found.state, found.attempts) == ("expired", 0)
    assert await sandbox.send("sandbox") == 0
    assert await attempts(sandbox) == []


async def test_the_loop_sends_as_soon_as_an_offer_is_committed(senders: Make) -> None:
    sandbox = senders()
    loop = asyncio.create_task(sandbox.of["sandbox"].run(Loop("deliver", timedelta(seconds=30))))
    try:
        await sandbox.queue(*(offer_made() for _ in range(120)))
        query = "SELECT count(*) FROM messages WHERE state = 'sent'"
        async with asyncio.timeout(30):
            while await one(sandbox.database, query) < 120:  # noqa: ASYNC110 - another loop's work
                await asyncio.sleep(0.02)
    finally:
        loop.cancel()
        await asyncio.wait([loop])
    assert await one(sandbox.database, "SELECT count(*) FROM attempts") == 120


async def test_two_processes_at_once_send_each_message_once(senders: Make) -> None:
    first, second = senders(concurrency=10), senders(concurrency=10)
    await first.queue(*(offer_made() for _ in range(60)))
    for _ in range(3):
        await asyncio.gather(first.send("sandbox"), second.send("sandbox"))
    assert await one(first.database, "SELECT count(*) FROM attempts") == 60
    assert await one(first.database, "SELECT count(*) FROM sandbox_messages") == 60


# --- a process that dies in the middle ------------------------------------------------------------


class Dies(BaseException):
    """The process ends here."""


async def abandon(senders: Senders, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die between the call and the note of what came of it, and let the lease run out."""
    with monkeypatch.context() as patch:

        async def die(_: Any) -> None:
            raise Dies

        patch.setattr(senders.of[channel], "_settle", die)
        with pytest.raises(Dies):
            await senders.send(channel)
    assert (await message(senders)).state == "sending"
    await senders.of[channel].reconcile()
    assert (await message(senders)).state == "sending"  # the lease still runs
    await run(senders.database, "UPDATE attempts SET lease_until = now() - interval '1 second'")
    await senders.of[channel].reconcile()


async def test_an_abandoned_attempt_is_repeated_where_the_provider_knows_our_id(
    senders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = senders()
    await sandbox.queue(offer_made())
    await abandon(sandbox, "sandbox", monkeypatch)
    assert (await message(sandbox)).state == "queued"
    assert await sandbox.send("sandbox") == 0  # not before its time
    await run(sandbox.database, "UPDATE messages SET next_attempt_at = now()")
    await sandbox.send("sandbox")
    assert await attempts(sandbox) == [("sandbox", "unknown"), ("sandbox", "sent")]
    assert await one(sandbox.database, "SELECT count(*) FROM sandbox_messages") == 1


async def test_an_abandoned_attempt_elsewhere_goes_to_the_next_channel(
    senders: Make, smtp: "Mailbox", monkeypatch: pytest.MonkeyPatch
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    await both.queue(offer_made())
    await abandon(both, "email", monkeypatch)
    assert len(smtp.mails) == 1  # the server did take it
    found = await message(both)
    assert (found.state, found.channel) == ("queued", "sandbox")
    assert await both.send("email") == 0
    assert await both.send("sandbox") == 1
    assert await attempts(both) == [("email", "unknown"), ("sandbox", "sent")]
    assert len(smtp.mails) == 1


async def test_an_abandoned_attempt_on_the_last_channel_stays_unknown(
    senders: Make, smtp: "Mailbox", monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = senders(channels="email", **smtp.settings)
    await mail.queue(offer_made())
    await abandon(mail, "email", monkeypatch)
    assert (await message(mail)).state == "unknown"
    assert await mail.send("email") == 0


async def test_a_late_answer_does_not_undo_what_was_decided_meanwhile(
    senders: Make, monkeypatch: pytest.MonkeyPatch, smtp: "Mailbox"
) -> None:
    """A process that was stopped past its lease wakes up, and its mail was refused after all."""
    both = senders(channels="email,sandbox", **smtp.settings)
    smtp.at_data = "451 try later"
    await both.queue(offer_made())
    late: list[Any] = []
    settle = both.of["email"]._settle
    with monkeypatch.context() as patch:

        async def hold(outcomes: Any) -> None:
            late.append(outcomes)

        patch.setattr(both.of["email"], "_settle", hold)
        await both.send("email")
    await run(both.database, "UPDATE attempts SET lease_until = now() - interval '1 second'")
    await both.of["email"].reconcile()
    await both.send("sandbox")
    await settle(late[0])
    found = await message(both)
    assert (found.state, found.channel) == ("sent", "sandbox")
    assert await attempts(both) == [("email", "failed"), ("sandbox", "sent")]  # the truth of both


# --- e-mail over SMTP -----------------------------------------------------------------------------


class Mailbox:
    """A real SMTP server that answers as it is told; ``mails`` is what it took."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.at_recipient = "250 OK"
        self.at_data = "250 OK"
        self.drop_after_data = False
        self.port = free_port()

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "smtp_port": self.port,
            "smtp_from": "Jangkau <jangkau@example.org>",
            "provider_timeout_seconds": 10,
        }

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.at_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.at_recipient

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.at_data.startswith("250"):
            self.mails.append(envelope.content or b"")  # type: ignore[arg-type]
        if self.drop_after_data:
            server.transport.abort()  # type: ignore[union-attr]
        return self.at_data


@pytest.fixture
def smtp() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=mailbox.port)
    controller.start()
    yield mailbox
    controller.stop()


async def test_a_mail_arrives_with_its_letter(senders: Make, smtp: Mailbox) -> None:
    mail = senders(channels="email", **smtp.settings)
    await mail.queue(offer_made())
    await mail.send("email")
    assert (await message(mail)).state == "sent"
    arrived = message_from_bytes(smtp.mails[0], policy=policy.default)
    assert arrived["To"] == ADDRESS
    assert arrived["From"] == "Jangkau <jangkau@example.org>"
    assert arrived["Subject"] == "lansia terlantar di Berok, Kec. Koba (K7P2M)"
    assert str((await message(mail)).id) in arrived["Message-ID"]
    body = arrived.get_content()
    assert "Yth. Siti," in body
    assert "K7P2M YA" in body


@pytest.mark.parametrize("where", ["at_recipient", "at_data"])
@pytest.mark.parametrize("answer", ["421 closing", "451 try later"])
async def test_a_server_that_asks_to_come_again_gets_the_mail_later(
    senders: Make, smtp: Mailbox, where: str, answer: str
) -> None:
    mail = senders(channels="email,sandbox", **smtp.settings)
    setattr(smtp, where, answer)
    await mail.queue(offer_made())
    await mail.send("email")
    found = await message(mail)
    assert (found.state, found.channel) == ("queued", "email")
    assert answer[:3] in found.error
    assert await mail.send("email") == 0  # not before its time
    setattr(smtp, where, "250 OK")
    await run(mail.database, "UPDATE messages SET next_attempt_at = now()")
    await mail.send("email")
    assert await attempts(mail) == [("email", "failed"), ("email", "sent")]
    assert len(smtp.mails) == 1


@pytest.mark.parametrize("where", ["at_recipient", "at_data"])
async def test_a_server_that_refuses_for_good_makes_room_for_the_next_channel(
    senders: Make, smtp: Mailbox, where: str
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    setattr(smtp, where, "550 no such mailbox")
    await both.queue(offer_made())
    await both.send("email")
    await both.send("sandbox")
    assert await attempts(both) == [("email", "failed"), ("sandbox", "sent")]


async def test_a_connection_that_drops_after_data_leaves_the_outcome_unknown(
    senders: Make, smtp: Mailbox
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    smtp.drop_after_data = True
    await both.queue(offer_made())
    await both.send("email")
    assert await both.send("email") == 0
    await both.send("sandbox")
    assert await attempts(both) == [("email", "unknown"), ("sandbox", "sent")]
    assert len(smtp.mails) == 1


async def test_a_server_that_is_away_is_tried_again(senders: Make) -> None:
    mail = senders(channels="email", smtp_port=free_port())
    await mail.queue(offer_made())
    await mail.send("email")
    found = await message(mail)
    assert (found.state, found.channel, found.attempts) == ("queued", "email", 1)


@pytest.mark.parametrize(
    "address", ["søren@example.org", "a b@c", ",@x", "<@>", '"@x', "a@b>", "@"]
)
async def test_an_address_that_no_server_takes_harms_no_other_message(
    senders: Make, smtp: Mailbox, address: str
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    odd = OfferedVolunteer(id=made_offer().offer_id, name="Siti", phone=PHONE, email=address)
    await both.queue(offer_made(volunteer=odd), offer_made())
    await both.send("email")
    await both.send("sandbox")
    query = "SELECT channel, state FROM messages WHERE email = :email"
    assert await rows(both.database, query, email=ADDRESS) == [("email", "sent")]
    ((channel, state),) = await rows(both.database, query, email=address)
    assert state == "sent"
    assert channel in ("email", "sandbox")


# --- SMS over HTTP --------------------------------------------------------------------------------


class Gateway:
    """A small real HTTP gateway that answers as it is told."""

    def __init__(self) -> None:
        self.port = free_port()
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.silent = False

    @property
    def settings(self) -> dict[str, Any]:
        return {"sms_url": f"http://127.0.0.1:{self.port}/send", "provider_timeout_seconds": 10}

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        body = (await receive()).get("body", b"")
        self.taken.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        if self.silent:
            await receive()  # until the caller has hung up
            return
        status, headers = self.answers.pop(0) if self.answers else (202, {})
        raw = [(k.encode(), v.encode()) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"gateway-id-1"})


@asynccontextmanager
async def listening(gateway: Gateway) -> AsyncIterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(
            gateway, host="127.0.0.1", port=gateway.port, log_config=None, lifespan="off"
        )
    )
    serving = asyncio.create_task(server._serve())  # without taking over pytest's signals
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    async with listening(made):
        yield made


async def test_a_gateway_gets_the_number_the_text_and_our_id(
    senders: Make, gateway: Gateway
) -> None:
    sms = senders(channels="sms", sms_authorization="Key hush", **gateway.settings)
    await sms.queue(offer_made())
    await sms.send("sms")
    found = await message(sms)
    assert found.state == "sent"
    headers, body = gateway.taken[0]
    assert json.loads(body) == {"to": PHONE, "text": found.short_text, "id": str(found.id)}
    assert headers["authorization"] == "Key hush"
    assert headers["idempotency-key"] == str(found.id)
    assert await one(sms.database, "SELECT provider_id FROM attempts") == "gateway-id-1"


async def test_a_gateway_that_is_busy_is_left_alone_for_as_long_as_it_says(
    senders: Make, gateway: Gateway
) -> None:
    sms = senders(channels="sms", **gateway.settings)
    gateway.answers = [(429, {"retry-after": "600"})]
    await sms.queue(offer_made())
    await sms.send("sms")
    wait = "SELECT extract(epoch FROM next_attempt_at - now())::float FROM messages"
    assert 500 < await one(sms.database, wait) <= 600
    assert await sms.send("sms") == 0
    await run(sms.database, "UPDATE messages SET next_attempt_at = now()")
    await sms.send("sms")
    assert await attempts(sms) == [("sms", "failed"), ("sms", "sent")]


async def test_a_gateway_that_refuses_makes_room_for_the_next_channel(
    senders: Make, gateway: Gateway
) -> None:
    both = senders(channels="sms,sandbox", **gateway.settings)
    gateway.answers = [(400, {})]
    await both.queue(offer_made())
    await both.send("sms")
    await both.send("sandbox")
    assert await attempts(both) == [("sms", "failed"), ("sandbox", "sent")]


async def test_an_error_of_the_gateway_is_never_repeated_blindly(
    senders: Make, gateway: Gateway
) -> None:
    both = senders(channels="sms,sandbox", **gateway.settings)
    gateway.answers = [(500, {})]
    await both.queue(offer_made())
    await both.send("sms")
    assert await both.send("sms") == 0
    await both.send("sandbox")
    assert await attempts(both) == [("sms", "unknown"), ("sandbox", "sent")]
    assert len(gateway.taken) == 1


async def test_an_error_of_a_gateway_that_knows_our_id_is_repeated_with_it(
    senders: Make, gateway: Gateway
) -> None:
    sms = senders(channels="sms", sms_idempotent=True, **gateway.settings)
    gateway.answers = [(500, {})]
    await sms.queue(offer_made())
    await sms.send("sms")
    assert (await message(sms)).state == "queued"
    await run(sms.database, "UPDATE messages SET next_attempt_at = now()")
    await sms.send("sms")
    assert await attempts(sms) == [("sms", "unknown"), ("sms", "sent")]
    assert len({headers["idempotency-key"] for headers, _ in gateway.taken}) == 1


async def test_a_gateway_that_does_not_answer_in_time_leaves_the_outcome_unknown(
    senders: Make, gateway: Gateway
) -> None:
    settings = {**gateway.settings, "provider_timeout_seconds": 0.3}
    both = senders(channels="sms,sandbox", **settings)
    gateway.silent = True
    await both.queue(offer_made())
    await both.send("sms")
    await both.send("sandbox")
    assert await attempts(both) == [("sms", "unknown"), ("sandbox", "sent")]
    assert len(gateway.taken) == 1


async def test_a_gateway_that_is_away_is_tried_again(senders: Make) -> None:
    sms = senders(channels="sms", sms_url=f"http://127.0.0.1:{free_port()}/")
    await sms.queue(offer_made())
    await sms.send("sms")
    found = await message(sms)
    assert (found.state, found.channel) == ("queued", "sms")
    assert delivery.backoff(1) == timedelta(seconds=2)
