"""Assignment's door for coordinators: the cases, their stories, and the acts upon them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field, SecretStr

from services.assignment import coordination, story
from services.assignment.coordination import Act, Assignment, Closing, Refused
from services.assignment.turn import STATES, Case
from shared.agency import agency_only
from shared.database import Database
from shared.districts import District
from shared.errors import Problem, json_only, refusals
from shared.events import Place

Code = Annotated[
    str, Path(max_length=40, description="the case's short code; capitals and blanks do not matter")
]
State = Literal[
    "open", "searching", "waiting", "escalated", "offered", "accepted", "arrived", "closed", "all"
]


class CasePage(BaseModel):
    """One page; ``next_after`` asks for the following one and is null on the last."""

    cases: list[story.CaseNow]
    next_after: str | None


class CaseStory(BaseModel):
    """Everything about one case. Holds personal data."""

    case: story.CaseNow
    place: Place
    offers: list[story.StoryOffer] = Field(description="in the order in which they were made")
    log: list[story.StoryLine]
    answers: list[story.StoryAnswer] = Field(description="only those that changed nothing")
    lines: list[str] = Field(description="the story in words; times are the district's")


class CaseState(BaseModel):
    """What an act has made of the case; its story tells the rest."""

    code: str
    state: str
    version: int = Field(description="of the public feed")
    outcome: str | None


def router(
    database: Database, *, districts: Mapping[str, District], token: SecretStr | None
) -> APIRouter:
    """The routes for coordinators; with ``token`` only for whoever shows it."""
    api = APIRouter(prefix="/v1/cases", tags=["cases"], dependencies=[Depends(agency_only(token))])

    @api.get("")
    async def listed(
        state: Annotated[State, Query(description="open: all that are not closed")] = "open",
        district: Annotated[str | None, Query(max_length=20, pattern=r"^[0-9.]+$")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(max_length=40, description="a case's code")] = None,
    ) -> CasePage:
        """The cases, the oldest report first, a page at a time."""
        try:
            async with database.transaction() as session:
                found = await story.listed(
                    session, states=_states(state), district=district, limit=limit, after=after
                )
        except story.UnknownCase as error:
            raise Problem(422, str(error), errors=[("after", str(error))]) from error
        return CasePage(cases=found, next_after=found[-1].code if len(found) == limit else None)

    @api.get("/{code}")
    async def told(code: Code) -> CaseStory:
        """The whole story of a case: who was asked, why, what they said, who acted and why."""
        async with database.transaction() as session:
            found = await story.story(session, code)
        if found is None:
            raise Problem(404, f"There is no case {code}.")
        lines = story.lines(found, story.timezone_of(found.case, districts))
        return CaseStory(**vars(found), lines=lines)

    async def act(how: Callable[..., Awaitable[Case]], code: str, wanted: Act) -> CaseState:
        try:
            async with database.transaction() as session:
                case = await how(session, code, wanted, districts=districts)
        except Refused as error:
            raise Problem(404 if error.missing else 409, error.message) from error
        return CaseState.model_validate(case, from_attributes=True)

    @api.post("/{code}/assign", dependencies=[Depends(json_only)], responses=refusals(409))
    async def assign(code: Code, wanted: Assignment) -> CaseState:
        """Give the case to a volunteer, whether they were asked or not; it is theirs at once.

        Say who by `volunteer_id`, or by `volunteer`: a phone, an e-mail or a name; if that can be
        several, the refusal lists them.

        They are told, and so is whoever was asked or had it. Only cases that they have accepted
        count, against their capacity; duty, rest, drills and open offers do not.
        """
        return await act(coordination.assign, code, wanted)

    @api.post("/{code}/release", dependencies=[Depends(json_only)], responses=refusals(409))
    async def release(code: Code, wanted: Act) -> CaseState:
        """Take the case back from whoever has it, who is told; others are asked at once.

        A case that was held back for the duty officer is let into the search.
        """
        return await act(coordination.release, code, wanted)

    @api.post("/{code}/close", dependencies=[Depends(json_only)], responses=refusals(409))
    async def close(code: Code, wanted: Closing) -> CaseState:
        """End the case; whoever was asked or had it is told."""
        return await act(coordination.close, code, wanted)

    @api.post("/{code}/notes", dependencies=[Depends(json_only)], responses=refusals(409))
    async def note(code: Code, wanted: Act) -> CaseState:
        """Add a line to the case's story, closed or not."""
        return await act(coordination.note, code, wanted)

    return api


def _states(state: str) -> tuple[str, ...]:
    """The states that a word of the query stands for."""
    return {"open": story.OPEN_STATES, "all": STATES}.get(state, (state,))
