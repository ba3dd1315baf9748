"""What assignment is told from outside."""

from datetime import timedelta
from typing import Self

from pydantic import SecretStr, model_validator

from shared.security import Links
from shared.settings import Settings


class AssignmentSettings(Settings):
    """Assignment's own settings."""

    # Who shows it sees the volunteers. None is allowed on a developer's machine only.
    agency_token: SecretStr | None = None
    # How often it is looked for cases whose time has come.
    sweep_seconds: float = 0.5
    # Where volunteers reach us; links to their pages begin with it.
    public_url: str = "http://127.0.0.1:8002"
    # Sign those links: comma separated, the newest first. A new one goes in front; the old one may
    # go when the links that it signed have become too old.
    link_keys: SecretStr = SecretStr("development-only-link-key")
    # A season: whoever has the link of a lost phone can change duty times only, and sees a name.
    duty_link_days: float = 90

    @model_validator(mode="after")
    def volunteers_are_not_public(self) -> Self:
        """Outside development the volunteers' data needs a token."""
        if self.environment != "development" and self.agency_token is None:
            raise ValueError("set JANGKAU_AGENCY_TOKEN: volunteers' data is not public")
        return self

    @model_validator(mode="after")
    def links_can_be_signed(self) -> Self:
        """Whatever is wrong with the keys is said at the start, not with the first link."""
        try:
            _ = self.links
        except ValueError as error:
            raise ValueError(f"JANGKAU_LINK_KEYS: {error}") from None
        return self

    @property
    def links(self) -> Links:
        """Signs and reads the links to volunteers' pages."""
        keys = self.link_keys.get_secret_value().split(",")
        return Links([key.strip() for key in keys if key.strip()])

    @property
    def duty_link_age(self) -> timedelta:
        """For how long a link to a volunteer's page opens it."""
        return timedelta(days=self.duty_link_days)
