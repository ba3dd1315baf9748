"""The doors through which providers tell us something: texts that came in, and receipts.

A door is there only if its channel is. Whoever cannot show that they are the provider gets 403, and
the log learns of it without what they brought. 200 means: it is stored, or was before; with a 5xx
nothing is, and the provider comes again.
"""

import asyncio
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parseaddr
from typing import Any
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import Counter
from pydantic import SecretStr

from services.notification import inbound, mail, receipts
from services.notification.channels import Incoming, Receipt, sms, twilio
from services.notification.handlers import Office
from services.notification.inbound import ID_AT_MOST, Heard
from services.notification.settings import NotificationSettings
from shared.database import Database, sql
from shared.errors import Problem
from shared.words import storable

log = structlog.get_logger("webhooks")

REFUSED = Counter(
    "jangkau_webhooks_refused_total",
    "Calls of a webhook that were refused. Rising: a secret or JANGKAU_PUBLIC_URL is not what the "
    "provider has, or somebody tries the door.",
    ["door", "reason"],
)

MAIL = "/v1/inbound/email"
# Beyond this no mail is an answer; all else has the limit of every body.
BODY_LIMITS = {MAIL: 1024 * 1024}

SECRET_HEADER = "x-jangkau-secret"  # noqa: S105 - a header's name
EMPTY_TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


def router(database: Database, *, settings: NotificationSettings, office: Office) -> APIRouter:
    """The doors of the channels that there are."""
    api = APIRouter(tags=["webhooks"])
    names = settings.channel_names
    if "twilio" in names:
        _twilio(api, database, settings, office)
    if "sms" in names and settings.sms_webhook_secret is not None:
        _sms(api, database, settings, office)
    if "email" in names and settings.inbound_email_secret is not None:
        _email(api, database, settings, office)
    return api


def _twilio(
    api: APIRouter, database: Database, settings: NotificationSettings, office: Office
) -> None:
    async def signed(request: Request, door: str) -> dict[str, str]:
        """The parameters that Twilio has signed."""
        form = _form(await request.body())
        query = request.url.query
        path = request.url.path + (f"?{query}" if query else "")
        signature = request.headers.get("x-twilio-signature")
        if not twilio.is_signed(path, form, signature, settings=settings):
            raise refused(door, "signature" if signature else "no_signature")
        return dict(request.query_params) | form

    @api.post("/v1/inbound/twilio")
    async def twilio_inbound(request: Request) -> Response:
        """A text that somebody sent to our number; the answer goes out by itself, not from here."""
        params = await signed(request, "inbound.twilio")
        incoming = twilio.read_incoming(params)
        if incoming is None:
            raise _not_understood("inbound.twilio", params)
        await _take(database, "twilio", incoming, params.get("Body", ""), office)
        return Response(EMPTY_TWIML, media_type="text/xml")

    @api.post(twilio.RECEIPTS)
    async def twilio_receipts(request: Request) -> Response:
        """What became of a message."""
        receipt = twilio.read_receipt(await signed(request, "receipts.twilio"))
        await _take_receipt(database, "twilio", receipt, office)
        return Response(EMPTY_TWIML, media_type="text/xml")


def _sms(
    api: APIRouter, database: Database, settings: NotificationSettings, office: Office
) -> None:
    async def told(request: Request, door: str) -> Mapping[str, Any]:
        """The fields that the gateway sent along with the secret."""
        _check_secret(request, settings.sms_webhook_secret, door)
        try:
            return sms.read_body(await request.body(), request.headers.get("content-type"))
        except (ValueError, RecursionError):
            raise Problem(400, "The body is neither a JSON object nor a form.") from None

    @api.post("/v1/inbound/sms")
    async def sms_inbound(request: Request) -> Response:
        """A text that somebody sent to the gateway's number."""
        body = await told(request, "inbound.sms")
        incoming = sms.read_incoming(body, settings=settings)
        if incoming is None:
            raise _not_understood("inbound.sms", body)
        raw = json.dumps(body, ensure_ascii=False, sort_keys=True, default=str)
        await _take(database, "sms", incoming, raw, office)
        return _stored()

    @api.post("/v1/receipts/sms")
    async def sms_receipts(request: Request) -> Response:
        """What became of a message."""
        receipt = sms.read_receipt(await told(request, "receipts.sms"), settings=settings)
        await _take_receipt(database, "sms", receipt, office)
        return _stored()


def _email(
    api: APIRouter, database: Database, settings: NotificationSettings, office: Office
) -> None:
    addresses = (settings.smtp_from, settings.smtp_reply_to or settings.smtp_from)
    ours = {parseaddr(address)[1].lower() for address in addresses}
    proof = settings.proof

    @api.post(MAIL)
    async def email_inbound(request: Request) -> Response:
        """A mail as it came in (RFC 5322), handed over by the mail server."""
        _check_secret(request, settings.inbound_email_secret, "inbound.email")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "message/rfc822":
            raise Problem(415, "Send the mail as it came, with content-type: message/rfc822.")
        raw = await request.body()
        ((at,),) = await database.statement(sql("SELECT now()"))
        # Beside the loop: a mail that means harm keeps a core busy for a while.
        read = await asyncio.to_thread(mail.read, raw, ours=ours, proof=proof, at=at)
        heard = Heard(
            channel="email",
            kind="email",
            provider_id=read.message_id,
            sender=storable(read.sender),
            text=storable(read.text),
            raw=raw.decode("utf-8", "replace"),
            code=read.code,
            nobody=read.nobody,
            proven=read.proven,
        )
        async with database.transaction() as session:
            fresh = await inbound.take(session, heard, office=office)
            if fresh and read.undelivered is not None:
                told = _cleaned(read.undelivered)
                await receipts.take(session, "email", [told], routes=office.routes)
        return _stored()


async def _take(
    database: Database, channel: str, incoming: Incoming, raw: str, office: Office
) -> None:
    heard = Heard(
        channel=channel,
        kind="sms",
        provider_id=incoming.provider_id,
        sender=storable(incoming.sender),
        text=storable(incoming.text),
        raw=raw,
    )
    async with database.transaction() as session:
        await inbound.take(session, heard, office=office)


async def _take_receipt(
    database: Database, channel: str, receipt: Receipt | None, office: Office
) -> None:
    if receipt is None:
        return  # nothing new: queued, sending
    async with database.transaction() as session:
        await receipts.take(session, channel, [_cleaned(receipt)], routes=office.routes)


def _cleaned(receipt: Receipt) -> Receipt:
    """As the database takes it."""
    provider_id = receipt.provider_id and storable(receipt.provider_id)[:ID_AT_MOST]
    error = receipt.error and storable(receipt.error)[:ID_AT_MOST]
    return replace(receipt, provider_id=provider_id, error=error)


def _form(raw: bytes) -> dict[str, str]:
    return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))


def _check_secret(request: Request, expected: SecretStr | None, door: str) -> None:
    """Whoever calls shows the secret: in a header, or, where a gateway is only given an address to
    call, in its query."""
    given = (
        request.headers.get(SECRET_HEADER)
        or request.headers.get("authorization", "").removeprefix("Bearer ")
        or request.query_params.get("secret", "")
    )
    secret = expected.get_secret_value().strip() if expected else ""
    if not secret or not hmac.compare_digest(given.strip().encode(), secret.encode()):
        raise refused(door, "secret" if given else "no_secret")


def refused(door: str, reason: str) -> Problem:
    """Say no, and leave a trace that holds nothing of the request."""
    REFUSED.labels(door, reason).inc()
    log.warning("webhook.refused", door=door, reason=reason)
    return Problem(403, "This call does not show that it comes from the provider.")


_NAME = re.compile(r"[A-Za-z_](?:[A-Za-z_.-]|[0-9](?![0-9]{3})){0,30}")


def _not_understood(door: str, body: Mapping[str, Any]) -> Problem:
    # Names of fields are the provider's and tell whoever sets this up what to write into settings.
    # What is no name may be the whole text, with the number that it came from.
    names = sorted(name for name in map(str, body) if _NAME.fullmatch(name))[:20]
    log.warning("webhook.not_understood", door=door, fields=names)
    return Problem(422, "There is no sender or no text where settings say that they are.")


def _stored() -> Response:
    return Response('{"stored": true}', media_type="application/json")
