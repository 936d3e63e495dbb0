"""Which paths are public, and which service answers each: nothing else can be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

_OPERATORS: Final = "/ops"


class ServiceName(StrEnum):
    """A service behind the gateway."""

    USERS = "users"
    ACCOUNTS = "accounts"
    AUDIT = "audit"
    NOTIFICATION = "notification"


@dataclass(frozen=True, slots=True)
class PublicRoute:
    """A method and path template, and the service that answers it.

    The service has the same path, except for operators: each service has its own ``/ops``, which is
    ``/ops/users`` and so on here.
    """

    method: str
    path: str
    service: ServiceName

    @property
    def service_path(self) -> str:
        """Return the path template at the service."""
        return self.path.replace(f"{_OPERATORS}/{self.service}/", f"{_OPERATORS}/")

    def path_for(self, parameters: Mapping[str, Any]) -> str | None:
        """Return the path at the service, or None where the parameters would leave it.

        It is made from the template: whatever a client writes, encoded or not, stays within the
        segment that it matched.
        """
        if any(value in {".", ".."} for value in parameters.values()):
            return None
        return self.service_path.format_map(
            {name: quote(v, safe="") for name, v in parameters.items()}
        )


_OPERATIONS: Final = (
    ("GET", "outbox"),
    ("GET", "outbox/{event_id}"),
    ("PUT", "outbox/{event_id}/payload"),
    ("POST", "outbox/{event_id}/release"),
    ("POST", "outbox/{event_id}/discard"),
    ("GET", "parked"),
    ("GET", "parked/count"),
    ("POST", "parked/release"),
    ("GET", "parked/{parked_id}"),
    ("POST", "parked/{parked_id}/dry-run"),
    ("PUT", "parked/{parked_id}/payload"),
    ("POST", "parked/{parked_id}/release"),
    ("POST", "parked/{parked_id}/apply"),
    ("POST", "parked/{parked_id}/discard"),
    ("GET", "progress"),
    ("POST", "progress/pause"),
    ("POST", "progress/resume"),
    ("POST", "progress/restart"),
    ("GET", "sequences"),
)

# The first match answers: a fixed segment stands before a parameter in the same position.
PUBLIC_ROUTES: Final = (
    PublicRoute("POST", "/users", ServiceName.USERS),
    PublicRoute("GET", "/users/me", ServiceName.USERS),
    PublicRoute("GET", "/users/me/tasks", ServiceName.USERS),
    PublicRoute("GET", "/users/{user_id}", ServiceName.USERS),
    PublicRoute("POST", "/auth/token", ServiceName.USERS),
    PublicRoute("GET", "/.well-known/jwks.json", ServiceName.USERS),
    PublicRoute("GET", "/users/{user_id}/account", ServiceName.ACCOUNTS),
    PublicRoute("GET", "/accounts/{account_id}", ServiceName.ACCOUNTS),
    PublicRoute("GET", "/audit/events", ServiceName.AUDIT),
    PublicRoute("GET", "/audit/events/{record_id}", ServiceName.AUDIT),
    PublicRoute("GET", "/notifications/deliveries", ServiceName.NOTIFICATION),
    PublicRoute("POST", "/notifications/deliveries/{delivery_id}/retry", ServiceName.NOTIFICATION),
    *(
        PublicRoute(method, f"{_OPERATORS}/{service}/{rest}", service)
        for service in ServiceName
        for method, rest in _OPERATIONS
    ),
)
