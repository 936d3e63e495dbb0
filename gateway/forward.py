"""Forwarding: streams a request to the service that answers it, and the answer back."""

import asyncio

import aiohttp
import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from chassis.correlation import current_correlation
from chassis.telemetry import current_traceparent
from chassis.web.problems import UNAVAILABLE_RETRY_AFTER_S, problem
from gateway.client_body import ClientBody, ClientNotReading, ClientTooSlow
from gateway.headers import Edge, Header, to_client, to_service
from gateway.routes import PublicRoute
from gateway.upstream import ServiceFailed, Upstream

_log = structlog.get_logger(__name__)


def forwarding(
    route: PublicRoute, upstream: Upstream, *, secret: str | None, client_timeout_s: float
) -> APIRouter:
    """Return a router that forwards this route to its service.

    With ``secret`` the service trusts the client's address that the gateway sends.
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
        correlation_id=current_correlation().correlation_id,
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
        client_timeout_s: float,
    ) -> None:
        super().__init__()
        self._upstream = upstream
        self._method = method
        self._target = target
        self._fields = fields
        self._client_timeout_s = client_timeout_s
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = ClientBody(receive, self._client_timeout_s)
        try:
            await body.begin()
            refusal = await self._until_disconnect(body, send)
        except ClientTooSlow:
            refusal = problem(408, "body-too-slow", headers={"Connection": "close"})
        except ClientDisconnect:
            return
        if refusal is not None:
            await refusal(scope, receive, send)

    async def _until_disconnect(self, body: ClientBody, send: Send) -> Response | None:
        exchange = asyncio.create_task(self._exchange(body, send))
        disconnected = asyncio.create_task(body.disconnected())
        try:
            await asyncio.wait({exchange, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            exchange.cancel()
            disconnected.cancel()
            await asyncio.wait({exchange, disconnected})
        if body.failure is not None and not self._started:
            raise body.failure
        return None if exchange.cancelled() else exchange.result()

    async def _exchange(self, body: ClientBody, send: Send) -> Response | None:
        """Forward the service's answer, or return a problem if the service does not begin one.

        An answer that breaks off stays unfinished: the server then closes the connection, so that
        the client cannot take it for a complete one.
        """
        try:
            async with self._upstream.ask(
                self._method, self._target, self._fields, body.content()
            ) as answer:
                await self._pass_on(answer, send)
        except ServiceFailed as failed:
            if body.failure is None:
                _log.warning(
                    "answer broke off" if self._started else "service failed",
                    to=self._upstream.service,
                    code=failed.code,
                    error=type(failed.__cause__).__qualname__,
                )
            return None if self._started else _refusal(self._upstream.service, failed)
        except ClientNotReading:
            _log.warning("client does not read", asked=self._upstream.service)
        return None

    async def _pass_on(self, answer: aiohttp.ClientResponse, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": to_client(answer.raw_headers),
        }
        self._started = True
        await send(start)
        async for chunk in answer.content.iter_any():
            try:
                async with asyncio.timeout(self._client_timeout_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except TimeoutError as error:
                raise ClientNotReading from error
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _refusal(service: str, failed: ServiceFailed) -> Response:
    headers = {"Retry-After": str(UNAVAILABLE_RETRY_AFTER_S)} if failed.status == 503 else {}
    return problem(
        failed.status, failed.code, f"the {service} service {failed.reason}", headers=headers
    )
