import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator, Iterator

import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.types import Message

from chassis.web.disconnects import ClientGone, unless_disconnected


class Client:
    """A client whose body was read, and who disconnects when a test lets it."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self._sent: Iterator[Message] = iter([{"type": "http.request", "body": b""}])

    async def receive(self) -> Message:
        for message in self._sent:
            return message
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def request(self) -> Request:
        return Request({"type": "http", "headers": []}, self.receive)


class Work:
    """Work that waits to begin, and is done when it has."""

    def __init__(self) -> None:
        self.turn = asyncio.Event()
        self.waiting = asyncio.Event()
        self.done = False

    async def __call__(self) -> str:
        self.waiting.set()
        await self.turn.wait()
        self.done = True
        return "done"


class TestAClientThatDisconnects:
    async def test_has_its_work_cancelled_before_it_began(self) -> None:
        client, work = Client(), Work()
        running = asyncio.create_task(unless_disconnected(client.request(), work()))
        await work.waiting.wait()

        client.gone.set()
        with pytest.raises(ClientGone):
            await running
        work.turn.set()
        await asyncio.sleep(0)

        assert not work.done


class TestAClientThatWaits:
    async def test_gets_the_result(self) -> None:
        client, work = Client(), Work()
        work.turn.set()

        assert await unless_disconnected(client.request(), work()) == "done"

    async def test_gets_the_error(self) -> None:
        async def fail() -> None:
            raise KeyError("x")

        with pytest.raises(KeyError):
            await unless_disconnected(Client().request(), fail())

    async def test_leaves_nothing_running_when_its_request_is_cancelled(self) -> None:
        client, work = Client(), Work()
        running = asyncio.create_task(unless_disconnected(client.request(), work()))
        await work.waiting.wait()

        running.cancel()
        await asyncio.wait([running])

        assert running.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the test runner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    """Serve the app on a real port, and yield the port."""
    server = _Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


class TestOnARealConnection:
    async def test_the_work_of_a_client_that_closes_it_is_cancelled(self) -> None:
        work, gone = Work(), asyncio.Event()
        app = FastAPI()

        @app.post("/toys")
        async def post_toy(request: Request, toy: dict[str, str]) -> None:
            try:
                await unless_disconnected(request, work())
            except ClientGone:
                gone.set()

        body = b'{"name": "bear"}'
        async with asyncio.timeout(30), served(app) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /toys HTTP/1.1\r\nHost: toys\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await work.waiting.wait()
            writer.close()
            await gone.wait()

        assert not work.done
