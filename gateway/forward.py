"""Forwarding: one request to the service that answers it, and the answer back, as both come."""

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Final

import anyio
import httpx
import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from chassis.problems import UNAVAILABLE_RETRY_AFTER_S, problem
from chassis.telemetry import current_traceparent
from chassis.trail import current_trail
from gateway.client_body import ClientBody, ClientTooSlow
from gateway.headers import Edge, Header, to_client, to_service
from gateway.routes import PublicRoute
from gateway.upstream import Upstream

# httpx's failure → status, code, and what the service did.
_FAILURES: Final[tuple[tuple[type[httpx.TransportError], int, str, str], ...]] = (
    (httpx.PoolTimeout, 503, "service-busy", "has more requests than it can take"),
    (httpx.ConnectTimeout, 504, "service-timeout", "did not take the connection in time"),
    (httpx.TimeoutException, 504, "service-timeout", "did not answer in time"),
    (httpx.ConnectError, 502, "service-unreachable", "cannot be reached"),
    (httpx.TransportError, 502, "service-answer-broken", "gave no whole answer"),
)

_log = structlog.get_logger(__name__)


def forwarding(
    route: PublicRoute, upstream: Upstream, *, secret: str | None, client_timeout_s: float
) -> APIRouter:
    """Return a router that answers this route from its service.

    ``secret`` is shown to the service, so that it can believe the client's address.
    """
    router = APIRouter()

    @router.api_route(route.path, methods=[route.method], include_in_schema=False)
    async def forward(request: Request) -> Response:
        path = route.path_for(request.path_params)
        if path is None:
            raise HTTPException(404)
        # A fragment has no place in a request, but the server lets one through.
        query = request.scope["query_string"].decode("ascii").replace("#", "%23")
        return _Exchange(
            upstream,
            route.method,
            f"{path}?{query}" if query else path,
            to_service(request.headers.raw, _edge(request, secret)),
            client_timeout_s,
        )

    return router


def _edge(request: Request, secret: str | None) -> Edge:
    return Edge(
        client=request.client.host if request.client else None,
        scheme=request.scope["scheme"],
        host=request.headers.get("host"),
        correlation_id=current_trail().correlation_id,
        traceparent=current_traceparent(),
        secret=secret,
    )


class _Exchange(Response):
    """The answer to one request: asks the service, and passes on what it says as it says it.

    It ends with the client: one that goes away takes its request to the service along.
    """

    def __init__(
        self,
        upstream: Upstream,
        method: str,
        target: str,
        fields: list[Header],
        client_timeout_s: float,
    ) -> None:
        super().__init__()
        self._upstream = upstream
        self._method = method
        self._target = target
        self._fields = fields
        self._client_timeout_s = client_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = ClientBody(receive, self._client_timeout_s)
        try:
            await body.begin()
            # anyio's scope and not a task to cancel: httpcore shields its clean-up by the same.
            with anyio.CancelScope() as while_wanted:
                watching = asyncio.create_task(_when_gone(body, while_wanted.cancel))
                try:
                    await self._exchange(body.content(), scope, receive, send)
                finally:
                    watching.cancel()
        except ClientTooSlow:
            refusal = problem(408, "body-too-slow", headers={"Connection": "close"})
            await refusal(scope, receive, send)
        except ClientDisconnect:
            return

    async def _exchange(
        self, content: bytes | AsyncIterable[bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            answer = await self._upstream.send(self._method, self._target, self._fields, content)
        except httpx.TransportError as error:
            await self._failed(error)(scope, receive, send)
            return
        try:
            await self._pass_on(answer, send)
        finally:
            await answer.aclose()

    def _failed(self, error: httpx.TransportError) -> Response:
        status, code, did = next(
            (status, code, did) for kind, status, code, did in _FAILURES if isinstance(error, kind)
        )
        service = self._upstream.service
        _log.warning("service failed", to=service, code=code, error=type(error).__qualname__)
        headers = {"Retry-After": str(UNAVAILABLE_RETRY_AFTER_S)} if status == 503 else {}
        return problem(status, code, f"the {service} service {did}", headers=headers)

    async def _pass_on(self, answer: httpx.Response, send: Send) -> None:
        """Pass an answer on. One that breaks off is left unfinished: the server then cuts it."""
        start = {
            "type": "http.response.start",
            "status": answer.status_code,
            "headers": to_client(answer.headers.raw),
        }
        await send(start)
        try:
            async for chunk in answer.aiter_raw():
                with anyio.fail_after(self._client_timeout_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (httpx.TransportError, TimeoutError) as error:
            _log.warning(
                "answer broke off", to=self._upstream.service, error=type(error).__qualname__
            )
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _when_gone(body: ClientBody, end: Callable[[], None]) -> None:
    await body.gone()
    end()
