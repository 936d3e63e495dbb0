"""The network that a request comes from."""

import hmac
from collections.abc import Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from fastapi import Request
from pydantic import SecretStr

from chassis.settings import values_of
from users_service.application.ports import Network

# A client with one IPv6 address usually has the whole /64 around it (RFC 6177).
_IPV6_PREFIX: Final = 64


def client_network(
    gateway_secret: SecretStr, shared: Sequence[IPv4Network | IPv6Network] = ()
) -> Callable[[Request], Network]:
    """Return a dependency that gives the client's IPv4 address or IPv6 network.

    ``X-Forwarded-For`` counts only beside the right ``X-Gateway-Secret``; else the peer's address
    counts.

    :param gateway_secret: either of its values is right
    :param shared: networks with addresses that many people share
    """
    expected = values_of(gateway_secret)

    def network(request: Request) -> Network:
        peer = request.client.host if request.client else "unknown"
        secret = request.headers.get("x-gateway-secret", "").encode("latin-1")
        if not any(hmac.compare_digest(secret, each) for each in expected):
            return _network_of(peer, shared)
        return _network_of(request.headers.get("x-forwarded-for", peer), shared)

    return network


def _network_of(text: str, shared: Sequence[IPv4Network | IPv6Network]) -> Network:
    try:
        address: IPv4Address | IPv6Address = ip_address(text.strip())
    except ValueError:
        return Network("unknown")
    # A dual-stack socket shows IPv4 clients like this; their /64 would hold all of them.
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    is_shared = any(address in network for network in shared)
    if isinstance(address, IPv4Address):
        return Network(str(address), is_shared)
    return Network(str(ip_network((address, _IPV6_PREFIX), strict=False)), is_shared)
