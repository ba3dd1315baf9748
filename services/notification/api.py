"""Notification's pages: in development, the fake phones of the sandbox."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlmodel import func, select

from services.notification import phones
from services.notification.answers import KeyUsedForAnotherAnswer, UnknownOffer
from services.notification.models import SandboxMessage
from services.notification.texts import TEMPLATES, ZONES
from shared.database import Database
from shared.errors import Problem
from shared.events import Answer, Outcome

WESTERN = 420
# How often the page looks for news, in seconds; sooner while an answer is being judged.
REFRESH = 5
REFRESH_PENDING = 1

JSON = "application/json"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
NO_OFFER = "There is no such offer on any fake phone. Please check its id."
KEY_USED = "This Idempotency-Key was used for another answer; take a new one."


class NewAnswer(BaseModel):
    """What the owner of a fake phone answers."""

    model_config = ConfigDict(extra="forbid")

    offer_id: UUID
    answer: Answer
    outcome: Outcome | None = Field(default=None, description="with done")
    words: str | None = Field(default=None, max_length=1000)

    @model_validator(mode="after")
    def outcome_comes_with_done(self) -> Self:
        """Refuse an outcome of what has not ended."""
        if self.outcome is not None and self.answer != "done":
            raise ValueError("an outcome goes with the answer done only")
        return self


class Given(BaseModel):
    """An answer that is stored and will be judged."""

    event_id: UUID


class Arrived(BaseModel):
    """A message on a fake phone.

    ``offer_state``: what was last heard of its offer (open, accepted, arrived, ended), if anything.
    """

    id: int
    message_id: UUID
    address: str
    body: str
    purpose: str | None
    offer_id: UUID | None
    case_id: UUID | None
    answer_code: str | None
    offer_state: str | None
    received_at: datetime


class Messages(BaseModel):
    """Messages in the order of their arrival; go on with ``after``."""

    messages: list[Arrived]
    after: int


# FastAPI knows one kind of body per route; this one takes a form from the page as well.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": NewAnswer.model_json_schema()} for kind in (JSON, FORMS[0])},
    }
}


async def _new_answer(request: Request) -> NewAnswer:
    """The answer in a body of JSON or of a form.

    Raises:
        Problem: the body is neither; RequestValidationError: it is not an answer.
    """
    kind = _kind(request)
    try:
        if kind == JSON:
            return NewAnswer.model_validate_json(await request.body())
        if kind in FORMS:
            form = await request.form()
            return NewAnswer.model_validate({name: value for name, value in form.items() if value})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    raise Problem(415, "Send the answer as JSON, with content-type: application/json.")


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def router(database: Database) -> APIRouter:
    """The sandbox; mounted only where it is a channel."""
    api = APIRouter(tags=["sandbox"])
    pages = Jinja2Templates(directory=TEMPLATES)

    @api.get("/", include_in_schema=False)
    async def to_the_phones() -> RedirectResponse:
        """There is nothing else to see here."""
        return RedirectResponse("/sandbox")

    @api.get("/sandbox", include_in_schema=False)
    async def show(
        request: Request,
        offer: UUID | None = None,
        answer: Literal["done", "obstacle"] | None = None,
    ) -> Response:
        """The fake phones, refreshed every few seconds.

        What has to be typed is typed on a page of its own (``offer`` and ``answer``), which stands
        still: a refresh would wipe it.
        """
        async with database.transaction() as session:
            try:
                shown = await phones.conversations(session, only=offer)
            except UnknownOffer as error:
                raise Problem(404, NO_OFFER) from error
            total = (await session.exec(select(func.count()).select_from(SandboxMessage))).one()
        live = {each.offer_id: each for phone in shown for each in phone.offers}
        if offer and (answer is None or offer not in live):
            return RedirectResponse("/sandbox", status_code=303)  # it has ended meanwhile
        pending = any(each.pending for each in live.values())
        return pages.TemplateResponse(
            request,
            "sandbox.html",
            {
                "phones": shown,
                "total": total,
                "typing": (offer, answer) if offer else None,
                "refresh": REFRESH_PENDING if pending else REFRESH,
                "outcomes": phones.OUTCOMES,
                # Western Indonesia, as in the messages of the sample district.
                "offset": timedelta(minutes=WESTERN),
                "zone": ZONES[WESTERN],
            },
        )

    @api.get("/sandbox/messages")
    async def messages(
        after: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Messages:
        """What arrived on the fake phones, in order: behind ``after`` (0: from the first on), or
        without it the newest."""
        async with database.transaction() as session:
            found = await phones.arrived(session, after=after, limit=limit)
        shown = [Arrived.model_validate(dict(row)) for row in found]
        return Messages(messages=shown, after=shown[-1].id if shown else after or 0)

    @api.post(
        "/sandbox/answers",
        status_code=202,
        response_model=Given,
        responses={303: {"description": "Stored; back to the page, after its form"}},
        openapi_extra=_BODY,
    )
    async def give(
        request: Request,
        new: Annotated[NewAnswer, Depends(_new_answer)],
        idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
    ) -> Response:
        """Answer an offer from its fake phone; assignment judges the answer as any other.

        Repeat a request whose answer got lost with the same ``Idempotency-Key``: it counts once.
        """
        async with database.transaction() as session:
            try:
                event_id = await phones.give(
                    session,
                    offer_id=new.offer_id,
                    answer=new.answer,
                    outcome=new.outcome,
                    words=new.words,
                    key=idempotency_key,
                )
            except UnknownOffer as error:
                raise Problem(404, NO_OFFER, errors=[("offer_id", NO_OFFER)]) from error
            except KeyUsedForAnotherAnswer as error:
                raise Problem(422, KEY_USED, errors=[("Idempotency-Key", KEY_USED)]) from error
        if _kind(request) != JSON:
            return RedirectResponse("/sandbox", status_code=303)
        return JSONResponse(Given(event_id=event_id).model_dump(mode="json"), status_code=202)

    return api
