"""Which paths are public, and which service answers each: nothing else can be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote


class Service(StrEnum):
    """A service behind the gateway; the value is its name."""

    USERS = "users"
    ACCOUNTS = "accounts"
    AUDIT = "audit"
    NOTIFICATION = "notification"


@dataclass(frozen=True, slots=True)
class PublicRoute:
    """A method and path template, the same here as at the service that answers it."""

    method: str
    path: str
    service: Service

    def path_for(self, parameters: Mapping[str, Any]) -> str | None:
        """Return the path to ask the service for, or None where the parameters lead out of it.

        It is made from the template, never passed on as it came: whatever a client writes,
        encoded or not, stays within the one segment it was matched for.
        """
        if any(value in {".", ".."} for value in parameters.values()):
            return None
        return self.path.format_map({name: quote(v, safe="") for name, v in parameters.items()})


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
)
