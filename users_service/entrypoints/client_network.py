"""The network that a request comes from."""

import hmac
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from fastapi import Request
from pydantic import SecretStr

from chassis.settings import values_of
from chassis.web.client_networks import UNKNOWN, network_of
from users_service.application.ports import Network


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
        peer = request.client.host if request.client else UNKNOWN
        secret = request.headers.get("x-gateway-secret", "").encode("latin-1")
        if not any(hmac.compare_digest(secret, each) for each in expected):
            return _network_of(peer, shared)
        return _network_of(request.headers.get("x-forwarded-for", peer), shared)

    return network


def _network_of(address: str, shared: Sequence[IPv4Network | IPv6Network]) -> Network:
    name = network_of(address)
    if name == UNKNOWN:
        return Network(name)
    network = ip_network(name)
    return Network(name, any(network.overlaps(each) for each in shared))
