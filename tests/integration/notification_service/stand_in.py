"""The stand-in for Slack on a real port, in the test's event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from chassis.web.health import Health
from notification_service.slack_stand_in.bootstrap import build
from notification_service.slack_stand_in.settings import StandInSettings


@dataclass(frozen=True)
class StandIn:
    """A running stand-in, and a client for the routes that only tests use."""

    client: httpx.AsyncClient

    @property
    def base_url(self) -> str:
        return f"{self.client.base_url}/api/"

    async def messages(self) -> list[dict[str, Any]]:
        answer = await self.client.get("/messages")
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages

    async def texts(self) -> list[str]:
        return [each["text"] for each in await self.messages()]

    async def fail(self, kind: str, **more: Any) -> None:
        answer = await self.client.post("/control/faults", json={"kind": kind, **more})
        answer.raise_for_status()


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the test runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def running_stand_in(**settings: Any) -> AsyncIterator[StandIn]:
    given = {"channels": "growth,other", **settings}
    async with build(StandInSettings(**given), Health()) as running:
        server = _Server(
            uvicorn.Config(running.app, port=0, log_config=None, timeout_graceful_shutdown=1)
        )
        serving = asyncio.create_task(server.serve())
        try:
            port = await _port_of(server)
            # A kept connection may be closed by the server at the moment of the next request.
            limits = httpx.Limits(max_keepalive_connections=0)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", limits=limits
            ) as client:
                yield StandIn(client)
        finally:
            server.should_exit = True
            await serving


async def _port_of(server: uvicorn.Server) -> int:
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
