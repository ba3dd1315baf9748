"""Whether a mail is from whom it says: anybody can write any address into From.

Either the mail server that took it in has found so and says it in ``Authentication-Results``
(RFC 8601), or it came to a reply address that we have signed for this one person (docs/adr/0023).
"""

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import Message
from email.utils import getaddresses, parseaddr
from uuid import UUID

from authres import AuthResError, FeatureContext, dmarc

from shared.security import Links

RESULTS = "authentication-results"
# Where a mail server notes to whom a mail came, beside what its writer says.
_CAME_TO = ("delivered-to", "x-original-to", "envelope-to", "to", "cc")
_HEADERS_AT_MOST = 20
# Before the @ there is room for 64 characters (RFC 5321, 4.5.3.1.1); ours take 40 with the plus.
BASE_AT_MOST = 24
_SIGNED = re.compile(r"\+([a-z2-7]{26})([a-z2-7]{13})@", re.IGNORECASE)
_PURPOSE = "reply"
_METHODS = FeatureContext(dmarc)


@dataclass(frozen=True)
class ReplyAddresses:
    """Signs the address to which one person answers one message, and knows it again."""

    links: Links
    base: str
    valid_for: timedelta

    def of(self, message_id: UUID, recipient: str) -> str:
        """Such as ``jangkau+….@example.org``, in letters that no server changes."""
        local, _, domain = parseaddr(self.base)[1].rpartition("@")
        signature = self.links.short(_PURPOSE, _value(message_id, recipient))
        token = _letters(message_id.bytes) + _letters(base64.urlsafe_b64decode(signature + "="))
        return f"{local}+{token}@{domain}"

    def opens(self, address: str, sender: str, *, at: datetime) -> bool:
        """Whether this is an address at which this sender answers, at this moment."""
        for message, signature in _SIGNED.findall(address):
            try:
                message_id = UUID(bytes=_bytes(message))
                signed = base64.urlsafe_b64encode(_bytes(signature)).decode().rstrip("=")
            except (ValueError, binascii.Error):
                continue
            # Our ids begin with the moment at which they were made (UUIDv7).
            made_ms = int.from_bytes(message_id.bytes[:6])
            old = at.timestamp() * 1000 - made_ms > self.valid_for.total_seconds() * 1000
            if not old and self.links.is_short(_PURPOSE, _value(message_id, sender), signed):
                return True
        return False


@dataclass(frozen=True)
class Proof:
    """What is taken for a proof here: the names of servers (authserv-id), in small letters, and
    our own reply addresses."""

    servers: Collection[str] = ()
    replies: ReplyAddresses | None = None

    def holds(self, message: Message, *, at: datetime) -> bool:
        """Whether this mail, which has come ``at`` this moment, is from whom its From says."""
        sender = _only_sender(message)
        if sender is None:
            return False
        if self.replies is not None:
            came_to = " ".join(_some(message, _CAME_TO))
            if self.replies.opens(came_to, sender, at=at):
                return True
        return self._is_found_so(message, sender.rpartition("@")[2].lower())

    def _is_found_so(self, message: Message, domain: str) -> bool:
        """By the topmost result of a server of ours: what is below may have come with the mail."""
        for said in _some(message, (RESULTS,)):
            words = said.partition(";")[0].split()
            if not words or words[0].strip('"').lower() not in self.servers:
                continue
            try:
                results = _METHODS.parse_value(said).results
            except (AuthResError, ValueError, RecursionError):
                return False
            return any(_is_pass(one, domain) for one in results)
        return False


def _is_pass(result: object, domain: str) -> bool:
    """Whether a result is a pass of the domain in From: DMARC, or DKIM or SPF aligned with it.

    A domain may speak for those below it, and never one below for the one above: that may be a
    stranger's, as on a host of many.
    """
    if str(getattr(result, "result", "")).lower() != "pass":
        return False
    method = str(getattr(result, "method", "")).lower()
    for one in getattr(result, "properties", ()):
        name, value = f"{one.type}.{one.name}".lower(), str(one.value).lower()
        passed = value.rpartition("@")[2]
        if method == "dmarc" and name == "header.from" and passed == domain:
            return True
        above = passed and (domain == passed or ("." in passed and domain.endswith(f".{passed}")))
        if above and (method, name) in (("dkim", "header.d"), ("spf", "smtp.mailfrom")):
            return True
    return False


def _only_sender(message: Message) -> str | None:
    """The one address of the one From that there is: with two, each reader sees another."""
    headers = message.get_all("from", [])
    try:
        addresses = [address for _, address in getaddresses(map(str, headers)) if address]
    except RecursionError:
        return None
    if len(headers) != 1 or len(addresses) != 1 or "@" not in addresses[0]:
        return None
    return addresses[0]


def _some(message: Message, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        for value in message.get_all(name, [])[:_HEADERS_AT_MOST]:
            yield " ".join(str(value).split())


def _value(message_id: UUID, address: str) -> bytes:
    return message_id.bytes + address.strip().lower().encode()


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _bytes(letters: str) -> bytes:
    return base64.b32decode(letters.upper() + "=" * (-len(letters) % 8))
