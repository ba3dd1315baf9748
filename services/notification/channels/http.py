"""Calls to a provider over HTTP, and what their errors mean for a message."""

import re
from datetime import timedelta
from typing import Any

import httpx2

from services.notification.channels import TransientFailure, UnknownOutcome

# In seconds; the other form of the header, a date, is left to our own patience.
_RETRY_AFTER = re.compile(r"[0-9]{1,6}")


def client(*, timeout_s: float, concurrency: int) -> httpx2.AsyncClient:
    """Connections to one provider, kept open between messages."""
    return httpx2.AsyncClient(
        # Connecting must give up before the call as a whole does: until then nothing was taken.
        timeout=httpx2.Timeout(timeout_s, connect=timeout_s / 3, pool=timeout_s / 3),
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
    )


async def call(client: httpx2.AsyncClient, method: str, url: str, **given: Any) -> httpx2.Response:
    """One request that may send a message.

    Raises:
        TransientFailure: the provider was not reached; UnknownOutcome: it may have been.
    """
    try:
        return await client.request(method, url, **given)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise TransientFailure(f"{type(error).__name__}: {error}") from error
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise UnknownOutcome(f"{type(error).__name__}: {error}") from error


async def ask(client: httpx2.AsyncClient, url: str, **given: Any) -> httpx2.Response:
    """One request that only looks; whatever goes wrong, it can be asked again.

    Raises:
        TransientFailure: there is no answer now.
    """
    try:
        return await client.get(url, **given)
    except httpx2.RequestError as error:
        raise TransientFailure(f"{type(error).__name__}: {error}") from error


def retry_after(answer: httpx2.Response) -> timedelta | None:
    """How long the provider asks us to stay away, if it says so."""
    after = answer.headers.get("retry-after", "")
    return timedelta(seconds=int(after)) if _RETRY_AFTER.fullmatch(after) else None
