"""What the tests of forwarding share: a toy users service behind a gateway."""

from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from typing import Any

import httpx
import pytest
import structlog

from .toys import Toy, gateway, serving

Logged = Sequence[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    """What was logged, and nothing on the terminal."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
async def users() -> Toy:
    return Toy()


@pytest.fixture
async def users_url(users: Toy) -> AsyncIterator[str]:
    async with serving(users) as url:
        yield url


@pytest.fixture
async def client(users_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that has nothing but the users service, at its defaults."""
    async with gateway(users_url=users_url) as client:
        yield client
