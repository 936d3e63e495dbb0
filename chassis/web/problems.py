"""Answers refusals and failures over HTTP: RFC 9457 problems with stable codes."""

import math
import socket
import ssl
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from chassis.correlation import current_correlation
from chassis.domain import DomainError, InvalidFields, Kind
from chassis.persistence.database import (
    NoConnectionFree,
    is_connection_lost,
    is_worth_retrying,
)

PROBLEM_JSON: Final = "application/problem+json"
UNAVAILABLE_RETRY_AFTER_S: Final = 2

_STATUS: Final = {
    Kind.INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Kind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Kind.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Kind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Kind.CONFLICT: HTTPStatus.CONFLICT,
    Kind.TOO_MANY: HTTPStatus.TOO_MANY_REQUESTS,
    Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}

# Not made from the phrases, which differ between Python's versions.
_CODES: Final = {
    400: "bad-request",
    401: "not-authenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    413: "body-too-large",
    415: "unsupported-media-type",
    429: "too-many-requests",
}
_DESCRIBED: Final[Mapping[int | str, str]] = {
    "4XX": "Refused, with the reason",
    "5XX": "Failed",
}
_NETWORK: Final = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    ssl.SSLError,
    NoConnectionFree,
)

_log = structlog.get_logger(__name__)


class FieldProblem(BaseModel):
    """A field that breaks a rule: its name, the rule's code, and what is allowed."""

    field: str
    code: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem. ``code`` is stable and names it; ``detail`` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str | None = None
    instance: str | None = None
    correlation_id: str
    errors: list[FieldProblem] | None = None


def refusals(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """Return how a route's API document describes these answers, which are problems.

    A page shows an answer as undocumented unless its status itself is there; "4XX" does not do.
    """
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _DESCRIBED.get(status) or HTTPStatus(int(status)).phrase}
        | {"content": content}
        for status in statuses
    }


class TemporarilyUnavailable(DomainError):
    """Something that the request needs is away; the same request may succeed later."""

    kind, code = Kind.UNAVAILABLE, "temporarily-unavailable"


def problem(
    status: int,
    code: str,
    detail: str | None = None,
    *,
    errors: Iterable[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a response with this problem and the current correlation id."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        correlation_id=current_correlation().correlation_id,
        errors=list(errors) if errors is not None else None,
    )
    return Response(
        body.model_dump_json(exclude_none=True),
        status_code=status,
        headers=dict(headers or {}),
        media_type=PROBLEM_JSON,
    )


def failure(error: Exception) -> Response:
    """Return the response to a request that failed through no fault of its own.

    An unexpected error is logged in full; the client learns only that there was one.
    """
    if _is_away(error):
        _log.warning("something needed is away", error=type(error).__qualname__)
        return _refusal(TemporarilyUnavailable("something needed is away; try again shortly"))
    _log.error("unexpected error", exc_info=error)
    return problem(500, "unexpected-error")


def _is_away(error: Exception) -> bool:
    # Only the OSErrors of the network: a missing file is a mistake in the code.
    return (
        isinstance(error, _NETWORK)
        or type(error) is OSError
        or (not isinstance(error, OSError) and is_connection_lost(error))
        or is_worth_retrying(error)
    )


def install_problems(app: FastAPI) -> None:
    """Have this app answer every refusal and failure with a problem."""
    app.add_exception_handler(DomainError, _domain_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)


async def _domain_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)  # noqa: S101 - narrows the handler type
    return _refusal(error)


def _refusal(error: DomainError) -> Response:
    status = _STATUS[error.kind]
    headers: dict[str, str] = {}
    if error.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    default_s = UNAVAILABLE_RETRY_AFTER_S if error.kind is Kind.UNAVAILABLE else None
    retry_after_s = getattr(error, "retry_after_s", default_s)
    if retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(retry_after_s))
    errors = None
    if isinstance(error, InvalidFields):
        errors = [FieldProblem(field=b.field, code=b.code, message=b.message) for b in error.broken]
    return problem(status, error.code, str(error), errors=errors, headers=headers)


async def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - narrows the handler type
    broken: list[Any] = list(error.errors())
    if any(each["type"] == "json_invalid" for each in broken):
        return problem(400, "malformed-json", "the body is not JSON")
    errors = [
        FieldProblem(field=_where(each["loc"]), code=_code(each["type"]), message=each["msg"])
        for each in broken
    ]
    return problem(422, "invalid-fields", "; ".join(_text(each) for each in errors), errors=errors)


def _where(loc: tuple[str | int, ...]) -> str:
    # The first part is body, query, path or header; without a second it names the field.
    return ".".join(str(part) for part in (loc[1:] or loc))


def _code(pydantic_type: str) -> str:
    return pydantic_type.replace("_", "-")


def _text(error: FieldProblem) -> str:
    return f"{error.field}: {error.message}"


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows the handler type
    status = error.status_code
    code = _CODES.get(status, f"http-{status}")
    detail = error.detail if error.detail != HTTPStatus(status).phrase else None
    headers = error.headers
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (allowed := _allowed(request)):
        headers = {"Allow": allowed}
    return problem(status, code, detail, headers=headers)


def _allowed(request: Request) -> str | None:
    """Return the methods of the path as its document has them; None: it has none of it.

    The framework names those of the path's first route only.
    """
    route = request.scope.get("route")
    described = request.app.openapi()["paths"].get(getattr(route, "path", None), {})
    return ", ".join(sorted(method.upper() for method in described)) or None
