"""Mails that come in: who wrote, their own words, and whether a person wrote at all."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from email.utils import parseaddr
from html.parser import HTMLParser
from uuid import UUID

from services.notification.channels import Receipt
from shared.codes import ALPHABET

# Nobody answers an offer with more; the rest is what they quote.
TEXT_AT_MOST = 20_000
HTML_AT_MOST = 200_000

_CODE = re.compile(rf"\(([{ALPHABET}]{{5}})\)\s*$")
_REPLY = re.compile(r"\s*(re|fw|fwd|bls|balas|trs)\s*:", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Where the mail that is answered begins, over up to three lines: "On …, Jangkau <…> wrote:", and
# as Gmail and Thunderbird say it in Indonesian.
_INTRODUCED = re.compile(
    r"^[ \t>]*(?:On|Pada)\b(?:[^\n]*\n){0,2}?[^\n]*\b(?:wrote|menulis)[ \t]*:[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# Outlook puts the head of the old mail there, often below a line.
_OLD_MAIL = re.compile(
    r"^[ \t]*(?:-{2,}[ \t]*(?:Original Message|Forwarded message|Pesan Asli|Pesan terusan)"
    r"[ \t]*-{2,}"
    r"|_{20,}"
    r"|\*?(?:From|Dari)[ \t]*:\*?[^\n]*\n(?:[^\n]*\n){0,2}?[ \t]*\*?"
    r"(?:Sent|Date|To|Terkirim|Dikirim|Tanggal|Kepada|Ke)[ \t]*:.*)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_SIGNATURE = re.compile(
    r"^(?:--[ \t]*|(?:Sent from|Dikirim dari|Terkirim dari|Get Outlook for|Dapatkan Outlook untuk)"
    r"\b.*)$",
    re.IGNORECASE | re.MULTILINE,
)

# https://www.rfc-editor.org/rfc/rfc3834, and what machines did before it.
_MACHINES = ("x-autoreply", "x-autorespond", "x-autoresponder", "x-mail-autoreply", "x-vacation")
_BULK = ("bulk", "junk", "list", "auto_reply", "auto-reply")
_DAEMONS = ("mailer-daemon", "postmaster")

# HTML that holds no words of the writer, and tags behind which a new line begins.
_SILENT = {"head", "style", "script", "title", "blockquote"}
_BREAKS = {"br", "p", "div", "tr", "li", "hr", "h1", "h2", "h3", "table", "ul", "ol"}


@dataclass(frozen=True)
class Mail:
    """A mail as far as it concerns us.

    ``text`` is what its sender has written themselves, ``code`` the answer code in its subject.
    ``nobody`` says why no person wrote it; ``undelivered`` that it reports a mail of ours lost.
    """

    message_id: str | None
    sender: str
    text: str
    code: str | None = None
    nobody: str | None = None
    undelivered: Receipt | None = None


def read(raw: bytes, *, our_address: str) -> Mail:
    """Read a message as RFC 5322 describes it; whatever it is, it can be read somehow."""
    message = _parsed(raw)
    sender = parseaddr(_header(message, "from"))[1]
    subject = _header(message, "subject")
    code = _CODE.search(subject)
    text = own_words(_text(message))
    if not text and not _REPLY.match(subject):
        text = subject.strip()  # a mail that is all subject
    report = _is_report(message)
    nobody = "delivery_report" if report else _nobody(message, sender, our_address)
    return Mail(
        message_id=_header(message, "message-id").strip() or None,
        sender=sender,
        text=text,
        code=code[1] if code else None,
        nobody=nobody,
        undelivered=_undelivered(message) if report else None,
    )


def own_words(text: str) -> str:
    """What the writer has added: without the mail that they answer, and without a signature."""
    text = text.replace("\r\n", "\n")[:TEXT_AT_MOST]
    introduced = _INTRODUCED.search(text)
    if introduced and not text[: introduced.start()].strip():
        text = text[introduced.end() :]  # they have written below what they answer
        introduced = None
    ends = [found.start() for found in (introduced, _OLD_MAIL.search(text)) if found]
    text = text[: min(ends, default=len(text))]
    text = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith(">"))
    # After the quotation, which may hold a signature of ours.
    signature = _SIGNATURE.search(text)
    return text[: signature.start() if signature else len(text)].strip()


def _parsed(raw: bytes) -> EmailMessage:
    try:
        return message_from_bytes(raw, policy=policy.default)
    except Exception:
        # Parts within parts without end, and what else the library stumbles over.
        return BytesHeaderParser(policy=policy.default).parsebytes(raw)


def _header(message: Message, name: str) -> str:
    """A header as text.

    The library's parser of headers is strict at reading and raises all kinds of errors; what is not
    written as it should be is then taken as it stands.
    """
    try:
        return str(message.get(name, ""))
    except Exception:
        raw = (value for key, value in message.raw_items() if key.lower() == name)
        return " ".join(str(next(raw, "")).split())


def _text(message: EmailMessage) -> str:
    """The body in words: its plain part, else the words of its HTML."""
    try:
        part = message.get_body(("plain", "html"))
    except Exception:
        part = None  # broken multiparts; the message itself may still hold words
    part = part or message
    if part.is_multipart():
        return ""
    words = _decoded(part)
    is_html = part.get_content_type() == "text/html"
    return from_html(words) if is_html else words


def _decoded(part: Message) -> str:
    try:
        content = part.get_payload(decode=True)
    except Exception:
        content = None
    if not isinstance(content, bytes):
        return ""
    charset = part.get_content_charset() or "utf-8"
    try:
        return content.decode(charset, "replace")
    except (LookupError, UnicodeError, ValueError):
        return content.decode("utf-8", "replace")


def from_html(text: str) -> str:
    """The words of an HTML mail, without what it quotes."""
    words = _Words()
    try:
        words.feed(text[:HTML_AT_MOST])
        words.close()
    except (AssertionError, ValueError, RecursionError):
        return html.unescape(re.sub(r"<[^<>]*>", " ", text[:TEXT_AT_MOST]))
    return "".join(words.found)


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        if tag in _BREAKS:
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            # Whatever was opened in between and never closed ends with it.
            del self._silent[self._silent.index(tag) :]
        if tag in _BREAKS:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(re.sub(r"\s+", " ", data))


def _nobody(message: Message, sender: str, our_address: str) -> str | None:
    """Why no person wrote this; None if one did."""
    if sender and sender.lower() == our_address.lower():
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


def _undelivered(message: EmailMessage) -> Receipt | None:
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
            head = message_from_bytes(_decoded(part).encode("utf-8", "replace"))
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
