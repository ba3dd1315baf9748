"""The page behind the link in a message: what it shows in each state, and what its buttons do."""

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.notification import pages
from services.notification.links import respond_link
from services.notification.settings import NotificationSettings
from shared import errors
from shared.database import Database
from shared.events import OfferAnswered, PingAnswered
from shared.pages import HEADERS
from tests.factories import (
    answer_judged,
    offer_assigned,
    offer_closed,
    offer_made,
    offered_volunteer,
    place,
    reporter,
    volunteer_pinged,
)
from tests.integration.conftest import run
from tests.integration.sending import Senders, said

SETTINGS = NotificationSettings(channels="sandbox", public_url="http://localhost")
OPEN, GIVEN, PING, NEVER_ASKED = offer_made(), offer_assigned(), volunteer_pinged(), offer_made()
CONTACT = ("Budi", "+6281299998888", "budi@example.org")
# What a page may weigh, so that it opens on a bad connection.
LARGEST = 15_000


@dataclass
class Browser:
    """Somebody with a link, and the rest of the system, which tells notification what happened."""

    database: Database
    http: httpx2.AsyncClient
    senders: Senders

    async def happened(self, *events: Any) -> None:
        """Let notification hear of these, one after the other."""
        for event in events:
            await self.senders.queue(event)

    async def judged(self, answer: str, offer: Any, verdict: str = "recorded", **more: Any) -> None:
        await self.happened(answer_judged(answer, verdict, offer=offer, **more))

    async def get(self, about: Any, query: str = "", status: int = 200) -> str:
        """The page, as somebody without JavaScript sees it."""
        answer = await self.http.get(link_of(about) + query)
        assert answer.status_code == status, answer.text
        assert len(answer.content) < LARGEST
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        return answer.text

    async def press(self, about: Any, answer: str, **fields: str) -> httpx2.Response:
        """Press a button of the page, with the form's hidden field."""
        once = nonce(await self.get(about)) if "once" not in fields else fields.pop("once")
        return await self.post(about, {"answer": answer, "once": once, **fields})

    async def post(self, about: Any, form: dict[str, str]) -> httpx2.Response:
        return await self.http.post(link_of(about), data=form)

    async def follow(self, about: Any, answer: httpx2.Response) -> str:
        """Go where a button leads."""
        assert answer.status_code == 303, answer.text
        return await self.get(about, answer.headers["location"])

    async def answers(self) -> list[tuple[str, str | None, str | None]]:
        """What went to assignment: answer, outcome and words."""
        found = await said(self.database)
        assert all(isinstance(event, OfferAnswered) for event in found)
        return [(event.data.answer, event.data.outcome, event.data.words) for event in found]


def link_of(about: Any) -> str:
    return respond_link(
        SETTINGS.links,
        public_url=SETTINGS.public_url,
        offer_id=getattr(about.data, "offer_id", None) or about.data.ping_id,
        answer_code=about.data.answer_code,
    )


def nonce(page: str) -> str:
    found = re.search(r'name="once" value="(\w+)"', page)
    return found[1] if found else ""


def seen(page: str) -> str:
    """The words of a page, without its tags."""
    body = page.partition("<main>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def buttons(page: str) -> list[str]:
    return re.findall(r'name="answer" value="(\w+)"', page)


def make_app(database: Database, **values: Any) -> FastAPI:
    app = FastAPI()
    given_: dict[str, Any] = {"max_age": timedelta(days=30), **values}
    app.include_router(pages.router(database, links=SETTINGS.links, **given_))
    errors.install(app)
    return app


@pytest.fixture
async def browser(notification_database: Database) -> AsyncIterator[Browser]:
    transport = httpx2.ASGITransport(app=make_app(notification_database))
    senders = Senders(notification_database, SETTINGS)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        yield Browser(notification_database, http, senders)
    await senders.close()


# --- what is shown --------------------------------------------------------------------------------


async def test_an_open_offer_says_what_where_how_far_and_until_when(browser: Browser) -> None:
    respond_by = datetime(2199, 3, 1, 7, 35, tzinfo=UTC)
    offer = offer_made(urgency="urgent", people=3, respond_by=respond_by)
    await browser.happened(offer)
    page = await browser.get(offer)
    text = seen(page)
    for words in (
        "Siti", "MENDESAK", "lansia terlantar", "Berok, Kec. Koba", "3,2 km", "3 orang",
        "sebelum 14.35 WIB", "K7P2M",
    ):  # fmt: skip
        assert words in text
    assert "perkiraan" not in text
    assert 'href="geo:-2.493000,106.408000?q=-2.493000,106.408000"' in page
    assert "destination=-2.493000,106.408000" in page
    assert buttons(page) == ["accept", "decline"]
    assert "SIMULASI" not in text
    assert not re.search(r"<(script|link|img|iframe)|src=|url\(|@import|http-equiv", page)


async def test_a_centre_from_a_table_is_called_approximate(browser: Browser) -> None:
    offer = offer_made(place=place(approximate=True))
    await browser.happened(offer)
    text = seen(await browser.get(offer))
    assert "Kec. Koba (perkiraan)" in text
    assert "sekitar 3 km" in text


async def test_who_reported_is_shown_only_to_whoever_has_the_case_and_while_they_do(
    browser: Browser,
) -> None:
    offer = offer_made()
    await browser.happened(offer)
    page = await browser.get(offer)
    assert not any(word in page for word in CONTACT)
    await browser.judged("accept", offer, reporter=reporter())
    page = await browser.get(offer)
    assert all(word in seen(page) for word in ("Anda menangani kasus ini.", *CONTACT))
    assert 'href="tel:+6281299998888"' in page
    assert 'href="sms:+6281299998888"' in page
    assert buttons(page) == ["arrived", "done", "obstacle", "hand_back"]
    await browser.judged("arrived", offer)
    page = await browser.get(offer)
    assert "Anda sudah tiba." in seen(page)
    assert all(word in seen(page) for word in CONTACT)
    assert buttons(page) == ["done", "obstacle", "hand_back"]
    await browser.judged("done", offer)
    page = await browser.get(offer)
    assert "Selesai. Terima kasih banyak!" in seen(page)
    assert not any(word in page for word in CONTACT)
    assert buttons(page) == []


async def test_a_contact_that_came_too_early_is_kept_back(browser: Browser) -> None:
    offer = offer_made()
    await browser.happened(offer)
    contact = json.dumps(dict(zip(("name", "phone", "email"), CONTACT, strict=True)))
    await run(
        browser.database, "UPDATE asked SET reporter = CAST(:contact AS jsonb)", contact=contact
    )
    page = await browser.get(offer)
    assert not any(word in page for word in CONTACT)
    await browser.judged("accept", offer)
    text = seen(await browser.get(offer))
    assert all(word in text for word in CONTACT)


async def test_a_case_that_a_coordinator_gave_is_theirs_at_once(browser: Browser) -> None:
    offer = offer_assigned(reporter=reporter(name=None, email=None))
    await browser.happened(offer)
    page = await browser.get(offer)
    assert "Anda menangani kasus ini." in seen(page)
    assert "tanpa nama +6281299998888" in seen(page)
    assert buttons(page) == ["arrived", "done", "obstacle", "hand_back"]


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("taken_by_another", "Sudah ada relawan lain"),
        ("expired", "Waktu menjawab sudah lewat"),
        ("case_closed", "Kasus ini sudah ditutup"),
        ("lapsed", "Kasus ini dialihkan"),
        ("released", "Koordinator mengalihkan kasus ini"),
        ("a_word_of_tomorrow", "Tugas ini sudah berakhir"),
    ],
)
async def test_what_is_over_says_why_and_has_no_buttons(
    browser: Browser, reason: str, title: str
) -> None:
    offer = offer_made()
    await browser.happened(offer, offer_closed(reason, offer=offer))
    page = await browser.get(offer)
    assert title in seen(page)
    assert "K7P2M" in seen(page)
    assert buttons(page) == []


@pytest.mark.parametrize(
    ("answer", "verdict", "title"),
    [
        ("decline", "recorded", "Anda menjawab tidak bisa"),
        ("hand_back", "recorded", "Anda batal datang"),
        ("accept", "too_late", "Waktu menjawab sudah lewat"),
        ("accept", "taken_by_another", "Sudah ada relawan lain"),
        ("accept", "case_closed", "Kasus ini sudah ditutup"),
    ],
)
async def test_an_answer_that_ends_an_offer_is_told_as_what_it_was(
    browser: Browser, answer: str, verdict: str, title: str
) -> None:
    offer = offer_made()
    await browser.happened(offer)
    await browser.judged(answer, offer, verdict)
    assert title in seen(await browser.get(offer))


async def test_a_drill_says_so_above_all_else(browser: Browser) -> None:
    offer, ping = offer_made(drill=True), volunteer_pinged(drill=True)
    await browser.happened(offer, ping)
    for about in (offer, ping):
        assert seen(await browser.get(about)).startswith("SIMULASI")


async def test_whoever_reads_english_gets_english_and_anybody_else_indonesian(
    browser: Browser,
) -> None:
    for language, words in (("en", "Yes, I am coming"), ("jv", "Ya, saya datang")):
        offer = offer_made(volunteer=offered_volunteer(language=language))
        await browser.happened(offer)
        page = await browser.get(offer)
        assert words in seen(page)
        assert f'<html lang="{language if language == "en" else "id"}">' in page


async def test_names_from_elsewhere_cannot_become_markup(browser: Browser) -> None:
    evil = '"><script>alert(1)</script>'
    offer = offer_made(
        volunteer=offered_volunteer(name=evil),
        place=place(village_name=evil, subdistrict_name=evil),
    )
    await browser.happened(offer)
    await browser.judged("accept", offer, reporter=reporter(name=evil, phone=evil, email=evil))
    page = await browser.get(offer)
    assert "<script" not in page
    assert seen(page).count(evil) >= 4


# --- what is done ---------------------------------------------------------------------------------


async def test_looking_changes_nothing_however_a_scanner_looks(browser: Browser) -> None:
    offer, ping = offer_made(), volunteer_pinged()
    await browser.happened(offer, ping)
    for about in (offer, ping):
        for query in ("", "?answer=accept", "?sent=accept&n=0", "?thanks=1", "?sent=&n=-1"):
            assert buttons(await browser.get(about, query))
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE"):
            answer = await browser.http.request(method, link_of(about))
            assert answer.status_code == (200 if method == "HEAD" else 405)
    assert await said(browser.database) == []


async def test_a_button_gives_the_answer_and_waits_until_it_is_judged(browser: Browser) -> None:
    offer = offer_made()
    await browser.happened(offer)
    pressed = await browser.press(offer, "accept", words="  30 menit lagi\r\n")
    assert pressed.headers["referrer-policy"] == "no-referrer"
    (event,) = await said(browser.database)
    given_ = event.data
    assert (given_.answer, given_.words, given_.channel) == ("accept", "30 menit lagi", "link")
    assert (given_.offer_id, event.subject) == (offer.data.offer_id, offer.subject)
    assert given_.volunteer_id == offer.data.volunteer.id
    page = await browser.follow(offer, pressed)
    assert "Sedang diproses…" in seen(page)
    assert buttons(page) == []
    await browser.judged("accept", offer, reporter=reporter())
    page = await browser.follow(offer, pressed)
    assert "Sedang diproses" not in seen(page)
    assert "http-equiv" not in page
    assert "Anda menangani kasus ini." in seen(page)


async def test_the_page_looks_ten_times_and_then_says_that_the_answer_is_stored(
    browser: Browser,
) -> None:
    offer = offer_made()
    await browser.happened(offer)
    where, looks = (await browser.press(offer, "accept")).headers["location"], 0
    while found := re.search(
        r'http-equiv="refresh" content="1;url=([^"]+)"', page := await browser.get(offer, where)
    ):
        where, looks = html.unescape(found[1]), looks + 1
        assert looks < 20
    assert looks == pages.LOOKS == 10
    assert "Jawaban Anda tersimpan." in seen(page)
    for number in ("-1", "1e3", "99999999999", "٣", "x"):
        page = await browser.get(offer, re.sub("n=.*", f"n={number}", where))
        assert "http-equiv" not in page


async def test_nothing_is_called_stored_that_is_not(browser: Browser) -> None:
    offer, other = offer_made(), offer_made(answer_code="K7P2N")
    await browser.happened(offer, other)
    foreign = (await browser.press(other, "accept")).headers["location"]
    for query in (foreign, f"?sent={offer.data.offer_id}&n=10", "?sent=accept&n=10"):
        page = await browser.get(offer, query)
        assert "tersimpan" not in seen(page)
        assert buttons(page) == ["accept", "decline"]


async def test_an_answer_that_changes_no_state_is_waited_for_as_well(browser: Browser) -> None:
    offer = offer_assigned()
    await browser.happened(offer)
    pressed = await browser.press(offer, "obstacle", words="jalan banjir")
    assert "Sedang diproses" in seen(await browser.follow(offer, pressed))
    await browser.judged("obstacle", offer)
    text = seen(await browser.follow(offer, pressed))
    assert "Kendala Anda tercatat. Koordinator sudah diberi tahu." in text
    assert "Anda menangani kasus ini." in text


async def test_done_before_accepting_says_what_comes_first(browser: Browser) -> None:
    offer = offer_made()
    await browser.happened(offer)
    pressed = await browser.press(offer, "done", outcome="resolved")
    await browser.judged("done", offer, "not_accepted_yet")
    page = await browser.follow(offer, pressed)
    assert "Kasus ini belum Anda terima." in seen(page)
    assert buttons(page) == ["accept", "decline"]


async def test_double_clicks_and_reloads_are_one_answer(browser: Browser) -> None:
    offer = offer_made()
    await browser.happened(offer)
    form = {"answer": "accept", "once": nonce(await browser.get(offer)), "words": "ya"}
    clicks = await asyncio.gather(*(browser.post(offer, form) for _ in range(5)))
    assert {answer.status_code for answer in clicks} == {303}
    assert len({answer.headers["location"] for answer in clicks}) == 1
    assert await browser.answers() == [("accept", None, "ya")]
    await browser.judged("accept", offer)
    for again in (form, {"answer": "accept", "once": "another"}):
        assert "Anda menangani kasus ini." in seen(
            await browser.follow(offer, await browser.post(offer, again))
        )
    assert len(await browser.answers()) == 1
    await browser.judged("done", offer)
    await browser.press(offer, "done", outcome="resolved", once="x")
    assert len(await browser.answers()) == 1


async def test_who_comes_too_late_reads_it_and_assignment_hears_of_it(browser: Browser) -> None:
    offer = offer_made()
    await browser.happened(offer)
    opened = nonce(await browser.get(offer))
    await browser.happened(offer_closed("taken_by_another", offer=offer))
    page = await browser.follow(offer, await browser.press(offer, "accept", once=opened))
    assert "Sudah ada relawan lain" in seen(page)
    assert await browser.answers() == [("accept", None, None)]


async def test_a_deadline_that_has_just_passed_is_told(browser: Browser) -> None:
    offer = offer_made(respond_by=datetime.now(UTC) - timedelta(seconds=1))
    await browser.happened(offer)
    page = await browser.get(offer)
    assert "Batas waktu menjawab baru saja lewat." in seen(page)
    assert buttons(page) == ["accept", "decline"]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"answer": "obstacle"}, "Mohon tulis apa kendalanya."),
        ({"answer": "obstacle", "words": " \r\n\x07"}, "Mohon tulis apa kendalanya."),
        ({"answer": "done"}, "Mohon pilih bagaimana hasilnya."),
        ({"answer": "done", "outcome": "great"}, "Mohon pilih bagaimana hasilnya."),
        ({"answer": "perhaps"}, "Jawaban itu tidak kami kenal."),
        ({"answer": "alive"}, "Jawaban itu tidak kami kenal."),
        ({}, "Jawaban itu tidak kami kenal."),
    ],
)
async def test_what_is_missing_is_asked_for_and_nothing_is_stored(
    browser: Browser, form: dict[str, str], sentence: str
) -> None:
    offer = offer_assigned(reporter=reporter())
    await browser.happened(offer)
    answer = await browser.post(offer, form)
    assert answer.status_code == 422
    assert f"Belum terkirim. {sentence}" in seen(answer.text)
    assert buttons(answer.text) == ["arrived", "done", "obstacle", "hand_back"]
    assert await browser.answers() == []


async def test_words_are_stored_without_what_a_terminal_obeys_and_never_shown_as_markup(
    browser: Browser,
) -> None:
    offer = offer_assigned()
    await browser.happened(offer)
    words = "<b>banjir</b>\x00\x1b[2J & \u202e\U0001f30a" + "x" * 900
    await browser.press(offer, "obstacle", words=words)
    ((_, _, stored),) = await browser.answers()
    assert stored is not None
    assert stored.startswith("<b>banjir</b>[2J & \U0001f30ax")
    assert len(stored) <= pages.WORDS_AT_MOST
    assert "banjir" not in await browser.get(offer)


async def test_a_body_that_is_no_form_of_ours_is_answered_with_a_page(browser: Browser) -> None:
    offer = offer_made()
    await browser.happened(offer)
    for content, kind in (
        (b'{"answer": "accept"}', "application/json"),
        (b"answer=accept", "text/plain"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x; charset=undefined"),
        (b"\xff\xfe&=&&%zz=%ff", pages.FORM),
        (b"", pages.FORM),
    ):
        answer = await browser.http.post(
            link_of(offer), content=content, headers={"content-type": kind}
        )
        assert answer.status_code == 422
        assert "Jawaban itu tidak kami kenal." in seen(answer.text)
    assert await said(browser.database) == []


async def test_a_test_of_reachability_is_one_button(browser: Browser) -> None:
    ping = volunteer_pinged()
    await browser.happened(ping)
    page = await browser.get(ping)
    assert "tidak ada kejadian dan tidak ada yang menunggu" in seen(page)
    assert buttons(page) == ["alive"]
    refused = await browser.post(ping, {"answer": "accept"})
    assert refused.status_code == 422
    pressed = await browser.press(ping, "alive")
    assert "Terima kasih!" in seen(await browser.follow(ping, pressed))
    assert "Terima kasih!" in seen(await browser.get(ping))
    await browser.post(ping, {"answer": "alive"})
    (event,) = await said(browser.database)
    assert isinstance(event, PingAnswered)
    assert (event.subject, event.data.ping_id, event.data.channel) == (
        ping.data.volunteer.id, ping.data.ping_id, "link",
    )  # fmt: skip


async def test_a_sign_of_life_is_taken_after_the_test_as_well(browser: Browser) -> None:
    ping = volunteer_pinged(respond_by=datetime.now(UTC) - timedelta(seconds=1))
    await browser.happened(ping)
    assert "Waktu uji ini sudah lewat" in seen(await browser.get(ping))
    assert "Terima kasih!" in seen(await browser.follow(ping, await browser.press(ping, "alive")))
    assert len(await said(browser.database)) == 1


# --- links that open nothing ----------------------------------------------------------------------


async def test_a_forged_or_damaged_link_opens_nothing_and_says_what_to_do(
    browser: Browser,
) -> None:
    offer, other = offer_made(), offer_made(answer_code="K7P2N")
    await browser.happened(offer, other)
    good = link_of(offer)
    elsewhere = link_of(other)[-11:]
    for bad in (
        good[:-1], good + "A", good[:-11] + elsewhere, good[:-11], good[:-11] + "A" * 11,
        good.replace("K7P2M", "K7P2N"), good.replace("K7P2M", "ZZZZZ"), good.lower(),
        "http://test/r/%00%00%00%00%00" + elsewhere, "http://test/r/é%F0%9F%8C%8A" + elsewhere,
        "http://test/r/%20",
    ):  # fmt: skip
        for method in ("GET", "POST"):
            answer = await browser.http.request(method, bad, data={"answer": "accept"})
            assert answer.status_code == 403, bad
            assert "Tautan ini tidak benar" in seen(answer.text)
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            assert not any(word in answer.text for word in ("Siti", "Koba", "K7P2M"))
    assert await said(browser.database) == []


async def test_a_link_is_good_for_a_while_and_then_says_so(browser: Browser) -> None:
    offer = offer_assigned(reporter=reporter())
    await browser.happened(offer)
    await run(browser.database, "UPDATE asked SET asked_at = now() - interval '29 days 23 hours'")
    assert await browser.get(offer)
    await run(browser.database, "UPDATE asked SET asked_at = now() - interval '30 days 1 second'")
    page = await browser.get(offer, status=410)
    assert "Tautan ini sudah terlalu lama" in seen(page)
    assert not any(word in page for word in CONTACT)
    assert (await browser.post(offer, {"answer": "done", "outcome": "resolved"})).status_code == 410
    assert await said(browser.database) == []


async def test_two_offers_with_one_code_are_told_apart_by_their_signatures(
    browser: Browser,
) -> None:
    first, second = offer_made(), offer_made(people=7)
    await browser.happened(first, second)
    assert "1 orang" in seen(await browser.get(first))
    assert "7 orang" in seen(await browser.get(second))


async def test_without_its_database_the_page_says_that_nothing_may_be_stored() -> None:
    away = NotificationSettings(
        database_url="postgresql+asyncpg://nobody@127.0.0.1:1/{service}"
    ).database_url_of("notification")
    database = Database(away)
    transport = httpx2.ASGITransport(app=make_app(database))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.post(link_of(offer_made()), data={"answer": "accept"})
    await database.close()
    assert answer.status_code == 503
    assert "Sedang ada gangguan" in seen(answer.text)


# --- whatever anybody sends -----------------------------------------------------------------------

TEXTS = st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace").decode())
WORDS = ["accept", "decline", "arrived", "done", "obstacle", "hand_back", "alive", "resolved"]
FIELDS = st.sampled_from(["answer", "outcome", "words", "once", "x"])
ANYTHING = hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANYTHING
@given(token=TEXTS, tail=TEXTS)
async def test_no_token_breaks_the_page(browser: Browser, token: str, tail: str) -> None:
    for path in (token, "K7P2M" + token, link_of(NEVER_ASKED).rpartition("/")[2] + tail):
        for method in ("GET", "POST"):
            answer = await browser.http.request(method, f"/r/{quote(path, safe='')}")
            assert answer.status_code in (307, 403, 404)  # a slash makes it another address


@ANYTHING
@given(
    form=st.dictionaries(FIELDS, st.sampled_from(WORDS) | TEXTS, max_size=5),
    query=st.dictionaries(st.sampled_from(["sent", "n", "thanks"]), TEXTS, max_size=3),
)
async def test_no_form_and_no_query_breaks_the_page(
    browser: Browser, form: dict[str, str], query: dict[str, str]
) -> None:
    await browser.happened(OPEN, GIVEN, PING)
    for about in (OPEN, GIVEN, PING):
        assert await browser.get(about, "?" + urlencode(query))
        answer = await browser.post(about, form)
        assert answer.status_code in (303, 422)
        if answer.status_code == 303:
            assert await browser.follow(about, answer)


@ANYTHING
@given(body=st.binary(max_size=200))
async def test_no_bytes_break_the_page(browser: Browser, body: bytes) -> None:
    await browser.happened(OPEN)
    for content in (body, b"answer=accept&words=" + body):
        answer = await browser.http.post(
            link_of(OPEN), content=content, headers={"content-type": pages.FORM}
        )
        assert answer.status_code in (303, 422)
