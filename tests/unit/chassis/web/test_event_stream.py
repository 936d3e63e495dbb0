"""A stream of server-sent events: heartbeats, the end, a slow reader, and places."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from starlette.types import Message

from chassis.web.event_stream import (
    Ended,
    EventStream,
    StreamBounds,
    StreamPlaces,
    StreamsFull,
    TooManyStreams,
    opening,
)

ADA, BOB, CY = UUID(int=1), UUID(int=2), UUID(int=3)
WITHIN_S = 20


class Source:
    """Returns what a test gives it, and then waits."""

    def __init__(self, *events: bytes) -> None:
        self._events: asyncio.Queue[bytes] = asyncio.Queue()
        self.returned = 0
        for each in events:
            self._events.put_nowait(each)

    async def next(self) -> bytes:
        event = await self._events.get()
        self.returned += 1
        return event


@dataclass
class Client:
    """The other side of one answer."""

    received: list[Message] = field(default_factory=list)
    got_one: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    reads: bool = True

    async def send(self, message: Any) -> None:
        self.received.append(message)
        self.got_one.set()
        if message["type"] == "http.response.body" and not self.reads:
            await asyncio.Event().wait()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def bodies(self) -> list[bytes]:
        return [each["body"] for each in self.received[1:]]

    @property
    def is_complete(self) -> bool:
        return self.received[-1].get("more_body") is False

    async def until_it_has(self, bodies: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.received) <= bodies:
                self.got_one.clear()
                await self.got_one.wait()


@pytest.fixture
async def client() -> Client:
    return Client()


@pytest.fixture
async def stopping() -> asyncio.Event:
    return asyncio.Event()


def ended(reason: Ended) -> float:
    return REGISTRY.get_sample_value("http_streams_ended_total", {"reason": reason}) or 0


@asynccontextmanager
async def streaming(
    client: Client,
    source: Source,
    stopping: asyncio.Event,
    *,
    heartbeat_s: float = WITHIN_S,
    send_timeout_s: float = WITHIN_S,
    ends_in_s: float | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Source]:
        yield source

    answer = EventStream(
        opened(),
        StreamBounds(heartbeat_s, send_timeout_s),
        ends_in_s=lambda: ends_in_s,
        stopping=stopping,
    )
    task = asyncio.create_task(answer({"type": "http"}, client.receive, client.send))
    try:
        yield task
    finally:
        client.left.set()
        await asyncio.wait([task], timeout=WITHIN_S)


async def is_over(task: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait([task], timeout=WITHIN_S)
    return bool(done)


class TestAStream:
    async def test_sends_what_the_source_returns_under_fields_that_keep_it_from_being_held_back(
        self, client: Client, stopping: asyncio.Event
    ) -> None:
        async with streaming(client, Source(b"a", b"b"), stopping):
            await client.until_it_has(2)

        assert client.bodies == [b"a", b"b"]
        assert dict(client.received[0]["headers"]) == {
            b"content-type": b"text/event-stream; charset=utf-8",
            b"cache-control": b"no-store",
            b"x-accel-buffering": b"no",
        }

    async def test_that_is_silent_has_comments(
        self, client: Client, stopping: asyncio.Event
    ) -> None:
        async with streaming(client, Source(), stopping, heartbeat_s=0.001):
            await client.until_it_has(2)

        assert set(client.bodies) == {b": \n\n"}

    async def test_of_a_client_that_does_not_read_is_cut_off_and_nothing_more_is_taken_for_it(
        self, client: Client, stopping: asyncio.Event
    ) -> None:
        client.reads, before = False, ended(Ended.SLOW_READER)
        source = Source(b"a", b"b", b"c")

        async with streaming(client, source, stopping, send_timeout_s=0.01) as task:
            assert await is_over(task)

        assert (client.bodies, source.returned) == ([b"a"], 1)
        assert not client.is_complete
        assert ended(Ended.SLOW_READER) == before + 1

    async def test_ends_with_the_token(self, client: Client, stopping: asyncio.Event) -> None:
        async with streaming(client, Source(b"a"), stopping, ends_in_s=0.05) as task:
            assert await is_over(task)

        assert client.is_complete

    async def test_ends_when_the_process_stops(
        self, client: Client, stopping: asyncio.Event
    ) -> None:
        async with streaming(client, Source(b"a"), stopping) as task:
            await client.until_it_has(1)
            stopping.set()
            assert await is_over(task)

        assert client.is_complete

    async def test_ends_when_the_client_leaves(
        self, client: Client, stopping: asyncio.Event
    ) -> None:
        before = ended(Ended.CLIENT_LEFT)

        async with streaming(client, Source(), stopping) as task:
            client.left.set()
            assert await is_over(task)

        assert ended(Ended.CLIENT_LEFT) == before + 1


class TestPlaces:
    def test_a_user_has_a_share_of_them(self) -> None:
        places = StreamPlaces(total=9, per_user=2)

        with places.take(ADA), places.take(ADA), places.take(BOB), pytest.raises(TooManyStreams):
            places.take(ADA).__enter__()

    def test_there_are_so_many_and_one_that_is_left_is_free_again(self) -> None:
        places = StreamPlaces(total=2, per_user=2)

        with places.take(ADA):
            with places.take(BOB), pytest.raises(StreamsFull), places.take(CY):
                pass
            with places.take(CY):
                pass


def test_the_first_event_says_when_to_come_back() -> None:
    *fields, retry = opening("1.2", "begin", "{}").decode().strip().splitlines()

    assert fields == ["event: begin", "data: {}", "id: 1.2"]
    assert 1_000 <= int(retry.removeprefix("retry: ")) <= 5_000
