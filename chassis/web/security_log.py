"""The security log: what operators ask for, and what is refused, as lines of one logger.

What they read of other people is recorded beside it, by what is found out here.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Request
from pydantic import Field, TypeAdapter, ValidationError

from chassis.telemetry import SECURITY
from contracts.operations import MOST_READ_IDS

# As routes read them: an id has several forms, and all of them are logged in one.
_IN_PATH: Final[TypeAdapter[Any]] = TypeAdapter(UUID | Annotated[int, Field(ge=0, lt=2**63)])
_IN_QUERY: Final[TypeAdapter[Any]] = TypeAdapter(UUID)
_READING: Final = ("GET", "HEAD")
_READS_PEOPLE: Final = "reads_people"

_log = structlog.get_logger(SECURITY)


def log_operator(request: Request, operator: UUID) -> None:
    """Write a line about what an operator asks for, before it is answered.

    It has the UUIDs and numbers in the path and the UUIDs in the query, and no other text of the
    client's.
    """
    line = _line_of(request, operator) | {"object": ids_in(request)}
    if request.method in _READING:
        _log.info("operator-read", **line)
    else:
        _log.info("operator-acted", **line)


def log_refused(request: Request, code: str, subject: UUID | None = None) -> None:
    """Write a line about a request that its token does not allow.

    :param subject: who asked; None: no valid token says so
    """
    _log.warning("access-refused", code=code, **_line_of(request, subject))


def mark_reading(endpoint: Callable[..., Any], *, of_people: bool) -> None:
    """Mark what answers a request: whether it shows data of people.

    What is not marked does if it reads.
    """
    setattr(endpoint, _READS_PEOPLE, of_people)


def reads_people(request: Request) -> bool:
    """Return whether the answer to a request shows data of people."""
    reads = request.method in _READING
    return bool(getattr(request.scope.get("endpoint"), _READS_PEOPLE, reads))


def names_another(request: Request, caller: UUID) -> bool:
    """Return whether the path of a request names anything but the caller."""
    return any(_id(_IN_PATH, each) != str(caller) for each in request.path_params.values())


def route_of(request: Request) -> str:
    """Return the route, with the names of its parameters and never their values."""
    return str(getattr(request.scope.get("route"), "path", "unmatched"))


def _line_of(request: Request, subject: UUID | None) -> dict[str, Any]:
    return {
        "subject": None if subject is None else str(subject),
        "method": request.method,
        "route": route_of(request),
    }


def ids_in(request: Request) -> Sequence[str]:
    """Return the UUIDs and numbers in the path and the UUIDs in the query: eight at most."""
    # Of a name that a query repeats, routes read the last value too.
    found = [_id(_IN_PATH, each) for each in request.path_params.values()]
    found += [_id(_IN_QUERY, each) for each in request.query_params.values()]
    return [each for each in found if each is not None][:MOST_READ_IDS]


def _id(kind: TypeAdapter[Any], given: object) -> str | None:
    try:
        return str(kind.validate_python(given))
    except ValidationError:
        return None
