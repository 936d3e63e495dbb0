"""What the tests of the chassis's edges share."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter
from pydantic import SecretStr

from chassis.settings import ServiceSettings
from chassis.web.app import create_app
from chassis.web.health import Health

Logged = Sequence[MutableMapping[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    """What was logged, and nothing on the terminal."""
    with structlog.testing.capture_logs() as lines:
        yield lines


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that happens in this event loop has happened."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for offers no event
            await asyncio.sleep(0)


def settings(**changes: object) -> ServiceSettings:
    given: dict[str, Any] = {
        "http_port": 0,
        "database_url": SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        "idempotency_secret": SecretStr("s" * 32),
    }
    return ServiceSettings(**(given | changes))


@pytest.fixture
def serve() -> Serve:
    """Serve these routers in-process, and give a client of theirs."""

    @asynccontextmanager
    async def _serve(
        *routers: APIRouter, health: Health | None = None, edge: bool = False, **changes: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(
            title="Toys",
            description="Toys, for tests.",
            version="1",
            settings=settings(**changes),
            routers=routers,
            health=health or Health(),
            edge=edge,
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://toys") as client:
            yield client

    return _serve
