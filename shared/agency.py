"""Who may use the doors of the agency: whoever shows its token as a Bearer."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Security
from fastapi.security import HTTPBearer
from pydantic import SecretStr

from shared.errors import Problem

REFUSAL = "This is for the agency: send its token as a Bearer."
WRONG_TOKEN = "This is not the agency's token."  # noqa: S105 - a sentence

Authorization = Annotated[str, Header(include_in_schema=False)]
# For the API documents alone: it reads nothing that is not read below.
_DOCUMENTED = HTTPBearer(scheme_name="agency", description="the agency's token", auto_error=False)


def agency_only(
    token: SecretStr | None, *, refusal: str = REFUSAL
) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only those in who show ``token``; without one, everybody.

    ``refusal`` is what all others are told, with 403.
    """

    async def check(
        _: Annotated[object, Security(_DOCUMENTED)], authorization: Authorization = ""
    ) -> None:
        if token is not None and not _shows(authorization, token):
            raise Problem(403, refusal)

    return check


def signed_in(token: SecretStr | None) -> Callable[..., Awaitable[bool]]:
    """A dependency that tells whether the caller has shown ``token``: for a door that is open to
    strangers too.

    A wrong token is refused with 403: a desk must not be taken for a stranger without knowing it.
    """

    async def check(authorization: Authorization = "") -> bool:
        if token is None or not authorization:
            return False
        if not _shows(authorization, token):
            raise Problem(403, WRONG_TOKEN)
        return True

    return check


def _shows(authorization: str, token: SecretStr) -> bool:
    """Whether the header shows the token; never for a token of nothing, which protects nothing."""
    scheme, _, shown = authorization.strip().partition(" ")
    expected = token.get_secret_value().strip()
    if scheme.lower() != "bearer" or not expected:
        return False
    return secrets.compare_digest(shown.strip().encode(), expected.encode())
