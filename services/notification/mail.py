"""Mails that come in: who wrote, their own words, and whether a person wrote at all."""

import html
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import Compat32
from email.utils import parseaddr
from uuid import UUID

from services.notification.channels import Receipt
from shared.codes import ALPHABET

# Nobody answers an offer with more; the rest is what they quote.
TEXT_AT_MOST = 20_000
MAIL_AT_MOST = 256 * 1024
HEADER_AT_MOST = 2000
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
_HTML = re.compile(r"<!--|<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9]*)[^<>]*>|<![^<>]*>|[^<]+|<")
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


def read(raw: bytes, *, ours: Collection[str] = ()) -> Mail:
    """Read a message as RFC 5322 describes it; whatever it is, it can be read somehow.

    ``ours`` are the addresses from which we write ourselves, in small letters.
    """
    message = _parsed(raw)
    sender = _sender(message)
    subject = _header(message, "subject")
    code = _CODE.search(subject)
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
    try:
        return message_from_bytes(raw[:MAIL_AT_MOST], policy=_BOUNDED)
    except Exception:
        # Parts within parts without end, and what else the library stumbles over.
        return BytesHeaderParser(policy=_BOUNDED).parsebytes(raw[:MAIL_AT_MOST])


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
                return from_html(words) if kind == "text/html" else words
    return ""


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
    """The words of an HTML mail, without what it quotes.

    By hand, in one pass: ``html.parser`` takes minutes for some texts of a few hundred kilobytes.
    """
    found: list[str] = []
    silent: list[str] = []
    position, text = 0, text[:HTML_AT_MOST]
    while token := _HTML.match(text, position):
        position = token.end()
        if token[0] == "<!--":
            end = text.find("-->", position)
            position = end + 3 if end >= 0 else len(text)
        elif token["name"] is None:
            if not silent:
                found.append(re.sub(r"\s+", " ", html.unescape(token[0])))
        else:
            name = token["name"].lower()
            if name in _BREAKS:
                found.append("\n")
            if name not in _SILENT:
                continue
            if not token["end"]:
                silent.append(name)
            elif name in silent:
                # Whatever was opened in between and never closed ends with it.
                del silent[silent.index(name) :]
    return "".join(found)


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
