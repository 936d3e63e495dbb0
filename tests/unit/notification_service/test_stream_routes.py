"""The cookie of an EventSource, and the end of its stream with the token."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from chassis.web.auth import LEEWAY_S, Principal
from chassis.web.event_stream import StreamBounds
from notification_service.stream_routes import cookie_name, stream_routes
from notification_service.streams import Streams

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ADA = UUID(int=1)


class Silent:
    """Streams that send nothing, and last until they are ended."""

    def __init__(self) -> None:
        self.opened_behind: str | None = None

    @asynccontextmanager
    async def open(self, _user_id: UUID, last_event_id: str | None) -> AsyncIterator[Any]:
        self.opened_behind = last_event_id
        yield self

    async def next(self) -> bytes:
        never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return await never


def client_of(
    streams: Silent, *, secure: bool = False, valid_for_s: float = 0
) -> httpx.AsyncClient:
    async def ada() -> Principal:
        return Principal(ADA, valid_until=NOW + timedelta(seconds=valid_for_s))

    app = FastAPI()
    app.include_router(
        stream_routes(
            cast("Streams", streams),
            StreamBounds(heartbeat_s=30, send_timeout_s=30),
            lambda: NOW,
            signed_in=ada,
            signed_in_by_cookie=ada,
            stopping=asyncio.Event(),
            secure=secure,
        )
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://here")


@pytest.mark.parametrize("secure", [True, False])
async def test_the_cookie_is_for_the_stream_alone_and_no_script_has_it(*, secure: bool) -> None:
    async with client_of(Silent(), secure=secure) as client:
        answer = await client.post("/me/stream/cookie", headers={"Authorization": "Bearer t.o.k"})

    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (cookie.key, cookie.value) == (cookie_name(secure=secure), "t.o.k")
    assert cookie.key.startswith("__Secure-") is secure
    assert bool(cookie["secure"]) is secure
    assert cookie["httponly"]
    assert (cookie["samesite"], cookie["path"]) == ("strict", "/me/stream")
    assert cookie["max-age"] == "60"


async def test_a_stream_ends_when_its_token_would_be_refused() -> None:
    streams = Silent()
    async with asyncio.timeout(30), client_of(streams, valid_for_s=-LEEWAY_S) as client:
        answer = await client.get("/me/stream", params={"last_event_id": "7.1"})

    assert (answer.status_code, answer.text) == (200, "")
    assert streams.opened_behind == "7.1"


async def test_the_id_in_the_header_is_newer_than_the_one_in_the_query() -> None:
    streams = Silent()
    async with asyncio.timeout(30), client_of(streams, valid_for_s=-LEEWAY_S) as client:
        await client.get(
            "/me/stream", params={"last_event_id": "7.1"}, headers={"Last-Event-ID": "7.2"}
        )

    assert streams.opened_behind == "7.2"
