"""Messages: stored before anybody is called, never blindly sent again; and the answers to them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any
from uuid import UUID, uuid4

import pytest
import uvicorn
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from ops.processes import free_port
from services.notification import answers, delivery
from services.notification.app import MESSAGES, compose, measure_messages
from services.notification.channels import PermanentFailure, UnknownOutcome
from services.notification.settings import NotificationSettings
from shared.database import Database, execute, sql
from shared.events import Event, OfferAnswered, OfferMade, OfferUnreachable
from shared.health import Loop
from tests.conftest import MakeSettings
from tests.factories import (
    answer_judged,
    case_escalated,
    coordinator,
    offer_assigned,
    offer_closed,
    offer_made,
    offered_volunteer,
)
from tests.integration.conftest import Door, one, open_door, rows, run
from tests.integration.sending import Scripted, Senders, attempts, message, messages, said

PHONE, ADDRESS = "+6281234567890", "siti@example.org"


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
    offer = offer_made(volunteer=offered_volunteer(email=None))
    await mail.queue(offer)
    await mail.queue(offer)
    found = await message(mail)
    assert (found.state, found.channel) == ("failed", None)
    assert "no channel has an address" in found.error
    (unreachable,) = await said(mail.database)
    assert isinstance(unreachable, OfferUnreachable)
    assert unreachable.data.offer_id == offer.data.offer_id
    assert unreachable.data.reason == "no_address"
    assert (unreachable.subject, unreachable.district) == (offer.subject, offer.district)


async def test_what_has_expired_is_never_sent(senders: Make) -> None:
    sandbox = senders()
    await sandbox.queue(offer_made(respond_by=datetime.now(UTC) - timedelta(seconds=1)))
    assert await sandbox.send("sandbox") == 0
    await sandbox.of["sandbox"].reconcile()
    found = await message(sandbox)
    assert (found.state, found.attempts) == ("expired", 0)
    assert await sandbox.send("sandbox") == 0
    assert await attempts(sandbox) == []
    # Whoever was not even tried was never asked, and may be asked later.
    (unsent,) = await said(sandbox.database)
    assert unsent.data.reason == "not_sent_in_time"


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


# --- what happens to an offer afterwards ----------------------------------------------------------

CLOSING = {
    "taken_by_another": "sudah ada relawan lain",
    "case_closed": "sudah ditutup",
    "lapsed": "belum mendapat kabar",
    "released": "koordinator mengalihkan",
    "of_the_future": "sudah berakhir",
}


async def test_an_assigned_case_is_told_and_not_asked(senders: Make) -> None:
    sandbox = senders()
    await sandbox.queue(offer_assigned())
    await sandbox.send("sandbox")
    found = await message(sandbox)
    assert (found.purpose, found.state) == ("assigned", "sent")
    assert "tugas untuk Anda" in found.short_text


async def test_five_hundred_offers_are_as_few_statements_as_one(
    senders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, statements = senders(), []

    async def counted(session: Any, statement: Any, values: Any = None) -> Any:
        statements.append(statement)
        return await execute(session, statement, values)

    for module in ("messages", "offers", "asked", "routes"):
        monkeypatch.setattr(f"services.notification.{module}.execute", counted)
    await sandbox.queue(*(offer_made() for _ in range(500)))
    # Who was asked, who wants no messages, and the messages.
    assert len(statements) == 3
    assert await one(sandbox.database, "SELECT count(*) FROM messages") == 500


@pytest.mark.parametrize("reason", [*CLOSING, "expired"])
async def test_an_offer_that_is_closed_before_it_was_sent_is_never_sent(
    senders: Make, reason: str
) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    await sandbox.queue(offer_closed(reason, offer=offer))
    assert await messages(sandbox) == [("offer", "withdrawn")]
    assert await sandbox.send("sandbox") == 0


async def test_made_and_closed_in_one_batch_is_never_sent(senders: Make) -> None:
    sandbox = senders()
    closed, other = offer_made(), offer_made()
    await sandbox.queue(closed, other, offer_closed(offer=closed))
    assert await sandbox.send("sandbox") == 1
    assert sorted(await messages(sandbox)) == [("offer", "sent"), ("offer", "withdrawn")]


@pytest.mark.parametrize("reason", CLOSING)
async def test_whoever_was_asked_hears_why_they_need_not_come(senders: Make, reason: str) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    await sandbox.send("sandbox")
    closing = offer_closed(reason, offer=offer)
    await sandbox.queue(closing)
    await sandbox.queue(closing)
    assert await sandbox.send("sandbox") == 1
    assert await messages(sandbox) == [("offer", "sent"), ("closed", "sent")]
    query = "SELECT body FROM sandbox_messages ORDER BY received_at DESC LIMIT 1"
    assert CLOSING[reason] in await one(sandbox.database, query)


async def test_nobody_is_told_that_their_time_is_up(senders: Make) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    await sandbox.send("sandbox")
    await sandbox.queue(offer_closed("expired", offer=offer))
    assert await messages(sandbox) == [("offer", "sent")]


async def test_a_closed_offer_that_nobody_has_heard_of_does_nothing(senders: Make) -> None:
    sandbox = senders()
    await sandbox.queue(*(offer_closed(reason) for reason in CLOSING))
    assert await messages(sandbox) == []


async def test_an_offer_that_comes_after_its_own_end_is_never_sent(senders: Make) -> None:
    """It was parked and replayed, say."""
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer_closed(offer=offer))
    await sandbox.queue(offer)
    assert await messages(sandbox) == [("offer", "withdrawn")]


async def test_an_offer_on_its_way_to_the_provider_counts_as_told(senders: Make) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    await sandbox.of["sandbox"]._take(50)
    await sandbox.queue(offer_closed(offer=offer))
    assert await messages(sandbox) == [("offer", "sending"), ("closed", "queued")]


async def test_an_offer_of_unknown_fate_counts_as_told_and_goes_to_no_other_channel(
    senders: Make, smtp: "Mailbox"
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    smtp.drop_after_data = True
    offer = offer_made()
    await both.queue(offer)
    await both.send("email")
    await both.queue(offer_closed(offer=offer))
    assert await messages(both) == [("offer", "withdrawn"), ("closed", "queued")]
    assert await both.send("sandbox") == 0


async def test_a_call_that_fails_while_its_offer_is_closed_is_not_tried_again(
    senders: Make, monkeypatch: pytest.MonkeyPatch, smtp: "Mailbox"
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    smtp.at_data = "451 try later"
    offer = offer_made()
    await both.queue(offer)
    settle = both.of["email"]._settle

    async def close_first(outcomes: Any) -> None:
        await both.queue(offer_closed("expired", offer=offer))
        await settle(outcomes)

    monkeypatch.setattr(both.of["email"], "_settle", close_first)
    await both.send("email")
    assert await messages(both) == [("offer", "withdrawn")]
    # Even if the two had not seen each other, it is not taken again.
    await run(both.database, "UPDATE messages SET state = 'queued', next_attempt_at = now()")
    assert await both.send("email") == 0


@pytest.mark.parametrize(
    ("overtaken_by", "state"), [("its end", "withdrawn"), ("its deadline", "expired")]
)
async def test_a_process_that_was_held_up_before_the_call_looks_once_more(
    senders: Make, monkeypatch: pytest.MonkeyPatch, overtaken_by: str, state: str
) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    (due,) = await sandbox.of["sandbox"]._take(50)
    if overtaken_by == "its end":
        await sandbox.queue(offer_closed("expired", offer=offer))
    else:
        await run(sandbox.database, "UPDATE messages SET send_before = now()")
    monkeypatch.setattr(delivery, "HELD_UP", timedelta(0))
    await sandbox.of["sandbox"]._settle([await sandbox.of["sandbox"]._call(due)])
    assert await messages(sandbox) == [("offer", state)]
    assert await one(sandbox.database, "SELECT count(*) FROM sandbox_messages") == 0
    assert await said(sandbox.database) == []


async def test_an_offer_is_not_asked_on_another_channel_after_its_answer(
    senders: Make, smtp: "Mailbox"
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    smtp.drop_after_data = True
    offer = offer_made()
    await both.queue(offer)
    await both.send("email")
    await both.queue(answer_judged(offer=offer))
    assert ("offer", "withdrawn") in await messages(both)


async def test_what_was_said_before_the_end_is_not_said_after_it(senders: Make) -> None:
    """While the gateway was away a volunteer accepted and was released."""
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer)
    await sandbox.send("sandbox")
    await sandbox.queue(answer_judged(offer=offer), offer_closed("released", offer=offer))
    assert await messages(sandbox) == [
        ("offer", "sent"),
        ("reply", "withdrawn"),
        ("closed", "queued"),
    ]
    await sandbox.queue(answer_judged("arrived", "too_late", offer=offer))
    assert (await messages(sandbox))[-1] == ("reply", "queued")


@pytest.mark.parametrize(
    ("answer", "verdict", "sentence"),
    [
        ("accept", "recorded", "Anda menangani kasus ini"),
        ("decline", "recorded", "terima kasih atas jawabannya"),
        ("arrived", "recorded", "balas K7P2M SELESAI"),
        ("done", "recorded", "tercatat selesai"),
        ("obstacle", "recorded", "koordinator diberi tahu"),
        ("hand_back", "recorded", "kami alihkan ke relawan lain"),
        ("accept", "already_recorded", "sudah tercatat menangani kasus ini"),
        ("decline", "already_recorded", "sudah tercatat sebelumnya"),
        ("accept", "too_late", "sudah lewat"),
        ("accept", "taken_by_another", "sudah ada relawan lain"),
        ("accept", "case_closed", "sudah ditutup"),
        ("arrived", "not_accepted_yet", "K7P2M YA"),
        ("done", "unconfirmed", "balas SELESAI K7P2M"),
        ("accept", "not_yours", "bukan untuk Anda"),
        ("accept", "unknown_offer", "tidak kami kenal"),
        ("sing", "of_the_future", "sudah kami terima"),
    ],
)
async def test_every_answer_gets_a_sentence_back(
    senders: Make, answer: str, verdict: str, sentence: str
) -> None:
    sandbox = senders()
    judged = answer_judged(answer, verdict)
    await sandbox.queue(judged)
    await sandbox.queue(judged)
    assert await sandbox.send("sandbox") == 1
    found = await message(sandbox)
    assert (found.purpose, found.state, found.recipient) == (
        "reply",
        "sent",
        str(judged.data.volunteer.id if judged.data.volunteer else None),
    )
    assert sentence in found.short_text


async def test_whoever_nobody_knows_is_answered_where_they_wrote_from(senders: Make) -> None:
    sandbox = senders()
    stranger = answer_judged(
        verdict="unknown_offer", volunteer=None, answer_code=None, phone="+6281200000009"
    )
    await sandbox.queue(stranger, answer_judged(verdict="unknown_offer", volunteer=None))
    found = await message(sandbox)
    assert found.recipient == "unknown:+6281200000009"
    await sandbox.send("sandbox")
    assert await one(sandbox.database, "SELECT address FROM sandbox_messages") == "+6281200000009"


async def test_every_coordinator_hears_of_an_escalation_in_their_language(
    senders: Make, smtp: "Mailbox"
) -> None:
    both = senders(channels="email,sandbox", **smtp.settings)
    await both.queue(
        case_escalated(
            "obstacle",
            words="jalan banjir",
            coordinators=[
                coordinator(language="en"),
                coordinator(name="Rina", phone="+6281200000002", email=None),
            ],
        )
    )
    await both.send("email")
    await both.send("sandbox")
    assert await messages(both) == [("escalation", "sent"), ("escalation", "sent")]
    query = "SELECT recipient FROM messages ORDER BY recipient"
    assert [row.recipient for row in await rows(both.database, query)] == [
        "coordinator:+6281200000001",
        "coordinator:+6281200000002",
    ]
    mail = message_from_bytes(smtp.mails[0], policy=policy.default)
    assert mail["To"] == "ani@example.org"
    assert (
        mail["Subject"].strip().startswith("Coordinator needed: abandoned elderly person in Berok")
    )
    letter = mail.get_content()
    assert '"jalan banjir"' in letter
    assert "Budi (PSM), 3.2 km, +6281234567891" in letter
    short = await one(both.database, "SELECT body FROM sandbox_messages")
    assert short.startswith("JANGKAU ABCD2345: relawan melaporkan kendala")


async def test_messages_other_than_offers_have_a_life_of_their_own(senders: Make) -> None:
    sandbox = senders()
    long_ago = datetime.now(UTC) - timedelta(hours=7)
    await sandbox.queue(
        answer_judged(time=long_ago), case_escalated(time=long_ago), offer_assigned()
    )
    await sandbox.of["sandbox"].reconcile()
    assert await messages(sandbox) == [
        ("reply", "expired"),
        ("assigned", "queued"),
        ("escalation", "queued"),
    ]


async def test_the_metrics_count_messages_that_were_withdrawn(senders: Make) -> None:
    sandbox = senders()
    offer = offer_made()
    await sandbox.queue(offer, offer_closed(offer=offer))
    async with sandbox.database.transaction() as session:
        await measure_messages(session)
    assert MESSAGES.labels("withdrawn")._value.get() == 1


# --- offers that reach nobody ---------------------------------------------------------------------


def refusing(senders: Senders, error: Exception) -> Senders:
    """Let the only channel of these senders fail so."""
    senders.of["email"].channel = Scripted([error], name="email", kind="email")
    return senders


async def test_an_offer_that_no_channel_brings_is_said_to_be_unreachable_once(
    senders: Make,
) -> None:
    mail = refusing(senders(channels="email"), PermanentFailure("no such mailbox"))
    offer = offer_made(drill=True)
    await mail.queue(offer)
    await mail.send("email")
    await mail.send("email")
    assert await messages(mail) == [("offer", "failed")]
    (unreachable,) = await said(mail.database)
    assert isinstance(unreachable, OfferUnreachable)
    assert unreachable.data.offer_id == offer.data.offer_id
    assert unreachable.data.reason == "no_channel_left"
    assert (unreachable.subject, unreachable.drill) == (offer.subject, True)


async def test_two_processes_that_settle_at_once_say_it_once(
    senders: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was stopped past its lease; the other has given the attempt up and tried again."""
    mail = refusing(senders(channels="email"), PermanentFailure("no such mailbox"))
    await mail.queue(offer_made())
    late: list[Any] = []
    settle = mail.of["email"]._settle
    with monkeypatch.context() as patch:

        async def hold(outcomes: Any) -> None:
            late.append(outcomes)

        patch.setattr(mail.of["email"], "_settle", hold)
        await mail.send("email")
    await asyncio.gather(*(settle(late[0]) for _ in range(4)))
    assert len(await said(mail.database)) == 1
    # Another attempt meanwhile: what the first one says about the message does not count any more.
    await run(mail.database, "UPDATE messages SET state = 'sending', attempts = attempts + 1")
    await settle(late[0])
    assert len(await said(mail.database)) == 1


async def test_an_offer_of_unknown_fate_is_not_said_to_be_unreachable(senders: Make) -> None:
    mail = refusing(senders(channels="email"), UnknownOutcome("no answer"))
    await mail.queue(offer_made())
    await mail.send("email")
    assert await messages(mail) == [("offer", "unknown")]
    assert await said(mail.database) == []


async def test_what_an_earlier_channel_may_have_brought_is_unknown_and_not_unreachable(
    senders: Make, smtp: "Mailbox", gateway: "Gateway"
) -> None:
    both = senders(channels="email,sms", **{**smtp.settings, **gateway.settings})
    smtp.drop_after_data = True
    gateway.answers = [(400, {})]
    await both.queue(offer_made())
    await both.send("email")
    await both.send("sms")
    assert await attempts(both) == [("email", "unknown"), ("sms", "failed")]
    assert await messages(both) == [("offer", "unknown")]
    assert await said(both.database) == []


async def test_only_offers_are_said_to_be_unreachable(senders: Make) -> None:
    mail = refusing(senders(channels="email"), PermanentFailure("no such mailbox"))
    await mail.queue(
        answer_judged(), case_escalated(), answer_judged(volunteer=offered_volunteer(email=None))
    )
    await mail.send("email")
    assert {state for _, state in await messages(mail)} == {"failed"}
    assert await said(mail.database) == []


# --- answers --------------------------------------------------------------------------------------


@pytest.fixture
async def door(settings_without_kafka: MakeSettings) -> AsyncIterator[Door]:
    """Notification's HTTP side with an empty database."""
    made = open_door(compose(await settings_without_kafka(NotificationSettings)))
    yield made
    await made.close()


@pytest.fixture
async def phones(door: Door) -> AsyncIterator[Senders]:
    """The senders behind the door."""
    made = Senders(door.database, NotificationSettings())
    yield made
    await made.close()


async def ring(phones: Senders, *events: Event[Any]) -> None:
    """Let this arrive on the fake phones."""
    await phones.queue(*events)
    await phones.send("sandbox")


async def give(door: Door, offer: OfferMade | None, answer: str, **values: Any) -> Any:
    headers = values.pop("headers", {})
    offer_id = str(offer.data.offer_id if offer else uuid4())
    body = {"offer_id": offer_id, "answer": answer, **values}
    return await door.http.post("/sandbox/answers", json=body, headers=headers)


async def test_an_answer_is_published_with_all_that_is_known(door: Door, phones: Senders) -> None:
    offer = offer_made(drill=True)
    await ring(phones, offer)
    answer = await give(door, offer, "done", outcome="referred", words="ke puskesmas\x00")
    assert answer.status_code == 202
    (event,) = await said(door.database)
    assert isinstance(event, OfferAnswered)
    assert answer.json() == {"event_id": str(event.id)}
    assert (event.subject, event.district, event.drill) == (offer.subject, offer.district, True)
    assert abs(event.time - datetime.now(UTC)) < timedelta(minutes=1)
    assert event.data.model_dump() == {
        "offer_id": offer.data.offer_id,
        "answer": "done",
        "outcome": "referred",
        "words": "ke puskesmas",
        "channel": "sandbox",
        "volunteer_id": offer.data.volunteer.id,
        "phone": PHONE,
        "email": ADDRESS,
        "form": "button",
        "code_typed": None,
    }


async def test_an_answer_to_an_unknown_offer_gets_a_sentence(door: Door) -> None:
    answer = await give(door, None, "accept")
    assert answer.status_code == 404
    assert "no such offer" in answer.json()["detail"]
    async with door.database.transaction() as session:
        with pytest.raises(answers.UnknownOffer):
            await answers.give(session, offer_id=uuid4(), answer="accept")
    assert await said(door.database) == []


async def test_the_same_key_is_the_same_answer(door: Door, phones: Senders) -> None:
    offer, other = offer_made(), offer_made()
    await ring(phones, offer, other)
    keyed = {"headers": {"idempotency-key": "k1"}}
    given = await asyncio.gather(*(give(door, offer, "accept", **keyed) for _ in range(4)))
    assert {answer.status_code for answer in given} == {202}
    assert len({answer.json()["event_id"] for answer in given}) == 1
    assert len(await said(door.database)) == 1
    assert await one(door.database, "SELECT count(*) FROM sandbox_answers") == 1
    # A key belongs to its offer, and to what was said first.
    assert (await give(door, other, "accept", **keyed)).status_code == 202
    changed = await give(door, offer, "decline", **keyed)
    assert changed.status_code == 422
    assert "Idempotency-Key" in changed.json()["detail"]
    assert len(await said(door.database)) == 2
    # Without a key everything counts.
    assert (await give(door, offer, "accept")).status_code == 202
    assert len(await said(door.database)) == 3


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b"\xff", 400),
        (b'{"offer_id": "x", "answer": "accept"}', 422),
        (b'{"offer_id": "01980c5f-8a12-7a01-8c44-7d6e5f4a3b21", "answer": "sing"}', 422),
        (b'{"offer_id": "01980c5f-8a12-7a01-8c44-7d6e5f4a3b21", "answer": "accept", "x": 1}', 422),
        (
            b'{"offer_id": "01980c5f-8a12-7a01-8c44-7d6e5f4a3b21", "answer": "accept",'
            b' "outcome": "resolved"}',
            422,
        ),
    ],
)
async def test_what_is_no_answer_is_refused_with_a_sentence(
    door: Door, body: bytes, status: int
) -> None:
    kind = {"content-type": "application/json"}
    answer = await door.http.post("/sandbox/answers", content=body, headers=kind)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await door.http.post("/sandbox/answers", content=b"hello")).status_code == 415


async def test_a_form_of_the_page_leads_back_to_it(door: Door, phones: Senders) -> None:
    offer = offer_made()
    await ring(phones, offer)
    form = {"offer_id": str(offer.data.offer_id), "answer": "obstacle", "words": "", "outcome": ""}
    answer = await door.http.post("/sandbox/answers", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sandbox")
    (event,) = await said(door.database)
    assert (event.data.answer, event.data.words, event.data.outcome) == ("obstacle", None, None)
    page = (await door.http.get("/sandbox")).text
    assert "K7P2M KENDALA" in page
    assert (await door.http.post("/sandbox/answers", data={"answer": "x"})).status_code == 422


# --- the page -------------------------------------------------------------------------------------


def buttons(page: str) -> set[str]:
    """What can be answered on the page."""
    known = ("Ya", "Tidak", "Tiba", "Selesai…", "Kendala…", "Tidak jadi")
    return {label for label in known if f">{label}</" in page}


async def test_the_buttons_follow_what_was_heard(door: Door, phones: Senders) -> None:
    async def shown() -> set[str]:
        return buttons((await door.http.get("/sandbox")).text)

    offer = offer_made()
    await ring(phones, offer)
    assert await shown() == {"Ya", "Tidak"}
    await give(door, offer, "accept")
    page = (await door.http.get("/sandbox")).text
    assert buttons(page) == set()
    assert "menunggu jawaban" in page
    assert '<meta http-equiv="refresh" content="1">' in page
    await ring(phones, answer_judged(offer=offer))
    assert await shown() == {"Tiba", "Selesai…", "Kendala…", "Tidak jadi"}
    await ring(phones, answer_judged("arrived", "already_recorded", offer=offer))
    assert await shown() == {"Tiba", "Selesai…", "Kendala…", "Tidak jadi"}
    await ring(phones, answer_judged("arrived", offer=offer))
    assert await shown() == {"Selesai…", "Kendala…", "Tidak jadi"}
    await ring(phones, offer_closed("case_closed", offer=offer))
    assert await shown() == set()


async def test_an_assigned_case_can_be_worked_on_at_once(door: Door, phones: Senders) -> None:
    await ring(phones, offer_assigned())
    page = (await door.http.get("/sandbox")).text
    assert buttons(page) == {"Tiba", "Selesai…", "Kendala…", "Tidak jadi"}


async def test_what_is_no_offer_has_no_buttons(door: Door, phones: Senders) -> None:
    await ring(phones, case_escalated(), answer_judged(verdict="not_yours"))
    assert buttons((await door.http.get("/sandbox")).text) == set()


async def test_a_phone_shows_its_conversation_and_the_one_that_rang_last_is_first(
    door: Door, phones: Senders
) -> None:
    first, second = offer_made(), offer_made(volunteer=offered_volunteer(phone="+628999"))
    await ring(phones, first)
    await ring(phones, second)
    page = (await door.http.get("/sandbox")).text
    assert page.index("+628999") < page.index(PHONE)
    await give(door, first, "decline")
    page = (await door.http.get("/sandbox")).text
    assert page.index(PHONE) < page.index("+628999")
    assert '<li class="mine"><p>K7P2M TIDAK<' in page
    assert page.count("<article>") == 2


async def test_what_must_be_typed_is_typed_on_a_page_that_stands_still(
    door: Door, phones: Senders
) -> None:
    offer, other = offer_made(), offer_made(volunteer=offered_volunteer(phone="+628999"))
    await ring(phones, offer, other)
    await ring(phones, answer_judged(offer=offer))
    page = (await door.http.get("/sandbox")).text
    assert "http-equiv" in page
    assert "<textarea" not in page
    for answer in ("done", "obstacle"):
        path = f"/sandbox?offer={offer.data.offer_id}&answer={answer}"
        assert path.replace("&", "&amp;") in page
        typing = (await door.http.get(path)).text
        assert "http-equiv" not in typing
        assert "<textarea" in typing
        assert ("<select" in typing) is (answer == "done")
        assert "+628999" not in typing
    await ring(phones, offer_closed("released", offer=offer))
    ended = await door.http.get(path)
    assert (ended.status_code, ended.headers["location"]) == (303, "/sandbox")
    assert (await door.http.get(f"/sandbox?offer={uuid4()}&answer=done")).status_code == 404


async def test_the_page_stays_light_for_many_phones(door: Door, phones: Senders) -> None:
    for number in range(60):
        phone = offered_volunteer(phone=f"+62812000{number:05d}")
        await phones.queue(*(offer_made(volunteer=phone) for _ in range(8)))
    while await phones.send("sandbox"):
        pass
    page = (await door.http.get("/sandbox")).text
    assert page.count("<article>") == 60
    assert len(page) < 400_000


async def test_messages_can_be_read_on_from_a_number(door: Door, phones: Senders) -> None:
    async def read(query: str) -> Any:
        answer = await door.http.get(f"/sandbox/messages{query}")
        assert answer.status_code == 200
        return answer.json()

    assert await read("") == {"messages": [], "after": 0}
    offers = [offer_made() for _ in range(5)]
    for offer in offers:
        await ring(phones, offer)
    everything = await read("?after=0")
    assert [m["offer_id"] for m in everything["messages"]] == [str(o.data.offer_id) for o in offers]
    first = everything["messages"][0]
    assert (
        first.items()
        >= {
            "address": PHONE,
            "purpose": "offer",
            "case_id": str(offers[0].subject),
            "answer_code": "K7P2M",
            "offer_state": None,
        }.items()
    )
    assert UUID(first["message_id"])
    half = await read("?after=0&limit=2")
    assert half["messages"] == everything["messages"][:2]
    assert (await read(f"?after={half['after']}"))["messages"] == everything["messages"][2:]
    assert await read(f"?after={everything['after']}") == {
        "messages": [],
        "after": everything["after"],
    }
    assert (await read("?limit=2"))["messages"] == everything["messages"][-2:]


async def test_a_reader_misses_no_message_that_is_still_on_its_way(
    door: Door, phones: Senders
) -> None:
    """A number is given before the commit: a later one can be seen earlier."""
    async with phones.database.transaction() as session:
        await execute(session, sql("SELECT pg_current_xact_id()"))
        await ring(phones, offer_made())
        assert (await door.http.get("/sandbox/messages?after=0")).json()["messages"] == []
    assert len((await door.http.get("/sandbox/messages?after=0")).json()["messages"]) == 1


async def test_the_sandbox_is_not_there_where_it_is_no_channel(
    settings_without_kafka: MakeSettings,
) -> None:
    settings = await settings_without_kafka(NotificationSettings, channels="email")
    door = open_door(compose(settings))
    for path in ("/sandbox", "/sandbox/messages"):
        assert (await door.http.get(path)).status_code == 404
    assert (await give(door, None, "accept")).status_code == 404
    await door.close()


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
    odd = offered_volunteer(email=address)
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
