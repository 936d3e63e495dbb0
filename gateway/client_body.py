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

    ``failure`` is what ended ``content``, if the body did not.

    :raises ClientDisconnect: the client went before its body was whole
    :raises ClientTooSlow: its body was not whole in time
    :raises HTTPException: with 413, its body is larger than the edge lets in
    """

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive = receive
        self._timeout_s = timeout_s
        self._whole = False
        self._ended = asyncio.Event()
        self._first = b""
        self._deadline = 0.0
        self.failure: Exception | None = None

    async def begin(self) -> None:
        """Wait for the body's beginning: before it, nothing is worth a service's time."""
        self._deadline = asyncio.get_running_loop().time() + self._timeout_s
        self._first = await self._next()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """Return the body: whole if it is here already, else as it comes."""
        return self._first if self._whole else self._stream()

    async def gone(self) -> None:
        """Wait until nothing more is to be had of the client: it has gone, or its body failed."""
        await self._ended.wait()
        while self.failure is None and (await self._receive())["type"] != "http.disconnect":
            pass

    async def _stream(self) -> AsyncIterator[bytes]:
        yield self._first
        while not self._whole:
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
            self._whole = True
            self._ended.set()
        body: bytes = message.get("body", b"")
        return body
