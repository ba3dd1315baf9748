"""E-mail over SMTP (RFC 5321)."""

import asyncio
import re
import ssl
from datetime import datetime
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, parseaddr

import aiosmtplib

from services.notification.channels import (
    Kind,
    Outgoing,
    PermanentFailure,
    TransientFailure,
    UnknownOutcome,
)
from services.notification.settings import NotificationSettings

# Every server takes seven bits. An address that is not ASCII needs one that says SMTPUTF8.
_ASCII = policy.SMTP.clone(cte_type="7bit")
_UTF8 = policy.SMTPUTF8
_UTF8_OPTIONS = ["SMTPUTF8", "BODY=8BITMIME"]
# What can be said on a command line of SMTP without quotes; nobody has a mailbox that needs them.
_ADDRESS = re.compile(r'[^\s<>()\[\]\\"@,;:]+@[^\s<>()\[\]\\"@,;:]+')


class Email:
    """A channel that hands messages to one SMTP server, many over one connection."""

    name = "email"
    kind: Kind = "email"
    supports_idempotency = False
    supports_lookup = False
    lookup_after_s = 0.0
    supports_receipts = False
    cost_per_segment = 0.0

    def __init__(self, settings: NotificationSettings) -> None:
        self.settings = settings
        self.rate_per_second = settings.smtp_rate_per_second
        self.concurrency = settings.smtp_connections
        self._sender = parseaddr(settings.smtp_from)[1]
        self._replies = settings.reply_addresses
        self._our_name: str | None = None
        self._room = asyncio.Semaphore(settings.smtp_connections)
        # Open connections that nobody uses, and since when; the newest is last.
        self._idle: list[tuple[aiosmtplib.SMTP, float]] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._tls = (
            ssl.create_default_context(cafile=settings.smtp_ca_file)
            if settings.smtp_security != "none"
            else None
        )

    def address_of(self, *, phone: str | None, email: str | None) -> str | None:
        """Reaches whoever has an e-mail address."""
        return email

    async def send(self, message: Outgoing) -> str:
        """Hand the message to the server; its acceptance after DATA is what counts."""
        try:
            content = self._written(message)
        except (ValueError, IndexError) as error:
            raise PermanentFailure(f"this cannot be written as a mail: {error}") from error
        try:
            async with asyncio.timeout(self.settings.provider_timeout_seconds / 4):
                await self._room.acquire()
        except TimeoutError:
            raise TransientFailure("all connections to the server are busy") from None
        try:
            return await self._hand_over(message.address, content)
        finally:
            self._room.release()

    async def lookup(self, message: Outgoing, *, since: datetime) -> str | None:
        """No server can be asked."""
        raise TransientFailure("SMTP knows no list of what was taken")

    def _written(self, message: Outgoing) -> bytes:
        """The message as it goes over the wire. Raises ValueError if it cannot."""
        if not _ADDRESS.fullmatch(message.address):
            raise ValueError("this is no address")
        mail = EmailMessage(policy=_ASCII if message.address.isascii() else _UTF8)
        mail["From"] = self.settings.smtp_from
        mail["To"] = message.address
        if self._replies is not None:
            mail["Reply-To"] = self._replies.of(message.idempotency_key, message.address)
        elif self.settings.smtp_reply_to:
            mail["Reply-To"] = self.settings.smtp_reply_to
        mail["Subject"] = message.subject
        mail["Date"] = formatdate(usegmt=True)
        # The same at every attempt, so that a mailbox can fold what came twice.
        domain = self._sender.rpartition("@")[2]
        mail["Message-ID"] = f"<{message.idempotency_key}@{domain}>"
        # Nobody's holiday answers this (RFC 3834).
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.long_text)
        return mail.as_bytes()

    async def _hand_over(self, recipient: str, content: bytes) -> str:
        """Until DATA nothing is taken: whatever fails before it can be tried again."""
        limit_s = self.settings.provider_timeout_seconds
        server: aiosmtplib.SMTP | None = None
        clean = False  # the server waits for the next mail
        try:
            try:
                # Gives up before the call as a whole does.
                async with asyncio.timeout(limit_s / 2):
                    server = await self._begun(recipient)
                    await server.rcpt(recipient, encoding=_encoding(recipient))
            except aiosmtplib.SMTPRecipientRefused as error:
                clean = server is not None and await self._reset(server)
                raise _by_code(error.code, error.message) from error
            except (aiosmtplib.SMTPException, OSError) as error:
                raise TransientFailure(f"{type(error).__name__}: {error}") from error
            try:
                answer = await server.data(content, timeout=limit_s)
            except aiosmtplib.SMTPResponseException as error:
                clean = server.is_connected
                raise _by_code(error.code, error.message) from error
            except (aiosmtplib.SMTPException, OSError) as error:
                # It broke or fell silent before the answer to the mail.
                raise UnknownOutcome(f"{type(error).__name__}: {error}") from error
            clean = True
            return answer.message
        finally:
            if server is not None:
                self._keep(server) if clean else server.close()

    async def _begun(self, recipient: str) -> aiosmtplib.SMTP:
        """A connection on which the server has taken MAIL: one that is open, or a new one.

        Refusing us as the sender is about us, not about the person: to be mended, as a password.
        """
        while self._idle:
            server, _ = self._idle.pop()
            if not server.is_connected:
                server.close()
                continue
            try:
                return await self._begin(server, recipient)
            except aiosmtplib.SMTPServerDisconnected:
                pass  # closed by the server while nobody used it
            except aiosmtplib.SMTPSenderRefused as error:
                if error.code != 421:  # the polite form of the same
                    raise
        return await self._begin(await self._connected(), recipient)

    async def _begin(self, server: aiosmtplib.SMTP, recipient: str) -> aiosmtplib.SMTP:
        try:
            options = []
            if not recipient.isascii():
                if server.last_ehlo_response is None:
                    await server.ehlo()
                if not server.supports_extension("smtputf8"):
                    raise PermanentFailure("the server takes no address that is not ASCII")
                options = _UTF8_OPTIONS
            await server.mail(self._sender, options=options, encoding=_encoding(recipient))
        except BaseException:
            server.close()
            raise
        return server

    async def _connected(self) -> aiosmtplib.SMTP:
        settings = self.settings
        password = settings.smtp_password
        server = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            tls_context=self._tls,
            username=settings.smtp_username or None,
            password=password.get_secret_value() if password is not None else None,
            local_hostname=self._our_name,
            timeout=settings.provider_timeout_seconds,
        )
        await server.connect()
        self._our_name = server.local_hostname  # asked of the name server once
        return server

    async def _reset(self, server: aiosmtplib.SMTP) -> bool:
        """Whether the server has forgotten the mail that has begun."""
        try:
            async with asyncio.timeout(self.settings.provider_timeout_seconds / 4):
                await server.rset()
        except (aiosmtplib.SMTPException, OSError):
            return False
        return True

    def _keep(self, server: aiosmtplib.SMTP) -> None:
        """Keep a connection for the next mail, for a while."""
        loop = asyncio.get_running_loop()
        self._idle.append((server, loop.time()))
        if self._sweep is None:
            self._sweep = loop.call_later(self.settings.smtp_idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() - self.settings.smtp_idle_seconds
        for server, left_at in self._idle:
            if left_at <= since:
                server.close()
        self._idle = [kept for kept in self._idle if kept[1] > since]
        self._sweep = None
        if self._idle:
            self._sweep = loop.call_at(
                self._idle[0][1] + self.settings.smtp_idle_seconds, self._close_idle
            )

    async def close(self) -> None:
        """Take leave of the server on every open connection."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            server, _ = self._idle.pop()
            try:
                await server.quit(timeout=1)
            except (aiosmtplib.SMTPException, OSError):
                pass
            finally:
                server.close()


def _encoding(recipient: str) -> str:
    return "ascii" if recipient.isascii() else "utf-8"


def _by_code(code: int, message: str) -> Exception:
    """RFC 5321, 4.2.1: 4yz asks to try again, 5yz is final."""
    if 400 <= code < 500:
        return TransientFailure(f"{code} {message}")
    return PermanentFailure(f"{code} {message}")
