"""What a process is told from outside: environment variables ``JANGKAU_*``.

A secret may come from a file instead: ``JANGKAU_DATABASE_PASSWORD_FILE=/run/secrets/db``. Blanks
and line ends around a value are no part of it, wherever it comes from.
"""

import os
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared import secret_rules
from shared.database import COMMAND_TIMEOUT_S, LOCK_TIMEOUT_S
from shared.real_use import host_of, is_loopback, is_public, refusal
from shared.secret_rules import Ours
from shared.security import Links

PREFIX = "JANGKAU_"
SERVICES = ("intake", "assignment", "notification")
DEVELOPMENT_SECRET_MARK = "development"  # noqa: S105 - the mark by which a default secret is known


class CannotStart(Exception):
    """Something that a person has to mend before a service can run, with a sentence."""


def _content(variable: str, path: str) -> str:
    """What is in a file, also one that Windows has made.

    Raises:
        CannotStart: it cannot be read; to go on without the secret could open a door.
    """
    if not path:
        raise CannotStart(f"{variable} is set to nothing; name a file or leave it out")
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise CannotStart(f"{variable}: {path} is not UTF-8 text") from None
    except OSError as error:
        raise CannotStart(f"{variable}: {path} cannot be read: {error.strerror}") from None


class _SecretFiles(PydanticBaseSettingsSource):
    """Read ``JANGKAU_X`` from the file that ``JANGKAU_X_FILE`` names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        return (None if path is None else _content(variable, path.strip())), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """What all three services need. Times are in the unit that the name says."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # it holds the secrets
    )

    environment: Literal["development", "production"] = "development"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    # Where /metrics is, on the same host and never behind the public address. Unsaid: the port
    # above plus 1000, so that several services on one machine do not meet.
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    # Proxies in front of us, as addresses or networks with commas: only what they say of where a
    # request comes from (X-Forwarded-For, -Proto) is believed. None: the connection itself counts.
    trusted_proxies: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    database_url: str = Field(
        default="postgresql+asyncpg://jangkau@127.0.0.1:5432/jangkau_{service}",
        validation_alias=AliasChoices(f"{PREFIX}DATABASE_URL", "DATABASE_URL", "database_url"),
        description="with {service} where the service's name goes",
    )
    database_password: Annotated[SecretStr | None, Ours(outside_development_only=True)] = None
    # A transaction waits so long for a row that another holds, then ends and is tried again. Longer
    # than ours hold one (a burst of 500 events: a second or two), shorter than what all others of
    # a partition may wait for one record.
    lock_timeout_seconds: float = Field(default=LOCK_TIMEOUT_S, gt=0, lt=COMMAND_TIMEOUT_S)
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
    batch_size: int = Field(default=500, ge=1)
    # This many records in a row that cannot be handled mean that we are broken, not the records.
    max_parked_in_a_row: int = Field(default=20, ge=1)
    # A batch that fails for a passing reason is tried so often before it is taken apart. Two
    # transactions that met, or a database that was restarted, are over by then; with the time for
    # a lock, the others of a partition wait for one locked row for 20 s at most.
    tries_together: int = Field(default=3, ge=1)

    districts: str = "districts"
    # A loop that has not turned for so long is stuck.
    stalled_after_seconds: float = Field(default=30, gt=0)
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

    @model_validator(mode="after")
    def metrics_have_a_port_of_their_own(self) -> Self:
        """Refuse to show the metrics to whom the service answers."""
        if self.port and self.port_of_metrics == self.port:
            raise ValueError("JANGKAU_METRICS_PORT must not be JANGKAU_PORT: that one is public")
        if self.port_of_metrics > 65_535:
            raise ValueError("JANGKAU_METRICS_PORT must be set where JANGKAU_PORT is above 64535")
        return self

    @property
    def port_of_metrics(self) -> int:
        """The port of ``/metrics``; 0 takes any that is free."""
        if self.metrics_port is not None:
            return self.metrics_port
        return self.port + 1000 if self.port else 0

    @property
    def proxies(self) -> list[str]:
        """The trusted proxies, one by one."""
        return [part.strip() for part in self.trusted_proxies.split(",") if part.strip()]

    @model_validator(mode="before")
    @classmethod
    def blanks_around_a_value_are_no_part_of_it(cls, values: Any) -> Any:
        """A blank or line end that came along with a value must not be compared or sent."""
        if not isinstance(values, dict):
            return values
        return {name: _stripped(value) for name, value in values.items()}

    @model_validator(mode="after")
    def development_is_meant(self) -> Self:
        """Refuse a forgotten environment where others reach us: outside a container, which listens
        on all of its own addresses, one has to say ``development`` for that."""
        unsaid = "environment" not in self.model_fields_set
        if unsaid and not is_loopback(self.host):
            raise ValueError(refusal(f"JANGKAU_HOST is {self.host}, which others reach"))
        return self

    @model_validator(mode="after")
    def secrets_protect_something(self) -> Self:
        """Refuse a secret that is empty, can be guessed, or that everybody knows: all of them pass
        here, those of each service too."""
        for name, about in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                kind = next((m for m in about.metadata if isinstance(m, Ours)), None)
                self._check_secret(f"{PREFIX}{name.upper()}", value.get_secret_value(), kind)
        if self.environment != "development" and self.database_password is None:
            self._check_password_in_url()
        return self

    def _check_password_in_url(self) -> None:
        try:
            password = make_url(self.database_url).password
        except ArgumentError:
            raise ValueError(f"{PREFIX}DATABASE_URL is no address of a database") from None
        if password is not None:
            kind = Ours(outside_development_only=True)
            self._check_secret(f"the password in {PREFIX}DATABASE_URL", str(password), kind)

    def _check_secret(self, name: str, secret: str, kind: Ours | None) -> None:
        development = self.environment == "development"
        if not secret:
            raise ValueError(f"{name} is set to nothing; give it a value or leave it out")
        if not development and DEVELOPMENT_SECRET_MARK in secret:
            raise ValueError(
                f"{name} still has its development default; "
                f"set it before running in {self.environment}"
            )
        if any(not (c.isprintable() or c == "\t") for c in secret):
            raise ValueError(f"{name} has line ends or other characters that cannot be seen")
        if kind is None or (kind.outside_development_only and development):
            return
        each = secret_rules.parts(secret) if kind.several else [secret]
        if not each:
            raise ValueError(f"{name} holds no key; give it one or leave it out")
        for one in each:
            why = secret_rules.weakness(one)
            if why is None and kind.shown:
                why = secret_rules.unfit_for_a_header(one)
            if why is not None:
                raise ValueError(f"{name}{' holds one that' if kind.several else ''} {why}")

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
    agency_token: Annotated[SecretStr | None, Ours(shown=True)] = None


class PublicSettings(Settings):
    """What a service needs that tells people where they reach it."""

    # Where people reach us; links begin with it.
    public_url: str = "http://127.0.0.1:8000"
    # In which environments it may be nothing.
    _may_be_nothing_in: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def links_lead_here(self) -> Self:
        """In production links lead to our https address, in development to this machine alone: the
        Host header of a stranger decides neither."""
        nothing_will_do = self.environment in self._may_be_nothing_in
        if not self.public_url and nothing_will_do:
            return self
        if self.environment == "development":
            if is_public(self.public_url):
                raise ValueError(refusal(f"JANGKAU_PUBLIC_URL is {self.public_url!r}"))
            return self
        host = host_of(self.public_url)
        if not self.public_url.startswith("https://") or not host or is_loopback(host):
            raise ValueError(
                "JANGKAU_PUBLIC_URL: people follow links that begin with it; set the https address "
                "under which they reach this service"
                + (", or set it to nothing for messages without a link" if nothing_will_do else "")
            )
        if set("@?#") & set(self.public_url):
            raise ValueError("JANGKAU_PUBLIC_URL: an address without a name, '?' or '#' in it")
        return self


class LinkSettings(PublicSettings):
    """What a service needs that gives people signed links to its pages."""

    # Sign those links: comma separated, the newest first. A new one goes in front; the old one may
    # go when the links that it signed have become too old.
    link_keys: Annotated[SecretStr, Ours(several=True)] = SecretStr("development-only-link-key")

    @property
    def links(self) -> Links:
        """Signs and reads the links to pages."""
        return Links(secret_rules.parts(self.link_keys.get_secret_value()))


def _stripped(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return SecretStr(value.get_secret_value().strip())
    return value.strip() if isinstance(value, str) else value
