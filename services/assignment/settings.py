"""What assignment is told from outside."""

from typing import Self

from pydantic import SecretStr, model_validator

from shared.settings import Settings


class AssignmentSettings(Settings):
    """Assignment's own settings."""

    # Who shows it sees the volunteers. None is allowed on a developer's machine only.
    agency_token: SecretStr | None = None
    # How often it is looked for cases whose time has come.
    sweep_seconds: float = 1.0

    @model_validator(mode="after")
    def volunteers_are_not_public(self) -> Self:
        """Outside development the volunteers' data needs a token."""
        if self.environment != "development" and self.agency_token is None:
            raise ValueError("set JANGKAU_AGENCY_TOKEN: volunteers' data is not public")
        return self
