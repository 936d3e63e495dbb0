"""Makes a service's HTTP app: its routes, health, metrics, and what every request has in common."""

import time
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPMethod, HTTPStatus
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from chassis.correlation import CorrelationContext, use_correlation
from chassis.settings import ProcessSettings
from chassis.telemetry import (
    http_request_seconds,
    http_requests,
    leave_path_out_of_span,
    link_current_span,
)
from chassis.web.health import Health
from chassis.web.problems import (
    FieldProblem,
    Problem,
    failure,
    install_problems,
    problem,
    refusals,
)
from chassis.web.security_headers import add_security_headers, page_policy

_METHODS: Final = frozenset(HTTPMethod)
_OF_A_CLIENTS_TRACE: Final = frozenset({b"traceparent", b"tracestate", b"baggage"})
_CLIENTS_TRACEPARENT: Final = "chassis.clients_traceparent"
_CLIENT_ID: Final = "X-Client-Correlation-ID"
_UNMATCHED: Final = "unmatched"
_NOT_RECORDED: Final = frozenset({"/health/live", "/health/ready", "/metrics"})

_log = structlog.get_logger(__name__)


def create_app(
    *,
    title: str,
    description: str,
    version: str,
    settings: ProcessSettings,
    routers: Iterable[APIRouter],
    health: Health,
    lifespan: Lifespan[FastAPI] | None = None,
    public: bool = False,
    document: bool = True,
    edge: bool = False,
) -> FastAPI:
    """Return a service's app: health and metrics, and the routers if the process has the role.

    :param public: anyone may reach it: it has no metrics, and does not say why it is not ready
    :param document: it serves its API document, and a page for it
    :param edge: clients call it: each request begins a trace and a correlation here, and those of
        the client are noted beside them
    """
    app = (_EdgeApi if edge else _Api)(
        title=title,
        description=description,
        version=version,
        lifespan=lifespan,
        responses=refusals("4XX", "5XX"),
        openapi_url="/openapi.json" if document else None,
        docs_url=None,
        redoc_url=None,
        # Its logs would contain messages of exceptions, and its metrics repeat those of telemetry.
        telemetry={
            "logs": False,
            "metrics": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in _NOT_RECORDED,
        },
    )
    install_problems(app)
    app.add_middleware(
        _RequestMiddleware,
        max_body_bytes=settings.max_body_bytes,
        hsts_max_age_s=settings.hsts_max_age_s,
        edge=edge,
    )
    app.include_router(_public_process_routes(health) if public else _process_routes(health))
    if document:
        _serve_docs(app)
    if settings.serves_routes:
        for router in routers:
            app.include_router(router)
    return app


class _Api(FastAPI):
    """FastAPI with the problems in its OpenAPI document: their schema, and where they answer."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem_schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem_schema.pop("$defs"))
        schemas["Problem"] = problem_schema
        for path, operations in document.get("paths", {}).items():
            for operation in operations.values():
                statuses = {str(each) for each in _refusals_of(path, operation)}
                described = operation["responses"] | {
                    each: operation["responses"].get(each, answer)
                    for each, answer in refusals(*statuses).items()
                }
                operation["responses"] = dict(sorted(described.items()))
        return document


def _refusals_of(path: str, operation: Mapping[str, Any]) -> Iterator[int]:
    """Yield the statuses with which any operation of this form may be refused, or fail."""
    if "security" in operation:
        yield from (401, 403)
    if "{" in path:
        yield 404
    if "parameters" in operation:
        yield 422
    if "requestBody" in operation:
        yield from (400, 413, 415, 422)
    yield from (500, 503)


class _EdgeApi(_Api):
    """Leaves out the trace that a client would have continued, before FastAPI continues it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        kept = [(name, value) for name, value in headers if name not in _OF_A_CLIENTS_TRACE]
        traceparent = Headers(scope=scope).get("traceparent") if headers else None
        scope = {**scope, "headers": kept, _CLIENTS_TRACEPARENT: traceparent}
        await super().__call__(scope, receive, send)


def _serve_docs(app: FastAPI) -> None:
    # FastAPI's own page loads its script from a CDN; this one works without the internet.
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]))

    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=app.title,
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.png",
        # Who has signed in on the page stays so when it is loaded again.
        swagger_ui_parameters={"persistAuthorization": True},
    )
    html = bytes(page.body).decode()
    policy = {"Content-Security-Policy": page_policy(html)}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(html, headers=policy)


def _live() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    return router


def _public_process_routes(health: Health) -> APIRouter:
    router = _live()

    @router.get("/health/ready")
    async def ready() -> Response:
        if (await health.readiness()).ready:
            return JSONResponse({"status": "ready"})
        return problem(503, "not-ready")

    return router


def _process_routes(health: Health) -> APIRouter:
    router = _live()

    @router.get("/health/ready")
    async def ready() -> Response:
        readiness = await health.readiness()
        if readiness.ready:
            return JSONResponse({"status": "ready", "troubles": readiness.reasons})
        return problem(
            503,
            "not-ready",
            errors=[
                FieldProblem(field=name, code="not-ready", message=reason)
                for name, reason in readiness.reasons.items()
            ],
        )

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


class _RequestMiddleware:
    """Gives every request a correlation id, a bound on its body, a metric and a log line.

    Its answer has the header fields of ``security_headers``.

    HEAD is answered as GET (RFC 9110, 9.3.2); the server leaves out the body, and one that is
    streamed is not made.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, hsts_max_age_s: int | None, *, edge: bool
    ) -> None:
        self._app = app
        self._edge = edge
        self._max_body_bytes = max_body_bytes
        self._hsts_max_age_s = hsts_max_age_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        only_head = scope["method"] == "HEAD"
        if only_head:
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        id_ = headers.get("x-correlation-id") or headers.get("x-request-id")
        client_id = headers.get(_CLIENT_ID)  # the gateway's; it lets no client send this one
        if self._edge:
            # Others could choose the same, so nothing is found by it but what a client asked for.
            client_id, id_ = id_, None
            if (traceparent := scope.get(_CLIENTS_TRACEPARENT)) is not None:
                link_current_span(traceparent)
        with use_correlation(CorrelationContext.from_request(id_, client_id)) as correlation:
            bounded = _BoundedReceive(scope, receive, self._max_body_bytes)
            fields = dict.fromkeys(("X-Request-ID", "X-Correlation-ID"), correlation.correlation_id)
            if correlation.client_id is not None:
                fields[_CLIENT_ID] = correlation.client_id
            # Not over HTTP, where anyone could have set it (RFC 6797, 7.2).
            if self._hsts_max_age_s is not None and scope["scheme"] == "https":
                fields["Strict-Transport-Security"] = f"max-age={self._hsts_max_age_s}"
            response = _ResponseSend(send, scope, fields, only_head=only_head)
            began = time.perf_counter()
            try:
                await self._app(scope, bounded, response)
            except _HeadSent:
                pass
            except Exception as error:
                # Here and not in Starlette's outermost layer, so that this response too has its
                # correlation id, its metric and its log line.
                failed = failure(error)
                if response.status is not None:
                    raise  # a part of it was sent: only a cut connection shows that it is broken
                await failed(scope, receive, response)
            finally:
                seconds = time.perf_counter() - began
                _record_request(scope, response.status, correlation.client_id, seconds)


class _HeadSent(Exception):
    """The answer to HEAD is complete; whoever makes its body is to stop."""


class _ResponseSend:
    """Sends a response with the header fields that all have, and keeps its status."""

    def __init__(
        self, send: Send, scope: Scope, fields: Mapping[str, str], *, only_head: bool
    ) -> None:
        self._send = send
        self._scope = scope
        self._fields = fields
        self._only_head = only_head
        self._is_streamed = False
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = MutableHeaders(scope=message)
            headers.update(self._fields)
            add_security_headers(headers)
            if _route_of(self._scope, self.status) == _UNMATCHED:
                leave_path_out_of_span()
            self._is_streamed = "content-length" not in headers
        elif self._only_head and self._is_streamed and message.get("more_body"):
            await self._send({"type": "http.response.body"})
            raise _HeadSent
        await self._send(message)


class _BoundedReceive:
    """Receives a request's body, and refuses one whose announced or actual size is too large."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        headers = Headers(scope=scope)
        # Its parts are decoded as the client says, in time that grows with the square of their size
        # for some codecs; and no route takes it.
        self._in_parts = headers.get("content-type", "").lower().startswith("multipart/")
        announced = headers.get("content-length", "0")
        self._size = 0
        self._announced = int(announced) if announced.isdecimal() else 0

    async def __call__(self) -> Message:
        self._refuse_above(self._announced)
        if self._in_parts:
            raise HTTPException(415, "a body in several parts is not taken")
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._refuse_above(self._size)
        return message

    def _refuse_above(self, size: int) -> None:
        if size > self._max_bytes:
            raise HTTPException(413, f"a body may have {self._max_bytes} bytes")


def _route_of(scope: Scope, status: int | None) -> str:
    # The route, never the path: a client could invent any number. With a method that it does not
    # have a route was not asked.
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _UNMATCHED
    return getattr(scope.get("route"), "path", _UNMATCHED)


def _record_request(
    scope: Scope, status: int | None, client_id: str | None, seconds: float
) -> None:
    route = _route_of(scope, status)
    if route in _NOT_RECORDED:
        return
    # Only known methods, of which a client could invent any number too.
    method = scope["method"] if scope["method"] in _METHODS else "other"
    http_requests.labels(method, route, str(status or "cut off")).inc()
    http_request_seconds.labels(method, route).observe(seconds)
    # What a client calls its request; it says nothing of any other.
    clients = {} if client_id is None else {"client_correlation_id": client_id}
    _log.info(
        "request",
        method=method,
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        **clients,
    )
