"""What notification is told from outside: which channels, and how to reach their providers."""

from typing import Self

from pydantic import SecretStr, model_validator

from shared.settings import Settings

KNOWN_CHANNELS = ("sandbox", "sms", "email")


class NotificationSettings(Settings):
    """Notification's own settings."""

    # In the order in which they are tried. The sandbox stores messages and shows them on a page.
    channels: str = "sandbox"
    # How long one call to a provider may take; after that nobody knows what became of it.
    provider_timeout_seconds: float = 15
    # When an attempt that nobody has finished is given up as unknown: well past the time-out.
    lease_seconds: float = 60
    # How many messages one channel sends at once.
    concurrency: int = 50

    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_starttls: bool = False
    smtp_from: str = "Jangkau <jangkau@localhost>"

    # A generic HTTP gateway. {to}, {text} and {id} stand for the number, the text and our id.
    sms_url: str = ""
    sms_method: str = "POST"
    sms_body: str = '{"to": "{to}", "text": "{text}", "id": "{id}"}'
    sms_content_type: str = "application/json"
    sms_authorization: SecretStr | None = None
    # The gateway knows our id again and sends nothing twice for it.
    sms_idempotent: bool = False

    @property
    def channel_names(self) -> list[str]:
        """The channels in order."""
        return [name.strip() for name in self.channels.split(",") if name.strip()]

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
        if self.environment != "development" and "sandbox" in names:
            raise ValueError("JANGKAU_CHANNELS: the sandbox reaches nobody; leave it out here")
        if "sms" in names and not self.sms_url:
            raise ValueError("JANGKAU_SMS_URL is needed for the channel sms")
        if self.provider_timeout_seconds >= self.stalled_after_seconds:
            raise ValueError(
                "JANGKAU_PROVIDER_TIMEOUT_SECONDS must be less than JANGKAU_STALLED_AFTER_SECONDS"
            )
        if self.environment != "development" and self.smtp_username and not self.smtp_starttls:
            raise ValueError("JANGKAU_SMTP_STARTTLS: a password must not go over the wire in clear")
        if self.lease_seconds <= self.provider_timeout_seconds:
            raise ValueError("JANGKAU_LEASE_SECONDS must exceed JANGKAU_PROVIDER_TIMEOUT_SECONDS")
        return self
