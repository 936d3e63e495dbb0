"""Reads a request's body as the client sends it, and notices when the client disconnects."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive


class ClientTooSlow(Exception):
    """The client did not send its body in time."""


class ClientNotReading(Exception):
    """The client did not receive a part of the answer in time."""


class ClientBody:
    """Reads one request: ``begin`` first, then ``content`` to its end, then ``disconnected``.

    ``failure`` is the error that ended ``content`` before the end of the body.

    :raises ClientDisconnect: the client disconnected before its body was complete
    :raises ClientTooSlow: the body was not complete in time
    :raises HTTPException: with 413, the body is too large
    """

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._complete = False
        self._ended = asyncio.Event()
        self._first = b""
        self._deadline = 0.0
        self.failure: Exception | None = None

    async def begin(self) -> None:
        """Wait for the first part of the body: until it is there no service is asked."""
        self._deadline = asyncio.get_running_loop().time() + self._timeout_s
        self._first = await self._next()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """Return the body: as bytes if it is complete already, else as a stream."""
        return self._first if self._complete else self._stream()

    async def disconnected(self) -> None:
        """Wait until the client has disconnected or its body has failed."""
        await self._ended.wait()
        while self.failure is None and (await self._receive())["type"] != "http.disconnect":
            pass

    async def _stream(self) -> AsyncIterator[bytes]:
        yield self._first
        while not self._complete:
            try:
                yield await self._next()
            except Exception as error:
                self.failure = error
                self._ended.set()
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
            self._complete = True
            self._ended.set()
        body: bytes = message.get("body", b"")
        return body
