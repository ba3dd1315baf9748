"""Every fault of every provider: which calls are made, exactly, and where the message ends.

Against a real HTTP gateway with faults (ops/gateway.py) and a real SMTP server; behind each stands
the sandbox as the next channel. What is said here is what docs/how-to/channels.md promises.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from ops.gateway import Fault, Faults, Gateway, gateway
from ops.outcome import unexplained
from ops.processes import free_port
from services.notification.settings import NotificationSettings
from shared.database import Database
from tests.factories import offer_closed, offer_made
from tests.integration.conftest import rows, run
from tests.integration.sending import Senders, attempts, message

Make = Callable[..., Senders]
# A call that hangs is given up after this. Whatever else happens is faster also on a slow machine.
TIMEOUT_S = 3
# Past this nothing of a test is still under way.
TURNS = 8


@pytest.fixture
async def senders(notification_database: Database) -> AsyncIterator[Make]:
    made: list[Senders] = []

    def make(**settings: Any) -> Senders:
        given = {"provider_timeout_seconds": TIMEOUT_S, "lease_seconds": 15, **settings}
        made.append(Senders(notification_database, NotificationSettings(**given)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
async def stub() -> AsyncIterator[Gateway]:
    async with gateway(faults=Faults(slow_s=0.1)) as made:
        yield made


async def to_the_end(senders: Senders) -> None:
    """Let time pass until the message has come to its end."""
    for _ in range(TURNS):
        await run(
            senders.database,
            """UPDATE messages SET next_attempt_at = now(),
                   look_up_at = CASE WHEN look_up_at IS NOT NULL THEN now() END""",
        )
        for delivery in senders.of.values():
            delivery._pace._paused_until = 0
            await delivery.reconcile()
            await delivery.send_due()


async def nothing_is_odd(senders: Senders, stub: Gateway | None) -> None:
    """No call without its attempt, none twice, none past the deadline."""
    made = await rows(
        senders.database,
        """SELECT m.id, m.send_before, a.channel, a.state, a.receipt, a.started_at
           FROM messages m JOIN attempts a ON a.message_id = m.id ORDER BY a.started_at""",
    )
    idempotent = senders.of["sms"].channel.supports_idempotency if stub and stub.calls else False
    for id_ in {row.id for row in made}:
        calls = [row for row in made if row.id == id_]
        if not idempotent:
            assert unexplained(calls, stub, str(id_)) is None
        if stub is not None:
            assert stub.accepted[str(id_)] <= 1


@dataclass(frozen=True)
class Expected:
    """The calls in their order, and how often the gateway took the message."""

    calls: list[tuple[str, str]]
    accepted: int
    error: str | None = None


ELSEWHERE = [("sms", "unknown"), ("sandbox", "sent")]
# A gateway that can do nothing but take a message.
PLAIN: dict[Fault, Expected] = {
    "too_many": Expected([("sms", "failed"), ("sms", "sent")], 1),
    "refuse_400": Expected([("sms", "failed"), ("sandbox", "sent")], 0),
    "error_500": Expected(ELSEWHERE, 0),
    "error_500_after_accept": Expected(ELSEWHERE, 1),
    "timeout_before": Expected(ELSEWHERE, 0),
    "timeout_after": Expected(ELSEWHERE, 1),
    "drop_before": Expected(ELSEWHERE, 0),
    "drop_after": Expected(ELSEWHERE, 1),
    "slow": Expected([("sms", "sent")], 1),
}
FOUND, MISSED = [("sms", "sent")], [("sms", "failed"), ("sms", "sent")]
# One that can be asked whether it has a message: none goes elsewhere, and none comes twice.
ASKED: dict[Fault, Expected] = {
    **PLAIN,
    "error_500": Expected(MISSED, 1),
    "error_500_after_accept": Expected(FOUND, 1),
    "timeout_before": Expected(MISSED, 1),
    "timeout_after": Expected(FOUND, 1),
    "drop_before": Expected(MISSED, 1),
    "drop_after": Expected(FOUND, 1),
}
AGAIN = [("sms", "unknown"), ("sms", "sent")]
# One that knows our id: it is asked again, and takes it once.
KNOWS_US: dict[Fault, Expected] = {
    **PLAIN,
    "error_500": Expected(AGAIN, 1),
    "error_500_after_accept": Expected(AGAIN, 1),
    "timeout_before": Expected(AGAIN, 1),
    "timeout_after": Expected(AGAIN, 1),
    "drop_before": Expected(AGAIN, 1),
    "drop_after": Expected(AGAIN, 1),
}


@pytest.mark.parametrize("fault", PLAIN)
async def test_a_plain_gateway(senders: Make, stub: Gateway, fault: Fault) -> None:
    await one_fault(senders(channels="sms,sandbox", **stub.sms_settings), stub, fault, PLAIN[fault])


@pytest.mark.parametrize("fault", ASKED)
async def test_a_gateway_that_can_be_asked(senders: Make, stub: Gateway, fault: Fault) -> None:
    both = senders(channels="sms,sandbox", sms_lookup_url=stub.lookup_url, **stub.sms_settings)
    await one_fault(both, stub, fault, ASKED[fault])


@pytest.mark.parametrize("fault", KNOWS_US)
async def test_a_gateway_that_knows_our_id(senders: Make, stub: Gateway, fault: Fault) -> None:
    stub.idempotent = True
    both = senders(channels="sms,sandbox", **stub.sms_settings)
    await one_fault(both, stub, fault, KNOWS_US[fault])


@pytest.mark.parametrize("fault", ASKED)
async def test_twilio(senders: Make, stub: Gateway, fault: Fault) -> None:
    expected = ASKED[fault]
    both = senders(channels="twilio,sandbox", twilio_lookup_after_seconds=0, **stub.twilio_settings)
    stub.script.append(fault)
    await both.queue(offer_made(respond_by=in_an_hour()))
    await to_the_end(both)
    as_twilio = [(c.replace("sms", "twilio"), state) for c, state in expected.calls]
    assert await attempts(both) == as_twilio
    assert stub.accepted.total() == expected.accepted
    assert stub.calls.total() == sum(channel == "twilio" for channel, _ in as_twilio)
    assert (await message(both)).state == "sent"


async def one_fault(both: Senders, stub: Gateway, fault: Fault, expected: Expected) -> None:
    stub.script.append(fault)
    await both.queue(offer_made(respond_by=in_an_hour()))
    await to_the_end(both)
    assert await attempts(both) == expected.calls
    assert stub.accepted.total() == expected.accepted
    assert stub.calls.total() == sum(channel == "sms" for channel, _ in expected.calls)
    assert (await message(both)).state == "sent"
    await nothing_is_odd(both, stub)


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize("fault", PLAIN)
async def test_nothing_goes_out_after_its_deadline_whatever_has_befallen_it(
    senders: Make, stub: Gateway, fault: Fault
) -> None:
    both = senders(channels="sms,sandbox", **stub.sms_settings)
    stub.script.append(fault)
    await both.queue(offer_made(respond_by=in_an_hour()))
    await both.send("sms")
    before = await attempts(both)
    await run(both.database, "UPDATE messages SET send_before = now() - interval '1 second'")
    await to_the_end(both)
    assert await attempts(both) == before


@pytest.mark.parametrize("fault", PLAIN)
async def test_nothing_goes_out_for_an_offer_that_is_over_whatever_has_befallen_it(
    senders: Make, stub: Gateway, fault: Fault
) -> None:
    both = senders(channels="sms,sandbox", **stub.sms_settings)
    offer = offer_made(respond_by=in_an_hour())
    stub.script.append(fault)
    await both.queue(offer)
    await both.send("sms")
    before = await attempts(both)
    await both.queue(offer_closed("expired", offer=offer))
    await to_the_end(both)
    assert await attempts(both) == before


# --- SMTP -----------------------------------------------------------------------------------------


class Server:
    """A real SMTP server on which one command comes out as it is told, once."""

    def __init__(self) -> None:
        self.port = free_port()
        self.at: str | None = None
        self.answer: str | None = None  # None: the connection drops
        self.took = 0

    def _now(self, where: str) -> str | None:
        if self.at != where:
            return None
        self.at = None
        return self.answer or "drop"

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        told = self._now("MAIL")
        if told is None:
            envelope.mail_from = address
        return self._told(server, told)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        told = self._now("RCPT")
        if told is None:
            envelope.rcpt_tos.append(address)
        return self._told(server, told)

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        told = self._now("DATA")
        taken = told is None or told == "drop"
        self.took += taken
        return self._told(server, told)

    def _told(self, server: SMTP, told: str | None) -> str:
        if told == "drop":
            server.transport.abort()  # type: ignore[union-attr]
        return told if told and told != "drop" else "250 OK"


@pytest.fixture
def smtp() -> Iterator[Server]:
    server = Server()
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    yield server
    controller.stop()


LATER, NEVER = [("email", "failed"), ("email", "sent")], [("email", "failed"), ("sandbox", "sent")]
UNKNOWN = [("email", "unknown"), ("sandbox", "sent")]
SMTP_FAULTS: dict[tuple[str, str | None], tuple[list[tuple[str, str]], int]] = {
    ("MAIL", "421 closing"): (LATER, 1),
    ("MAIL", "451 later"): (LATER, 1),
    ("MAIL", "550 not you"): (LATER, 1),  # it is about us: somebody may mend it in time
    ("MAIL", None): (LATER, 1),
    ("RCPT", None): (LATER, 1),
    ("RCPT", "421 closing"): (LATER, 1),
    ("RCPT", "451 greylisted"): (LATER, 1),
    ("RCPT", "550 no such mailbox"): (NEVER, 0),
    ("DATA", "421 closing"): (LATER, 1),
    ("DATA", "451 later"): (LATER, 1),
    ("DATA", "550 spam"): (NEVER, 0),
    ("DATA", None): (UNKNOWN, 1),
}


@pytest.mark.parametrize(("where", "answer"), SMTP_FAULTS)
async def test_a_mail_server(senders: Make, smtp: Server, where: str, answer: str | None) -> None:
    calls, taken = SMTP_FAULTS[where, answer]
    both = senders(channels="email,sandbox", smtp_port=smtp.port, provider_timeout_seconds=5,
                   lease_seconds=10)  # fmt: skip
    smtp.at, smtp.answer = where, answer
    await both.queue(offer_made(respond_by=in_an_hour()))
    await to_the_end(both)
    assert await attempts(both) == calls
    assert smtp.took == taken
    await nothing_is_odd(both, None)


# --- all at once ----------------------------------------------------------------------------------


async def test_many_messages_through_every_fault_are_all_explained(
    senders: Make, notification_database: Database
) -> None:
    """What `jangkau demo --gateway` shows with thousands, here with every third call failing."""
    async with AsyncExitStack() as opened:
        faults = Faults.spread(0.3, seed=7)
        stub = await opened.enter_async_context(gateway(faults=faults))
        both = senders(channels="sms,sandbox", **stub.sms_settings)
        await both.queue(*(offer_made(respond_by=in_an_hour()) for _ in range(200)))
        for _ in range(TURNS):
            await asyncio.gather(*(delivery.send_due() for delivery in both.of.values()))
            await to_the_end(both)
        (states,) = await rows(
            both.database,
            """SELECT count(*) FILTER (WHERE state = 'sent') AS sent, count(*) AS n
               FROM messages""",
        )
        assert states.sent == states.n == 200
        assert stub.stats["more_than_once"] == 0
        assert sum(stub.befell.values()) > 30
        await nothing_is_odd(both, stub)
