"""Notification's pages: in development, the fake phones of the sandbox."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlmodel import func, select

from services.notification import phones
from services.notification.answers import KeyUsedForAnotherAnswer, UnknownOffer
from services.notification.handlers import Office
from services.notification.inbound import ADDRESS_AT_MOST
from services.notification.models import SandboxMessage
from services.notification.phones import Phone
from services.notification.texts import TEMPLATES, ZONES
from shared.database import Database
from shared.errors import Problem, refusals
from shared.events import Answer, Outcome
from shared.pages import HEADERS
from shared.words import storable

WESTERN = 420
# How often the page looks for news, in seconds; sooner while an answer is being judged.
REFRESH = 5
REFRESH_PENDING = 1
# Of one phone alone: a page with more of its conversation, and with room to write.
LINES_OF_ONE = 60

JSON = "application/json"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
NO_OFFER = "There is no such offer on any fake phone. Please check its id."
SEE_OTHER = {"description": "Stored; back to the page, after its form"}
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


class NewReply(BaseModel):
    """What the owner of a fake phone writes, as they would write an SMS."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(min_length=1, max_length=ADDRESS_AT_MOST, description="the phone's number")
    text: str = Field(min_length=1, max_length=1600)


class Stored(BaseModel):
    """A text that is stored and has its effect."""

    stored: bool = True


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


Body = TypeVar("Body", bound=BaseModel)


# FastAPI knows one kind of body per route; these take a form from the page as well.
def _body(model: type[BaseModel]) -> dict[str, Any]:
    kinds = (JSON, FORMS[0])
    content = {kind: {"schema": model.model_json_schema()} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, model: type[Body]) -> Body:
    """What is in a body of JSON or of a form.

    Raises:
        Problem: the body is neither; RequestValidationError: it is not as the model says.
    """
    kind = _kind(request)
    try:
        if kind == JSON:
            return model.model_validate_json(await request.body())
        if kind in FORMS:
            form = await request.form()
            return model.model_validate({name: value for name, value in form.items() if value})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    raise Problem(415, "Send the answer as JSON, with content-type: application/json.")


async def _new_answer(request: Request) -> NewAnswer:
    return await _read(request, NewAnswer)


async def _new_reply(request: Request) -> NewReply:
    return await _read(request, NewReply)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _headers(mode: str) -> dict[str, str]:
    """As for every page, but the conversation stands in a frame of the page of its phone."""
    policy = HEADERS["Content-Security-Policy"] + "; frame-src 'self'"
    if mode == "frame":
        policy = policy.replace("frame-ancestors 'none'", "frame-ancestors 'self'")
    return {**HEADERS, "Content-Security-Policy": policy}


def _back(phone: str | None) -> RedirectResponse:
    """To where a form came from: a phone of its own, or all."""
    where = f"/sandbox?phone={quote(phone, safe='')}" if phone else "/sandbox"
    return RedirectResponse(where, status_code=303)


def router(database: Database, *, office: Office) -> APIRouter:
    """The sandbox; mounted only where it is a channel."""
    api = APIRouter(tags=["sandbox"])
    pages = Jinja2Templates(directory=TEMPLATES)

    def page(request: Request, shown: list[Phone], **values: Any) -> Response:
        pending = any(each.pending for phone in shown for each in phone.offers)
        defaults = {
            "phones": shown,
            "mode": "all",
            "typing": None,
            "back": None,
            "refresh": REFRESH_PENDING if pending else REFRESH,
            "outcomes": phones.OUTCOMES,
            # Western Indonesia, as in the messages of the sample district.
            "offset": timedelta(minutes=WESTERN),
            "zone": ZONES[WESTERN],
        }
        shown_page = defaults | values
        return pages.TemplateResponse(
            request, "sandbox.html", shown_page, headers=_headers(str(shown_page["mode"]))
        )

    @api.get("/", include_in_schema=False)
    async def to_the_phones() -> RedirectResponse:
        """There is nothing else to see here."""
        return RedirectResponse("/sandbox")

    @api.get("/sandbox", include_in_schema=False)
    async def show(
        request: Request,
        phone: Annotated[str | None, Query(max_length=ADDRESS_AT_MOST)] = None,
        offer: UUID | None = None,
        answer: Literal["done", "obstacle"] | None = None,
    ) -> Response:
        """The fake phones, refreshed every few seconds.

        What has to be typed is typed on a page that stands still, for a refresh would wipe it: that
        of one ``phone``, whose conversation goes on in a frame, or that of an ``offer`` and its
        ``answer``.
        """
        async with database.transaction() as session:
            try:
                only = await phones.address_of(session, offer) if offer else phone
            except UnknownOffer as error:
                raise Problem(404, NO_OFFER) from error
            only = storable(only).strip() if only is not None else None
            shown = await phones.conversations(
                session, districts=office.routes.districts, only=only
            )
            total = (await session.exec(select(func.count()).select_from(SandboxMessage))).one()
        if offer:
            live = {each.offer_id for one in shown for each in one.offers}
            if answer is None or offer not in live:
                return _back(phone)  # it has ended meanwhile
            return page(
                request, shown, total=total, mode="typing", typing=(offer, answer), back=phone
            )
        if only is None:
            return page(request, shown, total=total)
        return page(request, shown or [Phone(only, [])], total=total, mode="one")

    @api.get("/sandbox/conversation", include_in_schema=False)
    async def conversation(
        request: Request, phone: Annotated[str, Query(max_length=ADDRESS_AT_MOST)]
    ) -> Response:
        """What was said on one phone, for the frame on its page: refreshes itself."""
        address = storable(phone).strip()
        async with database.transaction() as session:
            shown = await phones.conversations(
                session, districts=office.routes.districts, only=address, lines=LINES_OF_ONE
            )
        return page(request, shown or [Phone(address, [])], mode="frame")

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
        responses={303: SEE_OTHER, **refusals(404)},
        openapi_extra=_body(NewAnswer),
    )
    async def give(
        request: Request,
        new: Annotated[NewAnswer, Depends(_new_answer)],
        phone: Annotated[str | None, Query(max_length=ADDRESS_AT_MOST)] = None,
        idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
    ) -> Response:
        """Answer an offer from its fake phone; assignment judges the answer as any other.

        Repeat a request whose answer got lost with the same ``Idempotency-Key``: it counts once.
        A form goes back to the page of its ``phone``, if it came from there.
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
            return _back(phone)
        return JSONResponse(Given(event_id=event_id).model_dump(mode="json"), status_code=202)

    @api.post(
        "/sandbox/replies",
        status_code=202,
        response_model=Stored,
        responses={303: SEE_OTHER},
        openapi_extra=_body(NewReply),
    )
    async def reply(
        request: Request,
        new: Annotated[NewReply, Depends(_new_reply)],
        idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
    ) -> Response:
        """Write freely from a fake phone: it is read as an SMS that came in.

        Repeat a request whose answer got lost with the same ``Idempotency-Key``: it counts once.
        """
        async with database.transaction() as session:
            written_on = await phones.write(
                session,
                address=new.address.strip(),
                text=new.text,
                key=idempotency_key,
                office=office,
            )
        if _kind(request) != JSON:
            return _back(written_on)
        return JSONResponse(Stored().model_dump(mode="json"), status_code=202)

    return api
