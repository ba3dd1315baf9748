"""Intake's door: reports in, their public state out."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel
from uuid_utils.compat import uuid7

from services.intake import reports
from services.intake.reports import KeyUsedForAnotherReport, NewReport
from shared.database import Database
from shared.districts import District
from shared.errors import Problem
from shared.places import PlaceError
from shared.tracing import traceparent_of


class Receipt(BaseModel):
    """The answer to a report that is stored and will not be lost."""

    case_id: UUID
    code: str
    status_url: str


class ReportStatus(BaseModel):
    """The public state of a report."""

    code: str
    state: str
    waiting_for: str | None
    category: str
    subdistrict: str
    approximate_place: bool
    received_at: datetime
    changed_at: datetime


async def json_only(content_type: Annotated[str, Header(include_in_schema=False)] = "") -> None:
    """Refuse a body that does not say it is JSON."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "Send the report as JSON, with content-type: application/json.")


def router(database: Database, *, districts: Mapping[str, District], public_url: str) -> APIRouter:
    """The routes for reporters."""
    api = APIRouter(prefix="/v1", tags=["reports"])

    @api.post("/reports", status_code=202, dependencies=[Depends(json_only)])
    async def report(
        new: NewReport,
        request: Request,
        response: Response,
        idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
        traceparent: Annotated[str | None, Header()] = None,
    ) -> Receipt:
        """Take a report. 202 means: it is stored, and a volunteer will be looked for.

        Repeat a request whose answer got lost with the same ``Idempotency-Key``: it gives the
        same case.
        """
        try:
            accepted = await reports.accept(
                database,
                new,
                districts=districts,
                # A key of our own makes it safe to try again when the database has blinked.
                idempotency_key=idempotency_key or str(uuid7()),
                traceparent=traceparent_of(traceparent),
            )
        except PlaceError as error:
            raise Problem(422, error.message, errors=[(error.field, error.message)]) from error
        except KeyUsedForAnotherReport as error:
            sentence = "This Idempotency-Key was used for another report; take a new one."
            raise Problem(422, sentence, errors=[("Idempotency-Key", sentence)]) from error
        base = public_url or str(request.base_url)
        url = f"{base.rstrip('/')}/v1/reports/{accepted.code}"
        response.headers["Location"] = url
        return Receipt(case_id=accepted.case_id, code=accepted.code, status_url=url)

    @api.get("/reports/{code}")
    async def status(code: str, response: Response) -> ReportStatus:
        """What became of a report. Holds nothing about the person or the reporter."""
        async with database.transaction() as session:
            found = await reports.status(session, code)
        if found is None:
            raise Problem(404, "There is no report with this code. Please check it.")
        response.headers["Cache-Control"] = "no-store"
        return ReportStatus(**asdict(found))

    return api
