"""Whatever happens to a message and to the channels: what may have brought it is not called again.

The histories are generated: calls with every outcome, receipts, look-ups, silence, processes that
die, a person who writes STOP, and an installation whose channels change in between.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.notification.channels import (
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.messages import heed_stop
from services.notification.settings import NotificationSettings
from shared.database import Database
from tests.factories import offer_made
from tests.integration.conftest import one, run
from tests.integration.sending import Scripted, Senders, attempts, receipt

NAMES = ("apprise", "email", "sms", "twilio")
ADDRESSES = ["+6281234567890", "siti@example.org"]
CALLS = ("taken", "refused for good", "refused for now", "nobody knows", "the process dies")

Step = tuple[Any, ...]


@dataclass
class Ledger:
    """What each channel may have brought of the one message there is, kept beside the database."""

    may_have: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    # A delivery takes whatever a channel raises for an outcome, so it is looked at afterwards.
    too_many: list[str] = field(default_factory=list)

    def called(self, channel: str, *, knows_our_id: bool, unknown: bool) -> None:
        """Note a call, and whether it is one too many."""
        if channel in self.may_have and not (knows_our_id and unknown):
            self.too_many.append(f"{channel} after {self.calls}")
        self.calls.append(channel)


class Told(Scripted):
    """A channel that does as the history says, and writes down what it may have brought."""

    ledger: Ledger
    outcome: str = "taken"
    unknown: bool = False

    async def send(self, message: Outgoing) -> str:
        """Do as the history says."""
        self.begin()
        match self.outcome:
            case "refused for good":
                self.settled(brought=False)
                raise PermanentFailure("no")
            case "refused for now":
                self.settled(brought=self.unknown)
                raise TransientFailure("later")
            case "nobody knows":
                raise UnknownOutcome("?")
        self.unknown = False
        return f"{self.name}-{len(self.ledger.calls)}"

    def begin(self) -> None:
        """A call that may bring it from now on."""
        self.ledger.called(self.name, knows_our_id=self.supports_idempotency, unknown=self.unknown)
        self.ledger.may_have.add(self.name)
        self.was_unknown, self.unknown = self.unknown, True

    def settled(self, *, brought: bool) -> None:
        """The provider has said that it has not taken this call."""
        self.unknown = self.was_unknown
        if not self.was_unknown:
            self.ledger.may_have.discard(self.name)


def channels(ledger: Ledger, *, idempotent: bool) -> dict[str, Told]:
    """Four channels of three kinds, with every promise that a provider can make."""
    kinds: dict[str, Any] = {"apprise": "other", "email": "email", "sms": "sms", "twilio": "sms"}
    made = {}
    for name in NAMES:
        told = Told(name=name, kind=kinds[name], cost_per_segment=0, supports_receipts=True)
        told.supports_idempotency = idempotent and name == "sms"
        told.supports_lookup = name == "twilio"
        told.ledger = ledger
        made[name] = told
    return made


NAME = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.tuples(st.just("call"), NAME, st.sampled_from(CALLS)),
    st.tuples(st.just("call"), NAME, st.sampled_from(CALLS)),
    st.tuples(st.just("receipt"), NAME, st.sampled_from(["sent", "delivered", "undelivered"])),
    st.tuples(st.just("look up"), st.booleans()),
    st.tuples(st.just("no receipt"), NAME),
    st.tuples(st.just("reconcile"), NAME),
    st.tuples(st.just("stop"), st.sampled_from(["sms", "email", "other"])),
    st.tuples(st.just("installed"), st.lists(NAME, unique=True, min_size=1)),
    st.tuples(st.just("routes are forgotten")),
)


@given(
    first=st.permutations(NAMES),
    idempotent=st.booleans(),
    steps=st.lists(STEPS, min_size=3, max_size=14),
)
@example(
    # Unknown by the first, waiting for a receipt at the second when its kind is stopped.
    first=["apprise", "twilio", "email", "sms"],
    idempotent=False,
    steps=[
        ("call", "apprise", "nobody knows"),
        ("call", "twilio", "taken"),
        ("stop", "sms"),
        ("no receipt", "twilio"),
        ("call", "apprise", "taken"),
    ],
)
@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_what_may_have_brought_a_message_is_never_called_for_it_again(
    notification_database: Database, first: list[str], idempotent: bool, steps: list[Step]
) -> None:
    ledger = Ledger()
    known = channels(ledger, idempotent=idempotent)
    senders = await one_message(notification_database, [known[name] for name in first])
    for step in steps:
        await happens(senders, known, step)
    # In the end time brings everything that it can.
    for _ in range(3):
        for name in NAMES:
            known[name].outcome = "taken"
            await happens(senders, known, ("call", name, "taken"))
            await happens(senders, known, ("no receipt", name))
    assert ledger.too_many == []


async def one_message(database: Database, order: list[Told]) -> Senders:
    """An offer that waits on the first of these channels, and nothing else."""
    await run(database, "TRUNCATE messages, attempts, receipts, stops, asked, offer_states, outbox")
    senders = Senders(database, NotificationSettings(), channels=order, districts={})
    await senders.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    return senders


async def happens(senders: Senders, known: dict[str, Told], step: Step) -> None:
    """One step of a history."""
    match step:
        case ("call", name, "the process dies"):
            await its_process_dies(senders, known[name])
        case ("call", name, outcome):
            if name in installed(senders):
                known[name].outcome = outcome
                await senders.send_again(name)
        case ("receipt", name, state):
            await tell(senders, known[name], state)
        case ("look up", has_it):
            await look_up(senders, known["twilio"], has_it)
        case ("no receipt", name) if name in installed(senders):
            await run(
                senders.database,
                "UPDATE messages SET receipt_by = now() WHERE receipt_by IS NOT NULL",
            )
            await reconcile(senders, name)
        case ("reconcile", name) if name in installed(senders):
            await reconcile(senders, name)
        case ("stop", kind):
            async with senders.database.transaction() as session:
                await heed_stop(session, ADDRESSES, kind, routes=senders.office.routes)
        case ("installed", names):
            routes = senders.office.routes
            object.__setattr__(routes, "channels", [known[name] for name in names])
        case ("routes are forgotten",):
            await run(senders.database, "UPDATE messages SET routes = '{}'")


def installed(senders: Senders) -> list[str]:
    return [channel.name for channel in senders.office.routes.channels]


async def its_process_dies(senders: Senders, channel: Told) -> None:
    """It is taken, the provider is called, and nobody notes what came of it."""
    if channel.name not in installed(senders):
        return
    await run(senders.database, "UPDATE messages SET next_attempt_at = now()")
    for _ in await senders.of[channel.name]._take(1):
        channel.begin()
    await run(senders.database, "UPDATE attempts SET lease_until = now() - interval '1 second'")


async def tell(senders: Senders, channel: Told, state: Literal["undelivered"]) -> None:
    """The provider tells what became of its last call, if it has taken one."""
    found = [name for name, outcome in await attempts(senders) if outcome == "sent"]
    if channel.name not in found:
        return
    last = await one(
        senders.database,
        "SELECT provider_id FROM attempts WHERE channel = :channel AND state = 'sent' "
        "ORDER BY started_at DESC LIMIT 1",
        channel=channel.name,
    )
    before = await told_so_far(senders, channel.name)
    await senders.receive(channel.name, replace(receipt(state), provider_id=last))
    if await told_so_far(senders, channel.name) != before and state == "undelivered":
        channel.ledger.may_have.discard(channel.name)


async def told_so_far(senders: Senders, channel: str) -> Any:
    return await one(
        senders.database,
        "SELECT string_agg(receipt, ',' ORDER BY started_at) FROM attempts WHERE channel = :name",
        name=channel,
    )


async def look_up(senders: Senders, twilio: Told, has_it: bool) -> None:
    """The provider is asked what became of a call that nobody knows the end of."""
    if "twilio" not in installed(senders):
        return
    await run(
        senders.database, "UPDATE messages SET look_up_at = now() WHERE look_up_at IS NOT NULL"
    )
    twilio.looked_up = [f"twilio-{len(twilio.ledger.calls)}" if has_it else None] * 2
    await senders.of["twilio"].look_up()
    if len(twilio.looked_up) < 2 and not has_it:
        twilio.ledger.may_have.discard("twilio")


async def reconcile(senders: Senders, name: str) -> None:
    """What time brings, without a question to the provider."""
    channel = senders.of[name].channel
    assert isinstance(channel, Told)
    looks, channel.supports_lookup = channel.supports_lookup, False
    # What the process that died has left is unknown: to be looked up where that can be done.
    try:
        await senders.of[name].reconcile()
    finally:
        channel.supports_lookup = looks
