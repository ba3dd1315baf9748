"""The page on which a volunteer answers an offer. It opens with the short link in the message.

GET shows and POST acts: mail scanners follow links. An answer is judged by assignment a moment
later; until then the page says so and looks again by itself, for a while.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notification import answers, asked, texts
from services.notification.links import CODE_LENGTH, PURPOSE
from services.notification.offers import HELD
from shared.database import DATABASE_ERRORS, Database, Row, brief, execute, is_transient, now, sql
from shared.events import Answer, MadeOffer, Outcome, PingedVolunteer, Reporter
from shared.pages import HEADERS
from shared.security import Links
from shared.words import without_control

log = structlog.get_logger("pages")

WORDS_AT_MOST = 500
# The only kind of form that the page has: another kind has nothing in it.
FORM = "application/x-www-form-urlencoded"
# How often the page looks by itself whether an answer has been judged, a second apart.
LOOKS = 10
# States in which there is nothing left to wait for after each answer. An obstacle changes none.
LEADS_TO: dict[str, tuple[str, ...]] = {
    "accept": ("accepted", "arrived", "ended"),
    "decline": ("ended",),
    "arrived": ("arrived", "ended"),
    "done": ("ended",),
    "obstacle": ("ended",),
    "hand_back": ("ended",),
}
# What need not be said again: answers that the page shows as having had their effect.
KNOWN: dict[str, tuple[str, ...]] = {
    "accepted": ("accept",),
    "arrived": ("accept", "arrived"),
    "done": ("done",),
    "declined": ("decline",),
    "handed_back": ("hand_back", "decline"),
}

# The answer that this page has sent, and whether anything was heard of its offer since.
_SENT = sql("""
    SELECT o.payload, s.heard_at
    FROM outbox o LEFT JOIN offer_states s ON s.offer_id = :offer
    WHERE o.event_id = :event
""")


@dataclass(frozen=True)
class Sent:
    """An answer that is stored: whether it has been judged, and how often the page has looked."""

    event_id: UUID
    answer: str
    judged: bool
    looks: int


class _Closed(Exception):
    """There is no page to show; ``why`` is forged, old, or away (the database is)."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def router(database: Database, *, links: Links, max_age: timedelta) -> APIRouter:
    """The page; a link to what was asked longer ago than ``max_age`` no longer opens it.

    Nobody tries 64 bits of signature through over a network: there is no limit on tries.
    """
    pages = APIRouter(include_in_schema=False)
    templates = Jinja2Templates(directory=texts.TEMPLATES)
    templates.env.trim_blocks = templates.env.lstrip_blocks = True

    def closed(request: Request, why: str) -> Response:
        status = {"old": 410, "away": 503}.get(why, 403)
        return templates.TemplateResponse(
            request, "respond_closed.html", {"why": why}, status_code=status, headers=HEADERS
        )

    async def opened(session: AsyncSession, token: str) -> Row:
        code, signature = token[:CODE_LENGTH], token[CODE_LENGTH:]
        for row in await asked.with_code(session, code) if code.isalnum() else ():
            if links.is_short(PURPOSE, row.offer_id.bytes, signature):
                if await now(session) - row.asked_at > max_age:
                    raise _Closed("old")
                return row
        raise _Closed("forged")

    async def page(
        request: Request,
        session: AsyncSession,
        row: Row,
        *,
        sent: Sent | None = None,
        mistake: str | None = None,
    ) -> Response:
        over = row.respond_by <= await now(session)
        waiting = sent is not None and not sent.judged
        look = sent.looks + 1 if sent and waiting and sent.looks < LOOKS else None
        return templates.TemplateResponse(
            request,
            "respond.html",
            {
                **(_ping(row) if row.kind == "ping" else _offer(row)),
                "over": over,
                "thanked": not over or "thanks" in request.query_params,
                "sent": sent,
                "waiting": waiting,
                "refresh": f"?sent={sent.event_id}&n={look}" if sent and look else None,
                "mistake": mistake,
                "once": uuid4().hex,
                "words_at_most": WORDS_AT_MOST,
            },
            status_code=422 if mistake else 200,
            headers=HEADERS,
        )

    @asynccontextmanager
    async def at_work() -> AsyncIterator[AsyncSession]:
        """A transaction; what passes by itself becomes a page that says so."""
        try:
            async with database.transaction() as session:
                yield session
        except (*DATABASE_ERRORS, OSError) as error:
            if not is_transient(error):
                raise
            log.warning("page.away", error=brief(error))
            raise _Closed("away") from error

    @pages.api_route("/r/{token}", methods=["GET", "HEAD"])
    async def show(request: Request, token: str) -> Response:
        """Show what is asked, and what has become of it; changes nothing."""
        try:
            async with at_work() as session:
                row = await opened(session, token)
                sent = await _sent(session, row, request.query_params)
                return await page(request, session, row, sent=sent)
        except _Closed as error:
            return closed(request, error.why)

    @pages.post("/r/{token}")
    async def act(request: Request, token: str) -> Response:
        """Take the answer, or say what is wrong with it."""
        form = await _form(request)
        try:
            async with at_work() as session:
                row = await opened(session, token)
                mistake = _mistake(row, form)
                if mistake is not None:
                    return await page(request, session, row, mistake=mistake)
                to = await _take(session, row, form)
        except _Closed as error:
            return closed(request, error.why)
        # Without the path: a proxy may have put something before it.
        return RedirectResponse(to, 303, headers=HEADERS)

    return pages


# --- an answer that is given ----------------------------------------------------------------------


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = await request.form() if kind == FORM else {}
    return {
        name: str(form.get(name, "")).strip() for name in ("answer", "outcome", "words", "once")
    }


async def _take(session: AsyncSession, row: Row, form: dict[str, str]) -> str:
    """Let an answer go its way; returns where to look at what becomes of it."""
    if row.kind == "ping":
        # One that is over because its time is may still be answered: they can be reached.
        if row.state != "ended" or row.respond_by <= await now(session):
            await answers.alive(session, [row], words=None, channel="link")
        return "?thanks=1"
    if form["answer"] in KNOWN.get(row.outcome if row.state == "ended" else row.state, ()):
        return "?"
    event_id = await _give(session, row, form)
    return f"?sent={event_id}&n=0" if event_id else "?"


async def _give(session: AsyncSession, row: Row, form: dict[str, str]) -> UUID | None:
    """The same form sent twice, by a double click or a reload, is one answer; returns its event."""
    answer: Any = form["answer"]
    outcome: Any = form["outcome"] if answer == "done" else None
    words = form["words"][:WORDS_AT_MOST] or None
    try:
        return await answers.give(
            session,
            offer_id=row.offer_id,
            answer=answer,
            outcome=outcome,
            words=words,
            channel="link",
            key=f"link:{answer}:{outcome}:{words}:{form['once'][:64]}",
        )
    except answers.KeyUsedForAnotherAnswer:
        # The volunteer's number has changed between two clicks: it was given all the same.
        return None


async def _sent(session: AsyncSession, row: Row, query: Any) -> Sent | None:
    """The answer to this offer that brought the browser here, if it is one that we know."""
    try:
        event_id = UUID(query.get("sent", ""))
    except ValueError:
        return None
    for found in await execute(session, _SENT, {"offer": row.offer_id, "event": event_id}):
        event = json.loads(found.payload)
        given = event["data"]
        if given.get("offer_id") != str(row.offer_id):
            continue
        heard = found.heard_at and found.heard_at > datetime.fromisoformat(event["time"])
        judged = row.state in LEADS_TO[given["answer"]] or bool(heard)
        return Sent(event_id, given["answer"], judged, _looks(query.get("n", "")))
    return None


def _looks(text: str) -> int:
    """How often the page has looked; whoever writes something else is not looked for again."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else LOOKS


def _mistake(row: Row, form: dict[str, str]) -> str | None:
    """What is missing of an answer; None if nothing is."""
    known = ("alive",) if row.kind == "ping" else get_args(Answer)
    if form["answer"] not in known:
        return "answer"
    if form["answer"] == "done" and form["outcome"] not in get_args(Outcome):
        return "outcome"
    if form["answer"] == "obstacle" and not without_control(form["words"]).strip():
        return "words"
    return None


# --- what the page shows --------------------------------------------------------------------------


def _ping(row: Row) -> dict[str, Any]:
    made = PingedVolunteer.model_validate(row.made)
    return {**_common(row), "name": made.volunteer.name}


def _offer(row: Row) -> dict[str, Any]:
    """What the page tells of an offer, in the volunteer's language."""
    made, words = MadeOffer.model_validate(row.made), texts.words_of(row.language)
    place, categories = made.place, words["categories"]
    return {
        **_common(row),
        "name": made.volunteer.name,
        "outcome": row.outcome,
        "what": categories.get(made.category, categories["other"]),
        "urgent": made.urgency == "urgent",
        "people": made.people,
        "place": place,
        "position": f"{place.latitude:.6f},{place.longitude:.6f}",
        "distance": texts.distance(
            made.distance_m, words["decimal"], approximate=made.place.approximate
        ),
        "until": texts.clock(row.respond_by, made.utc_offset_minutes, words["clock"]),
        "reporter": _contact(row),
    }


def _common(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "state": row.state,
        "drill": row.drill,
        "language": texts.words_of(row.language)["language"],
        "code": row.answer_code,
    }


def _contact(row: Row) -> Reporter | None:
    """Who reported it: only for whoever has the case, and only if there is something to show."""
    if row.reporter is None or row.state not in HELD:
        return None
    reporter = Reporter.model_validate(row.reporter)
    return reporter if reporter.name or reporter.phone or reporter.email else None
