"""Mails that come in: whose words they are, and whether a person wrote them."""

from email.message import EmailMessage
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.notification import mail
from services.notification.mail import Mail
from services.notification.own_words import own_words

OURS = "jangkau@example.org"
OUR_MESSAGE = UUID("0199c0de-0000-7000-8000-000000000001")
OFFER = "Orang terlantar, Koba, 3,2 km. Balas YA K7M2P atau TIDAK K7M2P."


def written(body: str = "YA", *, html: str | None = None, **headers: str) -> bytes:
    """A mail that Siti has sent."""
    message = EmailMessage()
    message["From"] = headers.pop("sender", "Siti Aminah <siti@example.org>")
    message["Subject"] = headers.pop("subject", "Re: Orang terlantar di Koba (K7M2P)")
    message["Message-ID"] = "<abc@mail.example.org>"
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(body)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message.as_bytes()


def read(raw: bytes) -> Mail:
    return mail.read(raw, ours={OURS})


def test_a_reply_is_its_writers_own_words_with_the_code_of_its_subject() -> None:
    found = read(written("Ya, saya berangkat\r\n"))
    assert (found.sender, found.text, found.code) == (
        "siti@example.org", "Ya, saya berangkat", "K7M2P",
    )  # fmt: skip
    assert (found.message_id, found.nobody) == ("<abc@mail.example.org>", None)


QUOTED = "\n".join(f"> {line}" for line in OFFER.split(". "))


@pytest.mark.parametrize(
    ("body", "own"),
    [
        ("YA", "YA"),
        (f"YA\n\nOn Tue, 24 Nov 2026 at 12:00, Jangkau <j@example.org> wrote:\n{QUOTED}", "YA"),
        (f"YA\n\nOn Tue, 24 Nov 2026 at 12:00, Jangkau\n<j@example.org> wrote:\n{QUOTED}", "YA"),
        (f"Siap\n\nPada tanggal Sel, 24 Nov 2026 pukul 12.00 Jangkau <j@example.org>\nmenulis:\n\n"
         f"{QUOTED}", "Siap"),
        (f"Siap\n\nPada 24/11/26 12.00, Jangkau menulis:\n{QUOTED}", "Siap"),
        (f"On Tue, 24 Nov 2026, Jangkau wrote:\n{QUOTED}\n\nTidak bisa, maaf", "Tidak bisa, maaf"),
        (f"{QUOTED}\nYA", "YA"),
        (f"Tidak\n\n-----Original Message-----\nFrom: Jangkau\n\n{OFFER}", "Tidak"),
        (f"Tidak\n\n-----Pesan Asli-----\n{OFFER}", "Tidak"),
        (f"OTW\n________________________________\nDari: Jangkau\n{OFFER}", "OTW"),
        (f"OTW\n\nDari: Jangkau <j@example.org>\nTerkirim: Selasa, 24 November 2026 12.00\n"
         f"Kepada: Siti\nSubjek: Koba (K7M2P)\n\n{OFFER}", "OTW"),
        (f"OTW\n\n*From:* Jangkau <j@example.org>\n*Sent:* Tuesday\n\n{OFFER}", "OTW"),
        ("Sampai\n-- \nSiti Aminah\nPSM Koba", "Sampai"),
        ("Sampai\n\nDikirim dari ponsel Samsung saya", "Sampai"),
        ("Sampai\n\nSent from my iPhone", "Sampai"),
        ("Selesai: dari kantor ke rumah singgah", "Selesai: dari kantor ke rumah singgah"),
        ("Kendala\njalan putus\nPada jembatan Koba", "Kendala\njalan putus\nPada jembatan Koba"),
        (f"\n\n{QUOTED}\n", ""),
    ],
)  # fmt: skip
def test_what_is_quoted_and_signed_is_cut(body: str, own: str) -> None:
    assert own_words(body) == own
    assert own_words(body.replace("\n", "\r\n")) == own


def test_html_is_read_where_there_is_no_plain_text() -> None:
    message = EmailMessage()
    message["From"] = "siti@example.org"
    message.set_content(
        "<html><head><style>p {color: red}</style></head><body><div>Ya,&nbsp;saya <b>bisa</b></div>"
        '<div class="gmail_quote"><div class="gmail_attr">On Tue, Jangkau wrote:<br></div>'
        f"<blockquote><p>{OFFER}</p></blockquote></div></body></html>",
        subtype="html",
    )
    assert read(message.as_bytes()).text == "Ya, saya bisa"


def test_the_plain_part_is_preferred() -> None:
    assert read(written("YA", html="<p>sesuatu yang lain</p>")).text == "YA"


def test_a_mail_that_is_all_subject_is_its_subject() -> None:
    assert read(written("", subject="YA K7M2P")).text == "YA K7M2P"
    assert read(written("", subject="Re: Orang terlantar (K7M2P)")).text == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto-Submitted": "auto-replied"},
        {"Auto-Submitted": "auto-generated; owner-email=x"},
        {"Precedence": "bulk"},
        {"Precedence": "auto_reply"},
        {"X-Autoreply": "yes"},
        {"Return-Path": "<>"},
        {"sender": "MAILER-DAEMON@mail.example.org"},
        {"sender": OURS.upper()},
    ],
)
def test_what_a_machine_wrote_is_known_as_that(headers: dict[str, str]) -> None:
    assert read(written(**headers)).nobody in ("automatic", "our_own")


def test_what_says_that_no_machine_wrote_it_was_written_by_a_person() -> None:
    assert read(written(**{"Auto-Submitted": "no", "Precedence": "first-class"})).nobody is None


def bounce(*, action: str = "failed", whole: bool = True, about: str | None = None) -> bytes:
    """A report about a mail of ours, as Postfix writes it (RFC 3464)."""
    message_id = about or f"<{OUR_MESSAGE}@example.org>"
    kind, body = ("message/rfc822", OFFER) if whole else ("text/rfc822-headers", "")
    return f"""\
Return-Path: <>
From: MAILER-DAEMON@mail.example.org (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {OURS}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="4A1.1/mail"
Message-ID: <bounce-1@mail.example.org>

This is a MIME-encapsulated message.

--4A1.1/mail
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--4A1.1/mail
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.org
X-Postfix-Queue-ID: 4A1

Final-Recipient: rfc822; gone@example.org
Action: {action}
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 User unknown

--4A1.1/mail
Content-Description: Undelivered Message
Content-Type: {kind}

From: Jangkau <{OURS}>
Subject: Orang terlantar (K7M2P)
Message-ID: {message_id}

{body}
--4A1.1/mail--
""".encode()


@pytest.mark.parametrize("whole", [True, False])
def test_a_delivery_report_says_which_mail_of_ours_was_lost(whole: bool) -> None:
    found = read(bounce(whole=whole))
    assert found.nobody == "delivery_report"
    assert found.undelivered is not None
    assert found.undelivered.message_id == OUR_MESSAGE
    assert found.undelivered.state == "undelivered"
    assert found.undelivered.error == "5.1.1 smtp; 550 5.1.1 User unknown"


@pytest.mark.parametrize("values", [{"action": "delayed"}, {"about": "<x@example.org>"}])
def test_a_report_of_a_delay_or_of_another_mail_is_no_end(values: dict[str, Any]) -> None:
    found = read(bounce(**values))
    assert (found.nobody, found.undelivered) == ("delivery_report", None)


def test_parts_within_parts_without_end_are_read_as_far_as_their_head() -> None:
    nested = b"".join(
        b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(5000)
    )
    assert (
        read(b"From: siti@example.org\nSubject: YA K7M2P\n" + nested).sender == "siti@example.org"
    )


def test_an_address_within_a_name_is_a_name() -> None:
    raw = b"From: =?utf-8?q?Siti_=3Csiti=40example=2Eorg=3E?= <evil@example.com>\n\nYA"
    assert read(raw).sender == "evil@example.com"


@given(st.binary(max_size=2000))
@example(b"From: =?utf-8?b?//8=?= <a@b>\n\n\xff")
@example(b'Content-Type: text/plain; charset="no-such"\n\nYA')
@example(b"Content-Type: text/plain; charset=utf-16\nContent-Transfer-Encoding: base64\n\n!!!")
@example(
    b"Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status"
)
@example(b"From: @<@\nTo: <\n\n")
def test_no_mail_cannot_be_read(raw: bytes) -> None:
    assert isinstance(read(raw).text, str)


HEADERS = st.sampled_from(
    ["From", "Subject", "Message-ID", "Content-Type", "Content-Transfer-Encoding", "Precedence",
     "Auto-Submitted", "Return-Path", "Content-Disposition"]
)  # fmt: skip


@given(
    st.lists(st.tuples(HEADERS, st.text(max_size=80)), max_size=8),
    st.text(max_size=300),
)
def test_no_headers_cannot_be_read(headers: list[tuple[str, str]], body: str) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    found = read((head + "\r\n" + body).encode("utf-8", "surrogatepass"))
    assert isinstance(found.sender, str)


@given(st.text(alphabet="On wrote:>\n-_Dari From a", max_size=3000))
def test_own_words_are_found_in_any_text(text: str) -> None:
    assert len(own_words(text)) <= len(text)
