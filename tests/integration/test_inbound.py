"""What comes in: the doors, which offer a text is about, and what follows from it."""

import asyncio
import email
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator
from uuid_utils.compat import uuid7

from services.notification import api, asked, offers, webhooks
from services.notification.channels import Channel, Outgoing
from services.notification.channels.email import Email
from services.notification.channels.sandbox import Sandbox
from services.notification.channels.sms import Sms
from services.notification.channels.twilio import Twilio
from services.notification.handlers import Office
from services.notification.inbound import forget
from services.notification.routes import Routes
from services.notification.settings import NotificationSettings
from shared import errors, topics
from shared.database import Database
from shared.districts import Districts
from shared.events import (
    DutyPageAsked,
    Event,
    OfferAnswered,
    PingAnswered,
    VolunteerOffDuty,
    VolunteerStopped,
)
from tests.factories import offer_made, offered_volunteer, volunteer_pinged
from tests.integration.conftest import one, rows, run
from tests.servers import PROJECT
from tests.unit.test_mail import bounce, written

SITI, BUDI, STRANGER = "+6281234567890", "+6281234567891", "+6281299999999"
TOKEN, SECRET = "a-token-that-twilio-gave", "a-secret-of-the-gateway"
PUBLIC = "http://localhost:8003/pesan"
KOBA_COORDINATORS = {"+6289000000202", "+6289000000201"}


# What our mail server says of a mail that is from whom it says.
SERVER = "mx.desa.example"
PROVEN = f"Authentication-Results: {SERVER}; dmarc=pass header.from=example.org\n".encode()


@dataclass
class Doors:
    """The webhooks and the sandbox with a database, and what providers do to them."""

    database: Database
    http: httpx2.AsyncClient
    ids: int = 0

    async def ask(self, *events: Any, **states: str) -> None:
        """Let volunteers be asked; ``states`` are those of offers by their answer codes."""
        codes = {event.data.answer_code: asked_id(event) for event in events}
        async with self.database.transaction() as session:
            await asked.remember(session, events)
            await offers.hear(session, {codes[code]: state for code, state in states.items()})

    async def twilio(self, text: str, *, sender: str = SITI, **params: str) -> httpx2.Response:
        """A text as Twilio hands it over, signed."""
        self.ids += 1
        params = {"MessageSid": f"SM{self.ids}", "From": sender, "Body": text, **params}
        return await self.signed("/v1/inbound/twilio", params)

    async def signed(
        self, path: str, params: Mapping[str, str], *, signed: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        signature = RequestValidator(TOKEN).compute_signature(PUBLIC + path, signed or params)
        return await self.http.post(path, data=params, headers={"x-twilio-signature": signature})

    async def gateway(self, body: Any, *, secret: str | None = SECRET) -> httpx2.Response:
        """A text as a gateway hands it over."""
        headers = {"x-jangkau-secret": secret} if secret else {}
        return await self.http.post("/v1/inbound/sms", json=body, headers=headers)

    async def mail(
        self, raw: bytes, *, secret: str = SECRET, proof: bytes = PROVEN
    ) -> httpx2.Response:
        """A mail as a mail server hands it over, with what it has found out on top."""
        raw = proof + raw
        headers = {"x-jangkau-secret": secret, "content-type": "message/rfc822"}
        return await self.http.post("/v1/inbound/email", content=raw, headers=headers)

    async def said(self) -> list[Event[Any]]:
        """The events for assignment, in order."""
        found = await rows(self.database, "SELECT payload FROM outbox ORDER BY id")
        return [topics.NOTIFICATION_ANSWERS.decode(row.payload.encode()) for row in found]

    async def answer(self) -> OfferAnswered:
        """The only event there is: an answer."""
        (event,) = await self.said()
        assert isinstance(event, OfferAnswered)
        return event

    async def written(self) -> Sequence[Any]:
        """The messages that go out."""
        return await rows(self.database, "SELECT * FROM messages ORDER BY created_at, id")

    async def kept(self) -> Sequence[Any]:
        """What was kept of what came in."""
        return await rows(self.database, "SELECT * FROM inbound ORDER BY received_at, id")


def asked_id(event: Any) -> UUID:
    found: UUID = getattr(event.data, "offer_id", None) or event.data.ping_id
    return found


def make_settings(**values: Any) -> NotificationSettings:
    given = {
        "channels": "twilio,sms,email,sandbox",
        "public_url": PUBLIC,
        "twilio_account_sid": "AC1",
        "twilio_auth_token": TOKEN,
        "twilio_from": "+15005550006",
        "twilio_url": "http://127.0.0.1:1",
        "sms_url": "http://127.0.0.1:1/?to={to}&text={text}",
        "sms_webhook_secret": SECRET,
        "inbound_email_secret": SECRET,
        "inbound_email_authserv_id": SERVER,
        **values,
    }
    return NotificationSettings(**given)


def make_app(database: Database, settings: NotificationSettings) -> FastAPI:
    """The doors alone, as they are composed in the service."""
    districts = Districts([PROJECT / "districts"], villages=False)
    of: dict[str, Callable[[], Channel]] = {
        "twilio": lambda: Twilio(settings),
        "sms": lambda: Sms(settings),
        "email": lambda: Email(settings),
        "sandbox": lambda: Sandbox(database),
    }
    channels = [of[name]() for name in settings.channel_names]
    office = Office(Routes(channels, districts), lambda *_: None, districts)
    app = FastAPI()
    app.include_router(webhooks.router(database, settings=settings, office=office))
    app.include_router(api.router(database, office=office))
    errors.install(app, body_limits=webhooks.BODY_LIMITS)
    return app


def client(app: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def doors(notification_database: Database) -> AsyncIterator[Doors]:
    async with client(make_app(notification_database, make_settings())) as http:
        yield Doors(notification_database, http)


# --- the doors ------------------------------------------------------------------------------------


async def test_a_signed_text_is_kept_as_it_came_and_answered_with_an_empty_twiml(
    doors: Doors,
) -> None:
    offer = offer_made()
    await doors.ask(offer)
    answer = await doors.twilio("YA k7p2m, saya segera ke sana")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert answer.text.endswith("<Response/>")
    (kept,) = await doors.kept()
    assert (kept.channel, kept.kind, kept.provider_id, kept.sender, kept.body, kept.meaning) == (
        "twilio", "sms", "SM1", SITI, "YA k7p2m, saya segera ke sana", "accept",
    )  # fmt: skip
    event = await doors.answer()
    assert (event.subject, event.district) == (offer.subject, offer.district)
    assert event.data.answer == "accept"
    assert event.data.offer_id == offer.data.offer_id
    assert event.data.volunteer_id == offer.data.volunteer.id
    assert (event.data.channel, event.data.phone, event.data.email) == ("twilio", SITI, None)
    assert "saya segera ke sana" in (event.data.words or "")


@pytest.mark.parametrize("path", ["/v1/inbound/twilio", "/v1/receipts/twilio"])
async def test_what_twilio_has_not_signed_is_refused_and_leaves_no_trace_of_itself(
    doors: Doors, path: str
) -> None:
    params = {"MessageSid": "SM1", "From": SITI, "Body": "YA rahasia", "MessageStatus": "delivered"}
    with structlog.testing.capture_logs() as logs:
        unsigned = await doors.http.post(path, data=params)
        wrong = await doors.http.post(path, data=params, headers={"x-twilio-signature": "x" * 28})
        odd = await doors.http.post(path, data=params, headers={b"x-twilio-signature": b"\xff\xfe"})
        tampered = await doors.signed(path, params, signed={**params, "Body": "TIDAK"})
    assert {answer.status_code for answer in (unsigned, wrong, odd, tampered)} == {403}
    door = path.removeprefix("/v1/").replace("/", ".")
    assert [(entry["event"], entry["door"], entry["reason"]) for entry in logs] == [
        ("webhook.refused", door, "no_signature"), *[("webhook.refused", door, "signature")] * 3,
    ]  # fmt: skip
    assert not any(word in str(logs) for word in (SITI, "rahasia", "SM1"))
    assert await doors.kept() == []


async def test_a_signature_is_of_the_public_address_whatever_host_is_claimed(doors: Doors) -> None:
    params = {"MessageSid": "SM1", "From": SITI, "Body": "YA"}
    path = "/v1/inbound/twilio"
    elsewhere = "http://evil.example.com" + path
    signature = RequestValidator(TOKEN).compute_signature(elsewhere, params)
    headers = {"x-twilio-signature": signature, "host": "evil.example.com"}
    assert (await doors.http.post(path, data=params, headers=headers)).status_code == 403


async def test_a_query_is_signed_along(doors: Doors) -> None:
    params = {"MessageSid": "SM1", "From": SITI, "Body": "YA"}
    assert (await doors.signed("/v1/inbound/twilio?x=%20a&y=1", params)).status_code == 200
    signature = RequestValidator(TOKEN).compute_signature(f"{PUBLIC}/v1/inbound/twilio", params)
    headers = {"x-twilio-signature": signature}
    answer = await doors.http.post("/v1/inbound/twilio?x=1", data=params, headers=headers)
    assert answer.status_code == 403


async def test_a_webhook_that_comes_again_has_no_second_effect(doors: Doors) -> None:
    await doors.ask(offer_made())
    for _ in range(3):
        assert (await doors.twilio("YA", MessageSid="SM7")).status_code == 200
    together = [doors.twilio("TIDAK", MessageSid="SM8") for _ in range(4)]
    assert {answer.status_code for answer in await asyncio.gather(*together)} == {200}
    assert len(await doors.kept()) == len(await doors.said()) == 2


async def test_a_gateway_without_ids_repeats_itself_within_a_minute_and_people_do_later(
    doors: Doors,
) -> None:
    await doors.ask(offer_made())
    body = {"from": "0812-3456-7890", "text": "YA"}
    answers = await asyncio.gather(*(doors.gateway(body) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(await doors.said()) == 1
    assert (await doors.gateway({**body, "try": 2})).status_code == 200
    assert len(await doors.said()) == 1, "the same, and the gateway counts its tries"
    await run(doors.database, "UPDATE inbound SET received_at = received_at - interval '1 hour'")
    assert (await doors.gateway(body)).status_code == 200
    assert len(await doors.said()) == 2


async def test_a_gateway_that_counts_its_ids_anew_loses_no_text(doors: Doors) -> None:
    await doors.ask(offer_made(volunteer=siti_and()))
    for text in ("SIAP nanti saya kabari", "YA", "YA"):
        body = {"from": SITI, "text": text, "message_id": "1"}
        assert (await doors.gateway(body)).status_code == 200
    assert len(await doors.kept()) == 2


async def test_what_came_in_long_ago_is_forgotten(doors: Doors) -> None:
    await doors.twilio("YA")
    await run(doors.database, "UPDATE inbound SET received_at = received_at - interval '91 days'")
    await doors.twilio("YA")
    async with doors.database.transaction() as session:
        await forget(session, older_than=timedelta(days=90))
    assert len(await doors.kept()) == 1


@pytest.mark.parametrize("secret", [None, "wrong", "", SECRET + "x"])
async def test_a_gateway_has_to_show_the_secret(doors: Doors, secret: str | None) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await doors.gateway({"from": SITI, "text": "YA"}, secret=secret)
        mail = await doors.mail(written(), secret=secret or "")
    assert answer.status_code == mail.status_code == 403
    assert [(entry["event"], entry["door"]) for entry in logs] == [
        ("webhook.refused", "inbound.sms"), ("webhook.refused", "inbound.email"),
    ]  # fmt: skip
    assert await doors.kept() == []


async def test_the_secret_may_stand_where_a_gateway_can_put_it(doors: Doors) -> None:
    body = urlencode({"from": SITI, "text": "YA", "message_id": "1"})
    form = {"content-type": "application/x-www-form-urlencoded"}
    bearer = {**form, "authorization": f"Bearer {SECRET}"}
    for url, headers in ((f"?secret={SECRET}", form), ("", bearer)):
        answer = await doors.http.post(f"/v1/inbound/sms{url}", content=body, headers=headers)
        assert answer.status_code == 200
    assert len(await doors.kept()) == 1


async def test_doors_are_there_only_for_channels_that_are(notification_database: Database) -> None:
    everything = ["inbound/twilio", "receipts/twilio", "inbound/sms", "receipts/sms",
                  "inbound/email"]  # fmt: skip
    for channels, values, there in (
        ("sandbox", {}, set()),
        ("twilio", {}, {"inbound/twilio", "receipts/twilio"}),
        ("sms", {}, {"inbound/sms", "receipts/sms"}),
        ("sms", {"sms_webhook_secret": None}, set()),
        ("email", {}, {"inbound/email"}),
        ("email", {"inbound_email_secret": None}, set()),
    ):
        settings = make_settings(channels=channels, **values)
        async with client(make_app(notification_database, settings)) as http:
            for door in everything:
                answer = await http.post(f"/v1/{door}", content=b"")
                assert (answer.status_code != 404) == (door in there), (channels, door)


async def test_a_body_beyond_measure_is_refused(doors: Doors) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1024):
            yield b"x" * 1024

    assert (await doors.twilio("x" * 70_000)).status_code == 413
    assert (await doors.gateway({"from": SITI, "text": "x" * 70_000})).status_code == 413
    large = written("YA\n" + "x" * 200_000)
    assert (await doors.mail(large)).status_code == 200
    headers = {"x-jangkau-secret": SECRET, "content-type": "message/rfc822"}
    for content in (b"x" * 1_100_000, chunks(1_100_000)):
        answer = await doors.http.post("/v1/inbound/email", content=content, headers=headers)
        assert answer.status_code == 413
        assert "1024 KiB" in answer.json()["detail"]


async def test_what_is_no_text_is_refused_with_the_names_of_its_fields(doors: Doors) -> None:
    headers = {"x-jangkau-secret": SECRET, "content-type": "application/json"}
    for raw in (b"[1, 2]", b"{", b"\xff", b"[" * 50_000):
        answer = await doors.http.post("/v1/inbound/sms", content=raw, headers=headers)
        assert answer.status_code == 400
    with structlog.testing.capture_logs() as logs:
        assert (await doors.gateway({"pengirim": SITI, "isi": "YA"})).status_code == 422
    assert logs[0]["fields"] == ["isi", "pengirim"]
    assert SITI not in str(logs)
    headers["content-type"] = "application/x-www-form-urlencoded"
    with structlog.testing.capture_logs() as logs:
        raw = f"Dari {SITI} Siti: YA, saya datang".encode()
        answer = await doors.http.post("/v1/inbound/sms", content=raw, headers=headers)
    assert answer.status_code == 422
    assert SITI[1:] not in str(logs)
    headers["content-type"] = "text/plain"
    answer = await doors.http.post("/v1/inbound/email", content=written(), headers=headers)
    assert answer.status_code == 415


async def test_receipts_move_their_message_forward(doors: Doors) -> None:
    await a_message_sent(doors, "twilio", "SM900")
    path = f"/v1/receipts/twilio?message={MESSAGE}"
    params = {"MessageSid": "SM900", "MessageStatus": "delivered"}
    for _ in range(2):
        assert (await doors.signed(path, params)).status_code == 200
    assert (await doors.signed(path, {**params, "MessageStatus": "sent"})).status_code == 200
    assert await one(doors.database, "SELECT state FROM messages") == "delivered"
    assert await one(doors.database, "SELECT count(*) FROM receipts") == 2


async def test_a_gateways_receipt_of_a_lost_message_makes_its_offer_unreachable(
    doors: Doors,
) -> None:
    await a_message_sent(doors, "sms", "G1")
    body = {"message_id": "G1", "status": "undelivered"}
    headers = {"x-jangkau-secret": SECRET}
    answer = await doors.http.post("/v1/receipts/sms", json=body, headers=headers)
    assert answer.status_code == 200
    assert [event.data.reason for event in await doors.said()] == ["undelivered"]


MESSAGE = UUID("0199c0de-0000-7000-8000-000000000001")


async def a_message_sent(doors: Doors, channel: str, provider_id: str) -> None:
    """An offer that has gone out by this channel, its only one."""
    await run(
        doors.database,
        """INSERT INTO messages (id, event_id, case_id, offer_id, recipient, purpose, district,
               drill, short_text, subject, long_text, state, routes, channel, attempts, send_before)
           VALUES (:id, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'x', 'offer',
               '19.04', false, '', '', '', 'sent', ARRAY[CAST(:channel AS text)], :channel, 1,
               now() + interval '1 hour')""",
        id=MESSAGE,
        channel=channel,
    )
    await run(
        doors.database,
        """INSERT INTO attempts (id, message_id, channel, state, provider_id, lease_until)
           VALUES (gen_random_uuid(), :id, :channel, 'sent', :provider_id, now())""",
        id=MESSAGE,
        channel=channel,
        provider_id=provider_id,
    )


# --- which offer ----------------------------------------------------------------------------------


def siti_and(**values: Any) -> Any:
    """Whom to ask: Siti, who is always the same."""
    return offered_volunteer(id=UUID(int=1), **values)


async def test_without_a_code_it_is_the_one_offer_of_that_number(doors: Doors) -> None:
    mine = offer_made(answer_code="AAAA2", volunteer=siti_and())
    over = offer_made(answer_code="BBBB3", volunteer=siti_and())
    others = offer_made(
        answer_code="CCCC4", volunteer=offered_volunteer(phone=BUDI, email="budi@example.org")
    )
    await doors.ask(mine, over, others, BBBB3="ended")
    await doors.twilio("tidak", sender="081234567890")
    event = await doors.answer()
    assert (event.data.offer_id, event.data.answer) == (mine.data.offer_id, "decline")


async def test_what_fits_the_meaning_is_meant_where_only_one_does(doors: Doors) -> None:
    held = offer_made(answer_code="AAAA2", volunteer=siti_and())
    fresh = offer_made(answer_code="BBBB3", volunteer=siti_and())
    await doors.ask(held, fresh, AAAA2="accepted")
    await doors.twilio("sudah sampai")
    await doors.twilio("ya")
    assert [(e.data.answer, e.data.offer_id) for e in await doors.said()] == [
        ("arrived", held.data.offer_id), ("accept", fresh.data.offer_id),
    ]  # fmt: skip


async def test_between_two_offers_nobody_guesses(doors: Doors) -> None:
    await doors.ask(
        offer_made(answer_code="AAAA2", volunteer=siti_and()),
        offer_made(answer_code="BBBB3", volunteer=siti_and()),
    )
    assert (await doors.twilio("YA")).status_code == 200
    assert await doors.said() == []
    (question,) = await doors.written()
    assert (question.purpose, question.phone, question.email) == ("question", SITI, None)
    assert (question.recipient, question.district) == (str(UUID(int=1)), "19.04")
    assert "AAAA2" in question.short_text
    assert "BBBB3" in question.short_text
    (kept,) = await doors.kept()
    assert (kept.meaning, kept.why, kept.body) == ("ask", "which_offer", "YA")


async def test_a_question_about_drills_is_marked_as_one(doors: Doors) -> None:
    await doors.ask(
        offer_made(answer_code="AAAA2", volunteer=siti_and(), drill=True),
        offer_made(answer_code="BBBB3", volunteer=siti_and(), drill=True),
    )
    await doors.twilio("YA")
    (question,) = await doors.written()
    assert question.short_text.startswith("SIMULASI")


# --- duty -----------------------------------------------------------------------------------------


async def test_days_off_go_to_assignment_and_answer_no_offer_by_themselves(doors: Doors) -> None:
    await doors.ask(offer_made(answer_code="AAAA2", volunteer=siti_and()))
    today = datetime.now(ZoneInfo("Asia/Jakarta")).date()
    await doors.twilio("libur 3 hari")
    (event,) = await doors.said()
    assert isinstance(event, VolunteerOffDuty)
    assert (event.subject, event.district) == (UUID(int=1), "19.04")
    assert event.data.last_day - today in (timedelta(days=2), timedelta(days=3)), "or midnight"
    assert (event.data.phone, event.data.words) == (SITI, "libur 3 hari")
    assert [kept.meaning for kept in await doors.kept()] == ["off_duty"]


@pytest.mark.parametrize("text", ["libur 99 minggu", "libur besok", "saya libur minggu depan"])
async def test_days_off_without_an_end_or_that_begin_later_are_asked_back(
    doors: Doors, text: str
) -> None:
    await doors.ask(offer_made(answer_code="AAAA2", volunteer=siti_and()))
    await doors.twilio(text)
    assert await doors.said() == []
    (question,) = await doors.written()
    assert "LIBUR 3 HARI" in question.short_text
    assert [(kept.meaning, kept.why) for kept in await doors.kept()] == [("ask", "leave")]


async def test_the_duty_page_is_asked_of_assignment_and_not_without_end(doors: Doors) -> None:
    await doors.ask(offer_made(answer_code="AAAA2", volunteer=siti_and()), AAAA2="ended")
    for _ in range(5):
        await doors.twilio("jadwal")
    said = await doors.said()
    assert [type(event) for event in said] == [DutyPageAsked] * 3
    assert {(event.data.phone, event.subject) for event in said} == {(SITI, UUID(int=1))}
    assert len(await doors.kept()) == 5
    assert await doors.written() == []


async def test_whoever_has_no_offer_is_told_so(doors: Doors) -> None:
    await doors.ask(offer_made(answer_code="AAAA2"), AAAA2="ended")
    await doors.twilio("YA")
    await doors.twilio("YA", sender=STRANGER)
    await doors.twilio("YA ZZZZ9", sender=STRANGER)
    assert await doors.said() == []
    assert [kept.why for kept in await doors.kept()] == ["no_offer", "stranger", "stranger"]
    # What officers get of it: test_officers.py.
    told = [row for row in await doors.written() if row.purpose != "forwarded"]
    known, unknown, again = told
    assert known.recipient != unknown.recipient == again.recipient == f"unknown:{STRANGER}"
    # Nobody spends a district's budget by writing to it.
    assert (known.urgent, unknown.urgent) == (True, False)


async def test_the_code_of_an_offer_that_is_over_goes_through_to_be_judged(doors: Doors) -> None:
    over = offer_made(answer_code="AAAA2", volunteer=siti_and())
    await doors.ask(over, offer_made(answer_code="BBBB3", volunteer=siti_and()), AAAA2="ended")
    await doors.twilio("ya AAAA2")
    event = await doors.answer()
    assert event.data.offer_id == over.data.offer_id
    assert await doors.written() == []


async def test_the_code_of_somebody_else_goes_through_as_what_it_is(doors: Doors) -> None:
    budi = offered_volunteer(phone=BUDI, email="budi@example.org")
    theirs = offer_made(answer_code="CCCC4", volunteer=budi)
    await doors.ask(theirs, offer_made(answer_code="AAAA2", volunteer=siti_and()))
    await doors.twilio("ya CCCC4")
    event = await doors.answer()
    assert event.data.offer_id == theirs.data.offer_id
    assert (event.data.volunteer_id, event.data.phone) == (UUID(int=1), SITI)


async def test_a_stranger_who_has_read_a_code_is_not_its_volunteer(doors: Doors) -> None:
    offer = offer_made()
    await doors.ask(offer)
    await doors.twilio("ya K7P2M", sender=STRANGER)
    event = await doors.answer()
    assert event.data.volunteer_id not in (None, offer.data.volunteer.id)
    assert event.data.phone == STRANGER


async def test_a_code_that_nobody_has_accepts_nothing(doors: Doors) -> None:
    await doors.ask(offer_made())
    await doors.twilio("ya 9ZZZ9")
    assert await doors.said() == []
    (question,) = await doors.written()
    assert "K7P2M" in question.short_text


async def test_of_two_offers_with_one_code_it_is_the_senders_own(doors: Doors) -> None:
    mine = offer_made(volunteer=siti_and())
    theirs = offer_made(volunteer=offered_volunteer(phone=BUDI, email="budi@example.org"))
    await doors.ask(mine)
    await doors.ask(theirs)
    await doors.twilio("K7P2M ya")
    assert (await doors.answer()).data.offer_id == mine.data.offer_id


async def test_what_is_not_understood_is_asked_back_and_kept(doors: Doors) -> None:
    await doors.ask(offer_made(drill=True))
    for text in ("hmm nanti dilihat dulu", "ya tidak"):
        await doors.twilio(text)
    assert await doors.said() == []
    assert [kept.meaning for kept in await doors.kept()] == ["ask", "ask"]
    assert all(kept.why for kept in await doors.kept())
    for question in await doors.written():
        assert question.answer_code == "K7P2M"
        assert question.drill
        assert "K7P2M" in question.short_text


async def test_a_machine_that_answers_our_questions_is_asked_three_times_an_hour(
    doors: Doors,
) -> None:
    await doors.ask(offer_made())
    for number in range(6):
        await doors.twilio(f"halo, ini nomor antrean {number}?")
    assert len(await doors.kept()) == 6
    assert len(await doors.written()) == 3
    await run(doors.database, "UPDATE inbound SET received_at = received_at - interval '2 hours'")
    await doors.twilio("halo?")
    assert len(await doors.written()) == 4


async def test_a_sender_that_is_no_number_is_kept_and_ignored(doors: Doors) -> None:
    for sender in ("TELKOMSEL", "3636", "x" * 5000):
        assert (await doors.twilio("Paket Anda habis. Balas YA", sender=sender)).status_code == 200
    assert [kept.meaning for kept in await doors.kept()] == ["ignored"] * 3
    assert await doors.said() == []
    assert await doors.written() == []


# --- tests of reachability ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["YA", "ya P2K7M", "apa kabar?", "P2K7M", ""])
async def test_any_sign_of_life_answers_a_test(doors: Doors, text: str) -> None:
    ping = volunteer_pinged()
    await doors.ask(ping)
    await doors.twilio(text)
    (event,) = await doors.said()
    assert isinstance(event, PingAnswered)
    assert event.data.ping_id == ping.data.ping_id
    assert event.subject == ping.data.volunteer.id
    assert event.data.channel == "twilio"
    (thanks,) = await doors.written()
    assert (thanks.purpose, thanks.phone) == ("ping_answered", SITI)


async def test_a_yes_that_may_be_meant_for_a_test_accepts_nothing(doors: Doors) -> None:
    await doors.ask(offer_made(), volunteer_pinged())
    await doors.twilio("YA")
    (event,) = await doors.said()
    assert isinstance(event, PingAnswered)  # alive they are in any case
    (question,) = await doors.written()
    assert (question.purpose, "K7P2M" in question.short_text) == ("question", True)
    await doors.twilio("YA")  # the test is over: now there is only the offer
    answered = (await doors.said())[1]
    assert isinstance(answered, OfferAnswered)
    assert answered.data.answer == "accept"


async def test_a_no_is_for_the_offer_and_a_sign_of_life(doors: Doors) -> None:
    await doors.ask(offer_made(), volunteer_pinged())
    await doors.twilio("tidak bisa")
    assert {type(event) for event in await doors.said()} == {PingAnswered, OfferAnswered}
    assert await doors.written() == []  # assignment's verdict is the answer


async def test_the_code_of_somebody_elses_test_says_nothing(doors: Doors) -> None:
    await doors.ask(volunteer_pinged())
    await doors.twilio("YA P2K7M", sender=STRANGER)
    assert await doors.said() == []


# --- stop and start -------------------------------------------------------------------------------


async def test_stop_ends_sms_and_says_so_once(doors: Doors) -> None:
    await doors.ask(offer_made(volunteer=siti_and()))
    await doors.twilio("STOP")
    await doors.twilio("stop")
    (event,) = await doors.said()
    assert isinstance(event, VolunteerStopped)
    assert (event.subject, event.data.channel, event.data.stopped, event.data.reachable) == (
        UUID(int=1), "sms", True, True,
    )  # fmt: skip
    assert await rows(doors.database, "SELECT address, kind FROM stops") == [(SITI, "sms")]
    (told,) = await doors.written()
    assert (told.purpose, told.state, told.routes[0]) == ("stopped", "queued", "twilio")
    await doors.twilio("YA")  # an answer is an answer; but a question back would be one more SMS
    await doors.twilio("MULAI")
    assert await rows(doors.database, "SELECT FROM stops") == []
    last = (await doors.said())[-1]
    assert isinstance(last, VolunteerStopped)
    assert (last.data.stopped, last.data.reachable) == (False, True)
    assert (await doors.written())[-1].purpose == "started"


async def test_coordinators_hear_of_whom_nobody_can_reach_any_more(doors: Doors) -> None:
    await doors.ask(offer_made(volunteer=siti_and(email=None)))
    await doors.twilio("STOP")
    (event,) = await doors.said()
    assert isinstance(event, VolunteerStopped)
    assert event.data.reachable is False
    letters = [each for each in await doors.written() if each.purpose == "unreachable"]
    assert {each.phone for each in letters} == KOBA_COORDINATORS
    assert all("Siti" in each.short_text and SITI in each.short_text for each in letters)


async def test_the_last_address_counts_whichever_is_stopped_first(doors: Doors) -> None:
    await doors.ask(offer_made(volunteer=siti_and(email="Siti@Example.org")))
    await doors.mail(written("STOP"))
    await doors.twilio("STOP")
    assert [event.data.reachable for event in await doors.said()] == [True, False]
    found = await rows(doors.database, "SELECT address, kind FROM stops ORDER BY kind, address")
    assert ("Siti@Example.org", "email") in found  # as the messages are addressed
    assert sum(each.purpose == "unreachable" for each in await doors.written()) == 2


async def test_a_stranger_can_stop_too(doors: Doors) -> None:
    await doors.twilio("STOP", sender=STRANGER)
    assert await rows(doors.database, "SELECT address, kind FROM stops") == [(STRANGER, "sms")]
    assert [each.purpose for each in await doors.written()] == ["stopped"]
    assert await doors.said() == []


# --- mails ----------------------------------------------------------------------------------------


async def test_a_reply_by_mail_answers_the_offer_of_its_subject(doors: Doors) -> None:
    mine = offer_made(answer_code="K7M2P", volunteer=siti_and())
    await doors.ask(mine, offer_made(answer_code="AAAA2", volunteer=siti_and()))
    body = "Siap, 10 menit lagi\n\nPada 24 Nov 2026, Jangkau menulis:\n> Balas YA atau TIDAK"
    for _ in range(2):  # mail servers repeat themselves too
        assert (await doors.mail(written(body))).status_code == 200
    event = await doors.answer()
    assert (event.data.offer_id, event.data.answer) == (mine.data.offer_id, "accept")
    assert (event.data.channel, event.data.phone, event.data.email) == (
        "email", None, "siti@example.org",
    )  # fmt: skip
    (kept,) = await doors.kept()
    assert (kept.provider_id, kept.body) == (
        "<abc@mail.example.org>", (PROVEN + written(body)).decode(),
    )  # fmt: skip


async def test_a_question_to_a_mail_goes_back_by_mail(doors: Doors) -> None:
    await doors.ask(offer_made(answer_code="K7M2P", volunteer=siti_and()))
    await doors.mail(written("Ini siapa?", html="<p>Ini siapa?</p>"))
    (question,) = await doors.written()
    assert (question.phone, question.email, question.routes[0]) == (
        None, "siti@example.org", "email",
    )  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [{"Auto-Submitted": "auto-replied"}, {"Precedence": "bulk"}, {"sender": "jangkau@localhost"}],
)
async def test_what_machines_mail_is_kept_and_ignored(
    doors: Doors, headers: dict[str, str]
) -> None:
    await doors.ask(offer_made(answer_code="K7M2P"))
    assert (await doors.mail(written("YA, saya sedang cuti", **headers))).status_code == 200
    (kept,) = await doors.kept()
    assert (kept.meaning, kept.why) in {("ignored", "automatic"), ("ignored", "our_own")}
    assert await doors.said() == []
    assert await doors.written() == []


async def test_a_report_of_a_lost_mail_is_a_receipt(doors: Doors) -> None:
    await a_message_sent(doors, "email", "250 OK")
    for _ in range(2):
        assert (await doors.mail(bounce())).status_code == 200
    (message,) = await doors.written()
    assert (message.state, message.error) == (
        "failed", "undelivered: 5.1.1 smtp; 550 5.1.1 User unknown",
    )  # fmt: skip
    assert [event.data.reason for event in await doors.said()] == ["undelivered"]
    (kept,) = await doors.kept()
    assert (kept.meaning, kept.why) == ("ignored", "delivery_report")


async def test_a_report_of_a_lost_mail_in_latin_1_is_one_too(doors: Doors) -> None:
    await a_message_sent(doors, "email", "250 OK")
    raw = bounce().replace(b"User unknown", b"Bo\xeete inconnue\x00")
    assert (await doors.mail(raw)).status_code == 200
    (message,) = await doors.written()
    assert message.state == "failed"


# --- the sandbox ----------------------------------------------------------------------------------


async def test_a_fake_phone_takes_what_people_write_and_shows_what_it_was_taken_for(
    doors: Doors,
) -> None:
    offer = offer_made(volunteer=siti_and(name="Siti <b>Aminah</b>"))
    await doors.ask(offer)
    form = {"address": SITI, "text": "iya bisa, otw & segera"}
    back = await doors.http.post("/sandbox/replies", data=form)
    assert (back.status_code, back.headers["location"]) == (
        303, "/sandbox?phone=%2B6281234567890",
    )  # fmt: skip
    assert (await doors.answer()).data.channel == "sandbox"
    for page in ("/sandbox", "/sandbox/conversation?phone=%2B6281234567890"):
        shown = (await doors.http.get(page)).text
        assert "iya bisa, otw &amp; segera" in shown
        assert "menerima · K7P2M" in shown
    everybody = (await doors.http.get("/sandbox")).text
    assert "Siti &lt;b&gt;Aminah&lt;/b&gt;" in everybody
    assert 'http-equiv="refresh"' in everybody
    own = (await doors.http.get("/sandbox?phone=%2B6281234567890")).text
    assert 'http-equiv="refresh"' not in own  # a refresh would wipe what is being typed


async def test_links_on_a_fake_phone_can_be_followed(doors: Doors) -> None:
    body = "Jawab: http://127.0.0.1:8003/r/K7P2Mabc_-def. <script>alert(1)</script>"
    await run(
        doors.database,
        """INSERT INTO sandbox_messages (idempotency_key, address, body)
           VALUES (gen_random_uuid(), :address, :body)""",
        address=SITI,
        body=body,
    )
    shown = (await doors.http.get("/sandbox")).text
    assert 'href="http://127.0.0.1:8003/r/K7P2Mabc_-def"' in shown
    assert "<script>alert" not in shown


async def test_a_program_writes_from_a_fake_phone_once_for_each_key(doors: Doors) -> None:
    await doors.ask(offer_made())
    for key, sent in (("a", 1), ("a", 1), ("b", 2)):
        answer = await doors.http.post(
            "/sandbox/replies",
            json={"address": SITI, "text": "YA"},
            headers={"Idempotency-Key": key},
        )
        assert (answer.status_code, answer.json()) == (202, {"stored": True})
        assert len(await doors.said()) == sent
    bad = await doors.http.post("/sandbox/replies", json={"address": SITI})
    assert bad.status_code == 422


async def test_a_test_of_reachability_is_answered_with_a_button(doors: Doors) -> None:
    ping = volunteer_pinged()
    await doors.ask(ping)
    await a_message_sent(doors, "sandbox", "x")
    await run(
        doors.database,
        "UPDATE messages SET purpose = 'ping', offer_id = :ping, answer_code = 'P2K7M'",
        ping=ping.data.ping_id,
    )
    await run(
        doors.database,
        "INSERT INTO sandbox_messages (idempotency_key, address, body) VALUES (:id, :to, 'Halo')",
        id=MESSAGE,
        to=SITI,
    )
    assert 'value="YA P2K7M"' in (await doors.http.get("/sandbox")).text
    await doors.http.post("/sandbox/replies", data={"address": SITI, "text": "YA P2K7M"})
    assert isinstance((await doors.said())[0], PingAnswered)
    assert 'value="YA P2K7M"' not in (await doors.http.get("/sandbox")).text


# --- anything at all ------------------------------------------------------------------------------

ANYTHING = hypothesis_settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["from", "text", "message_id", "id", "status"])
TEXTS = st.text() | st.sampled_from([SITI, "YA", "STOP", "K7P2M", "delivered", "\x00", "\ud800"])


@ANYTHING
@given(body=st.dictionaries(FIELDS, TEXTS | VALUES, max_size=5))
async def test_no_body_of_a_gateway_breaks_a_door(doors: Doors, body: dict[str, Any]) -> None:
    headers = {"x-jangkau-secret": SECRET, "content-type": "application/json"}
    raw = json.dumps(body).encode()
    for path in ("/v1/inbound/sms", "/v1/receipts/sms"):
        answer = await doors.http.post(path, content=raw, headers=headers)
        assert answer.status_code < 500


@ANYTHING
@given(raw=st.binary(max_size=300), kind=st.sampled_from(["application/json", "text/plain", ""]))
async def test_no_bytes_break_a_door(doors: Doors, raw: bytes, kind: str) -> None:
    headers = {"x-jangkau-secret": SECRET, "content-type": kind}
    for path in ("/v1/inbound/sms", "/v1/receipts/sms", "/v1/inbound/email", "/v1/inbound/twilio",
                 "/v1/receipts/twilio", "/sandbox/replies"):  # fmt: skip
        answer = await doors.http.post(path, content=raw, headers=headers)
        assert answer.status_code < 500
    headers["content-type"] = "message/rfc822"
    for mail in (raw, b"From: siti@example.org\nSubject: (K7M2P)\nMessage-ID: " + raw):
        answer = await doors.http.post("/v1/inbound/email", content=mail, headers=headers)
        assert answer.status_code < 500


@ANYTHING
@given(
    params=st.dictionaries(
        st.sampled_from(["From", "Body", "MessageSid", "MessageStatus", "ErrorCode"]),
        TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()),
        max_size=5,
    )
)
async def test_no_parameters_that_twilio_signs_break_a_door(
    doors: Doors, params: dict[str, str]
) -> None:
    for path in ("/v1/inbound/twilio", "/v1/receipts/twilio"):
        assert (await doors.signed(path, params)).status_code in (200, 422, 403)


@ANYTHING
@given(text=st.text(min_size=1, max_size=200))
async def test_no_text_on_a_fake_phone_breaks_its_page(doors: Doors, text: str) -> None:
    body = json.dumps({"address": SITI, "text": text}).encode()
    headers = {"content-type": "application/json"}
    answer = await doors.http.post("/sandbox/replies", content=body, headers=headers)
    assert answer.status_code < 500
    assert (await doors.http.get("/sandbox")).status_code == 200


async def test_a_number_of_an_old_time_is_still_stopped(doors: Doors) -> None:
    await doors.ask(offer_made(volunteer=siti_and()))
    old = datetime.now(UTC) - timedelta(days=300)
    await run(doors.database, "UPDATE asked SET asked_at = :old", old=old)
    await doors.twilio("STOP")
    (event,) = await doors.said()
    assert event.subject == UUID(int=1)


# --- mails in somebody's name ---------------------------------------------------------------------

FAILED = f"Authentication-Results: {SERVER}; dmarc=fail header.from=example.org\n".encode()
FOREIGN = b"Authentication-Results: mx.evil.example; dmarc=pass header.from=example.org\n"
BELOW = FAILED + PROVEN
UNPROVEN = {"none": b"", "failed": FAILED, "a foreign server": FOREIGN, "below a failure": BELOW}


def in_the_name_of(sender: str, body: str, number: int = 1) -> bytes:
    raw = written(body, sender=sender, subject="Re: Koba (K7M2P)")
    return raw.replace(b"<abc@", f"<{number}@".encode())


@pytest.mark.parametrize("head", UNPROVEN)
@pytest.mark.parametrize(
    "body",
    ["YA", "TIDAK", "SELESAI K7M2P", "K7M2P kendala jalan putus", "STOP", "MULAI", "LIBUR 3 HARI",
     "JADWAL", "terima kasih"],
)  # fmt: skip
async def test_a_mail_that_anybody_may_have_written_changes_nothing(
    doors: Doors, head: str, body: str
) -> None:
    mine = offer_made(answer_code="K7M2P", volunteer=siti_and())
    await doors.ask(mine, volunteer_pinged(answer_code="PPPP2", volunteer=siti_and()))
    for number in range(4):
        raw = in_the_name_of("siti@example.org", body, number)
        assert (await doors.mail(raw, proof=UNPROVEN[head])).status_code == 200
    assert await doors.said() == [], "no answer, no sign of life, nothing stopped"
    assert await rows(doors.database, "SELECT address FROM stops") == []
    kept = await doors.kept()
    assert [(one.meaning, one.why) for one in kept] == [("ask", "not_proven")] * 4
    (question,) = await doors.written()  # one an hour, however many were written
    assert (question.purpose, question.email) == ("question", "siti@example.org")
    for personal in ("Siti", "K7M2P", "Koba", SITI):
        assert personal not in question.short_text + question.subject + question.long_text


@pytest.mark.parametrize(
    ("sender", "proof", "purposes"),
    [
        ("siti@example.org", PROVEN, ["question"]),
        ("siti@example.org", b"", ["question"]),
        ("told@example.org", PROVEN, ["question"]),
        ("told@example.org", b"", ["question"]),
        ("stranger@example.org", PROVEN, []),
        ("stranger@example.org", b"", []),
        ("SITI@EXAMPLE.ORG", b"", ["question"]),
    ],
)
@pytest.mark.parametrize("body", ["Ini siapa?", "STOP"])
async def test_only_whom_we_have_written_to_gets_a_mail_back(
    doors: Doors, sender: str, proof: bytes, purposes: list[str], body: str
) -> None:
    await doors.ask(offer_made(answer_code="K7M2P", volunteer=siti_and()))
    await we_wrote_to(doors.database, "told@example.org")
    await doors.mail(in_the_name_of(sender, body), proof=proof)
    if body == "STOP" and proof and purposes:
        purposes = ["stopped"]
    assert [one.purpose for one in await doors.written() if one.purpose != "news"] == purposes
    assert len(await doors.kept()) == 1, "it is kept in any case"


async def we_wrote_to(database: Database, address: str) -> None:
    await run(
        database,
        "INSERT INTO messages (id, event_id, case_id, recipient, purpose, district, drill, email, "
        "short_text, subject, long_text, state, attempts, send_before) VALUES "
        "(gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), :to, 'news', '19.04', false, "
        ":to, '', '', '', 'sent', 1, now())",
        to=address,
    )


async def test_forged_mails_do_not_use_up_the_questions_of_whom_they_name(doors: Doors) -> None:
    await doors.ask(offer_made(answer_code="K7M2P", volunteer=siti_and()))
    for number in range(5):
        await doors.mail(in_the_name_of("siti@example.org", "YA", number), proof=b"")
    await doors.mail(in_the_name_of("siti@example.org", "hmm bagaimana ya", 9))
    assert [one.purpose for one in await doors.written()] == ["question", "question"]


async def test_a_reply_to_the_address_that_was_signed_for_them_needs_no_other_proof(
    notification_database: Database,
) -> None:
    settings = make_settings(
        inbound_email_authserv_id="", smtp_signed_replies=True,
        smtp_reply_to="Jangkau <jangkau@example.id>",
    )  # fmt: skip
    mine = offer_made(answer_code="K7M2P", volunteer=siti_and())
    signed = email.message_from_bytes(
        Email(settings)._written(
            Outgoing(uuid7(), "siti@example.org", "YA?", "Koba (K7M2P)", "YA?")
        )
    )["Reply-To"]
    async with client(make_app(notification_database, settings)) as http:
        doors = Doors(notification_database, http)
        await doors.ask(mine)
        answer = in_the_name_of("siti@example.org", "YA")
        await doors.mail(f"Delivered-To: {signed}\n".encode() + answer, proof=b"")
        given = await doors.answer()
        assert (given.data.offer_id, given.data.answer) == (mine.data.offer_id, "accept")
        forged = in_the_name_of("budi@example.org", "TIDAK K7M2P", 2)
        await doors.mail(f"To: {signed}\n".encode() + forged, proof=b"")
        assert len(await doors.said()) == 1
