"""An answer of server-sent events that lasts: with heartbeats, and bounds on a slow reader."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from fastapi import Response
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from chassis.domain import DomainError, Kind
from chassis.telemetry import http_streams_ended, http_streams_open
from chassis.web.disconnects import disconnected

_HEARTBEAT: Final = format_sse_event(comment="")
# Browsers whose streams end at one moment do not all come back at one moment.
_RETRY_MS: Final = (1_000, 5_000)


class Ended(StrEnum):
    """Why a stream ended."""

    CLIENT_LEFT = "client-left"
    SLOW_READER = "slow-reader"
    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a reason
    STOPPING = "stopping"
    FAILED = "failed"


class EventSource(Protocol):
    """What a stream sends."""

    async def next(self) -> bytes:
        """Wait for the next events, and return them framed; cancelled, it loses none."""


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """The times of a stream, in seconds.

    :param heartbeat_s: longest silence; then a comment is sent
    :param send_timeout_s: longest wait for a client to receive what was sent
    """

    heartbeat_s: float
    send_timeout_s: float


class TooManyStreams(DomainError):
    """The user has as many streams open as one may have."""

    kind, code = Kind.TOO_MANY, "too-many-streams"


class StreamsFull(DomainError):
    """The process has as many streams open as it may have."""

    kind, code = Kind.UNAVAILABLE, "streams-full"


class StreamPlaces:
    """How many streams may be open at once in this process, in all and of one user."""

    def __init__(self, *, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._open: Counter[UUID] = Counter()

    @contextmanager
    def take(self, user_id: UUID) -> Iterator[None]:
        """Hold a place for the block.

        :raises TooManyStreams: the user has no place left
        :raises StreamsFull: nobody has
        """
        if self._open[user_id] >= self._per_user:
            raise TooManyStreams(f"a user may have {self._per_user} streams open at once")
        if self._open.total() >= self._total:
            raise StreamsFull("as many streams are open as there may be; try again shortly")
        self._open[user_id] += 1
        http_streams_open.inc()
        try:
            yield
        finally:
            http_streams_open.dec()
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]


def opening(id_: str, event: str, data: str) -> bytes:
    """Return the first event of a stream, with a time after which a browser comes back."""
    return format_sse_event(
        id=id_,
        event=event,
        data_str=data,
        retry=random.randint(*_RETRY_MS),  # noqa: S311
    )


class EventStream(Response):
    """The answer: what a source returns, until the client leaves or the stream has to end.

    It ends where the user's token does, and when the process stops; a browser then comes back by
    itself. To a client that does not read, it sends no more: the connection is closed, since the
    answer is not complete. What waits to be sent is one return of the source at most.

    :param opened: opens the source; what it raises is the answer
    :param ends_in_s: returns how many seconds the token is valid for; None: for ever
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        opened: AbstractAsyncContextManager[EventSource],
        bounds: StreamBounds,
        *,
        ends_in_s: Callable[[], float | None],
        stopping: asyncio.Event,
    ) -> None:
        # nginx reads the second one, and passes on what is small at once.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._opened = opened
        self._bounds = bounds
        self._ends_in_s = ends_in_s
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opened as source:
            ended = Ended.FAILED
            try:
                ended = await self._until_ended(source, receive, send)
            finally:
                http_streams_ended.labels(ended).inc()
        if ended in (Ended.TOKEN_EXPIRED, Ended.STOPPING):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._bounds.send_timeout_s):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_ended(self, source: EventSource, receive: Receive, send: Send) -> Ended:
        sending = asyncio.create_task(self._send(source, send))
        leaving = asyncio.create_task(disconnected(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        tasks = {sending, leaving, stopping}
        try:
            done, _ = await asyncio.wait(
                tasks, timeout=self._ends_in_s(), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if leaving in done:
            return Ended.CLIENT_LEFT
        if sending in done:
            return sending.result()
        return Ended.STOPPING if stopping in done else Ended.TOKEN_EXPIRED

    async def _send(self, source: EventSource, send: Send) -> Ended:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        while True:
            try:
                async with asyncio.timeout(self._bounds.heartbeat_s):
                    body = await source.next()
            except TimeoutError:
                body = _HEARTBEAT
            try:
                async with asyncio.timeout(self._bounds.send_timeout_s):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            except TimeoutError:
                return Ended.SLOW_READER
