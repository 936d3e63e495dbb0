"""Services that a test controls, and a gateway in front of them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.settings import ProcessSettings
from chassis.web.health import Health
from chassis.web.server import http_server
from gateway.bootstrap import build
from gateway.settings import GatewaySettings
from services import FORWARDED

DEADLINE_S = 60
AWAY = "http://127.0.0.1:1"
SECRET = "the-secret-that-users-and-gateway-share"

Answer = Callable[[Request, Send], Awaitable[None]]


@asynccontextmanager
async def serving(app: ASGIApp, settings: ProcessSettings | None = None) -> AsyncIterator[str]:
    """Serve this app on a free port as processes do, and yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = http_server(app, settings or ProcessSettings(http_port=0, shutdown_grace_s=2))
    running = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.stop()
        await running


async def echo(request: Request, send: Send) -> None:
    """Answer with the request as it arrived."""
    body = b"".join([chunk async for chunk in request.stream()])
    headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw]
    received = {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.scope["query_string"].decode(),
        "headers": headers,
        "body": body.decode(),
    }
    await respond(send, 200, json.dumps(received).encode())


async def never(request: Request, _send: Send) -> None:
    """Send nothing (more) until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def respond(
    send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], more_body: bool = False
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


@dataclass
class Toy:
    """A service that counts its requests, and whose answers a test sets."""

    answer: Answer = echo
    ready: bool = True
    document: object = None
    requests: list[str] = field(default_factory=list)
    in_flight: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        request = Request(scope, receive)
        if request.url.path == "/health/ready":
            await respond(send, 200 if self.ready else 503, b"{}")
            return
        if request.url.path == "/openapi.json":
            await respond(send, 200, json.dumps(self.document).encode())
            return
        self.requests.append(f"{request.method} {request.url.path}")
        self.in_flight += 1
        try:
            await self.answer(request, send)
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def tcp_service(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve connections without an HTTP server, for broken answers; yield the address."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def settings(**changes: Any) -> GatewaySettings:
    given: dict[str, Any] = {
        "http_port": 0,
        "operators_port": 0,
        "shutdown_grace_s": 2,
        **{f"{service.identifier}_url": AWAY for service in FORWARDED},
        "forward_secret": SecretStr(SECRET),
    }
    return GatewaySettings(**(given | changes))


@asynccontextmanager
async def gateway(
    *,
    watching: bool = False,
    operators: bool = False,
    health: Health | None = None,
    **changes: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a gateway with these settings, and yield a client of its public listener.

    :param operators: of its operators' listener instead
    """
    given = settings(**changes)
    health = health or Health()
    async with build(given, health) as running:
        for component in running.components:
            health.add(component.name, component.trouble, gates=component.gates_readiness)
        watches = [asyncio.create_task(c.run()) for c in running.components if watching]
        async with (
            serving(running.others[0] if operators else running.app, given) as url,
            httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client,
        ):
            yield client
        await asyncio.gather(*(c.stop() for c in running.components), *watches)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


@asynccontextmanager
async def connection(
    client: httpx.AsyncClient,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a TCP connection to this client's server, for requests that no HTTP client sends."""
    host, port = client.base_url.host, client.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
