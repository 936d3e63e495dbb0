"""Forwarding: sends a request to the service that answers it, and streams the answer back."""

import asyncio
from typing import Any, Final

import aiohttp
import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from chassis.correlation import current_correlation
from chassis.telemetry import current_traceparent
from chassis.web.client_networks import network_of
from chassis.web.disconnects import disconnected
from chassis.web.problems import UNAVAILABLE_RETRY_AFTER_S, problem
from gateway.client_body import whole_body
from gateway.headers import Edge, Header, to_client, to_service
from gateway.routes import ForwardedRoute
from gateway.upstream import NetworkBusy, ServiceFailed, Upstream

_END: Final = {"type": "http.response.body", "body": b"", "more_body": False}

_log = structlog.get_logger(__name__)


def forwarding(
    route: ForwardedRoute,
    upstream: Upstream,
    *,
    secret: str | None,
    stopping: asyncio.Event | None = None,
) -> APIRouter:
    """Return a router that forwards this route to its service.

    With ``secret`` the service trusts the client's address that the gateway sends.

    :param stopping: ends the answers, which last; None: they are waited for
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
            stopping,
        )

    return router


def _edge(request: Request, secret: str | None) -> Edge:
    correlation = current_correlation()
    return Edge(
        client=request.client.host if request.client else None,
        scheme=request.scope["scheme"],
        host=request.headers.get("host"),
        correlation_id=correlation.correlation_id,
        client_correlation_id=correlation.client_id,
        traceparent=current_traceparent(),
        secret=secret,
    )


class _Exchange(Response):
    """The answer to one request: sends it to the service, and streams the service's answer.

    If the client disconnects, the request to the service is cancelled.
    """

    def __init__(
        self,
        upstream: Upstream,
        method: str,
        target: str,
        fields: list[Header],
        stopping: asyncio.Event | None,
    ) -> None:
        super().__init__()
        self._stopping = stopping
        self._upstream = upstream
        self._method = method
        self._target = target
        self._fields = fields
        self._started = False
        #: Whether it has begun, and its end is still to be sent.
        self._lasts = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Before a place at the service is taken: a slow body must not hold one.
        try:
            body = await whole_body(receive)
        except ClientDisconnect:
            return
        client = scope.get("client")
        exchange = asyncio.create_task(
            self._exchange(body, network_of(client[0] if client else None), send)
        )
        tasks: set[asyncio.Task[Any]] = {exchange, asyncio.create_task(disconnected(receive))}
        if self._stopping is not None:
            tasks.add(asyncio.create_task(self._stopping.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        refusal = None if exchange.cancelled() else exchange.result()
        if exchange.cancelled() and self._stopping is not None and self._stopping.is_set():
            if self._lasts:
                # Nothing is missing: of an event that is half sent, its reader takes nothing.
                await send(_END)
            elif not self._started:
                headers = {"Retry-After": str(UNAVAILABLE_RETRY_AFTER_S)}
                refusal = problem(503, "stopping", "this gateway stops", headers=headers)
        if refusal is not None:
            await refusal(scope, receive, send)

    async def _exchange(self, body: bytes, network: str, send: Send) -> Response | None:
        """Forward the service's answer, or return a problem if the service does not begin one.

        An answer that breaks off stays unfinished: the server then closes the connection, so that
        the client cannot take it for a complete one.
        """
        try:
            async with self._upstream.ask(
                self._method, self._target, self._fields, body, network=network
            ) as answer:
                await self._pass_on(answer, send)
        except ServiceFailed as failed:
            _log.warning(
                "answer broke off" if self._started else "service failed",
                to=self._upstream.service,
                code=failed.code,
                error=type(failed.__cause__).__qualname__,
            )
            return None if self._started else _refusal(self._upstream.service, failed)
        except NetworkBusy:
            return problem(
                429,
                "network-busy",
                "this network has as many requests in progress as one may have",
                headers={"Retry-After": str(UNAVAILABLE_RETRY_AFTER_S)},
            )
        return None

    async def _pass_on(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": to_client(answer.raw_headers),
        }
        self._started = self._lasts = True
        await send(start)
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._lasts = False
        await send(_END)


def _refusal(service: str, failed: ServiceFailed) -> Response:
    headers = {"Retry-After": str(UNAVAILABLE_RETRY_AFTER_S)} if failed.status == 503 else {}
    return problem(
        failed.status, failed.code, f"the {service} service {failed.reason}", headers=headers
    )
