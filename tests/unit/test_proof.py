"""Whether a mail is from whom it says: what counts as a proof, and what a stranger can write."""

from datetime import UTC, datetime, timedelta
from email import message_from_string
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from services.notification.proof import BASE_AT_MOST, Proof, ReplyAddresses
from shared.security import Links

SITI = "siti@example.org"
SERVER = "mx.desa.example"
FROM = f"From: Siti <{SITI}>"
REPLIES = ReplyAddresses(
    Links(["k3y-that-signs-replies"]), "jangkau@example.id", timedelta(days=30)
)
PROOF = Proof({SERVER}, REPLIES)


def holds(head: str, *, proof: Proof = PROOF, at: datetime | None = None) -> bool:
    return proof.holds(message_from_string(f"{head}\n\nYA"), at=at or datetime.now(UTC))


def results(said: str, server: str = SERVER) -> str:
    return f"Authentication-Results: {server}; {said}"


PASS = results("dmarc=pass header.from=example.org")


@pytest.mark.parametrize(
    ("head", "proven"),
    [
        (f"{PASS}\n{FROM}", True),
        (f"{results('dmarc=pass (p=none) header.from=EXAMPLE.org', SERVER.upper())}\n{FROM}", True),
        (f"{results('dkim=pass header.d=example.org header.s=a')}\n{FROM}", True),
        (f"{results('spf=pass smtp.mailfrom=siti@example.org')}\n{FROM}", True),
        (f"{results('dkim=pass header.d=example.org')}\nFrom: siti@mail.example.org", True),
        (f"{results('dkim=fail header.d=example.org; dkim=pass header.d=example.org')}\n{FROM}",
         True),
        # no result, or not of ours
        (FROM, False),
        (f"{results('none')}\n{FROM}", False),
        (f"{results('dmarc=pass header.from=example.org', 'mx.evil.example')}\n{FROM}", False),
        (f"{results('dmarc=pass header.from=example.org', f'evil.{SERVER}')}\n{FROM}", False),
        # a result, and not for this domain
        (f"{results('dmarc=fail header.from=example.org')}\n{FROM}", False),
        (f"{results('dmarc=pass header.from=evil.example')}\n{FROM}", False),
        (f"{results('dmarc=pass')}\n{FROM}", False),
        (f"{results('spf=pass smtp.mailfrom=x@evil.example')}\n{FROM}", False),
        (f"{results('spf=pass smtp.helo=example.org')}\n{FROM}", False),
        (f"{results('dkim=pass header.d=evil.example.org')}\n{FROM}", False),
        (f"{results('dkim=pass header.d=org')}\n{FROM}", False),
        (f"{results('dkim=pass header.d=ample.org')}\n{FROM}", False),
        (f"{results('dkim=pass header.i=siti@example.org')}\n{FROM}", False),
        # only the topmost of ours, and none that cannot be read
        (f"{results('dmarc=fail header.from=example.org')}\n{PASS}\n{FROM}", False),
        (f"{results('none')}\n{PASS}\n{FROM}", False),
        (f"{results('((((')}\n{PASS}\n{FROM}", False),
        (f"{results('dmarc=fail', 'mx.other.example')}\n{PASS}\n{FROM}", True),
        # one From with one address
        (f"{PASS}\n{FROM}\nFrom: evil@evil.example", False),
        (f"{PASS}\nFrom: {SITI}, evil@example.org", False),
        (PASS, False),
        (f"{PASS}\nFrom: <>", False),
    ],
)  # fmt: skip
def test_a_mail_is_proven_by_the_topmost_result_of_our_server(head: str, proven: bool) -> None:
    assert holds(head) is proven


def test_without_a_server_in_settings_no_result_proves_anything() -> None:
    assert not holds(f"{PASS}\n{FROM}", proof=Proof())


@pytest.mark.parametrize("where", ["To", "Cc", "Delivered-To", "X-Original-To"])
def test_a_mail_to_the_address_that_was_signed_for_its_sender_is_proven(where: str) -> None:
    address = REPLIES.of(uuid7(), SITI)
    assert holds(f"{where}: Jangkau <{address}>\n{FROM}")
    assert holds(f"{where}: <{address.upper()}>\nFrom: {SITI.upper()}"), "as some servers write it"
    assert not holds(f"{where}: {address}\nFrom: budi@example.org"), "it is Siti's alone"
    assert not holds(f"Subject: {address}\n{FROM}"), "it did not come there"


def test_a_signed_address_opens_nothing_after_its_time() -> None:
    head = f"To: {REPLIES.of(uuid7(), SITI)}\n{FROM}"
    now = datetime.now(UTC)
    assert holds(head, at=now + timedelta(days=29))
    assert not holds(head, at=now + timedelta(days=31))


@given(message=st.uuids(), email=st.emails(), other=st.emails(), flip=st.integers(0, 38))
def test_an_address_is_signed_for_one_message_and_one_person(
    message: UUID, email: str, other: str, flip: int
) -> None:
    address = REPLIES.of(message, email)
    at = datetime.fromtimestamp(0, UTC)
    assert REPLIES.opens(address, email, at=at)
    if other.lower() != email.lower():
        assert not REPLIES.opens(address, other, at=at)
    local, _, domain = address.partition("@")
    assert len(local) <= len("jangkau") + 64 - BASE_AT_MOST
    base, _, token = local.partition("+")
    changed = "a" if token[flip] != "a" else "b"
    forged = f"{base}+{token[:flip]}{changed}{token[flip + 1 :]}@{domain}"
    if flip not in (25, 38):  # the last letter of each half holds bits that count for nothing
        assert not REPLIES.opens(forged, email, at=at)


@given(st.text(max_size=300), st.text(max_size=100))
def test_no_head_cannot_be_looked_at(said: str, sender: str) -> None:
    line = " ".join(said.split())
    head = f"Authentication-Results: {SERVER}; {line}\nTo: {line}\nFrom: {' '.join(sender.split())}"
    assert holds(head.encode("utf-8", "replace").decode()) in (True, False)
