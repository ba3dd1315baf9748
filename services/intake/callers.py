"""Who is at the door: the agency, or a stranger at an address."""

import ipaddress
from dataclasses import dataclass

from fastapi import Request

# Of a connection that has no address (a socket file): all of them are one caller.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Caller:
    """``address`` is where the request comes from; of IPv6 the /64, which is one household's or
    one telephone's: they change the rest of it as they like."""

    address: str
    signed_in: bool = False

    @property
    def limited_by(self) -> str | None:
        """By what this caller's reports are counted; None: they are not.

        A desk of the agency answers for many people, from one address.
        """
        return None if self.signed_in else self.address


def caller_of(request: Request, *, signed_in: bool) -> Caller:
    """The caller of a request; behind a proxy only if it is one of ``trusted_proxies``."""
    return Caller(address_of(request.client.host if request.client else ""), signed_in)


def address_of(host: str) -> str:
    """The address by which a host is counted."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
