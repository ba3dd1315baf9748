"""Every secret of every service, against everything that protects nothing."""

import os
import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from services.assignment.settings import AssignmentSettings
from services.intake.settings import IntakeSettings
from services.notification.settings import NotificationSettings
from shared.agency import _shows
from shared.secret_rules import SHORTEST, weakness
from shared.security import Links
from shared.settings import CannotStart, Settings

KINDS: tuple[type[Settings], ...] = (IntakeSettings, AssignmentSettings, NotificationSettings)
GOOD = "6f1d0b9c2e7a4853"  # 16 hexadecimal digits, as openssl rand makes them
# What a service in production needs beside the secret that is looked at.
PRODUCTION: dict[type[Settings], dict[str, Any]] = {
    IntakeSettings: {"public_url": "https://lapor.go.id"},
    AssignmentSettings: {
        "public_url": "https://relawan.go.id",
        "link_keys": GOOD,
        "agency_token": GOOD,
    },
    NotificationSettings: {
        "public_url": "https://tugas.go.id",
        "link_keys": GOOD,
        "channels": "email",
        "inbound_email_authserv_id": "mx.go.id",
    },
}
# Made by the operator and shown to us, or signing for us: whoever can guess one is let in.
OURS = {
    "agency_token",
    "link_keys",
    "database_password",
    "sms_webhook_secret",
    "inbound_email_secret",
}
EMPTY = ("", "   ", "\t\n", "\u00a0")
WEAK = (
    "short",
    "fifteen letters",
    "a" * 16,
    "ab" * 20,
    "passwordpassword",
    "  fifteen letters  ",
)
UNSENDABLE = ("line\nend in the middle of it", "a bell \x07 in the middle of it", "zero\x00zero")


def secrets_of(kind: type[Settings]) -> list[str]:
    return [
        name for name, about in kind.model_fields.items() if "SecretStr" in str(about.annotation)
    ]


EVERY_SECRET = [(kind, name) for kind in KINDS for name in secrets_of(kind)]
TABLE = [
    (kind, name, bad)
    for kind, name in EVERY_SECRET
    for bad in (*EMPTY, *UNSENDABLE, *(WEAK if name in OURS else ()))
]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("JANGKAU_")]:
        monkeypatch.delenv(name)


def test_the_table_knows_every_secret() -> None:
    found = {name for _, name in EVERY_SECRET}
    assert found >= OURS | {"smtp_password", "twilio_auth_token", "apprise_url", "sms_secret"}


@pytest.mark.parametrize(("kind", "name", "bad"), TABLE)
@pytest.mark.parametrize("how", ["environment", "file"])
def test_a_secret_that_protects_nothing_is_refused_by_the_name_of_its_variable(
    kind: type[Settings],
    name: str,
    bad: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    variable = f"JANGKAU_{name.upper()}"
    if how == "file":
        file = tmp_path / "secret"
        file.write_bytes(bad.encode())
        monkeypatch.setenv(f"{variable}_FILE", str(file))
    elif "\x00" not in bad:  # which no environment can hold
        monkeypatch.setenv(variable, bad)
    else:
        return
    rest = {key: value for key, value in PRODUCTION[kind].items() if key != name}
    with pytest.raises(ValidationError, match=variable) as refused:
        kind(environment="production", **rest)
    assert not bad.strip() or bad.strip() not in str(refused.value.errors()[0]["msg"])


@pytest.mark.parametrize(("kind", "name"), EVERY_SECRET)
@pytest.mark.parametrize("how", ["environment", "file", "windows"])
def test_a_good_secret_is_taken_without_the_blanks_around_it(
    kind: type[Settings], name: str, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variable = f"JANGKAU_{name.upper()}"
    if how == "environment":
        monkeypatch.setenv(variable, f"  {GOOD}\n")
    else:
        file = tmp_path / "secret"
        file.write_bytes(
            f"{GOOD}\n".encode() if how == "file" else b"\xef\xbb\xbf%s\r\n" % GOOD.encode()
        )
        monkeypatch.setenv(f"{variable}_FILE", str(file))
    rest = {key: value for key, value in PRODUCTION[kind].items() if key != name}
    found = getattr(kind(environment="production", **rest), name)
    assert found.get_secret_value() == GOOD


@pytest.mark.parametrize("keys", ["x" * 16, f"{GOOD},{'x' * 16}", f"{GOOD},short", " , ", ","])
def test_one_weak_link_key_among_good_ones_is_refused(keys: str) -> None:
    with pytest.raises(ValidationError, match="JANGKAU_LINK_KEYS"):
        AssignmentSettings(link_keys=SecretStr(keys))


@pytest.mark.parametrize("keys", [[], ["x" * 16], [GOOD, "short"]])
def test_links_are_not_signed_with_a_key_that_can_be_guessed(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="link keys"):
        Links(keys)


@pytest.mark.parametrize("token", ["", "  ", "hush", "a" * 40, "ungültig-und-lang-genug"])
def test_not_even_a_developer_has_a_token_that_anybody_could_show_or_nobody(token: str) -> None:
    with pytest.raises(ValidationError, match="JANGKAU_AGENCY_TOKEN"):
        AssignmentSettings(agency_token=SecretStr(token))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer  ", " bearer \t", "Basic "])
@pytest.mark.parametrize("token", ["", "  ", GOOD])
def test_a_header_without_a_token_opens_nothing(header: str, token: str) -> None:
    assert not _shows(header, SecretStr(token))


def test_blanks_around_a_token_do_not_count() -> None:
    for header in (f"Bearer {GOOD}", f"bearer   {GOOD} ", f" BEARER {GOOD}"):
        assert _shows(header, SecretStr(f" {GOOD}\n"))


def test_a_password_inside_the_database_url_is_looked_at_too() -> None:
    url = "postgresql+asyncpg://jangkau:short@db/jangkau_{service}"
    assert Settings(database_url=url)
    with pytest.raises(ValidationError, match="the password in JANGKAU_DATABASE_URL"):
        Settings(environment="production", database_url=url)


@pytest.mark.parametrize("path", ["", "  ", "/nowhere/at/all", "."])
def test_a_file_that_cannot_be_read_is_no_reason_to_go_on_without_the_secret(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JANGKAU_AGENCY_TOKEN_FILE", path)
    with pytest.raises(CannotStart, match="JANGKAU_AGENCY_TOKEN_FILE"):
        AssignmentSettings()


@given(st.integers())
def test_what_was_drawn_by_chance_is_taken(seed: int) -> None:
    drawn = random.Random(seed)
    assert weakness(drawn.randbytes(24).hex()) is None, "as the how-to draws them"
    assert weakness("".join(drawn.choices(string.ascii_letters, k=SHORTEST))) is None


@given(st.text(min_size=1, max_size=8), st.integers(2, 40))
def test_no_piece_that_is_repeated_is_a_secret(piece: str, times: int) -> None:
    assert weakness(piece * times) is not None
