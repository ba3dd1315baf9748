"""What notification is told from outside: which channels, and how to reach their providers."""

import json
import re
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from services.notification.channels.rules import Rule
from services.notification.proof import BASE_AT_MOST, Proof, ReplyAddresses
from shared.real_use import host_of, is_loopback, is_nearby, refusal
from shared.secret_rules import Ours
from shared.settings import LinkSettings

KNOWN_CHANNELS = ("sandbox", "sms", "email", "twilio", "apprise")
# So that an offer with a link stays one SMS segment (texts.py).
LONGEST_ADDRESS = 40


class NotificationSettings(LinkSettings):
    """Notification's own settings.

    Rates are a provider's, in messages a second; costs are in the installation's currency, 0 where
    nothing is paid and no budget counts; concurrency is how many calls are under way at once.
    """

    # Messages without a link can be answered all the same.
    _may_be_nothing_in: ClassVar[tuple[str, ...]] = ("development", "production")

    # In the order in which they are tried. The sandbox stores messages and shows them on a page.
    channels: str = "sandbox"
    # How long one call to a provider may take; after that nobody knows what became of it.
    provider_timeout_seconds: float = Field(default=15, gt=0)
    # When an attempt that nobody has finished is given up as unknown: well past the time-out.
    lease_seconds: float = 60
    # How many messages a channel sends at once that does not say otherwise.
    concurrency: int = Field(default=50, ge=1)

    # How long a receipt is waited for before the next channel is tried, where a provider gives any:
    # telephones that are on answer within seconds.
    receipt_seconds: float = Field(default=120, gt=0)
    # For how long the link to an offer opens its page. Nothing of it can be done once it is over.
    respond_link_days: float = Field(default=30, gt=0)
    # A folder whose files take the place of ours in templates/, by name.
    texts: Path | None = None

    # For how long what came in is kept as it was written, and what providers told of messages:
    # a season, to answer a complaint.
    keep_days: float = Field(default=90, gt=0)

    # Who writes without being known here belongs to this district (its code); unsaid: to the first
    # one by its code.
    strangers_district: str | None = None
    # Of what reporters and strangers write, officers get so many texts an hour: of one sender, and
    # of a district in all. An officer reads thirty; what is more is kept, and counted to them.
    forwarded_each_hour: int = Field(default=5, ge=0)
    forwarded_each_hour_in_all: int = Field(default=30, ge=0)

    sandbox_cost_per_segment: float = Field(default=0, ge=0)

    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25
    # Nothing; STARTTLS on a plain port (587); or TLS from the first byte (465).
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    smtp_starttls: bool | None = Field(default=None, description="now JANGKAU_SMTP_SECURITY")
    # Who signed the server's certificate, if no public authority did.
    smtp_ca_file: str | None = None
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_from: str = "Jangkau <jangkau@localhost>"
    smtp_reply_to: str | None = None
    # Each sends one mail after another.
    smtp_connections: int = Field(default=4, ge=1)
    # Most servers close a connection that is idle for five minutes; we do it before them.
    smtp_idle_seconds: float = Field(default=60, gt=0)
    smtp_rate_per_second: float | None = Field(default=None, gt=0)
    # Answer addresses that are signed for one message and one person (jangkau+…@example.org): a
    # mail to one is from who got it. The server has to deliver what has something behind a +.
    smtp_signed_replies: bool = False
    # How the mail server that takes mails in calls itself in Authentication-Results (authserv-id),
    # several by commas: a mail that it found to be from whom it says counts as an answer.
    inbound_email_authserv_id: str = ""
    # Whoever hands us mails that came in (docs/how-to/receive.md) shows this secret.
    inbound_email_secret: Annotated[SecretStr | None, Ours(shown=True)] = None

    # A generic HTTP gateway. In the URL, the body and the headers {to} stands for the number as
    # +62812…, {digits} for 62812…, {local} for 0812…, {text} for the text, {id} for our id, and
    # {user} and {secret} for the two settings below.
    sms_url: str = ""
    sms_method: Literal["GET", "POST", "PUT"] = "POST"
    sms_body: str = '{"to": "{to}", "text": "{text}", "id": "{id}"}'
    sms_content_type: str = "application/json"
    sms_headers: dict[str, str] = Field(default_factory=dict)
    sms_authorization: SecretStr | None = None
    sms_user: str = ""
    sms_secret: SecretStr | None = None
    # Many gateways in the country are reached without TLS: that has to be said.
    sms_allow_http: bool = False
    # What its answer means (channels/rules.py). Without a rule for success it is any 2xx; with one,
    # an answer that matches none of the three leaves the outcome unknown.
    sms_success: str = ""
    sms_message_id: str = ""
    sms_transient: str = ""
    sms_permanent: str = ""
    # The gateway knows our id again and sends nothing twice for it.
    sms_idempotent: bool = False
    # Answers 200 for an id it has taken and 404 for one it has not.
    sms_lookup_url: str = ""
    sms_rate_per_second: float | None = Field(default=None, gt=0)
    sms_concurrency: int | None = Field(default=None, ge=1)
    sms_cost_per_segment: float = Field(default=0, ge=0)
    # It calls us back, showing this secret: what became of a message (if sms_receipts), and texts.
    # Fields are paths as in rules: status, data.0.status.
    sms_webhook_secret: Annotated[SecretStr | None, Ours(shown=True)] = None
    sms_receipts: bool = False
    sms_receipt_id_field: str = "message_id"
    sms_receipt_message_field: str = "id"  # our id, if it comes back
    sms_receipt_status_field: str = "status"
    sms_receipt_delivered: str = "delivered"
    sms_receipt_failed: str = "failed,undelivered,rejected,expired"
    sms_inbound_id_field: str = "message_id"
    sms_inbound_from_field: str = "from"
    sms_inbound_text_field: str = "text"

    twilio_url: str = "https://api.twilio.com"
    twilio_account_sid: str = ""
    twilio_auth_token: SecretStr | None = None
    # One of the two: a number or name that sends, or a service that chooses one.
    twilio_from: str = ""
    twilio_messaging_service_sid: str = ""
    # Unsaid: if Twilio can reach us, which it does over https.
    twilio_receipts: bool | None = None
    # Twilio's list of messages lags behind: before that a message is not missed there.
    twilio_lookup_after_seconds: float = Field(default=5, ge=0)
    twilio_rate_per_second: float | None = Field(default=None, gt=0)
    twilio_concurrency: int | None = Field(default=None, ge=1)
    twilio_cost_per_segment: float = Field(default=0, ge=0)

    # A URL of apprise with {phone}, {email} or {address} (whichever there is) where they go.
    apprise_url: SecretStr | None = None
    apprise_rate_per_second: float | None = Field(default=None, gt=0)
    # Each takes a thread.
    apprise_concurrency: int = Field(default=4, ge=1)
    apprise_cost_per_segment: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def links_can_be_opened(self) -> Self:
        """A link must leave an SMS its room."""
        if len(self.public_url) > LONGEST_ADDRESS:
            raise ValueError(
                f"JANGKAU_PUBLIC_URL has {len(self.public_url)} characters; with more than "
                f"{LONGEST_ADDRESS} an SMS has no room for the link and the place"
            )
        return self

    @property
    def channel_names(self) -> list[str]:
        """The channels in order."""
        return [name.strip() for name in self.channels.split(",") if name.strip()]

    @property
    def reply_addresses(self) -> ReplyAddresses | None:
        """Who signs the addresses that mails are answered to; None where nobody does."""
        if not self.smtp_signed_replies:
            return None
        return ReplyAddresses(
            self.links,
            self.smtp_reply_to or self.smtp_from,
            valid_for=timedelta(days=self.respond_link_days),
        )

    @property
    def proof(self) -> Proof:
        """What shows that a mail is from whom it says."""
        names = self.inbound_email_authserv_id.lower().split(",")
        servers = {name.strip() for name in names} - {""}
        return Proof(servers, self.reply_addresses)

    @property
    def twilio_calls_back(self) -> bool:
        """Whether Twilio is asked to tell what became of a message."""
        if self.twilio_receipts is None:
            return self.public_url.startswith("https://")
        return self.twilio_receipts

    @model_validator(mode="after")
    def channels_can_work(self) -> Self:
        """Refuse channels that cannot reach anybody."""
        names = self.channel_names
        unknown = [name for name in names if name not in KNOWN_CHANNELS]
        if unknown or not names:
            raise ValueError(
                f"JANGKAU_CHANNELS names {unknown or 'nothing'}; known are "
                f"{', '.join(KNOWN_CHANNELS)}"
            )
        if len(set(names)) < len(names):
            raise ValueError("JANGKAU_CHANNELS names a channel twice")
        if self.environment != "development" and "sandbox" in names:
            raise ValueError("JANGKAU_CHANNELS: the sandbox reaches nobody; leave it out here")
        if self.provider_timeout_seconds >= self.stalled_after_seconds:
            raise ValueError(
                "JANGKAU_PROVIDER_TIMEOUT_SECONDS must be less than JANGKAU_STALLED_AFTER_SECONDS"
            )
        if self.lease_seconds <= self.provider_timeout_seconds:
            raise ValueError("JANGKAU_LEASE_SECONDS must exceed JANGKAU_PROVIDER_TIMEOUT_SECONDS")
        for name in names:
            getattr(self, f"_{name}_can_work", lambda: None)()
        return self

    @model_validator(mode="after")
    def no_mail_password_in_clear(self) -> Self:
        """Refuse what would send a password, or think itself safe, without TLS."""
        if self.smtp_starttls is not None:
            raise ValueError(
                "JANGKAU_SMTP_STARTTLS has become JANGKAU_SMTP_SECURITY: none, starttls or tls"
            )
        if (
            self.environment != "development"
            and self.smtp_username
            and self.smtp_security == "none"
        ):
            raise ValueError(
                "JANGKAU_SMTP_SECURITY: a password must not go over the wire in clear; "
                "set starttls or tls"
            )
        return self

    @model_validator(mode="after")
    def webhooks_are_kept(self) -> Self:
        """Refuse receipts that could come from a stranger."""
        if self.sms_receipts and self.sms_webhook_secret is None:
            raise ValueError("JANGKAU_SMS_RECEIPTS needs JANGKAU_SMS_WEBHOOK_SECRET")
        return self

    @model_validator(mode="after")
    def nobody_is_reached_from_development(self) -> Self:
        """Refuse a way to real people beside the development key."""
        if self.environment != "development":
            return self
        names = self.channel_names
        ways = (
            ("sms", "JANGKAU_SMS_URL", host_of(self.sms_url)),
            ("twilio", "JANGKAU_TWILIO_URL", host_of(self.twilio_url)),
            ("email", "JANGKAU_SMTP_HOST", self.smtp_host),
        )
        for channel, variable, host in ways:
            if channel in names and host and not is_nearby(host):
                raise ValueError(refusal(f"{variable} leads to {host}"))
        apprise = self.apprise_url.get_secret_value() if self.apprise_url else ""
        if "apprise" in names and not is_loopback(host_of(apprise)):
            raise ValueError(refusal("JANGKAU_APPRISE_URL leads away from this machine"))
        return self

    def _email_can_work(self) -> None:
        proves = self.smtp_signed_replies or self.inbound_email_authserv_id.strip()
        if self.inbound_email_secret and not proves and self.environment != "development":
            raise ValueError(
                "JANGKAU_INBOUND_EMAIL_SECRET: anybody can write in a volunteer's name; set "
                "JANGKAU_INBOUND_EMAIL_AUTHSERV_ID or JANGKAU_SMTP_SIGNED_REPLIES, or no mail is "
                "ever an answer (docs/how-to/receive.md)"
            )
        base = parseaddr(self.smtp_reply_to or self.smtp_from)[1].rpartition("@")[0]
        if self.smtp_signed_replies and len(base) > BASE_AT_MOST:
            raise ValueError(
                f"JANGKAU_SMTP_REPLY_TO has {len(base)} characters before the @; with more than "
                f"{BASE_AT_MOST} there is no room for a signature behind them"
            )
        for name, address in (
            ("SMTP_FROM", self.smtp_from),
            ("SMTP_REPLY_TO", self.smtp_reply_to),
        ):
            if address is not None and not re.search(r"[^@\s<]+@[^@\s>]+>?$", address):
                raise ValueError(f"JANGKAU_{name} is not an address: {address!r}")
        if self.smtp_ca_file is not None:
            try:
                with open(self.smtp_ca_file, "rb"):  # noqa: PTH123 - only whether it can be read
                    pass
            except OSError as error:
                raise ValueError(f"JANGKAU_SMTP_CA_FILE cannot be read: {error}") from None

    def _sms_can_work(self) -> None:
        if not self.sms_url:
            raise ValueError("JANGKAU_SMS_URL is needed for the channel sms")
        _check_url("SMS_URL", self.sms_url)
        request = self.sms_url + (self.sms_body if self.sms_method != "GET" else "")
        if not re.search(r"\{(to|digits|local)\}", request) or "{text}" not in request:
            raise ValueError(
                "JANGKAU_SMS_URL and JANGKAU_SMS_BODY have no place for the number ({to}, {digits} "
                "or {local}) or none for the {text}"
            )
        if "{secret}" in request + "".join(self.sms_headers.values()) and self.sms_secret is None:
            raise ValueError("JANGKAU_SMS_SECRET is needed where {secret} stands")
        if self.sms_method != "GET" and "json" in self.sms_content_type:
            try:
                json.loads(re.sub(r"\{[a-z]+\}", "0", self.sms_body))
            except ValueError as error:
                raise ValueError(f"JANGKAU_SMS_BODY is not JSON: {error}") from None
        if self.environment != "development" and not self.sms_allow_http:
            _check_tls("SMS_URL", self.sms_url, allow=" or set JANGKAU_SMS_ALLOW_HTTP=true")
        if self.sms_lookup_url:
            _check_url("SMS_LOOKUP_URL", self.sms_lookup_url)
            if "{id}" not in self.sms_lookup_url:
                raise ValueError("JANGKAU_SMS_LOOKUP_URL has no place for our {id}")
            if "{id}" not in request:
                raise ValueError("JANGKAU_SMS_LOOKUP_URL: the gateway is never told our {id}")
        for name in ("sms_success", "sms_message_id", "sms_transient", "sms_permanent"):
            try:
                Rule.parse(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"JANGKAU_{name.upper()}: {error}") from None

    def _twilio_can_work(self) -> None:
        if not self.twilio_account_sid or self.twilio_auth_token is None:
            raise ValueError(
                "JANGKAU_TWILIO_ACCOUNT_SID and JANGKAU_TWILIO_AUTH_TOKEN are needed for the "
                "channel twilio"
            )
        if bool(self.twilio_from) == bool(self.twilio_messaging_service_sid):
            raise ValueError(
                "JANGKAU_TWILIO_FROM or JANGKAU_TWILIO_MESSAGING_SERVICE_SID: exactly one of them"
            )
        if not self.public_url:
            raise ValueError(
                "JANGKAU_PUBLIC_URL is needed for the channel twilio: its calls are signed for it"
            )
        _check_url("TWILIO_URL", self.twilio_url)
        if self.environment != "development":
            _check_tls("TWILIO_URL", self.twilio_url)

    def _apprise_can_work(self) -> None:
        # Not above: it needs these settings, and its library takes a while to load.
        from services.notification.channels.apprise import check

        if self.apprise_url is None:
            raise ValueError("JANGKAU_APPRISE_URL is needed for the channel apprise")
        check(self.apprise_url.get_secret_value())


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"JANGKAU_{name} is no address of the web: it begins with https://")


def _check_tls(name: str, url: str, *, allow: str = "") -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise ValueError(
            f"JANGKAU_{name}: numbers, texts and passwords would go over the wire in clear; "
            f"use https{allow}"
        )
