"""Mails that come in: who wrote, their own words, and whether a person wrote at all.

A stranger writes them. What the library does with one grows with its lines times its levels, so
all that could grow is bounded before it begins: bytes, lines, parts, levels and each header.
"""

import codecs
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import Compat32
from email.utils import parseaddr
from itertools import islice
from uuid import UUID

from services.notification.channels import Receipt
from services.notification.html_words import words_of
from services.notification.own_words import own_words
from services.notification.proof import Proof
from shared.codes import ALPHABET

MAIL_AT_MOST = 256 * 1024
HEADER_AT_MOST = 2000
# A mail of that size in base64 has 3,400.
LINES_AT_MOST = 5000
# Lines that may begin a part, and what a level of parts cannot do without: its media type.
PARTS_AT_MOST = 200
LEVELS_AT_MOST = 20

_CODE = re.compile(rf"\(([{ALPHABET}]{{5}})\)")
_LEVEL = re.compile(rb"(?:multipart|message)/", re.IGNORECASE)
_REPLY = re.compile(r"\s*(re|fw|fwd|bls|balas|trs)\s*:", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# https://www.rfc-editor.org/rfc/rfc3834, and what machines did before it.
_MACHINES = ("x-autoreply", "x-autorespond", "x-autoresponder", "x-mail-autoreply", "x-vacation")
_BULK = ("bulk", "junk", "list", "auto_reply", "auto-reply")
_DAEMONS = ("mailer-daemon", "postmaster")

# How the names begin, as Python says them, of the encodings in which people write.
_CHARSETS = (
    "utf-8", "utf-7", "utf-16", "utf-32", "ascii", "iso8859", "iso2022", "cp", "koi8", "gb", "hz",
    "big5", "shift_jis", "euc", "johab", "tis-620", "mac",
)  # fmt: skip


@dataclass(frozen=True)
class Mail:
    """A mail as far as it concerns us.

    ``text`` is what its sender has written themselves, ``code`` the answer code in its subject.
    ``nobody`` says why no person wrote it; ``undelivered`` that it reports a mail of ours lost;
    ``proven`` that it is from whom it says.
    """

    message_id: str | None
    sender: str
    text: str
    code: str | None = None
    nobody: str | None = None
    undelivered: Receipt | None = None
    proven: bool = False


def read(
    raw: bytes,
    *,
    ours: Collection[str] = (),
    proof: Proof | None = None,
    at: datetime | None = None,
) -> Mail:
    """Read a message as RFC 5322 describes it; whatever it is, it can be read somehow.

    ``ours`` are the addresses from which we write ourselves, in small letters; ``at`` is when it
    came in, by the database's clock: without it and ``proof`` no mail is proven.
    """
    message = _parsed(raw)
    sender = _sender(message)
    subject = _header(message, "subject")
    code = _CODE.fullmatch(subject.rstrip()[-7:])
    text = own_words(_text(message))
    if not text and not _REPLY.match(subject):
        text = subject.strip()  # a mail that is all subject
    report = _is_report(message)
    nobody = "delivery_report" if report else _nobody(message, sender, ours)
    return Mail(
        message_id=_header(message, "message-id").strip() or None,
        sender=sender,
        text=text,
        code=code[1] if code else None,
        nobody=nobody,
        undelivered=_undelivered(message) if report else None,
        proven=proof is not None and at is not None and proof.holds(message, at=at),
    )


class _Bounded(Compat32):
    """Takes headers as they stand, and no more of each than anybody needs.

    The library's modern policy parses every header by a grammar, by recursion, and takes a minute
    for one of a megabyte.
    """

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """The name and the value of a header."""
        name, value = super().header_source_parse([line[:HEADER_AT_MOST] for line in sourcelines])
        return name, value[:HEADER_AT_MOST]


_BOUNDED = _Bounded()


def _parsed(raw: bytes) -> Message:
    raw = bounded(raw)
    try:
        return message_from_bytes(raw, policy=_BOUNDED)
    except Exception:
        # What the library stumbles over.
        return BytesHeaderParser(policy=_BOUNDED).parsebytes(raw)


def bounded(raw: bytes) -> bytes:
    """As much of a mail as is read: the beginning, in one pass each for lines, parts and levels."""
    # The library ends lines with a carriage return alone too.
    text = raw[:MAIL_AT_MOST].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    text = _up_to(text, b"\n", LINES_AT_MOST)
    text = _up_to(text, b"\n--", PARTS_AT_MOST)
    levels = [found.start() for found in islice(_LEVEL.finditer(text), LEVELS_AT_MOST + 1)]
    return text if len(levels) <= LEVELS_AT_MOST else text[: levels[-1]]


def _up_to(text: bytes, mark: bytes, count: int) -> bytes:
    """What comes before the mark when it has come so often."""
    parts = text.split(mark, count)
    return text if len(parts) <= count else text[: -len(parts[-1])] if parts[-1] else text


def _raw(message: Message, name: str) -> str:
    """A header as it stands, on one line."""
    return " ".join(str(message.get(name, "")).split())


def _header(message: Message, name: str) -> str:
    """A header as text; what is encoded wrongly is taken as it stands."""
    value = _raw(message, name)
    try:
        return " ".join(str(make_header(decode_header(value))).split())
    except (ValueError, LookupError, HeaderParseError):
        return value


def _sender(message: Message) -> str:
    """The address in From, read before anything is decoded: a name may hold an address too."""
    try:
        return parseaddr(_raw(message, "from"))[1]
    except RecursionError:  # comments within comments
        return ""


def _text(message: Message) -> str:
    """The body in words: its plain part, else the words of its HTML."""
    parts = [part for part in _walk(message) if part.get_content_disposition() != "attachment"]
    for kind in ("text/plain", "text/html"):
        for part in parts:
            if part.get_content_type() == kind and not part.is_multipart():
                words = _decoded(part)
                return words_of(words) if kind == "text/html" else words
    return ""


def _decoded(part: Message) -> str:
    try:
        content = part.get_payload(decode=True)
    except Exception:
        content = None
    if not isinstance(content, bytes):
        return ""
    try:
        charset = codecs.lookup(part.get_content_charset() or "utf-8").name
    except (LookupError, UnicodeError, ValueError):
        charset = "utf-8"
    # Some are no writing of people, and written in Python: punycode takes minutes for such a text.
    return content.decode(charset if charset.startswith(_CHARSETS) else "utf-8", "replace")


def _nobody(message: Message, sender: str, ours: Collection[str]) -> str | None:
    """Why no person wrote this; None if one did."""
    if sender.lower() in ours:
        return "our_own"
    returns_to = _header(message, "return-path").strip()
    automatic = (
        _header(message, "auto-submitted").partition(";")[0].strip().lower() not in ("", "no")
        or _header(message, "precedence").strip().lower() in _BULK
        or any(name in message for name in _MACHINES)
        or returns_to == "<>"
        or sender.partition("@")[0].lower() in _DAEMONS
    )
    return "automatic" if automatic else None


def _is_report(message: Message) -> bool:
    return message.get_content_type() == "multipart/report"


def _undelivered(message: Message) -> Receipt | None:
    """What a report about a mail of ours says (RFC 3464), if that is the end of it.

    Our Message-IDs hold our message's id, and reports hold the head of the mail that they are
    about. ``delayed`` is no end.
    """
    parts = list(_walk(message))
    status = next((p for p in parts if p.get_content_type() == "message/delivery-status"), None)
    if status is None:
        return None
    # Blocks of fields: one about the mail, then one for each recipient.
    fields: dict[str, str] = {}
    for block in _parts(status):
        fields |= {name.lower(): str(value) for name, value in block.raw_items()}
    ours = _UUID.search(" ".join(_message_ids(parts[1:])))
    if fields.get("action", "").strip().lower() != "failed" or ours is None:
        return None
    said = [fields.get(name, "") for name in ("status", "diagnostic-code")]
    return Receipt(
        provider_id=None,
        message_id=UUID(ours[0]),
        state="undelivered",
        error=" ".join(" ".join(said).split())[:300] or None,
    )


def _message_ids(parts: list[Message]) -> Iterator[str]:
    for part in parts:
        if part.get_content_type() == "text/rfc822-headers":
            head = _parsed(_decoded(part).encode("utf-8", "replace"))
            yield _header(head, "message-id")
        elif part.get_content_maintype() != "multipart":
            yield _header(part, "message-id")


def _walk(message: Message) -> Iterator[Message]:
    waiting = [message]
    while waiting:
        yield (part := waiting.pop())
        waiting += reversed(_parts(part))


def _parts(message: Message) -> list[Message]:
    """The parts of a message; what claims to have some and has none has none."""
    payload = message.get_payload()
    if not isinstance(payload, list):
        return []
    return [part for part in payload if isinstance(part, Message)]
