"""Which paths are public, and which service answers each: nothing else can be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

_OPERATORS: Final = "/ops"


class Service(StrEnum):
    """A service behind the gateway; the value is its name."""

    USERS = "users"
    ACCOUNTS = "accounts"
    AUDIT = "audit"
    NOTIFICATION = "notification"


@dataclass(frozen=True, slots=True)
class PublicRoute:
    """A method and path template, and the service that answers it.

    The path there is the same, but for the operators': each service has its own ``/ops``, and here
    they are ``/ops/users`` and so on.
    """

    method: str
    path: str
    service: Service

    @property
    def path_there(self) -> str:
        """Return the path template at the service."""
        return self.path.replace(f"{_OPERATORS}/{self.service}/", f"{_OPERATORS}/")

    def path_for(self, parameters: Mapping[str, Any]) -> str | None:
        """Return the path to ask the service for, or None where the parameters lead out of it.

        It is made from the template, never passed on as it came: whatever a client writes,
        encoded or not, stays within the one segment it was matched for.
        """
        if any(value in {".", ".."} for value in parameters.values()):
            return None
        return self.path_there.format_map(
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

# The first that fits answers, so a fixed segment stands above a parameter in its place.
PUBLIC_ROUTES: Final = (
    PublicRoute("POST", "/users", Service.USERS),
    PublicRoute("GET", "/users/me", Service.USERS),
    PublicRoute("GET", "/users/me/tasks", Service.USERS),
    PublicRoute("GET", "/users/{user_id}", Service.USERS),
    PublicRoute("POST", "/auth/token", Service.USERS),
    PublicRoute("GET", "/.well-known/jwks.json", Service.USERS),
    PublicRoute("GET", "/users/{user_id}/account", Service.ACCOUNTS),
    PublicRoute("GET", "/accounts/{account_id}", Service.ACCOUNTS),
    PublicRoute("GET", "/audit/events", Service.AUDIT),
    PublicRoute("GET", "/audit/events/{record_id}", Service.AUDIT),
    PublicRoute("GET", "/notifications/deliveries", Service.NOTIFICATION),
    PublicRoute("POST", "/notifications/deliveries/{delivery_id}/retry", Service.NOTIFICATION),
    *(
        PublicRoute(method, f"{_OPERATORS}/{service}/{rest}", service)
        for service in Service
        for method, rest in _OPERATIONS
    ),
)
