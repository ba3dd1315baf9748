"""E-mail over SMTP (RFC 5321)."""

import asyncio
from email.message import EmailMessage
from email.utils import make_msgid

import aiosmtplib

from services.notification.channels import (
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.settings import NotificationSettings


class Email:
    """A channel that hands messages to one SMTP server, one connection a message."""

    name = "email"
    supports_idempotency = False

    def __init__(self, settings: NotificationSettings) -> None:
        self.settings = settings

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Reaches whoever has an e-mail address."""
        return email

    async def send(self, message: Outgoing) -> str:
        """Hand the message to the server; its acceptance after DATA is what counts."""
        try:
            mail = self._mail(message)
        except ValueError as error:
            raise PermanentFailure(f"this cannot be written as a mail: {error}") from error
        client = aiosmtplib.SMTP(
            hostname=self.settings.smtp_host,
            port=self.settings.smtp_port,
            start_tls=self.settings.smtp_starttls,
            timeout=self.settings.provider_timeout_seconds,
        )
        try:
            await self._connect(client)
            return await self._hand_over(client, mail)
        finally:
            client.close()

    async def _connect(self, client: aiosmtplib.SMTP) -> None:
        """Reach the server. Gives up before the call as a whole does: nothing was taken yet."""
        try:
            async with asyncio.timeout(self.settings.provider_timeout_seconds / 3):
                await client.connect()
                if self.settings.smtp_username and self.settings.smtp_password:
                    await client.login(
                        self.settings.smtp_username,
                        self.settings.smtp_password.get_secret_value(),
                    )
        except (aiosmtplib.SMTPException, OSError) as error:
            raise TransientFailure(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Nothing is kept open between messages."""

    def _mail(self, message: Outgoing) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self.settings.smtp_from
        mail["To"] = message.address
        mail["Subject"] = message.subject
        # The same message keeps its id, so that a mailbox can fold what came twice.
        mail["Message-ID"] = make_msgid(idstring=str(message.idempotency_key), domain="jangkau")
        mail.set_content(message.long_text)
        return mail

    async def _hand_over(self, client: aiosmtplib.SMTP, mail: EmailMessage) -> str:
        try:
            _, answer = await client.send_message(mail)
        except aiosmtplib.SMTPResponseException as error:
            raise _by_code(error.code, error.message) from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusal = error.recipients[0]
            raise _by_code(refusal.code, refusal.message) from error
        except (ValueError, aiosmtplib.SMTPNotSupported) as error:
            # Nothing has been sent yet: the address cannot be said in SMTP, or not to this server.
            raise PermanentFailure(f"{type(error).__name__}: {error}") from error
        except (aiosmtplib.SMTPException, OSError, asyncio.IncompleteReadError) as error:
            # The connection broke or fell silent somewhere between MAIL and the answer to DATA.
            raise UnknownOutcome(f"{type(error).__name__}: {error}") from error
        return answer


def _by_code(code: int, message: str) -> Exception:
    """RFC 5321, 4.2.1: 4yz asks to try again, 5yz is final."""
    if 400 <= code < 500:
        return TransientFailure(f"{code} {message}")
    return PermanentFailure(f"{code} {message}")
