"""Which header fields go on to a service and back to a client, and which are made here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Header = tuple[bytes, bytes]

SECRET: Final = b"x-gateway-secret"

# RFC 9110 section 7.6.1, and those of its predecessors that are still sent.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What only the gateway may say to a service, and what it has settled with the client itself.
_MADE_HERE: Final = frozenset(
    {
        SECRET,
        b"expect",
        b"forwarded",
        b"host",
        b"traceparent",
        b"x-correlation-id",
        b"x-real-ip",
        b"x-request-id",
    }
)
# Date is the server's own; that of the service would stand beside it.
_NOT_BACK: Final = frozenset({SECRET, b"date"})


@dataclass(frozen=True, slots=True)
class Edge:
    """What the gateway knows of a request and its client, beyond what the client claims."""

    client: str | None
    scheme: str
    host: str | None
    correlation_id: str
    traceparent: str | None
    secret: str | None = None

    def headers(self) -> list[Header]:
        """Return the fields that tell a service so."""
        told = {
            "x-forwarded-for": self.client,
            "x-forwarded-proto": self.scheme,
            "x-forwarded-host": self.host,
            "x-request-id": self.correlation_id,
            "x-correlation-id": self.correlation_id,
            "traceparent": self.traceparent,
            "x-gateway-secret": self.secret,
            "via": "1.1 gateway",
        }
        return [(name.encode(), value.encode("latin-1")) for name, value in told.items() if value]


def to_service(headers: Iterable[Header], edge: Edge) -> list[Header]:
    """Return a client's fields as a service may see them, with the gateway's own."""
    kept = [
        (name, value)
        for name, value in _end_to_end(headers)
        if name not in _MADE_HERE and not name.startswith(b"x-forwarded-")
    ]
    return kept + edge.headers()


def to_client(headers: Iterable[Header]) -> list[Header]:
    """Return a service's fields as a client may see them."""
    return [(name, value) for name, value in _end_to_end(headers) if name not in _NOT_BACK]


def _end_to_end(headers: Iterable[Header]) -> list[Header]:
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP | {
        option.strip().lower()
        for name, value in lowered
        if name == b"connection"
        for option in value.split(b",")
    }
    if any(name == b"transfer-encoding" for name, _ in lowered):
        # It overrides a length (RFC 9112 section 6.3), and two framings invite smuggling.
        dropped |= {b"content-length"}
    return [(name, value) for name, value in lowered if name not in dropped]
