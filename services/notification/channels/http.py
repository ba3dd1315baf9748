"""Calls to a provider over HTTP, and what their errors mean for a message.

By aiohttp, which takes a sixth of the time of httpx2 for a call (bench/gateway.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from services.notification.channels import PermanentFailure, TransientFailure, UnknownOutcome
from services.notification.channels.bounded import text_of

# In seconds. The other form (RFC 9110, 10.2.3) is a date of the provider's clock, which goes with
# the date of its answer, not with ours.
_RETRY_AFTER = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True)
class Reply:
    """What a provider answered."""

    status: int
    text: str = ""
    retry_after: timedelta | None = None

    @property
    def is_success(self) -> bool:
        """The provider says that it went well."""
        return 200 <= self.status < 300

    @property
    def fields(self) -> Mapping[str, Any]:
        """The JSON object in the body; empty if there is none."""
        try:
            body = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long a provider wants to be left alone; None if it does not say, or not clearly."""
    said = headers.get("retry-after", "")
    if _RETRY_AFTER.fullmatch(said):
        return timedelta(seconds=int(said))
    try:
        wait = parsedate_to_datetime(said) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return max(wait, timedelta(0))


class Provider:
    """Connections to the provider at ``url``, kept open between messages."""

    def __init__(self, url: str, *, timeout_s: float, concurrency: int) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.concurrency = concurrency
        self._open: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        # Made with the first call: aiohttp wants to be made while the loop runs.
        if self._open is None:
            self._open = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.concurrency),
                # Connecting must give up before the call as a whole does: until then nothing was
                # taken.
                timeout=aiohttp.ClientTimeout(
                    total=self.timeout_s,
                    connect=self.timeout_s / 3,
                    sock_connect=self.timeout_s / 3,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Unpacked here, and only so far: see text_of.
                auto_decompress=False,
                headers={"accept-encoding": "identity"},
                # aiohttp itself would look into the environment for every single call.
                proxy=_proxy(self.url),
            )
            # It repeats a GET or PUT by itself whose connection broke, and for many gateways a GET
            # sends a message. There is no public way to forbid it (aio-libs/aiohttp#10790);
            # test_a_get_is_not_repeated_behind_our_back watches over this one.
            self._open._retry_connection = False
        return self._open

    async def call(self, method: str, url: str, **given: Any) -> Reply:
        """One request that may send a message.

        Raises:
            TransientFailure: the provider was not reached; UnknownOutcome: it may have been;
            PermanentFailure: the request cannot be made at all.
        """
        try:
            return await self._request(method, url, **given)
        except aiohttp.InvalidURL as error:
            raise PermanentFailure("the request has no address of the web") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TransientFailure(_brief(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnknownOutcome(_brief(error)) from error

    async def ask(self, url: str, **given: Any) -> Reply:
        """One request that only looks; whatever goes wrong, it can be asked again.

        Raises:
            TransientFailure: there is no answer now.
        """
        try:
            return await self._request("GET", url, **given)
        except (aiohttp.ClientError, OSError) as error:
            raise TransientFailure(_brief(error)) from error

    async def _request(self, method: str, url: str, **given: Any) -> Reply:
        async with self._session.request(method, url, allow_redirects=False, **given) as answer:
            return Reply(answer.status, await text_of(answer), retry_after(answer.headers))

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            await self._open.close()
            self._open = None


def _brief(error: Exception) -> str:
    """Its kind and what the system says; the library's own words repeat addresses and keys."""
    words = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _proxy(url: str) -> str | None:
    """The way out that the environment names (HTTPS_PROXY, NO_PROXY), if it does."""
    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)
