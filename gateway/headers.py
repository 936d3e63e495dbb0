"""Which header fields are forwarded to a service and to a client, and which the gateway sets."""

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
# Fields that only the gateway may set, or that it has handled itself.
_SET_BY_GATEWAY: Final = frozenset(
    {
        SECRET,
        b"expect",
        b"forwarded",
        b"host",
        b"baggage",
        b"traceparent",
        b"tracestate",
        b"x-client-correlation-id",
        b"x-correlation-id",
        b"x-real-ip",
        b"x-request-id",
    }
)
# The server adds its own Date; the service's would be a second one.
_NOT_FOR_CLIENTS: Final = frozenset({SECRET, b"date"})


@dataclass(frozen=True, slots=True)
class Edge:
    """What the gateway itself knows about a request and its client."""

    client: str | None
    scheme: str
    host: str | None
    correlation_id: str
    client_correlation_id: str | None
    traceparent: str | None
    secret: str | None = None

    def headers(self) -> list[Header]:
        """Return it as header fields for a service."""
        fields = {
            "x-forwarded-for": self.client,
            "x-forwarded-proto": self.scheme,
            "x-forwarded-host": self.host,
            "x-request-id": self.correlation_id,
            "x-correlation-id": self.correlation_id,
            "x-client-correlation-id": self.client_correlation_id,
            "traceparent": self.traceparent,
            "x-gateway-secret": self.secret,
            "via": "1.1 gateway",
        }
        return [(name.encode(), value.encode("latin-1")) for name, value in fields.items() if value]


def to_service(headers: Iterable[Header], edge: Edge) -> list[Header]:
    """Return the client's fields that a service may see, and the gateway's own."""
    kept = [
        (name, value)
        for name, value in _end_to_end(headers)
        if name not in _SET_BY_GATEWAY and not name.startswith(b"x-forwarded-")
    ]
    return kept + edge.headers()


def to_client(headers: Iterable[Header]) -> list[Header]:
    """Return the service's fields that a client may see."""
    return [(name, value) for name, value in _end_to_end(headers) if name not in _NOT_FOR_CLIENTS]


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
