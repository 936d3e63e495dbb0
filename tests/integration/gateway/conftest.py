"""What the tests of forwarding share: a toy users service behind a gateway."""

from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from typing import Any

import httpx
import pytest
import structlog

from .toys import Toy, gateway, serving

LogLines = Sequence[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[LogLines]:
    """The lines that were logged; nothing is printed."""
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
    """A client of a gateway with default settings, and only the users service behind it."""
    async with gateway(users_url=users_url) as client:
        yield client
