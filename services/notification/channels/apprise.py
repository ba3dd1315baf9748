"""Whatever apprise reaches: WhatsApp, Signal, Matrix and a hundred more, by one URL.

Apprise says only whether it went well. If not, nobody knows whether anything went out.
https://appriseit.com/services/
"""

import asyncio
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from urllib.parse import quote

import apprise
import requests

from services.notification.channels import (
    Kind,
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.channels.bounded import ANSWER_AT_MOST
from services.notification.settings import NotificationSettings

_PLACEHOLDER = re.compile(r"\{(phone|email|address)\}")

# Its warnings name the addresses that could not be reached; ours name the message.
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


def _beginning(response: requests.Response) -> bytes | None:
    """In place of ``requests.Response.content``, which reads and unpacks whatever comes."""
    if response._content is False:
        raw = response.raw
        response._content = raw.read(ANSWER_AT_MOST, decode_content=True) if raw else None
        response._content_consumed = True
        response.close()
    return response._content


# Apprise's services call `requests` each in their own way, and nothing else here does.
requests.Response.content = property(_beginning)  # type: ignore[assignment,method-assign]
_IN_MEMORY = apprise.AppriseAsset(storage_mode="memory")  # nothing is left on the disk


class Apprise:
    """A channel that hands messages to one service of apprise, each in a thread."""

    name = "apprise"
    kind: Kind = "other"
    supports_idempotency = False
    supports_lookup = False
    lookup_after_s = 0.0
    supports_receipts = False

    def __init__(self, settings: NotificationSettings) -> None:
        url = settings.apprise_url
        self._url = url.get_secret_value() if url is not None else ""
        self._timeout_s = settings.provider_timeout_seconds
        self.cost_per_segment = settings.apprise_cost_per_segment
        self.rate_per_second = settings.apprise_rate_per_second
        self.concurrency = settings.apprise_concurrency
        self._threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="apprise")

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Whatever has a place in the URL."""
        return {"phone": phone, "email": email, "address": phone or email}[_wants(self._url)]

    async def send(self, message: Outgoing) -> str:
        """Hand the message to apprise, which waits for its service."""
        service = _service(self._url, message.address)
        if service is None:
            raise PermanentFailure("the service of apprise does not know such addresses")
        # Two of them to one call at most: apprise connects, then it reads.
        service.socket_connect_timeout = service.socket_read_timeout = self._timeout_s / 2
        went_well = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            partial(service.notify, body=message.long_text, title=message.subject),
        )
        if not went_well:
            raise UnknownOutcome("apprise says only that it did not go well")
        return ""

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """Nobody can be asked."""
        raise TransientFailure("apprise keeps no list")

    async def close(self) -> None:
        """Let the threads go; a call that is under way ends by its own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def check(url: str) -> None:
    """Whether messages to single persons can go to this URL.

    Raises:
        ValueError: they cannot, with the reason.
    """
    if not _PLACEHOLDER.search(url):
        raise ValueError(
            "JANGKAU_APPRISE_URL has no place for {phone}, {email} or {address}: every message "
            "would reach the same people"
        )
    sample = {"email": "siti@example.org"}.get(_wants(url), "+6281234567890")
    if _service(url, sample) is None:
        raise ValueError(
            "JANGKAU_APPRISE_URL is none that apprise knows, or its service does not know such "
            "addresses (Telegram knows no telephone numbers)"
        )


def _wants(url: str) -> str:
    found = _PLACEHOLDER.search(url)
    return found[1] if found is not None else "address"


def _service(url: str, address: str) -> apprise.NotifyBase | None:
    """What sends to this address; None if nothing does."""
    filled = _PLACEHOLDER.sub(quote(address, safe=""), url)
    service = apprise.Apprise.instantiate(filled, _IN_MEMORY)
    if not isinstance(service, apprise.NotifyBase):
        return None
    # Some leave out an address that they do not know, and then send to whom they know instead.
    if len(getattr(service, "targets", "unsaid")) == 0:
        return None
    return service
