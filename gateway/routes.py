"""Which paths are public or for operators, and which service answers each: there are no others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from services import FORWARDED

_OPERATORS: Final = "/ops"


@dataclass(frozen=True, slots=True)
class ForwardedRoute:
    """A method and path template, and the service that answers it.

    The service has the same path, except for operators: each service has its own ``/ops``, which is
    ``/ops/users`` and so on here.

    :ivar streams: its answer lasts
    """

    method: str
    path: str
    service: str
    streams: bool = False

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
    ("GET", "parked/preview"),
    ("POST", "parked/release"),
    ("POST", "parked/release-all"),
    ("POST", "parked/discard-all"),
    ("POST", "parked/release-record"),
    ("POST", "parked/discard-record"),
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
    ("POST", "progress/park-all"),
    ("POST", "progress/skip-batch"),
    ("POST", "progress/end-hold"),
    ("POST", "progress/tolerate"),
    ("GET", "timers"),
    ("POST", "timers/release-all"),
    ("GET", "timers/{timer_id}"),
    ("POST", "timers/{timer_id}/release"),
    ("POST", "timers/{timer_id}/discard"),
    ("GET", "sequences"),
)

PUBLIC_ROUTES: Final = (
    *(
        ForwardedRoute(method, path, service.name)
        for service in FORWARDED
        for method, path in service.operations
    ),
    *(
        ForwardedRoute(method, path, service.name, streams=True)
        for service in FORWARDED
        for method, path in service.stream_operations
    ),
)
"""What anyone reaches; the services decide who may."""

OPERATOR_ROUTES: Final = (
    *(
        ForwardedRoute(method, path, service.name)
        for service in FORWARDED
        for method, path in service.operator_operations
    ),
    *(
        ForwardedRoute(method, f"{_OPERATORS}/{service.name}/{rest}", service.name)
        for service in FORWARDED
        for method, rest in _OPERATIONS
    ),
)
"""What needs an operator: the public listener has none of it."""

SIGN_IN: Final = tuple(
    route for route in PUBLIC_ROUTES if (route.method, route.path) == ("POST", "/auth/token")
)
"""What the page of the operators' listener signs in with."""


def in_order_of_matching(routes: Iterable[ForwardedRoute]) -> list[ForwardedRoute]:
    """Return the routes with a fixed segment before a parameter in the same position.

    The server takes the first route that matches, so that ``/users/me`` is no ``/users/{user_id}``.
    """

    def parameters(route: ForwardedRoute) -> list[bool]:
        return [segment.startswith("{") for segment in route.path.split("/")]

    return sorted(routes, key=parameters)
