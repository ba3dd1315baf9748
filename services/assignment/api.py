"""Assignment's door for the agency: the volunteers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from services.assignment import volunteers
from services.assignment.duty import Window, format_times
from services.assignment.models import Volunteer
from services.assignment.standing import WhyNot, most_offers, standing
from shared.agency import agency_only
from shared.contacts import Email, Phone
from shared.database import Database, now
from shared.districts import District
from shared.errors import Problem, json_only, refusals
from shared.places import PlaceError
from shared.words import Line


class ListedVolunteer(BaseModel):
    """A volunteer as the agency sees them."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    district: str
    name: str
    role: str
    phone: str | None
    email: str | None
    language: str
    channel: str | None = Field(description="what they would rather be reached by")
    stopped: list[str] = Field(description="by what they want no more messages")
    reachable: bool = Field(description="false: they want messages by nothing that there is")
    village: str | None
    latitude: float
    longitude: float
    categories: list[str]
    trainings: list[str]
    capacity: int = Field(description="how many cases they take at the same time")
    open_cases: int = Field(description="accepted and not ended; drills do not count")
    open_offers: int = Field(0, description="asked and not answered yet; drills do not count")
    on_duty: bool
    duty: str = Field(
        validation_alias="duty_times",
        description="weekly times in the district's time, such as `mon-fri 08:00-17:00`; "
        "empty: always",
    )
    off_until: datetime | None
    rest_until: datetime | None = Field(description="the pause after a case")
    ready: bool = Field(description="whether they can be asked now")
    why_not: WhyNot | None = Field(None, description="why they cannot be asked now")
    until: datetime | None = Field(
        None,
        description="when `ready` changes by itself: a rest or duty times end; null: it does not",
    )
    last_reached_at: datetime | None

    @field_validator("duty", mode="before")
    @classmethod
    def as_text(cls, times: list[Window]) -> str:
        """Duty times as a person writes them."""
        return format_times(times)

    @classmethod
    def of(
        cls, volunteer: Volunteer, *, districts: Mapping[str, District], moment: datetime
    ) -> "ListedVolunteer":
        """A volunteer as they stand at a moment."""
        stands = standing(volunteer, moment=moment, most_offers=most_offers(volunteer, districts))
        told = {"ready": stands.why_not is None, "why_not": stands.why_not, "until": stands.until}
        return cls.model_validate(volunteer).model_copy(update=told)


class VolunteerPage(BaseModel):
    """One page; ``next_after`` asks for the following one and is null on the last."""

    volunteers: list[ListedVolunteer]
    next_after: UUID | None


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field.pop("default", None)


# What is left out is not changed; that some of it may be null is said by its type.
_LEFT_OUT: Any = None


class VolunteerChange(BaseModel):
    """The fields of a volunteer that shall change; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    name: Line = _LEFT_OUT
    role: volunteers.AnyRole = _LEFT_OUT
    phone: Phone | None = None
    email: Email | None = None
    language: volunteers.Language = _LEFT_OUT
    channel: volunteers.PreferredChannel | None = None
    village: Annotated[str, Field(min_length=1, max_length=100)] = _LEFT_OUT
    latitude: volunteers.Latitude = _LEFT_OUT
    longitude: volunteers.Longitude = _LEFT_OUT
    categories: volunteers.Categories = _LEFT_OUT
    trainings: volunteers.Trainings = _LEFT_OUT
    capacity: volunteers.Capacity = _LEFT_OUT
    on_duty: bool = _LEFT_OUT
    duty: volunteers.DutyTimes = _LEFT_OUT
    off_until: volunteers.OffUntil | None = None

    @model_validator(mode="after")
    def changes_something(self) -> Self:
        """An empty change is a mistake of whoever sends it."""
        if not self.model_fields_set:
            raise ValueError("Name at least one field to change.")
        return self


def router(
    database: Database,
    *,
    token: SecretStr | None,
    districts: Mapping[str, District] | None = None,
) -> APIRouter:
    """The routes for the agency; with ``token`` only for whoever shows it.

    Without ``districts`` nobody can be changed: it is not known what times and places mean.
    """
    known = districts if districts is not None else {}

    allowed = agency_only(
        token, refusal="Volunteers' data is for the agency: send its token as a Bearer."
    )
    api = APIRouter(prefix="/v1", tags=["volunteers"], dependencies=[Depends(allowed)])

    @api.get("/volunteers")
    async def listed(
        district: Annotated[str | None, Query(max_length=20, pattern=r"^[0-9.]+$")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: UUID | None = None,
    ) -> VolunteerPage:
        """The volunteers, a page at a time."""
        async with database.transaction() as session:
            found = await volunteers.listed(session, district=district, limit=limit, after=after)
            moment = await now(session)
        return VolunteerPage(
            volunteers=[ListedVolunteer.of(each, districts=known, moment=moment) for each in found],
            next_after=found[-1].id if len(found) == limit else None,
        )

    @api.get("/volunteers/{volunteer_id}")
    async def get(volunteer_id: UUID) -> ListedVolunteer:
        """One volunteer."""
        try:
            async with database.transaction() as session:
                found = await volunteers.get(session, volunteer_id)
                moment = await now(session)
        except volunteers.UnknownVolunteer as error:
            raise Problem(404, str(error)) from error
        return ListedVolunteer.of(found, districts=known, moment=moment)

    @api.patch(
        "/volunteers/{volunteer_id}",
        dependencies=[Depends(json_only)],
        responses=refusals(409),
    )
    async def change(volunteer_id: UUID, wanted: VolunteerChange) -> ListedVolunteer:
        """Change some fields of a volunteer; all or nothing.

        A new `village` or position is the new home, and takes the place of both. `off_until` is
        the last day off, or the moment at which it ends; without an offset it is in the
        district's time.
        """
        changes = {name: getattr(wanted, name) for name in wanted.model_fields_set}
        try:
            async with database.transaction() as session:
                found = await volunteers.change(session, volunteer_id, changes, districts=known)
                moment = await now(session)
        except volunteers.UnknownVolunteer as error:
            raise Problem(404, str(error)) from error
        except volunteers.UnknownDistrict as error:
            raise Problem(409, str(error)) from error
        except PlaceError as error:
            field = error.field.removeprefix("place.")
            raise Problem(422, error.message, errors=[(field, error.message)]) from error
        except volunteers.NotChanged as error:
            status = 409 if error.conflict else 422
            raise Problem(status, error.message, errors=[(error.field, error.message)]) from error
        return ListedVolunteer.of(found, districts=known, moment=moment)

    return api
