"""Where a request comes from, as far as it can be believed."""

import hmac
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from fastapi import Request
from pydantic import SecretStr

# Whoever has one IPv6 address has the whole /64 around it (RFC 6177).
_IPV6_PREFIX: Final = 64


def client_network(gateway_secret: SecretStr) -> Callable[[Request], str]:
    """Return a dependency that gives the client's IPv4 address or IPv6 network.

    ``X-Forwarded-For`` is believed if ``X-Gateway-Secret`` comes with it; else the peer is asked.
    """
    expected = gateway_secret.get_secret_value().encode()

    def network(request: Request) -> str:
        peer = request.client.host if request.client else "unknown"
        secret = request.headers.get("x-gateway-secret", "").encode("latin-1")
        if not hmac.compare_digest(secret, expected):
            return _network_of(peer)
        return _network_of(request.headers.get("x-forwarded-for", peer))

    return network


def _network_of(text: str) -> str:
    try:
        address: IPv4Address | IPv6Address = ip_address(text.strip())
    except ValueError:
        return "unknown"
    if isinstance(address, IPv4Address):
        return str(address)
    # A socket that takes both kinds shows IPv4 clients so; one network would hold them all.
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, _IPV6_PREFIX), strict=False))
