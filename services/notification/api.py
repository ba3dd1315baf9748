"""Notification's pages: in development, the fake phones of the sandbox."""

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlmodel import col, func, select

from services.notification.models import SandboxMessage
from services.notification.texts import TEMPLATES, ZONES
from shared.database import Database

SHOWN = 60
WESTERN = 420


def router(database: Database) -> APIRouter:
    """The sandbox page; mounted only where the sandbox is a channel."""
    api = APIRouter(tags=["sandbox"])
    pages = Jinja2Templates(directory=TEMPLATES)

    @api.get("/", include_in_schema=False)
    async def to_the_phones() -> RedirectResponse:
        """There is nothing else to see here."""
        return RedirectResponse("/sandbox")

    @api.get("/sandbox", include_in_schema=False)
    async def phones(request: Request) -> HTMLResponse:
        """The newest messages on the fake phones."""
        async with database.transaction() as session:
            newest = select(SandboxMessage).order_by(col(SandboxMessage.received_at).desc())
            messages = (await session.exec(newest.limit(SHOWN))).all()
            total = (await session.exec(select(func.count()).select_from(SandboxMessage))).one()
        return pages.TemplateResponse(
            request,
            "sandbox.html",
            {
                "messages": messages,
                "total": total,
                # Western Indonesia, as in the messages of the sample district.
                "offset": timedelta(minutes=WESTERN),
                "zone": ZONES[WESTERN],
            },
        )

    return api
