"""Answers that last: they have places, a patience and an end of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Send

from chassis.web.health import Health
from tests.declared import needs

from .toys import DEADLINE_S, Toy, gateway, never, respond, serving, until

pytestmark = needs("notification")


async def stream(request: Request, send: Send) -> None:
    """Send an event, and then nothing."""
    await respond(send, 200, b"data: 1\n\n", more_body=True)
    await never(request, send)


@asynccontextmanager
async def opened(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[bytes]]:
    """Open a stream, and yield what comes after its first event."""
    async with client.stream("GET", "/me/stream") as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"data: 1\n\n"
        yield parts


@pytest.fixture
async def toy() -> Toy:
    return Toy(answer=stream)


@pytest.fixture
async def notification_url(toy: Toy) -> AsyncIterator[str]:
    async with serving(toy) as url:
        yield url


class TestAStream:
    async def test_takes_no_place_of_a_request(self, toy: Toy, notification_url: str) -> None:
        async with (
            gateway(notification_url=notification_url, max_connections=1) as client,
            opened(client),
            opened(client),
        ):
            toy.answer = lambda _request, send: respond(send, 204, b"")
            answer = await client.post("/me/stream/cookie")

        assert answer.status_code == 204

    async def test_is_one_of_so_many_of_its_network(self, notification_url: str) -> None:
        async with (
            gateway(
                notification_url=notification_url, max_streams_per_network=1, queue_timeout_s=0.1
            ) as client,
            opened(client),
        ):
            refused = await client.get("/me/stream")

        assert (refused.status_code, refused.json()["code"]) == (429, "network-busy")

    async def test_may_be_silent_for_longer_than_another_answer(
        self, toy: Toy, notification_url: str
    ) -> None:
        async def silent(_request: Request, send: Send) -> None:
            await respond(send, 200, b"data: 1\n\n", more_body=True)
            await asyncio.sleep(0.5)
            await send({"type": "http.response.body", "body": b"data: 2\n\n"})

        toy.answer = silent
        async with (
            gateway(notification_url=notification_url, answer_timeout_s=0.1) as client,
            opened(client) as parts,
        ):
            assert await anext(parts) == b"data: 2\n\n"

    async def test_that_is_silent_for_too_long_is_broken_off(
        self, toy: Toy, notification_url: str
    ) -> None:
        async with (
            gateway(notification_url=notification_url, stream_silence_timeout_s=0.1) as client,
            opened(client) as parts,
        ):
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(parts)
            await until(lambda: toy.in_flight == 0)

    async def test_begins_as_soon_as_another_answer(self, toy: Toy, notification_url: str) -> None:
        toy.answer = never
        async with gateway(notification_url=notification_url, answer_timeout_s=0.1) as client:
            late = await client.get("/me/stream")
            await until(lambda: toy.in_flight == 0)

        assert (late.status_code, late.json()["code"]) == (504, "service-timeout")

    async def test_ends_when_the_gateway_stops(self, toy: Toy, notification_url: str) -> None:
        health = Health()
        async with (
            gateway(notification_url=notification_url, health=health) as client,
            opened(client) as parts,
        ):
            health.set_stopping()
            async with asyncio.timeout(DEADLINE_S):
                rest = [part async for part in parts]
            late = await client.get("/me/stream")
            await until(lambda: toy.in_flight == 0)

        assert rest == []
        assert (late.status_code, late.json()["code"]) == (503, "stopping")
