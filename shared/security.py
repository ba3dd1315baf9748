"""Links that carry their own permission: whoever holds one may do what it is for, for a while."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from itsdangerous import BadData, URLSafeTimedSerializer

from shared.secret_rules import weakness


class BadLink(Exception):
    """A link that opens nothing, with a sentence; ``too_old``: it was once a good one."""

    def __init__(self, message: str, *, too_old: bool = False) -> None:
        super().__init__(message)
        self.too_old = too_old


class Links:
    """Signs and reads the tokens in links.

    The newest of ``keys`` comes first: it signs, and all of them verify, so that a key can be
    replaced while links that it signed are still on their way.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ValueError if there is no key, or one that can be guessed."""
        weak = next((why for key in keys if (why := weakness(key))), None)
        if weak is not None or not keys:
            raise ValueError(f"link keys: one {weak}" if keys else "link keys: there is none")
        # itsdangerous wants the newest one last.
        self._keys = [key.encode() for key in reversed(keys)]

    def token(self, purpose: str, value: str) -> str:
        """A token for a link; ``purpose`` keeps it from opening anything else."""
        token = self._serializer(purpose).dumps(value)
        return token.decode() if isinstance(token, bytes) else token

    def value(self, purpose: str, token: str, max_age: timedelta) -> str:
        """What :meth:`token` was given.

        Raises:
            BadLink: it is forged, damaged, for another purpose, or older than ``max_age``.
        """
        try:
            value, signed_at = self._serializer(purpose).loads(token, return_timestamp=True)
        except (BadData, ValueError):
            raise BadLink("This link is not one of ours, or a part of it is missing.") from None
        # Here and not in itsdangerous, which refuses a link from a host whose clock runs ahead.
        if datetime.now(UTC) - signed_at > max_age:
            raise BadLink("This link is too old.", too_old=True)
        return str(value)

    def short(self, purpose: str, value: bytes) -> str:
        """Eleven characters that only we can make for ``value``: for links in an SMS.

        64 bits of HMAC-SHA256. There is no time in it: how long it opens anything is for its reader
        to say, who knows what it is for.
        """
        return self._short(self._keys[-1], purpose, value)

    def is_short(self, purpose: str, value: bytes, signature: str) -> bool:
        """Whether a short signature is one of ours for this value."""
        return any(
            hmac.compare_digest(self._short(key, purpose, value), signature)
            for key in self._keys
            if signature.isascii()
        )

    def _short(self, key: bytes, purpose: str, value: bytes) -> str:
        message = f"jangkau.short.{purpose}:".encode() + value
        digest = hmac.new(key, message, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:8]).decode().rstrip("=")

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(
            self._keys,
            salt=f"jangkau.{purpose}",
            # itsdangerous takes SHA-1 if it is not told otherwise.
            signer_kwargs={"digest_method": hashlib.sha256},
        )
