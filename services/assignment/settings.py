"""What assignment is told from outside."""

from datetime import timedelta
from typing import Self

from pydantic import model_validator

from shared.settings import AgencySettings, LinkSettings


class AssignmentSettings(AgencySettings, LinkSettings):
    """Assignment's own settings."""

    # How often it is looked for cases whose time has come.
    sweep_seconds: float = 0.5
    public_url: str = "http://127.0.0.1:8002"
    # A season: whoever has the link of a lost phone can change duty times only, and sees a name.
    duty_link_days: float = 90

    @model_validator(mode="after")
    def volunteers_are_not_public(self) -> Self:
        """Outside development the volunteers' data needs a token."""
        if self.environment != "development" and self.agency_token is None:
            raise ValueError("set JANGKAU_AGENCY_TOKEN: volunteers' data is not public")
        return self

    @property
    def duty_link_age(self) -> timedelta:
        """For how long a link to a volunteer's page opens it."""
        return timedelta(days=self.duty_link_days)
