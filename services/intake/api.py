"""Intake's door: reports in, their public state out."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel

from services.intake import reports
from services.intake.callers import caller_of
from services.intake.limits import TooMany, UnknownCodes
from services.intake.reports import KeyUsedForAnotherReport, NewReport
from services.intake.settings import IntakeSettings
from shared.agency import signed_in
from shared.database import Database
from shared.districts import District
from shared.errors import Problem, json_only, refusals
from shared.places import DistrictAway, PlaceError
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


_OWN_NAME = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")


def _this_machine(request: Request) -> str:
    """Where a developer reaches us. The caller writes the Host header, so it counts only if it is a
    name that every machine has for itself."""
    asked = request.headers.get("host", "")
    if _OWN_NAME.fullmatch(asked):
        return f"http://{asked}"
    _, port = request.scope.get("server") or (None, None)
    return f"http://127.0.0.1:{port}" if port else "http://127.0.0.1"


DRILL = "A drill is for the agency: send its token as a Bearer."
FLOOD = (
    "There are too many reports from this address; please come again later. If a person is in "
    "danger, ring 112."
)
# A person mends a district's folder in minutes, not in seconds.
DISTRICT_AWAY_RETRY = timedelta(minutes=5)
GUESSES = "There were too many codes from this address that there are not; please come later."


def router(
    database: Database, *, districts: Mapping[str, District], settings: IntakeSettings
) -> APIRouter:
    """The routes for reporters."""
    api = APIRouter(prefix="/v1", tags=["reports"])
    unknown_codes = UnknownCodes(database, settings.unknown_codes_per_address)
    of_agency = Depends(signed_in(settings.agency_token))

    @api.post(
        "/reports",
        status_code=202,
        dependencies=[Depends(json_only)],
        responses=refusals(403, 415, 422, 429, 503),
    )
    async def report(
        new: NewReport,
        request: Request,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                min_length=16,
                max_length=255,
                description="yours and not to be guessed, such as a UUID: repeated with it, a "
                "report is taken once",
            ),
        ] = None,
        traceparent: Annotated[str | None, Header()] = None,
        agency: bool = of_agency,
    ) -> Receipt:
        """Take a report. 202 means: it is stored, and a volunteer will be looked for.

        Repeat a request whose answer got lost with the same ``Idempotency-Key``: it gives the
        same case. Where one address or one contact sends very many, the duty officer looks first;
        a flood is refused with 429. Who shows the agency's token has no limit, and may send drills.
        503 with a sentence: the place is, or may be, in a district that is out of service now.
        """
        if new.drill and not agency and not settings.drills_for_all:
            raise Problem(403, DRILL)
        try:
            accepted = await reports.accept(
                database,
                new,
                districts=districts,
                caller=caller_of(request, signed_in=agency),
                settings=settings,
                idempotency_key=idempotency_key,
                traceparent=traceparent_of(traceparent),
            )
        except DistrictAway as error:
            raise Problem(
                503,
                error.message,
                errors=[(error.field, error.message)],
                retry_after=DISTRICT_AWAY_RETRY,
            ) from error
        except PlaceError as error:
            raise Problem(422, error.message, errors=[(error.field, error.message)]) from error
        except KeyUsedForAnotherReport as error:
            sentence = "This Idempotency-Key was used for another report; take a new one."
            raise Problem(422, sentence, errors=[("Idempotency-Key", sentence)]) from error
        except TooMany as error:
            raise Problem(429, FLOOD, retry_after=error.retry_after) from error
        base = (settings.public_url or _this_machine(request)).rstrip("/")
        url = f"{base}/v1/reports/{accepted.code}"
        response.headers["Location"] = url
        return Receipt(case_id=accepted.case_id, code=accepted.code, status_url=url)

    @api.get("/reports/{code}", responses=refusals(403, 404, 429))
    async def status(
        code: str, request: Request, response: Response, agency: bool = of_agency
    ) -> ReportStatus:
        """What became of a report. Holds nothing about the person or the reporter."""
        caller = caller_of(request, signed_in=agency)
        try:
            await unknown_codes.check(caller)
        except TooMany as error:
            raise Problem(429, GUESSES, retry_after=error.retry_after) from error
        async with database.transaction() as session:
            found = await reports.status(session, code)
        if found is None:
            await unknown_codes.missed(caller)
            raise Problem(404, "There is no report with this code. Please check it.")
        return ReportStatus(**asdict(found))

    return api
