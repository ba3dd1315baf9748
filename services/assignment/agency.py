"""Who may use the doors of the agency."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header
from pydantic import SecretStr

from shared.errors import Problem

REFUSAL = "This is for the agency: send its token as a Bearer."


def agency_only(
    token: SecretStr | None, *, refusal: str = REFUSAL
) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only those in who show ``token``; without one, everybody.

    ``refusal`` is what all others are told, with 403.
    """

    async def check(
        authorization: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> None:
        if token is None:
            return
        expected = f"Bearer {token.get_secret_value()}"
        if not secrets.compare_digest(authorization.encode(), expected.encode()):
            raise Problem(403, refusal)

    return check
