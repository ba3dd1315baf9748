"""SMS over Twilio's REST interface, or over one that speaks it.

Not by Twilio's client, which blocks; its own validator checks the signatures.
https://www.twilio.com/docs/messaging/api/message-resource
"""

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urljoin
from uuid import UUID

from twilio.request_validator import RequestValidator

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
from services.notification.settings import NotificationSettings

RECEIPTS = "/v1/receipts/twilio"  # where Twilio tells what became of a message

# About us or about the moment, not about the person: may be mended before the message is too old.
# 20003 authentication, 20404 no such account, 20429 and 14107 too many.
TRY_AGAIN = {401, 403, 404, 408, 429}
TRY_AGAIN_CODES = {20003, 20404, 20429, 14107}
# Clocks differ: a message that Twilio made a little before our call may be ours.
CLOCKS_DIFFER = timedelta(minutes=1)
# A page of more would not fit into what is read of an answer.
PAGE = 25
PAGES = 20

# https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
_STATES: Mapping[str, Literal["sent", "delivered", "undelivered"]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "undelivered": "undelivered",
    "failed": "undelivered",
    "canceled": "undelivered",
}


class Twilio:
    """A channel that hands messages to Twilio."""

    name = "twilio"
    kind: Kind = "sms"
    supports_idempotency = False
    supports_lookup = True

    def __init__(self, settings: NotificationSettings) -> None:
        self.settings = settings
        self.supports_receipts = settings.twilio_calls_back
        self.lookup_after_s = settings.twilio_lookup_after_seconds
        self.cost_per_segment = settings.twilio_cost_per_segment
        self.rate_per_second = settings.twilio_rate_per_second
        self.concurrency = settings.twilio_concurrency or settings.concurrency
        account = settings.twilio_account_sid
        self._base = settings.twilio_url.rstrip("/")
        self._messages = f"{self._base}/2010-04-01/Accounts/{account}/Messages.json"
        basic = base64.b64encode(f"{account}:{_token(settings)}".encode()).decode()
        self._headers = {"authorization": f"Basic {basic}"}
        self._provider = Provider(
            settings.twilio_url,
            timeout_s=settings.provider_timeout_seconds,
            concurrency=self.concurrency,
        )

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Reaches whoever has a telephone number."""
        return phone

    async def send(self, message: Outgoing) -> str:
        """One request for one message; its ``sid`` is the provider's id."""
        form = {"To": message.address, "Body": message.short_text}
        if self.settings.twilio_from:
            form["From"] = self.settings.twilio_from
        else:
            form["MessagingServiceSid"] = self.settings.twilio_messaging_service_sid
        if self.supports_receipts:
            ours = f"{RECEIPTS}?message={message.idempotency_key}"
            form["StatusCallback"] = self.settings.public_url.rstrip("/") + ours
        answer = await self._provider.call("POST", self._messages, data=form, headers=self._headers)
        return _outcome(answer)

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """Look for the same text to the same number in Twilio's list, the newest first.

        Not by the filter ``DateSent``: a message that Twilio has taken and not sent yet has none,
        and would be missed.
        """
        url = self._messages
        of_ours = {"From": self.settings.twilio_from} if self.settings.twilio_from else {}
        query: dict[str, Any] | None = {"To": message.address, "PageSize": PAGE, **of_ours}
        for _ in range(PAGES):
            page = _page(await self._provider.ask(url, params=query, headers=self._headers))
            for listed in page["messages"]:
                if parsedate_to_datetime(listed["date_created"]) < since - CLOCKS_DIFFER:
                    return None
                if listed["to"] == message.address and listed["body"] == message.short_text:
                    return str(listed["sid"])
            if not page.get("next_page_uri"):
                return None
            url, query = urljoin(self._base, page["next_page_uri"]), None
        raise TransientFailure("more messages to this number than can be looked through")

    async def close(self) -> None:
        """Close the connections to Twilio."""
        await self._provider.close()


def _page(answer: Reply) -> Mapping[str, Any]:
    if not answer.is_success or not isinstance(answer.fields.get("messages"), list):
        raise TransientFailure(
            f"HTTP {answer.status} to the question whether it has our message",
            retry_after=answer.retry_after,
        )
    return answer.fields


def _outcome(answer: Reply) -> str:
    """The ``sid`` of a message that Twilio has taken; otherwise one of the three errors.

    Its errors are named by codes (https://www.twilio.com/docs/api/errors); what it says in words
    repeats the number.
    """
    said = answer.fields
    if answer.is_success:
        if said.get("sid"):
            return str(said["sid"])
        raise UnknownOutcome(f"HTTP {answer.status} without a sid")
    code = said.get("code")
    reason = f"HTTP {answer.status}" + (f", Twilio's code {code}" if code else "")
    if answer.status >= 500:
        raise UnknownOutcome(reason)
    if code in TRY_AGAIN_CODES or (answer.status in TRY_AGAIN and not _of_the_number(code)):
        raise TransientFailure(reason, retry_after=answer.retry_after)
    # 21211 no number, 21610 opted out, 21614 no mobile, …: this person is not reached here.
    raise PermanentFailure(reason)


def _of_the_number(code: Any) -> bool:
    """Codes 21xxx are about the request, whatever its HTTP status."""
    return isinstance(code, int) and 21_000 <= code < 22_000


def _token(settings: NotificationSettings) -> str:
    token = settings.twilio_auth_token
    return token.get_secret_value() if token is not None else ""


# --- what Twilio tells us ---------------------------------------------------------------------


def is_signed(
    path: str,
    params: Mapping[str, str],
    signature: str | None,
    *,
    settings: NotificationSettings,
) -> bool:
    """Whether Twilio signed this request to ``path`` (with its query) with our account's token.

    It signs the address that it was given: ``JANGKAU_PUBLIC_URL``, and never what a request claims
    in its Host header. There is no time in a signature: drop repeats.
    """
    if not signature or not _token(settings):
        return False
    url = settings.public_url.rstrip("/") + path
    return bool(RequestValidator(_token(settings)).validate(url, params, signature))


def read_receipt(params: Mapping[str, str]) -> Receipt | None:
    """What became of a message; None where that is nothing new (queued, sending).

    ``params`` are those of the body and of the query together: our own id is in the query.
    """
    state = _STATES.get(params.get("MessageStatus", ""))
    if state is None:
        return None
    try:
        message_id = UUID(params.get("message", ""))
    except ValueError:
        message_id = None
    code = params.get("ErrorCode")
    return Receipt(
        provider_id=params.get("MessageSid") or params.get("SmsSid"),
        message_id=message_id,
        state=state,
        error=f"Twilio's code {code}" if code else None,
    )


def read_incoming(params: Mapping[str, str]) -> Incoming | None:
    """A text that somebody sent; None if there is no sender or no text."""
    sender, text = params.get("From"), params.get("Body")
    if not sender or text is None:
        return None
    return Incoming(params.get("MessageSid") or params.get("SmsSid"), sender, text)
