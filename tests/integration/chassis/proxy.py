"""A TCP proxy to a real server; a test can make it cut, delay or refuse connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import make_url

Decide = Callable[[bytes], Awaitable[bool]]
"""Returns whether these bytes may pass; if not, the connection is cut."""


async def let_pass(_data: bytes) -> bool:
    return True


class Proxy:
    """Forwards connections to one server; the bytes that ``on_request`` refuses never reach it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.on_request: Decide = let_pass
        self.on_answer: Decide = let_pass

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Cut all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """End every connection at once."""
        for writer in self._open:
            writer.transport.abort()

    async def close(self) -> None:
        await self.refuse()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, server_writer}
        self._open |= both
        try:
            # The direction of the answers ends with the other: `_pump` cuts both connections.
            answers = asyncio.create_task(self._pump(server_reader, writer, both, "on_answer"))
            await self._pump(reader, server_writer, both, "on_request")
            await answers
        finally:
            self._open -= both

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        decider: str,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                decide: Decide = getattr(self, decider)
                if not await decide(data):
                    break
                writer.write(data)
                await writer.drain()
        for each in both:
            each.transport.abort()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    """Run a proxy to this address while the block runs."""
    proxy = Proxy(host, port)
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.close()


@asynccontextmanager
async def postgres_through_proxy(database_url: str) -> AsyncIterator[tuple[str, Proxy]]:
    """Run a proxy to a database; yield the database's URL through the proxy, and the proxy."""
    url = make_url(database_url)
    assert url.host is not None
    assert url.port is not None
    async with proxy_to(url.host, url.port) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port)
        yield through.render_as_string(hide_password=False), proxy
