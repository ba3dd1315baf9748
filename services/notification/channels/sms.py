"""SMS over a generic HTTP gateway, whose request is a template in settings."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote_plus

import httpx2

from services.notification.channels import (
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.settings import NotificationSettings

# Nothing was taken: come again. An expired token or an empty account (401, 402, 403) is about us,
# not about the person, and may be mended before the message is too old.
TRY_AGAIN = {401, 402, 403, 408, 425, 429, 503}

_PLACEHOLDER = re.compile(r"\{(to|text|id)\}")
# In seconds; the other form of the header, a date, is left to our own patience.
_RETRY_AFTER = re.compile(r"[0-9]{1,6}")


class Sms:
    """A channel that hands messages to one HTTP gateway."""

    name = "sms"

    def __init__(self, settings: NotificationSettings) -> None:
        self.settings = settings
        self.supports_idempotency = settings.sms_idempotent
        self._client = httpx2.AsyncClient(
            # Connecting must give up before the call as a whole does: until then nothing was taken.
            timeout=httpx2.Timeout(
                settings.provider_timeout_seconds,
                connect=settings.provider_timeout_seconds / 3,
                pool=settings.provider_timeout_seconds / 3,
            ),
            limits=httpx2.Limits(max_connections=settings.concurrency),
        )

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Reaches whoever has a telephone number."""
        return phone

    async def send(self, message: Outgoing) -> str:
        """One request for one message."""
        headers = {
            "content-type": self.settings.sms_content_type,
            "idempotency-key": str(message.idempotency_key),
        }
        if self.settings.sms_authorization is not None:
            headers["authorization"] = self.settings.sms_authorization.get_secret_value()
        try:
            answer = await self._client.request(
                self.settings.sms_method,
                _filled(self.settings.sms_url, message, quote_plus),
                content=_filled(self.settings.sms_body, message, self._escape).encode()
                if self.settings.sms_method != "GET"
                else None,
                headers=headers,
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise TransientFailure(f"{type(error).__name__}: {error}") from error
        except httpx2.TransportError as error:
            raise UnknownOutcome(f"{type(error).__name__}: {error}") from error
        return _outcome(answer)

    def _escape(self, value: str) -> str:
        if "json" in self.settings.sms_content_type:
            return json.dumps(value)[1:-1]
        return quote_plus(value)

    async def close(self) -> None:
        """Close the connections to the gateway."""
        await self._client.aclose()


def _filled(template: str, message: Outgoing, escape: Callable[[str], str]) -> str:
    values = {
        "to": message.address,
        "text": message.short_text,
        "id": str(message.idempotency_key),
    }
    return _PLACEHOLDER.sub(lambda found: escape(values[found[1]]), template)


def _outcome(answer: httpx2.Response) -> str:
    if answer.is_success:
        return answer.text[:200]
    reason = f"HTTP {answer.status_code}"
    if answer.status_code in TRY_AGAIN:
        after = answer.headers.get("retry-after", "")
        raise TransientFailure(
            reason,
            retry_after=timedelta(seconds=int(after)) if _RETRY_AFTER.fullmatch(after) else None,
        )
    if answer.is_client_error or answer.is_redirect:
        raise PermanentFailure(reason)
    # A 500 may have happened after the message was on its way.
    raise UnknownOutcome(reason)
