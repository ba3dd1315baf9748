"""SMS over a generic HTTP gateway: its request is a template in settings, its answers are rules."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote_plus
from uuid import UUID

from services.notification.channels import (
    Incoming,
    Kind,
    Outgoing,
    PermanentFailure,
    Receipt,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.channels.http import Provider, Reply
from services.notification.channels.rules import Rule, field
from services.notification.settings import NotificationSettings

# Nothing was taken: come again. An expired token or an empty account (401, 402, 403) is about us,
# not about the person, and may be mended before the message is too old.
TRY_AGAIN = {401, 402, 403, 408, 425, 429, 503}

_PLACEHOLDER = re.compile(r"\{(to|digits|local|text|id|user|secret)\}")


class Sms:
    """A channel that hands messages to one HTTP gateway."""

    name = "sms"
    kind: Kind = "sms"

    def __init__(self, settings: NotificationSettings) -> None:
        self.settings = settings
        self.supports_idempotency = settings.sms_idempotent
        self.supports_lookup = bool(settings.sms_lookup_url)
        self.lookup_after_s = 0.0
        self.supports_receipts = settings.sms_receipts
        self.cost_per_segment = settings.sms_cost_per_segment
        self.rate_per_second = settings.sms_rate_per_second
        self.concurrency = settings.sms_concurrency or settings.concurrency
        self._rules = Rules(settings)
        self._provider = Provider(
            settings.sms_url,
            timeout_s=settings.provider_timeout_seconds,
            concurrency=self.concurrency,
        )

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Reaches whoever has a telephone number."""
        return phone

    async def send(self, message: Outgoing) -> str:
        """One request for one message."""
        settings = self.settings
        has_body = settings.sms_method != "GET"
        headers = {
            **({"content-type": settings.sms_content_type} if has_body else {}),
            "idempotency-key": str(message.idempotency_key),
            **self._headers(message),
        }
        answer = await self._provider.call(
            settings.sms_method,
            self._filled(settings.sms_url, message, quote_plus),
            data=self._filled(settings.sms_body, message, self._escape).encode()
            if has_body
            else None,
            headers=headers,
        )
        return self._rules.outcome(answer)

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """Ask the gateway for our id: 200 that reads as success, or 404."""
        answer = await self._provider.ask(
            self._filled(self.settings.sms_lookup_url, message, quote_plus),
            headers=self._headers(message),
        )
        if answer.status == 404:
            return None
        if answer.is_success and self._rules.says_success(answer.text):
            return self._rules.provider_id(answer.text)
        raise TransientFailure(
            f"HTTP {answer.status} to the question whether it has our message",
            retry_after=answer.retry_after,
        )

    def _headers(self, message: Outgoing) -> dict[str, str]:
        headers = {
            name: self._filled(value, message, str)
            for name, value in self.settings.sms_headers.items()
        }
        if self.settings.sms_authorization is not None:
            headers["authorization"] = self.settings.sms_authorization.get_secret_value()
        return headers

    def _escape(self, value: str) -> str:
        if "json" in self.settings.sms_content_type:
            return json.dumps(value)[1:-1]
        return quote_plus(value)

    def _filled(self, template: str, message: Outgoing, escape: Callable[[str], str]) -> str:
        secret = self.settings.sms_secret
        digits = message.address.removeprefix("+")
        values = {
            "to": message.address,
            "digits": digits,
            # As numbers are dialled in Indonesia; others have no such form.
            "local": "0" + digits.removeprefix("62") if digits.startswith("62") else digits,
            "text": message.short_text,
            "id": str(message.idempotency_key),
            "user": self.settings.sms_user,
            "secret": secret.get_secret_value() if secret else "",
        }
        return _PLACEHOLDER.sub(lambda found: escape(values[found[1]]), template)

    async def close(self) -> None:
        """Close the connections to the gateway."""
        await self._provider.close()


class Rules:
    """What the answers of this gateway mean."""

    def __init__(self, settings: NotificationSettings) -> None:
        self.success = Rule.parse(settings.sms_success)
        self.message_id = Rule.parse(settings.sms_message_id)
        self.transient = Rule.parse(settings.sms_transient)
        self.permanent = Rule.parse(settings.sms_permanent)

    def says_success(self, text: str) -> bool:
        """Whether the body says so; without a rule a 2xx has said it."""
        return self.success is None or self.success.matches(text)

    def provider_id(self, text: str) -> str:
        """The gateway's id for a message it has taken; without a rule the beginning of the body."""
        found = text if self.message_id is None else self.message_id.value(text) or ""
        return found[:200]

    def outcome(self, answer: Reply) -> str:
        """The gateway's id for the message.

        Raises:
            PermanentFailure: it refused; TransientFailure: it asks to come again;
            UnknownOutcome: neither, so it may have taken it.
        """
        reason = f"HTTP {answer.status}"
        if answer.is_success and self.success is not None and self.success.matches(answer.text):
            return self.provider_id(answer.text)
        if self.transient is not None and self.transient.matches(answer.text):
            raise TransientFailure(f"{reason}: {_brief(answer)}", retry_after=answer.retry_after)
        if self.permanent is not None and self.permanent.matches(answer.text):
            raise PermanentFailure(f"{reason}: {_brief(answer)}")
        if answer.is_success and self.success is None:
            return self.provider_id(answer.text)
        if answer.status in TRY_AGAIN:
            raise TransientFailure(reason, retry_after=answer.retry_after)
        if 300 <= answer.status < 500:
            raise PermanentFailure(reason)
        # A 500 may have happened after the message was on its way; and a 200 that says something
        # unheard of may be anything.
        raise UnknownOutcome(f"{reason}: {_brief(answer)}" if answer.is_success else reason)


def _brief(answer: Reply) -> str:
    return " ".join(answer.text.split())[:200]


# --- what the gateway tells us ----------------------------------------------------------------


def read_body(raw: bytes, content_type: str | None) -> Mapping[str, Any]:
    """The fields of a webhook: of a JSON object, or of a form.

    Raises:
        ValueError: it is neither.
    """
    if "json" in (content_type or ""):
        body = json.loads(raw)
        if not isinstance(body, dict):
            raise ValueError("the body is no JSON object")
        return body
    return dict(parse_qsl(raw.decode(), keep_blank_values=True))


def read_receipt(body: Mapping[str, Any], *, settings: NotificationSettings) -> Receipt | None:
    """What became of a message; None if the body names no message, or says nothing new of one."""
    status = field(body, settings.sms_receipt_status_field)
    provider_id = field(body, settings.sms_receipt_id_field)
    message_id = _uuid(field(body, settings.sms_receipt_message_field))
    if status is None or (provider_id is None and message_id is None):
        return None
    if status.lower() in _several(settings.sms_receipt_delivered):
        return Receipt(provider_id, message_id, "delivered", None)
    if status.lower() in _several(settings.sms_receipt_failed):
        return Receipt(provider_id, message_id, "undelivered", status)
    return None


def read_incoming(body: Mapping[str, Any], *, settings: NotificationSettings) -> Incoming | None:
    """A text that somebody sent; None if the body has no sender or no text."""
    sender = field(body, settings.sms_inbound_from_field)
    text = field(body, settings.sms_inbound_text_field)
    if not sender or text is None:
        return None
    return Incoming(field(body, settings.sms_inbound_id_field), sender, text)


def _several(values: str) -> set[str]:
    return {value.strip().lower() for value in values.split(",") if value.strip()}


def _uuid(value: str | None) -> UUID | None:
    try:
        return UUID(value) if value else None
    except ValueError:
        return None
