"""How a process knows that it is used for real, whatever it was told about its environment.

In development the keys are public, the volunteers open and the messages end on a page. A setting
that was forgotten must not put that in front of people in need: what only an installation in real
use has is not taken together with development.
"""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str | None) -> bool:
    """Whether only this machine is meant: ``localhost``, 127.0.0.0/8 or ``::1``."""
    name = (host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_nearby(host: str | None) -> bool:
    """Whether this machine or a container beside us is meant: a name without a dot is in no DNS."""
    name = host or ""
    return is_loopback(name) or (name != "" and "." not in name and ":" not in name)


def is_public(url: str) -> bool:
    """Whether people are given this address: whatever is not plainly this machine's own."""
    return not url.lower().startswith("http://") or not is_loopback(host_of(url))


def host_of(url: str) -> str | None:
    """The host of a URL; None for what is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def refusal(sign: str) -> str:
    """The sentence for a sign of real use in development."""
    return (
        f"{sign}, and JANGKAU_ENVIRONMENT is not production: a service for real people must not "
        "run with the development key and the sandbox. Set JANGKAU_ENVIRONMENT=production; what "
        "else it then needs is said at the start"
    )
