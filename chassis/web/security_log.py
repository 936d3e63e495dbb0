"""The security log: what operators ask for, and what is refused, as lines of one logger."""

from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Request
from pydantic import Field, TypeAdapter, ValidationError

from chassis.telemetry import SECURITY

# As routes read them: an id has several forms, and all of them are logged in one.
_IN_PATH: Final[TypeAdapter[Any]] = TypeAdapter(UUID | Annotated[int, Field(ge=0, lt=2**63)])
_IN_QUERY: Final[TypeAdapter[Any]] = TypeAdapter(UUID)
_MOST_OBJECTS: Final = 8
_READING: Final = ("GET", "HEAD")

_log = structlog.get_logger(SECURITY)


def log_operator(request: Request, operator: UUID) -> None:
    """Write a line about what an operator asks for, before it is answered.

    It has the UUIDs and numbers in the path and the UUIDs in the query, and no other text of the
    client's.
    """
    line = _line_of(request, operator) | {"object": _objects_of(request)}
    if request.method in _READING:
        _log.info("operator-read", **line)
    else:
        _log.info("operator-acted", **line)


def log_refused(request: Request, code: str, subject: UUID | None = None) -> None:
    """Write a line about a request that its token does not allow.

    :param subject: who asked; None: no valid token says so
    """
    _log.warning("access-refused", code=code, **_line_of(request, subject))


def _line_of(request: Request, subject: UUID | None) -> dict[str, Any]:
    return {
        "subject": None if subject is None else str(subject),
        "method": request.method,
        "route": getattr(request.scope.get("route"), "path", "unmatched"),
    }


def _objects_of(request: Request) -> list[str]:
    # Of a name that a query repeats, routes read the last value too.
    found = [_id(_IN_PATH, each) for each in request.path_params.values()]
    found += [_id(_IN_QUERY, each) for each in request.query_params.values()]
    return [each for each in found if each is not None][:_MOST_OBJECTS]


def _id(kind: TypeAdapter[Any], given: object) -> str | None:
    try:
        return str(kind.validate_python(given))
    except ValidationError:
        return None
