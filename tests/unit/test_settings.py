"""What a process is told from outside."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.assignment.settings import AssignmentSettings
from services.intake.settings import IntakeSettings
from services.notification.settings import NotificationSettings
from shared.settings import Settings

HTTPS = "https://jangkau.example"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("JANGKAU_")]:
        monkeypatch.delenv(name)
    for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["JANGKAU_DATABASE_URL", "DATABASE_URL"])
def test_the_database_can_be_named_in_two_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "postgresql+asyncpg://u@db:5432/jangkau_{service}")
    assert (
        str(Settings().database_url_of("intake")) == "postgresql+asyncpg://u@db:5432/jangkau_intake"
    )


@pytest.mark.parametrize("name", ["JANGKAU_KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"])
def test_kafka_can_be_named_in_two_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "one:9092,two:9092")
    assert Settings().kafka_bootstrap_servers == "one:9092,two:9092"


def test_what_the_code_says_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://from/outside")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "outside:9092")
    said = Settings(
        database_url="postgresql+asyncpg://from/code", kafka_bootstrap_servers="code:9092"
    )
    assert said.database_url.endswith("code")
    assert said.kafka_bootstrap_servers == "code:9092"


def test_a_password_of_its_own_takes_the_place_of_the_one_in_the_url() -> None:
    settings = Settings(
        database_url="postgresql+asyncpg://u:old@db/jangkau_{service}",
        database_password=SecretStr("n:e/w@"),
    )
    url = settings.database_url_of("intake")
    assert url.password == "n:e/w@"
    assert "n:e/w@" not in str(url)


def test_a_secret_can_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "database"
    secret.write_text("from the file\n", encoding="utf-8")
    monkeypatch.setenv("JANGKAU_DATABASE_PASSWORD_FILE", str(secret))
    monkeypatch.setenv("JANGKAU_DATABASE_PASSWORD", "from the environment")
    password = Settings().database_password
    assert password is not None
    assert password.get_secret_value() == "from the file"


def test_a_secret_of_a_service_can_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "smtp"
    secret.write_text("hush", encoding="utf-8")
    monkeypatch.setenv("JANGKAU_SMTP_PASSWORD_FILE", str(secret))
    assert NotificationSettings().smtp_password == SecretStr("hush")


def test_no_secret_shows_in_what_is_logged() -> None:
    assert "hush" not in repr(Settings(database_password=SecretStr("hush")))


@pytest.mark.parametrize("kind", [Settings, IntakeSettings])
def test_production_refuses_a_default_secret(kind: type[Settings]) -> None:
    with pytest.raises(
        ValidationError, match="JANGKAU_DATABASE_PASSWORD still has its development"
    ):
        kind(environment="production", database_password=SecretStr("development-only"))
    kind(environment="development", database_password=SecretStr("development-only"))
    real = SecretStr("6f1d0b9c2e7a4853")
    public: Any = {"public_url": HTTPS} if kind is IntakeSettings else {}
    kind(environment="production", database_password=real, **public)


def test_production_refuses_a_default_secret_inside_the_database_url() -> None:
    with pytest.raises(ValidationError, match="development"):
        Settings(
            environment="production",
            database_url="postgresql+asyncpg://jangkau:development-only@db/jangkau_{service}",
        )


LINK_KEYS = SecretStr("a key of this year, a key of last year")


def test_production_refuses_to_show_volunteers_to_everybody() -> None:
    given: Any = {"environment": "production", "link_keys": LINK_KEYS, "public_url": HTTPS}
    with pytest.raises(ValidationError, match="JANGKAU_AGENCY_TOKEN"):
        AssignmentSettings(**given)
    AssignmentSettings(**given, agency_token=SecretStr("6f1d0b9c2e7a4853"))


def test_production_refuses_to_sign_links_with_a_key_that_everybody_knows() -> None:
    with pytest.raises(ValidationError, match="JANGKAU_LINK_KEYS still has its development"):
        AssignmentSettings(environment="production", agency_token=SecretStr("6f1d0b9c2e7a4853"))


@pytest.mark.parametrize("keys", ["", " , ", "short", "a key of this year,short"])
def test_a_service_does_not_start_with_keys_that_protect_nothing(keys: str) -> None:
    with pytest.raises(ValidationError, match="JANGKAU_LINK_KEYS"):
        AssignmentSettings(link_keys=SecretStr(keys))


def test_the_newest_link_key_comes_first() -> None:
    token = AssignmentSettings(link_keys=LINK_KEYS).links.token("volunteer", "Siti")
    alone = AssignmentSettings(link_keys=SecretStr("a key of this year"))
    assert alone.links.value("volunteer", token, alone.duty_link_age) == "Siti"


def test_production_refuses_the_sandbox() -> None:
    with pytest.raises(ValidationError, match="the sandbox reaches nobody"):
        NotificationSettings(
            environment="production",
            channels="email,sandbox",
            link_keys=LINK_KEYS,
            public_url=HTTPS,
        )
    NotificationSettings(
        environment="production", channels="email", link_keys=LINK_KEYS, public_url=HTTPS
    )


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8003", "https://localhost", "http://jangkau.id", f"https://{'x' * 40}"],
)
def test_production_refuses_links_that_nobody_can_open_or_that_fit_into_no_sms(
    address: str,
) -> None:
    given: Any = {"environment": "production", "channels": "email", "link_keys": LINK_KEYS}
    with pytest.raises(ValidationError, match="JANGKAU_PUBLIC_URL"):
        NotificationSettings(**given, public_url=address)
    assert NotificationSettings(**given, public_url="").public_url == ""


def test_an_unknown_channel_is_named() -> None:
    with pytest.raises(ValidationError, match=r"names \['pigeon'\]; known are sandbox, sms, email"):
        NotificationSettings(channels="email,pigeon")


def test_no_channel_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="names nothing"):
        NotificationSettings(channels=" , ")


def test_sms_needs_a_gateway() -> None:
    with pytest.raises(ValidationError, match="JANGKAU_SMS_URL is needed"):
        NotificationSettings(channels="sms")


def test_an_attempt_is_not_given_up_while_its_call_may_still_run() -> None:
    with pytest.raises(ValidationError, match="JANGKAU_LEASE_SECONDS must exceed"):
        NotificationSettings(lease_seconds=10, provider_timeout_seconds=10)


def test_district_folders_are_a_list_like_path() -> None:
    settings = Settings(districts=os.pathsep.join(["districts", "", "/etc/jangkau"]))
    assert settings.district_folders == [Path("districts"), Path("/etc/jangkau")]
