"""Assignment's door for the agency: the volunteers."""

import secrets
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel, ConfigDict, SecretStr

from services.assignment import volunteers
from shared.database import Database
from shared.errors import Problem


class ListedVolunteer(BaseModel):
    """A volunteer as the agency sees them."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    district: str
    name: str
    role: str
    phone: str | None
    email: str | None
    village: str | None
    latitude: float
    longitude: float
    categories: list[str]
    capacity: int
    open_cases: int
    on_duty: bool


class VolunteerPage(BaseModel):
    """One page; ``next_after`` asks for the following one and is null on the last."""

    volunteers: list[ListedVolunteer]
    next_after: UUID | None


def router(database: Database, *, token: SecretStr | None) -> APIRouter:
    """The routes for the agency; with ``token`` only for whoever shows it."""

    async def agency_only(
        authorization: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> None:
        if token is None:
            return
        expected = f"Bearer {token.get_secret_value()}"
        if not secrets.compare_digest(authorization.encode(), expected.encode()):
            raise Problem(403, "Volunteers' data is for the agency: send its token as a Bearer.")

    api = APIRouter(prefix="/v1", tags=["volunteers"], dependencies=[Depends(agency_only)])

    @api.get("/volunteers")
    async def listed(
        district: Annotated[str | None, Query(max_length=20, pattern=r"^[0-9.]+$")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: UUID | None = None,
    ) -> VolunteerPage:
        """The volunteers, a page at a time."""
        async with database.transaction() as session:
            found = await volunteers.listed(session, district=district, limit=limit, after=after)
        return VolunteerPage(
            volunteers=[ListedVolunteer.model_validate(volunteer) for volunteer in found],
            next_after=found[-1].id if len(found) == limit else None,
        )

    return api
