"""What was handed over, what arrived, what nobody knows: and where a message goes next."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from services.notification import texts
from services.notification.channels import (
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.messages import SAME_TEXT_AT_MOST, heed_stop
from services.notification.settings import NotificationSettings
from shared.database import Database
from shared.districts import District
from shared.events import CaseReported, OfferUnreachable, PingUnreachable, SmsBudgetRunLow
from shared.health import Loop
from shared.policy import Messages
from tests.factories import (
    DISTRICT,
    answer_judged,
    case_progressed,
    case_reported,
    offer_closed,
    offer_made,
    offered_volunteer,
    reporter,
    volunteer_pinged,
)
from tests.integration.conftest import one, rows, run
from tests.integration.sending import (
    Scripted,
    Senders,
    attempts,
    message,
    messages,
    receipt,
    said,
)

Make = Callable[..., Senders]
PHONE = "+6281234567890"


def mail_channel() -> Scripted:
    """One that takes every mail."""
    return Scripted(name="email", kind="email")


@pytest.fixture
async def sending(notification_database: Database) -> AsyncIterator[Make]:
    """``sending(channel, channel, …)``: with these channels, in this order."""
    made: list[Senders] = []

    def make(*channels: Any, districts: Any = None, **settings: Any) -> Senders:
        made.append(
            Senders(
                notification_database,
                NotificationSettings(**settings),
                channels=channels,
                districts=districts if districts is not None else {},
            )
        )
        return made[-1]

    yield make
    for each in made:
        await each.close()


# --- receipts -------------------------------------------------------------------------------------


async def test_a_receipt_makes_a_sent_message_delivered(sending: Make) -> None:
    sms = sending(Scripted(supports_receipts=True))
    await sms.queue(offer_made())
    await sms.send("sms")
    assert (await message(sms)).state == "sent"
    await sms.receive("sms", receipt("sent"), receipt("delivered"))
    found = await message(sms)
    assert (found.state, found.receipt_by) == ("delivered", None)
    assert found.delivered_at is not None


async def test_receipts_that_come_again_and_out_of_order_only_move_forward(sending: Make) -> None:
    sms = sending(Scripted(supports_receipts=True), mail_channel())
    await sms.queue(offer_made())
    await sms.send("sms")
    delivered, sent, undelivered = map(receipt, ("delivered", "sent", "undelivered"))
    await sms.receive("sms", delivered, sent, delivered, undelivered, sent)
    assert (await message(sms)).state == "delivered"
    assert await one(sms.database, "SELECT receipt FROM attempts") == "delivered"
    assert await one(sms.database, "SELECT count(*) FROM receipts") == 3
    assert await said(sms.database) == []


@pytest.mark.parametrize("by_our_id", [True, False])
async def test_a_receipt_may_come_before_the_call_has_returned(
    sending: Make, by_our_id: bool
) -> None:
    channel = Scripted(supports_receipts=True)
    sms = sending(channel)
    early = asyncio.Event()
    send = channel.send

    async def slowly(message: Outgoing) -> str:
        provider_id = await send(message)
        ours = message.idempotency_key if by_our_id else None
        await sms.receive("sms", receipt("delivered", provider_id=provider_id, message=ours))
        early.set()
        return provider_id

    channel.send = slowly  # type: ignore[method-assign]
    await sms.queue(offer_made())
    await sms.send("sms")
    assert early.is_set()
    assert (await message(sms)).state == "delivered"
    assert await attempts(sms) == [("sms", "sent")]
    assert await one(sms.database, "SELECT provider_id FROM attempts") == "id-1"


async def test_what_could_not_be_delivered_goes_by_the_next_channel_at_once(sending: Make) -> None:
    mail = mail_channel()
    both = sending(Scripted(supports_receipts=True), mail)
    await both.queue(offer_made())
    await both.send("sms")
    await both.receive("sms", receipt("undelivered"), receipt("undelivered"))
    found = await message(both)
    assert (found.state, found.channel) == ("queued", "email")
    assert await both.send("email") == 1
    assert len(mail.sent) == 1
    assert await said(both.database) == []


async def test_an_undelivered_offer_without_another_channel_is_unreachable_once(
    sending: Make,
) -> None:
    sms = sending(Scripted(supports_receipts=True))
    offer = offer_made()
    await sms.queue(offer)
    await sms.send("sms")
    await sms.receive("sms", receipt("sent"), receipt("undelivered"), receipt("undelivered"))
    assert await messages(sms) == [("offer", "failed")]
    (event,) = await said(sms.database)
    assert isinstance(event, OfferUnreachable)
    assert (event.data.offer_id, event.data.reason) == (offer.data.offer_id, "undelivered")


async def test_an_early_undelivered_is_heeded_when_the_call_has_returned(sending: Make) -> None:
    channel = Scripted(supports_receipts=True)
    both = sending(channel, mail_channel())
    send = channel.send

    async def early(message: Outgoing) -> str:
        await both.receive("sms", receipt("undelivered"))
        return await send(message)

    channel.send = early  # type: ignore[method-assign]
    await both.queue(offer_made())
    await both.send("sms")
    found = await message(both)
    assert (found.state, found.channel) == ("queued", "email")


async def test_without_a_receipt_in_time_the_next_channel_is_tried(sending: Make) -> None:
    both = sending(Scripted(supports_receipts=True), mail_channel(), receipt_seconds=60)
    await both.queue(offer_made())
    await both.send("sms")
    await both.of["sms"].reconcile()
    assert (await message(both)).state == "sent", "there is time left"
    await run(both.database, "UPDATE messages SET receipt_by = now() - interval '1 second'")
    await both.of["sms"].reconcile()
    assert await both.send("email") == 1
    assert await attempts(both) == [("sms", "sent"), ("email", "sent")]
    await both.of["sms"].reconcile()
    assert await both.send("email") == 0


async def test_a_receipt_that_comes_after_its_time_still_stops_the_next_channel(
    sending: Make,
) -> None:
    both = sending(Scripted(supports_receipts=True), mail_channel())
    await both.queue(offer_made())
    await both.send("sms")
    await run(both.database, "UPDATE messages SET receipt_by = now() - interval '1 second'")
    await both.of["sms"].reconcile()
    await both.receive("sms", receipt("delivered"))
    assert await both.send("email") == 0
    assert (await message(both)).state == "delivered"


async def test_an_offer_that_is_over_goes_to_no_other_channel_for_want_of_a_receipt(
    sending: Make,
) -> None:
    both = sending(Scripted(supports_receipts=True), mail_channel())
    offer = offer_made()
    await both.queue(offer)
    await both.send("sms")
    await both.queue(offer_closed("expired", offer=offer))
    await run(both.database, "UPDATE messages SET receipt_by = now() - interval '1 second'")
    await both.of["sms"].reconcile()
    assert await both.send("email") == 0
    await both.receive("sms", receipt("undelivered"))
    assert await both.send("email") == 0


async def test_a_receipt_of_nothing_that_we_know_is_kept_and_harmless(sending: Make) -> None:
    sms = sending(Scripted(supports_receipts=True))
    await sms.receive("sms", receipt("delivered", provider_id="no-such-id"))
    assert await one(sms.database, "SELECT count(*) FROM receipts") == 1


async def test_a_dead_number_of_a_test_is_said_of_the_test(sending: Make) -> None:
    sms = sending(Scripted(supports_receipts=True))
    pinged = volunteer_pinged()
    await sms.queue(pinged)
    await sms.send("sms")
    await sms.receive("sms", receipt("undelivered"))
    (event,) = await said(sms.database)
    assert isinstance(event, PingUnreachable)
    assert (event.data.ping_id, event.data.reason) == (pinged.data.ping_id, "undelivered")
    assert event.subject == pinged.subject


# --- what nobody knows ----------------------------------------------------------------------------


async def due_for_a_look_up(senders: Senders) -> None:
    await run(senders.database, "UPDATE messages SET look_up_at = now()")
    await senders.of["sms"].look_up()


async def test_an_unknown_call_is_looked_up_and_found(sending: Make) -> None:
    channel = Scripted([UnknownOutcome("time-out")], supports_lookup=True, looked_up=["id-7"])
    both = sending(channel, mail_channel())
    await both.queue(offer_made())
    await both.send("sms")
    found = await message(both)
    assert (found.state, found.channel) == ("unknown", "sms")
    await due_for_a_look_up(both)
    assert (await message(both)).state == "sent"
    assert await attempts(both) == [("sms", "sent")]
    assert await one(both.database, "SELECT provider_id FROM attempts") == "id-7"
    assert len(channel.sent) == 1


async def test_a_provider_whose_list_lags_behind_is_not_asked_before(sending: Make) -> None:
    channel = Scripted([UnknownOutcome("x")], supports_lookup=True, lookup_after_s=30)
    sms = sending(channel)
    await sms.queue(offer_made())
    await sms.send("sms")
    (found,) = await rows(sms.database, "SELECT look_up_at - now() AS wait FROM messages")
    assert timedelta(seconds=28) < found.wait <= timedelta(seconds=30)
    await sms.of["sms"].look_up()
    assert (await message(sms)).look_ups == 0


async def test_an_unknown_call_that_the_provider_never_had_is_made_again(sending: Make) -> None:
    channel = Scripted([UnknownOutcome("x"), "id-2"], supports_lookup=True, looked_up=[None])
    sms = sending(channel)
    await sms.queue(offer_made())
    await sms.send("sms")
    await due_for_a_look_up(sms)
    assert await sms.send_again("sms") == 1
    assert await attempts(sms) == [("sms", "failed"), ("sms", "sent")]
    assert len(channel.sent) == 2


async def test_a_provider_that_cannot_say_is_asked_again_and_then_left_for_the_next_channel(
    sending: Make,
) -> None:
    away = TransientFailure("HTTP 503")
    channel = Scripted([UnknownOutcome("x")], supports_lookup=True, looked_up=[away] * 9)
    both = sending(channel, mail_channel())
    await both.queue(offer_made())
    await both.send("sms")
    for _ in range(4):
        await due_for_a_look_up(both)
        assert (await message(both)).state == "unknown"
    await due_for_a_look_up(both)
    assert await both.send("email") == 1
    assert await attempts(both) == [("sms", "unknown"), ("email", "sent")]
    assert len(channel.sent) == 1


async def test_a_receipt_says_what_became_of_an_unknown_call(sending: Make) -> None:
    channel = Scripted([UnknownOutcome("time-out")], supports_receipts=True)
    both = sending(channel, mail_channel())
    await both.queue(offer_made())
    await both.send("sms")
    found = await message(both)
    assert (found.state, found.channel) == ("queued", "email")
    await both.receive("sms", receipt("sent", message=found.id))
    assert await both.send("email") == 0, "it has gone out after all"
    assert (await message(both)).state == "sent"


async def test_a_call_that_ends_after_the_database_was_away_is_still_noted(
    sending: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of a call must not get lost, or it would be unknown."""
    channel = Scripted()
    sms = sending(channel)
    delivery = sms.of["sms"]
    settle, failures = delivery._settle, iter([ConnectionError("database away")])

    async def away_once(outcomes: Any) -> None:
        for error in failures:
            raise error
        await settle(outcomes)

    monkeypatch.setattr(delivery, "_settle", away_once)
    await sms.queue(offer_made())

    async def guarded() -> None:
        for _ in range(2):
            with suppress(ConnectionError):
                await delivery.run(Loop("deliver", timedelta(seconds=30)))

    running = asyncio.create_task(guarded())
    await until(lambda: state_is(sms, "sent"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(channel.sent) == 1


async def state_is(senders: Senders, state: str) -> bool:
    return bool((await message(senders)).state == state)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(90):
        while not await condition():  # noqa: ASYNC110 - it is another process's database
            await asyncio.sleep(0.01)


async def test_being_told_to_stop_waits_for_the_calls_under_way(sending: Make) -> None:
    channel = Scripted()
    started, go_on = asyncio.Event(), asyncio.Event()
    send = channel.send

    async def slowly(message: Outgoing) -> str:
        started.set()
        await go_on.wait()
        return await send(message)

    channel.send = slowly  # type: ignore[method-assign]
    sms = sending(channel)
    await sms.queue(offer_made())
    running = asyncio.create_task(sms.of["sms"].run(Loop("deliver", timedelta(seconds=30))))
    await started.wait()
    running.cancel()
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(running, return_exceptions=True)
    assert await attempts(sms) == [("sms", "sent")]


# --- refused for now ------------------------------------------------------------------------------


async def test_a_provider_that_keeps_refusing_is_left_for_the_next_channel(sending: Make) -> None:
    both = sending(Scripted([TransientFailure("HTTP 503")]), mail_channel())
    await both.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    for _ in range(4):
        assert await both.send_again("sms") == 1
    assert await both.send("email") == 1
    assert [state for _, state in await attempts(both)] == ["failed"] * 4 + ["sent"]


async def test_the_only_channel_is_tried_for_as_long_as_the_message_lives(sending: Make) -> None:
    sms = sending(Scripted([*[TransientFailure("HTTP 503")] * 9, "id-1"]))
    await sms.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    for _ in range(9):
        await sms.send_again("sms")
        assert (await message(sms)).state == "queued"
    await sms.send_again("sms")
    assert (await message(sms)).state == "sent"


async def test_a_provider_that_wants_to_be_left_alone_is(sending: Make) -> None:
    wait = TransientFailure("HTTP 429", retry_after=timedelta(seconds=40))
    sms = sending(Scripted([wait]))
    await sms.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    await sms.send("sms")
    (found,) = await rows(sms.database, "SELECT next_attempt_at - now() AS wait FROM messages")
    assert timedelta(seconds=38) < found.wait <= timedelta(seconds=40)
    assert sms.of["sms"]._pace.room() == 0, "nobody else is sent there meanwhile either"


async def test_a_wait_beyond_the_life_of_the_message_is_not_waited_for(sending: Make) -> None:
    wait = TransientFailure("HTTP 429", retry_after=timedelta(hours=2))
    both = sending(Scripted([wait]), mail_channel())
    await both.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(minutes=10)))
    await both.send("sms")
    assert await both.send("email") == 1


async def test_no_more_is_taken_than_the_provider_takes(sending: Make) -> None:
    slow = sending(Scripted(rate_per_second=5))
    await slow.queue(*(offer_made() for _ in range(12)))
    delivery = slow.of["sms"]
    running = asyncio.create_task(delivery.run(Loop("deliver", timedelta(seconds=30))))
    began = asyncio.get_running_loop().time()
    try:
        await until(lambda: all_sent(slow, 12))
        took_s = asyncio.get_running_loop().time() - began
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    # A second's worth at once, and then five a second: seven more are 1.4 s.
    assert took_s >= 1.2


async def all_sent(senders: Senders, number: int) -> bool:
    found = await one(senders.database, "SELECT count(*) FROM messages WHERE state = 'sent'")
    return bool(found == number)


async def test_a_slow_call_holds_up_no_other(sending: Make) -> None:
    channel = Scripted(concurrency=2)
    never = asyncio.Event()
    send = channel.send

    async def first_hangs(message: Outgoing) -> str:
        if not channel.sent:
            channel.sent.append(message)
            await never.wait()
        return await send(message)

    channel.send = first_hangs  # type: ignore[method-assign]
    sms = sending(channel)
    await sms.queue(*(offer_made() for _ in range(10)))
    running = asyncio.create_task(sms.of["sms"].run(Loop("deliver", timedelta(seconds=30))))
    try:
        await until(lambda: all_sent(sms, 9))
    finally:
        never.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# --- routes ---------------------------------------------------------------------------------------


def district_with(districts: dict[str, District], **values: Any) -> dict[str, District]:
    """The sample district, with other rules for its messages."""
    district = districts[DISTRICT]
    policy = replace(district.policy, messages=Messages(**values))
    return {DISTRICT: replace(district, policy=policy)}


async def test_a_volunteer_is_reached_first_by_what_they_prefer(sending: Make) -> None:
    both = sending(Scripted(), mail_channel())
    await both.queue(offer_made(volunteer=offered_volunteer(channel="email")))
    assert (await message(both)).routes == ["email", "sms"]


async def test_a_district_names_its_channels_and_their_order(
    sending: Make, districts: dict[str, District]
) -> None:
    channels = (Scripted(), mail_channel(), Scripted(name="twilio"))
    own = district_with(districts, channels=("twilio", "sms"))
    await (senders := sending(*channels, districts=own)).queue(offer_made())
    assert (await message(senders)).routes == ["twilio", "sms"]


async def test_whoever_wrote_stop_is_reached_by_other_channels_only(sending: Make) -> None:
    both = sending(Scripted(), mail_channel())
    volunteer = offered_volunteer()
    await run(
        both.database,
        "INSERT INTO stops (address, kind) VALUES (:phone, 'sms')",
        phone=volunteer.phone,
    )
    await both.queue(offer_made(volunteer=volunteer))
    assert (await message(both)).routes == ["email"]


async def test_whoever_has_stopped_everything_is_unreachable(sending: Make) -> None:
    sms = sending(Scripted())
    volunteer = offered_volunteer()
    await run(
        sms.database,
        "INSERT INTO stops (address, kind) VALUES (:phone, 'sms')",
        phone=volunteer.phone,
    )
    await sms.queue(offer_made(volunteer=volunteer))
    (event,) = await said(sms.database)
    assert (type(event), event.data.reason) == (OfferUnreachable, "no_address")


async def test_what_waits_when_somebody_stops_goes_by_their_next_channel(sending: Make) -> None:
    sms, mail = Scripted(), mail_channel()
    both = sending(sms, mail)
    await both.queue(offer_made(), offer_made(volunteer=offered_volunteer(phone="+628999")))
    async with both.database.transaction() as session:
        await heed_stop(session, [PHONE], "sms", routes=both.office.routes)
    await both.send("sms")
    await both.send("email")
    assert [each.address for each in sms.sent] == ["+628999"]
    assert [each.address for each in mail.sent] == ["siti@example.org"]


async def test_an_offer_that_waits_for_whoever_stops_everything_is_unreachable(
    sending: Make,
) -> None:
    sms = sending(Scripted())
    await sms.queue(offer_made())
    async with sms.database.transaction() as session:
        await heed_stop(session, [PHONE], "sms", routes=sms.office.routes)
    assert await sms.send("sms") == 0
    (event,) = await said(sms.database)
    assert (type(event), event.data.reason) == (OfferUnreachable, "stopped")


async def test_a_stop_during_a_call_lets_nothing_more_out(sending: Make) -> None:
    """Refused for now while they wrote STOP, or refused by mail afterwards: no SMS any more."""
    sms = Scripted([TransientFailure("HTTP 503")])
    mail = Scripted([PermanentFailure("550")], name="email", kind="email")
    both = sending(mail, sms)
    for volunteer in (offered_volunteer(), offered_volunteer(email=None)):
        await both.queue(
            offer_made(volunteer=volunteer, respond_by=datetime.now(UTC) + timedelta(hours=1))
        )
    stop_during_the_call(both, sms)
    await both.send("sms")
    await both.send("email")
    assert await both.send_again("sms") == 0
    assert len(sms.sent) == 1


async def test_a_stop_during_a_call_that_is_refused_lets_the_next_channel_try(
    sending: Make,
) -> None:
    sms, mail = Scripted([TransientFailure("HTTP 503")]), mail_channel()
    both = sending(sms, mail)
    await both.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    stop_during_the_call(both, sms)
    await both.send("sms")
    assert await both.send("email") == 1
    assert await both.send_again("sms") == 0


async def test_a_stop_during_a_refused_call_of_the_only_channel_is_said_to_be_unreachable(
    sending: Make,
) -> None:
    sms = Scripted([TransientFailure("HTTP 503")])
    only = sending(sms)
    await only.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    stop_during_the_call(only, sms)
    await only.send("sms")
    assert await messages(only) == [("offer", "failed")]
    assert [type(event) for event in await said(only.database)] == [OfferUnreachable]


def stop_during_the_call(senders: Senders, channel: Scripted) -> None:
    """Whoever is called writes STOP before the provider has answered."""
    send = channel.send

    async def stopped_meanwhile(message: Outgoing) -> str:
        async with senders.database.transaction() as session:
            await heed_stop(session, [PHONE], "sms", routes=senders.office.routes)
        return await send(message)

    channel.send = stopped_meanwhile  # type: ignore[method-assign]


async def test_a_stop_never_goes_back_to_a_channel_that_may_have_taken_the_message(
    sending: Make,
) -> None:
    """Unknown by SMS, waiting at the mailbox, which they stop: there is no way left."""
    sms = Scripted([UnknownOutcome("time-out")])
    both = sending(sms, mail_channel())
    await both.queue(offer_made())
    await both.send("sms")
    async with both.database.transaction() as session:
        await heed_stop(session, ["siti@example.org"], "email", routes=both.office.routes)
    assert await both.send("email") == 0
    assert await both.send_again("sms") == 0
    assert len(sms.sent) == 1
    assert await messages(both) == [("offer", "unknown")]
    assert await said(both.database) == [], "it may have arrived"


# --- what a provider may answer -------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["a\x00b", "\ud83d", "250 re\udce7u", "x" * 9000])
async def test_whatever_a_provider_answers_can_be_stored(sending: Make, odd: str) -> None:
    sms = sending(Scripted([odd, TransientFailure(odd), PermanentFailure(odd)]))
    await sms.queue(*(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)) for _ in "123"))
    assert await sms.send("sms") == 3
    assert sorted(state for _, state in await messages(sms)) == ["failed", "queued", "sent"]


# --- after something unknown ----------------------------------------------------------------------


async def test_what_arrived_late_by_the_first_channel_and_then_did_not_goes_by_the_next(
    sending: Make,
) -> None:
    channel = Scripted([UnknownOutcome("time-out")], supports_receipts=True)
    both = sending(channel, mail_channel())
    await both.queue(offer_made())
    await both.send("sms")
    found = await message(both)
    await both.receive("sms", receipt("sent", message=found.id))
    assert ((await message(both)).state, (await message(both)).channel) == ("sent", "sms")
    await both.receive("sms", receipt("undelivered", message=found.id))
    assert await both.send("email") == 1
    assert await said(both.database) == []


async def test_what_one_channel_may_have_brought_is_not_failed_when_the_next_cannot(
    sending: Make,
) -> None:
    """No receipt of the SMS in time, and the mail comes back: nobody knows."""
    both = sending(
        Scripted(supports_receipts=True),
        Scripted(["mail-1"], name="email", kind="email", supports_receipts=True),
    )
    await both.queue(offer_made())
    await both.send("sms")
    await run(both.database, "UPDATE messages SET receipt_by = now() - interval '1 second'")
    await both.of["sms"].reconcile()
    await both.send("email")
    await both.receive("email", receipt("undelivered", provider_id="mail-1"))
    assert await messages(both) == [("offer", "unknown")]
    assert await said(both.database) == []


async def test_a_look_up_that_chokes_is_tried_again(sending: Make) -> None:
    channel = Scripted(
        [UnknownOutcome("x")], supports_lookup=True, looked_up=[KeyError("sid"), "id-7"]
    )
    sms = sending(channel)
    await sms.queue(offer_made())
    await sms.send("sms")
    await due_for_a_look_up(sms)
    assert (await message(sms)).state == "unknown"
    await due_for_a_look_up(sms)
    assert (await message(sms)).state == "sent"


async def test_a_receipt_by_our_id_counts_whatever_id_the_call_brought(sending: Make) -> None:
    sms = sending(Scripted(["OK queued"], supports_receipts=True))
    await sms.queue(offer_made())
    await sms.send("sms")
    ours = (await message(sms)).id
    await sms.receive("sms", receipt("delivered", provider_id="another", message=ours))
    assert (await message(sms)).state == "delivered"


async def test_a_provider_that_knows_our_id_and_never_answers_is_left(sending: Make) -> None:
    channel = Scripted([UnknownOutcome("time-out")], supports_idempotency=True)
    both = sending(channel, mail_channel())
    await both.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    for _ in range(4):
        await both.send_again("sms")
    assert await both.send("email") == 1


# --- loops ----------------------------------------------------------------------------------------


async def test_the_same_text_goes_to_the_same_person_only_so_often(sending: Make) -> None:
    sms = sending(Scripted())
    offer = offer_made()
    for _ in range(SAME_TEXT_AT_MOST + 4):
        await sms.queue(answer_judged("accept", "already_recorded", offer=offer))
    states = [state for _, state in await messages(sms)]
    assert states.count("queued") == SAME_TEXT_AT_MOST
    assert states.count("withdrawn") == 4
    await run(sms.database, "UPDATE messages SET created_at = now() - interval '2 hours'")
    await sms.queue(answer_judged("accept", "already_recorded", offer=offer))
    assert [state for _, state in await messages(sms)].count("queued") == SAME_TEXT_AT_MOST + 1


# --- budgets --------------------------------------------------------------------------------------


async def test_beyond_the_budget_only_what_is_urgent_goes_by_sms(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, sms_a_day=3, warn_at=0.5)
    sms, mail = Scripted(), mail_channel()
    both = sending(sms, mail, districts=own)
    await both.queue(*(offer_made() for _ in range(5)))
    await both.send("sms")
    assert len(sms.sent) == 3
    await both.send("email")
    offers_by_mail = [each for each in mail.sent if "SMS" not in each.subject]
    assert len(offers_by_mail) == 2
    await both.queue(offer_made(urgency="urgent"))
    await both.send("sms")
    assert "MENDESAK" in sms.sent[-1].short_text


async def test_what_has_no_other_channel_is_unreachable_when_the_budget_is_spent(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, sms_a_day=1)
    sms = sending(Scripted(), districts=own)
    await sms.queue(offer_made())
    await sms.send("sms")
    await sms.queue(offer_made())
    await sms.send("sms")
    unreachable = [e for e in await said(sms.database) if isinstance(e, OfferUnreachable)]
    assert [event.data.reason for event in unreachable] == ["budget_spent"]


async def test_coordinators_are_warned_once_a_day_before_the_budget_is_spent(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, sms_a_day=10, warn_at=0.8)
    sms = Scripted()
    both = sending(sms, mail_channel(), districts=own)
    for number in range(9):
        await both.queue(offer_made())
        await both.send("sms")
        warned = [e for e in await said(both.database) if isinstance(e, SmsBudgetRunLow)]
        assert len(warned) == (number >= 7)
    assert (warned[0].data.used, warned[0].data.budget) == (8, 10)
    told = await rows(both.database, "SELECT recipient FROM messages WHERE purpose = 'budget'")
    of_the_district = [c for c in own[DISTRICT].policy.coordinators if c.subdistrict is None]
    assert len(told) == len(of_the_district) > 0


async def test_two_processes_together_stay_within_the_budget(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, sms_a_day=20)
    first, second = Scripted(concurrency=5), Scripted(concurrency=5)
    one_of, other = sending(first, districts=own), sending(second, districts=own)
    await one_of.queue(*(offer_made() for _ in range(60)))

    async def work(senders: Senders) -> None:
        while await senders.send("sms"):
            pass

    await asyncio.gather(*(work(each) for each in (one_of, other, one_of, other)))
    assert len(first.sent) + len(second.sent) == 20


async def test_what_the_provider_did_not_take_costs_nothing(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, sms_a_day=2)
    sms = Scripted([TransientFailure("HTTP 503"), "id-1"])
    senders = sending(sms, districts=own)
    await senders.queue(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)))
    await senders.send("sms")
    assert await one(senders.database, "SELECT segments FROM spending") == 0
    await senders.send_again("sms")
    assert await one(senders.database, "SELECT segments FROM spending") == 1
    assert await one(senders.database, "SELECT sum(segments) FROM attempts") == 1


async def test_one_call_is_given_back_once(
    sending: Make, districts: dict[str, District], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored twice, because the answer to the first commit got lost."""
    own = district_with(districts, sms_a_day=5)
    senders = sending(Scripted(["id-1", TransientFailure("HTTP 503")]), districts=own)
    await senders.queue(
        *(offer_made(respond_by=datetime.now(UTC) + timedelta(hours=1)) for _ in "12")
    )
    delivery = senders.of["sms"]
    settle = delivery._settle

    async def twice(outcomes: Any) -> None:
        await settle(outcomes)
        await settle(outcomes)

    monkeypatch.setattr(delivery, "_settle", twice)
    await senders.send("sms")
    assert await one(senders.database, "SELECT segments FROM spending") == 1


async def test_a_message_of_two_segments_costs_two(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, sms_a_day=100)
    senders = sending(Scripted(), districts=own)
    await senders.queue(offer_made())
    await run(
        senders.database,
        "UPDATE messages SET short_text = repeat('x', 200), segments = :segments",
        segments=texts.segments("x" * 200),
    )
    await senders.send("sms")
    assert await one(senders.database, "SELECT segments FROM spending") == 2


async def test_beyond_the_ceiling_not_even_what_is_urgent_goes_by_sms(
    sending: Make, districts: dict[str, District]
) -> None:
    own = district_with(districts, urgent_sms_a_day=3)
    sms, mail = Scripted(), mail_channel()
    both = sending(sms, mail, districts=own)
    await both.queue(*(offer_made(urgency="urgent") for _ in range(8)))
    for _ in range(3):
        await both.send("sms")
    asked = [each for each in sms.sent if "MENDESAK" in each.short_text]
    assert len(asked) == 3
    await both.send("email")
    assert len([each for each in mail.sent if "MENDESAK" in each.subject]) == 5
    # Those who can raise it hear of it once, by SMS as well.
    told = await rows(both.database, "SELECT state FROM messages WHERE purpose = 'ceiling'")
    of_the_district = [c for c in own[DISTRICT].policy.coordinators if c.subdistrict is None]
    assert [row.state for row in told] == ["sent"] * len(of_the_district)
    (event,) = [e for e in await said(both.database) if isinstance(e, SmsBudgetRunLow)]
    assert (event.data.used, event.data.budget, event.data.ceiling) == (3, 3, True)


async def test_a_ceiling_counts_also_where_the_price_is_not_known(
    sending: Make, districts: dict[str, District]
) -> None:
    sms = Scripted(cost_per_segment=0)
    senders = sending(sms, districts=district_with(districts, urgent_sms_a_day=2))
    await senders.queue(*(offer_made(urgency="urgent") for _ in range(5)))
    await senders.send("sms")
    assert len(sms.sent) == 2


# --- reporters ------------------------------------------------------------------------------------

VICTIM = "+6281299998888"


def about(**contact: str | None) -> CaseReported:
    """Somebody's report, with this contact."""
    budi = reporter(**{"name": "Budi", "phone": VICTIM, "email": None, **contact})
    reported = case_reported(code=f"R{uuid7().int % 10**9}", reporter=budi)
    return reported.model_copy(update={"time": datetime.now(UTC)})


@pytest.mark.parametrize("at_once", [25, 4, 1])
async def test_a_strangers_number_is_written_to_a_few_times_a_day_however_often_it_is_given(
    sending: Make, at_once: int
) -> None:
    sms = Scripted()
    senders = sending(sms)
    for begin in range(0, 25, at_once):
        await senders.report(*(about() for _ in range(begin, min(begin + at_once, 25))))
        await senders.send("sms")
    assert len(sms.sent) == 3
    await senders.report(about(phone="+6281277776666"))
    await senders.send("sms")
    assert len(sms.sent) == 4
    await run(senders.database, "UPDATE messages SET created_at = now() - interval '1 day'")
    await senders.report(about())
    await senders.send("sms")
    assert len(sms.sent) == 5


async def test_two_processes_together_write_no_more(sending: Make) -> None:
    one_of, other = sending(Scripted()), sending(Scripted())
    await asyncio.gather(*(each.report(about()) for _ in range(6) for each in (one_of, other)))
    assert await one(one_of.database, "SELECT count(*) FROM messages") == 3


async def test_a_mail_address_is_spared_too_whatever_number_comes_with_it(sending: Make) -> None:
    senders = sending(mail_channel())
    for number in range(9):
        spelt = "Korban@example.org" if number % 2 else "korban@example.org"
        await senders.report(about(phone=f"+62812000000{number}", email=spelt))
    assert await one(senders.database, "SELECT count(*) FROM messages") == 3


async def test_news_of_many_cases_are_bounded_and_leave_the_acknowledgement_alone(
    sending: Make, districts: dict[str, District]
) -> None:
    senders = sending(Scripted(), districts=district_with(districts, news_a_day=4))
    told = reporter(phone=VICTIM, email=None)
    await senders.queue(*(case_progressed("closed", reporter=told) for _ in range(9)))
    await senders.report(about())
    found = await messages(senders)
    assert [purpose for purpose, _ in found] == ["news_closed"] * 4 + ["acknowledged"]


async def test_a_drill_is_the_agencys_own_and_has_no_limit(sending: Make) -> None:
    senders = sending(Scripted())
    budi = reporter(phone=VICTIM, email=None)
    drills = (case_reported(code=f"D{n}", reporter=budi, drill=True) for n in range(6))
    await senders.report(*drills)
    await senders.report(about())
    assert await one(senders.database, "SELECT count(*) FROM messages") == 7


async def test_an_offer_refused_for_good_is_unreachable_at_once(sending: Make) -> None:
    sms = sending(Scripted([PermanentFailure("no such number")]))
    await sms.queue(offer_made())
    await sms.send("sms")
    assert [type(event) for event in await said(sms.database)] == [OfferUnreachable]
