"""The page on which a volunteer answers an offer. It opens with the short link in the message.

GET shows and POST acts: mail scanners follow links. An answer is judged by assignment a moment
later; until then the page says so and looks again by itself, for a while.
"""

from datetime import timedelta
from typing import Any, get_args
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import answers, asked, texts
from services.notification.links import CODE_LENGTH, PURPOSE
from shared.database import Database, Row, now
from shared.events import Answer, Outcome
from shared.pages import HEADERS
from shared.security import Links

WORDS_AT_MOST = 500
# How often the page looks by itself whether an answer has been judged, a second apart.
LOOKS = 10
# The state that each answer leads to; a page that shows it waits no longer.
LEADS_TO: dict[str, tuple[str, ...]] = {
    "accept": ("accepted", "arrived", "ended"),
    "decline": ("ended",),
    "arrived": ("arrived", "ended"),
    "done": ("ended",),
    "obstacle": ("accepted", "arrived", "ended"),
    "hand_back": ("ended",),
    "alive": ("ended",),
}
# What can be answered in which state.
CHOICES: dict[str, tuple[str, ...]] = {
    "open": ("accept", "decline"),
    "accepted": ("arrived", "done", "obstacle", "hand_back"),
    "arrived": ("done", "obstacle", "hand_back"),
}


class _NoOffer(Exception):
    """A link that opens nothing; ``why`` is forged or old."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def router(database: Database, *, links: Links, public_url: str, max_age: timedelta) -> APIRouter:
    """The page; a link to what was asked longer ago than ``max_age`` no longer opens it.

    Nobody tries 64 bits of signature through over a network: there is no limit on tries.
    """
    pages = APIRouter(include_in_schema=False)
    templates = Jinja2Templates(directory=texts.TEMPLATES)

    def closed(request: Request, why: str) -> Response:
        status = 410 if why == "old" else 403
        return templates.TemplateResponse(
            request, "respond_closed.html", {"why": why}, status_code=status, headers=HEADERS
        )

    async def opened(session: AsyncSession, token: str) -> Row:
        code, signature = token[:CODE_LENGTH], token[CODE_LENGTH:]
        for row in await asked.with_code(session, code) if code.isalnum() else ():
            if links.is_short(PURPOSE, row.offer_id.bytes, signature):
                if await now(session) - row.asked_at > max_age:
                    raise _NoOffer("old")
                return row
        raise _NoOffer("forged")

    def page(request: Request, row: Row, *, mistake: str | None = None) -> Response:
        sent, look = _sent(request)
        waiting = sent is not None and mistake is None and not _judged(row, sent)
        return templates.TemplateResponse(
            request,
            "respond.html",
            {
                **_shown(row),
                "choices": CHOICES.get(row.state, ()) if row.kind == "offer" else (),
                "waiting": waiting,
                "look": f"?sent={sent}&look={look + 1}" if waiting and look < LOOKS else None,
                "sent": sent if mistake is None else None,
                "mistake": mistake,
                "once": uuid4().hex,
            },
            status_code=422 if mistake else 200,
            headers=HEADERS,
        )

    @pages.api_route("/r/{token}", methods=["GET", "HEAD"])
    async def show(request: Request, token: str) -> Response:
        """Show what is asked, and what has become of it; changes nothing."""
        try:
            async with database.transaction() as session:
                return page(request, await opened(session, token))
        except _NoOffer as error:
            return closed(request, error.why)

    @pages.post("/r/{token}")
    async def act(request: Request, token: str) -> Response:
        """Take the answer, or say what is wrong with it."""
        form = await request.form(max_fields=20, max_files=0)
        given = {name: str(form.get(name, "")).strip() for name in ("answer", "outcome", "words")}
        try:
            async with database.transaction() as session:
                row = await opened(session, token)
                mistake = _mistake(row, given)
                if mistake is not None:
                    return page(request, row, mistake=mistake)
                if given["answer"] == "alive":
                    await answers.alive(session, [row], words=None, channel="link")
                elif row.state != "ended":
                    await _give(session, row, given, once=str(form.get("once", ""))[:64])
        except _NoOffer as error:
            return closed(request, error.why)
        # Without the path: a proxy may have put something before it.
        return RedirectResponse(f"?sent={given['answer']}", 303, headers=HEADERS)

    return pages


async def _give(session: AsyncSession, row: Row, given: dict[str, str], *, once: str) -> None:
    """The same form sent twice, by a double click or a reload, is one answer."""
    outcome: Any = given["outcome"] or None
    answer: Any = given["answer"]
    words = given["words"][:WORDS_AT_MOST] or None
    await answers.give(
        session,
        offer_id=row.offer_id,
        answer=answer,
        outcome=outcome if answer == "done" else None,
        words=words,
        channel="link",
        key=f"link:{answer}:{outcome}:{words}:{once}",
    )


def _sent(request: Request) -> tuple[str | None, int]:
    """What the page has sent before it came here, and how often it has looked since."""
    sent = request.query_params.get("sent")
    look = request.query_params.get("look", "0")
    number = int(look) if look.isascii() and look.isdigit() and len(look) < 4 else LOOKS
    return (sent if sent in LEADS_TO else None), number


def _judged(row: Row, sent: str) -> bool:
    return row.state in LEADS_TO[sent]


def _mistake(row: Row, given: dict[str, str]) -> str | None:
    """What is missing of an answer; None if nothing is."""
    known = ("alive",) if row.kind == "ping" else get_args(Answer)
    if given["answer"] not in known:
        return "answer"
    if given["outcome"] and given["outcome"] not in get_args(Outcome):
        return "outcome"
    if given["answer"] == "obstacle" and not given["words"]:
        return "words"
    return None


def _shown(row: Row) -> dict[str, Any]:
    """What the page tells of an offer, in the volunteer's language."""
    made, words = row.made, texts.words_of(row.language)
    shown = {
        "kind": row.kind,
        "state": row.state,
        "outcome": row.outcome,
        "drill": row.drill,
        "language": words["language"],
        "code": row.answer_code,
        "name": made["volunteer"]["name"],
    }
    if row.kind == "ping":
        return shown
    place = made["place"]
    zone, form = made["utc_offset_minutes"], words["clock"]
    return {
        **shown,
        "what": words["categories"].get(made["category"], words["categories"]["other"]),
        "urgent": made["urgency"] == "urgent",
        "people": made["people"],
        "village": place.get("village_name"),
        "subdistrict": place["subdistrict_name"],
        "approximate": place["approximate"],
        "latitude": f"{place['latitude']:.6f}",
        "longitude": f"{place['longitude']:.6f}",
        "distance": texts.distance(made["distance_m"], words["decimal"]),
        "until": texts.clock(row.respond_by, zone, form),
        # Only whoever has the case may call whoever reported it.
        "reporter": row.reporter if row.state in ("accepted", "arrived") else None,
    }
