"""An environment that was forgotten opens nothing: development ends where real use begins."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.assignment.settings import AssignmentSettings
from services.intake.settings import IntakeSettings
from services.notification.settings import NotificationSettings
from shared.real_use import host_of, is_loopback, is_nearby
from shared.settings import Settings

KINDS: tuple[type[Settings], ...] = (IntakeSettings, AssignmentSettings, NotificationSettings)
KEY = "6f1d0b9c2e7a4853"
TWILIO = {
    "channels": "twilio,sandbox",
    "twilio_account_sid": "AC1",
    "twilio_auth_token": "x",
    "twilio_from": "+1",
}
FOR_REAL = "JANGKAU_ENVIRONMENT is not production"
SECRETS: dict[type[Settings], dict[str, Any]] = {
    IntakeSettings: {},
    AssignmentSettings: {"link_keys": KEY, "agency_token": KEY},
    NotificationSettings: {"link_keys": KEY, "channels": "email"},
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("JANGKAU_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"environment": "development"}])
@pytest.mark.parametrize(
    "address",
    [
        "https://lapor.go.id",
        "https://127.0.0.1",
        "http://lapor.go.id",
        "http://192.168.1.5:8000",
        "http://0.0.0.0:8000",
        "http://127.0.0.1.go.id",
        "http://localhost@lapor.go.id/",
        "lapor.go.id",
    ],
)
def test_a_public_address_and_development_do_not_go_together(
    kind: type[Settings], how: dict[str, Any], address: str
) -> None:
    with pytest.raises(ValidationError, match=f"JANGKAU_PUBLIC_URL.*{FOR_REAL}"):
        kind(**how, public_url=address)


@pytest.mark.parametrize(
    ("ways", "variable"),
    [
        ({"channels": "sms", "sms_url": "https://gateway.go.id/send"}, "JANGKAU_SMS_URL"),
        ({"channels": "sms,sandbox", "sms_url": "http://10.0.0.7/"}, "JANGKAU_SMS_URL"),
        (TWILIO, "JANGKAU_TWILIO_URL"),
        ({"channels": "email", "smtp_host": "mail.go.id"}, "JANGKAU_SMTP_HOST"),
        ({"channels": "email,sandbox", "smtp_host": "10.0.0.7"}, "JANGKAU_SMTP_HOST"),
        (
            {"channels": "apprise", "apprise_url": "json://hook.go.id/{phone}"},
            "JANGKAU_APPRISE_URL",
        ),
    ],
)
def test_a_way_to_real_people_and_development_do_not_go_together(
    ways: dict[str, Any], variable: str
) -> None:
    both: tuple[dict[str, Any], ...] = ({}, {"environment": "development"})
    for how in both:
        with pytest.raises(ValidationError, match=f"{variable}.*{FOR_REAL}"):
            NotificationSettings(**how, **ways)


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_that_others_reach_must_be_told_what_it_is(kind: type[Settings]) -> None:
    for host in ("0.0.0.0", "::", "10.0.0.7", "jangkau"):  # noqa: S104
        with pytest.raises(ValidationError, match=f"JANGKAU_HOST.*{FOR_REAL}"):
            kind(host=host)
        # As docker-compose.yml says it, which publishes on the loopback address alone.
        kind(host=host, environment="development")
    kind(host="::1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "address", ["", "http://lapor.go.id", "https://localhost", "https://127.9.9.9:8443", "https://"]
)
def test_production_needs_an_address_that_links_can_begin_with(
    kind: type[Settings], address: str
) -> None:
    if kind is NotificationSettings and address == "":
        return  # its messages can be answered without a link
    with pytest.raises(ValidationError, match="JANGKAU_PUBLIC_URL: people follow links"):
        kind(environment="production", public_url=address, **SECRETS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_production_needs_to_be_told_its_address(kind: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="JANGKAU_PUBLIC_URL: people follow links"):
        kind(environment="production", **SECRETS[kind])
    kind(environment="production", public_url="https://jangkau.go.id", **SECRETS[kind])


@pytest.mark.parametrize("word", ["", "prod", "Production", "live"])
def test_a_misspelt_environment_is_not_taken_for_development(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JANGKAU_ENVIRONMENT", word)
    with pytest.raises(ValidationError, match="environment"):
        Settings()


def test_what_a_developer_runs_is_taken() -> None:
    for address in ("http://127.0.0.1:8001", "http://localhost:8001", "http://[::1]:8001/"):
        for kind in KINDS:
            kind(public_url=address)
    NotificationSettings(channels="email,sandbox", smtp_host="mailpit", smtp_port=1025)
    NotificationSettings(channels="sms,sandbox", sms_url="http://127.0.0.1:9999/")
    NotificationSettings(public_url="")
    IntakeSettings(public_url="")


@given(st.text(max_size=40))
def test_no_text_breaks_the_look_at_an_address(text: str) -> None:
    is_nearby(text)
    real: dict[str, Any] = {"environment": "production", **SECRETS[AssignmentSettings]}
    given: dict[str, Any]
    for url in (text, f"http://{text}", f"https://{text}"):
        for given in ({}, real):
            try:
                AssignmentSettings(public_url=url, **given)
            except ValidationError as error:
                assert "JANGKAU_PUBLIC_URL" in str(error)
            else:
                assert is_loopback(host_of(url)) != bool(given)


def test_no_secret_shows_in_the_sentence_of_a_refusal() -> None:
    canary = "canary-6f1d0b9c2e7a"
    with pytest.raises(ValidationError) as refused:
        NotificationSettings(
            channels="pigeon", sms_webhook_secret=canary, smtp_password=canary, link_keys=canary
        )
    assert canary not in str(refused.value)
