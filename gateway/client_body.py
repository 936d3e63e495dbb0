"""A request's body as its client sends it, and the news that the client has gone."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive


class ClientTooSlow(Exception):
    """The client did not send its body in the time it has."""


class ClientNotReading(Exception):
    """The client did not take a part of its answer in the time it has."""


class ClientBody:
    """Reads one request: ``begin`` first, then ``content`` to its end, then ``gone``.

    ``failure`` is what ended ``content``, if it ended before the body did.

    :raises ClientDisconnect: the client went before its body was whole
    :raises ClientTooSlow: its body was not whole in time
    :raises HTTPException: with 413, its body is larger than the edge lets in
    """

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._whole = asyncio.Event()
        self._first = b""
        self._deadline = 0.0
        self.failure: Exception | None = None

    async def begin(self) -> None:
        """Wait for the body's beginning: before it, nothing is worth a service's time."""
        self._deadline = asyncio.get_running_loop().time() + self._timeout_s
        self._first = await self._next()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """Return the body: whole if it is here already, else as it comes."""
        return self._first if self._whole.is_set() else self._stream()

    async def gone(self) -> None:
        """Wait until the client has gone, or has its answer."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _stream(self) -> AsyncIterator[bytes]:
        yield self._first
        while not self._whole.is_set():
            try:
                yield await self._next()
            except Exception as error:
                self.failure = error
                raise

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._deadline):
                message: Message = await self._receive()
        except TimeoutError as error:
            raise ClientTooSlow from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if not message.get("more_body", False):
            self._whole.set()
        body: bytes = message.get("body", b"")
        return body
