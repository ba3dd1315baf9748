"""What a process is told from outside: environment variables ``JANGKAU_*``.

A secret may come from a file instead: ``JANGKAU_DATABASE_PASSWORD_FILE=/run/secrets/db``.
"""

import os
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from shared.security import Links

PREFIX = "JANGKAU_"
SERVICES = ("intake", "assignment", "notification")
DEVELOPMENT_SECRET_MARK = "development"  # noqa: S105 - the mark by which a default secret is known


class CannotStart(Exception):
    """Something that a person has to mend before a service can run, with a sentence."""


class _SecretFiles(PydanticBaseSettingsSource):
    """Read ``JANGKAU_X`` from the file that ``JANGKAU_X_FILE`` names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        value = Path(path).read_text(encoding="utf-8").strip() if path else None
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """What all three services need. Times are in the unit that the name says."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", populate_by_name=True)

    environment: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = 8000
    # Proxies in front of us, as addresses or networks with commas: only what they say of where a
    # request comes from (X-Forwarded-For, -Proto) is believed. None: the connection itself counts.
    trusted_proxies: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: str = Field(
        default="postgresql+asyncpg://jangkau@127.0.0.1:5432/jangkau_{service}",
        validation_alias=AliasChoices(f"{PREFIX}DATABASE_URL", "DATABASE_URL", "database_url"),
        description="with {service} where the service's name goes",
    )
    database_password: SecretStr | None = None
    # A transaction waits so long for a row that another holds, then ends and is tried again. Longer
    # than ours hold one (a burst of 500 events: a second or two), shorter than what all others of
    # a partition may wait for one record.
    lock_timeout_seconds: float = 5
    # On two cores more than 16 connections only queue in PostgreSQL instead of here.
    database_pool_size: int = 8

    kafka_bootstrap_servers: str = Field(
        default="127.0.0.1:9092",
        validation_alias=AliasChoices(
            f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS", "kafka_bootstrap_servers"
        ),
    )
    # Off only for the embedded broker, which does not know InitProducerId.
    kafka_idempotence: bool = True
    # The embedded broker answers a long poll only at its end, so there it is 20.
    kafka_fetch_max_wait_ms: int = 500
    # How long a member of a group may be silent before the others take over its partitions.
    kafka_session_timeout_ms: int = 10_000
    topic_prefix: str = ""
    topic_replication: int = 1
    # How many records one transaction takes at most: a batch of 500 costs little more than one.
    batch_size: int = 500
    # This many records in a row that cannot be handled mean that we are broken, not the records.
    max_parked_in_a_row: int = 20
    # A batch that fails for a passing reason is tried so often before it is taken apart. Two
    # transactions that met, or a database that was restarted, are over by then; with the time for
    # a lock, the others of a partition wait for one locked row for 20 s at most.
    tries_together: int = 3

    districts: str = "districts"
    # A loop that has not turned for so long is stuck.
    stalled_after_seconds: float = 30
    # Longer than the journal of events that must not be handled twice (7 days).
    inbox_retention_days: int = 45

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _SecretFiles(settings_cls), env_settings

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everybody(cls, proxies: str) -> str:
        for written in filter(None, (part.strip() for part in proxies.split(","))):
            try:
                network = ip_network(written, strict=False)
            except ValueError:
                raise ValueError(f"{written} is no address and no network") from None
            if network.prefixlen == 0:
                raise ValueError(f"{written} is everybody: anyone could choose their own address")
        return proxies

    @property
    def proxies(self) -> list[str]:
        """The trusted proxies, one by one."""
        return [part.strip() for part in self.trusted_proxies.split(",") if part.strip()]

    @model_validator(mode="after")
    def no_default_secret_outside_development(self) -> Self:
        """Refuse to start in production with a secret that everybody knows."""
        if self.environment == "development":
            return self
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr) and DEVELOPMENT_SECRET_MARK in value.get_secret_value():
                raise ValueError(
                    f"{PREFIX}{name.upper()} still has its development default; "
                    f"set it before running in {self.environment}"
                )
        if DEVELOPMENT_SECRET_MARK in str(make_url(self.database_url).password or ""):
            raise ValueError(
                f"{PREFIX}DATABASE_URL still has its development password; "
                f"set another before running in {self.environment}"
            )
        return self

    def database_url_of(self, service: str) -> URL:
        """The SQLAlchemy URL of one service's database."""
        url = make_url(self.database_url.replace("{service}", service))
        if self.database_password is not None:
            url = url.set(password=self.database_password.get_secret_value())
        return url

    @property
    def district_folders(self) -> list[Path]:
        """The folders that hold district folders."""
        return [Path(folder) for folder in self.districts.split(os.pathsep) if folder]

    @property
    def stalled_after(self) -> timedelta:
        """After how long without a turn a loop counts as stuck."""
        return timedelta(seconds=self.stalled_after_seconds)


class AgencySettings(Settings):
    """What a service needs whose doors are open to the agency."""

    # Who shows it may use them. None is for a developer's machine.
    agency_token: SecretStr | None = None


class LinkSettings(Settings):
    """What a service needs that gives people signed links to its pages."""

    # Where people reach us; links begin with it.
    public_url: str = "http://127.0.0.1:8000"
    # Sign those links: comma separated, the newest first. A new one goes in front; the old one may
    # go when the links that it signed have become too old.
    link_keys: SecretStr = SecretStr("development-only-link-key")

    @model_validator(mode="after")
    def links_can_be_signed(self) -> Self:
        """Whatever is wrong with the keys is said at the start, not with the first link."""
        try:
            _ = self.links
        except ValueError as error:
            raise ValueError(f"JANGKAU_LINK_KEYS: {error}") from None
        return self

    @property
    def links(self) -> Links:
        """Signs and reads the links to pages."""
        keys = self.link_keys.get_secret_value().split(",")
        return Links([key.strip() for key in keys if key.strip()])
