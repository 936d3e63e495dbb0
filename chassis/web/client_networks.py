"""The network that a client's address belongs to: what its share and its bounds are counted by."""

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Final

UNKNOWN: Final = "unknown"
# A client with one IPv6 address usually has the whole /64 around it (RFC 6177).
_IPV6_PREFIX: Final = 64


def network_of(address: str | None) -> str:
    """Return the IPv4 address, the IPv6 network of 64 bits, or ``UNKNOWN`` for anything else."""
    try:
        parsed = ip_address((address or "").strip())
    except ValueError:
        return UNKNOWN
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    # A dual-stack socket shows IPv4 clients like this; their /64 would hold all of them.
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
