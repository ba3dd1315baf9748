"""The page behind the link in a message: what it shows in each state, and what its buttons do."""

import asyncio
import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

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

SETTINGS = NotificationSettings(channels="sandbox", public_url="http://test")
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
    app.include_router(
        pages.router(database, links=SETTINGS.links, public_url=SETTINGS.public_url, **given_)
    )
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
