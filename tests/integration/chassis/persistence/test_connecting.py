"""Every place that connects to PostgreSQL verifies the server, and finds the one that writes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from chassis import migrations
from chassis.kafka import partitions
from chassis.persistence import advisory_lock, connecting
from chassis.persistence.database import Database, is_away
from tests.certificates import Authority
from tests.integration.chassis.path import settings_for
from tests.integration.chassis.proxy import Proxy, proxy_to
from verification.addresses import CannotVerify
from verification.databases import open_database

_TLS_REQUEST = bytes.fromhex("0000000804d2162f")

Connect = Callable[[str], Awaitable[object]]


async def the_pool(url: str) -> None:
    engine = Database(url, pool_size=1, application_name="test")
    try:
        async with engine.connect():
            pass
    finally:
        await engine.close()


async def the_locks_and_the_relay(url: str) -> None:
    connection = await advisory_lock.connect(settings_for(url, "127.0.0.1:1"), "test")
    await connection.close()


async def the_migrations(url: str) -> None:
    await migrations.upgrade("tests.integration.chassis.bare_service", url)


async def raise_partitions(url: str) -> None:
    async with partitions._connected(url):
        pass


async def the_verification(url: str) -> None:
    async with open_database("users", url):
        pass


PLACES = [
    pytest.param(each, id=each.__name__)
    for each in (
        the_pool,
        the_locks_and_the_relay,
        the_migrations,
        raise_partitions,
        the_verification,
    )
]


class TlsServer:
    """PostgreSQL behind a proxy that ends TLS, and wants a certificate of each client."""

    def __init__(self, database: str, directory: Path) -> None:
        self._database = make_url(database)
        self.authority = Authority(directory, "ca")
        self.client = self.authority.sign("client")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(self.authority.ca_file)
        server = self.authority.sign("server", "127.0.0.1")
        self._context.load_cert_chain(server.certificate, server.key)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, *, host: str = "127.0.0.1", **changes: str) -> str:
        """Return the database's URL through the proxy, all of it verified but for the changes."""
        query = {
            "sslmode": "verify-full",
            "sslrootcert": str(self.authority.ca_file),
            "sslcert": str(self.client.certificate),
            "sslkey": str(self.client.key),
        }
        through = self._database.set(host=host, port=self.port, query=query | changes)
        return through.render_as_string(hide_password=False)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if await reader.readexactly(len(_TLS_REQUEST)) == _TLS_REQUEST:
                    writer.write(b"S")
                    await writer.start_tls(self._context)
                    await self._forward(reader, writer)
        finally:
            # Also when the test ends, which cancels this.
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(self._database.host, self._database.port)
        try:
            both = [_pump(reader, requests), _pump(answers, writer)]
            running = [asyncio.ensure_future(each) for each in both]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for each in running:
                each.cancel()
        finally:
            requests.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@pytest.fixture
async def server(database: str, tmp_path: Path) -> AsyncIterator[TlsServer]:
    server = TlsServer(database, tmp_path)
    await server.start()
    yield server
    await server.stop()


async def refusal(connect: Connect, url: str) -> str:
    """Return the error that the place met, which is one that it waits for."""
    with pytest.raises((OSError, CannotVerify)) as raised:
        await connect(url)
    error = raised.value.__cause__ if isinstance(raised.value, CannotVerify) else raised.value
    assert error is not None
    assert is_away(error)
    return str(error)


@pytest.mark.parametrize("connect", PLACES)
class TestOverTls:
    async def test_every_place_connects_with_its_certificate(
        self, server: TlsServer, connect: Connect
    ) -> None:
        await connect(server.url())

    async def test_no_place_accepts_another_authority_or_host_or_an_open_connection(
        self, server: TlsServer, connect: Connect, database: str, tmp_path: Path
    ) -> None:
        other = Authority(tmp_path, "other")
        plain = make_url(database).update_query_dict(make_url(server.url()).query)

        wrong_authority = server.url(sslrootcert=str(other.ca_file))
        assert "certificate verify failed" in await refusal(connect, wrong_authority)
        assert "mismatch" in await refusal(connect, server.url(host="localhost"))
        assert "rejected SSL upgrade" in await refusal(
            connect, plain.render_as_string(hide_password=False)
        )


class Several:
    """Two addresses of one database, each behind a proxy that a test can make refuse or freeze."""

    def __init__(self, database: str, one: Proxy, other: Proxy) -> None:
        self.one, self.other = one, other
        url = make_url(database)
        self.url = (
            f"postgresql://{url.username}:{url.password}@127.0.0.1:{one.port},127.0.0.1:{other.port}"
            f"/{url.database}"
        )


@pytest.fixture
async def several(database: str) -> AsyncIterator[Several]:
    url = make_url(database)
    assert url.host is not None
    assert url.port is not None
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(proxy_to(url.host, url.port)) for _ in "12"]
        yield Several(database, one, other)


class TestOfSeveralServers:
    @pytest.mark.parametrize("connect", PLACES)
    async def test_every_place_finds_the_one_that_answers(
        self, several: Several, connect: Connect
    ) -> None:
        await several.one.refuse()

        await connect(several.url)

    async def test_one_that_does_not_answer_is_passed_over_and_not_asked_first_again(
        self, several: Several
    ) -> None:
        asked, over = [], asyncio.Event()

        async def say_nothing(_data: bytes) -> bool:
            asked.append(1)
            await over.wait()
            return False

        several.one.on_request = say_nothing
        for _ in range(3):
            await the_pool(several.url)
        over.set()

        assert len(asked) == 1

    async def test_the_other_is_found_when_the_one_is_gone_and_the_one_when_it_is_back(
        self, several: Several
    ) -> None:
        engine = Database(several.url, pool_size=2, application_name="test")
        for gone, there in [(several.other, several.one), (several.one, several.other)] * 2:
            await there.refuse()
            await there.accept()
            await gone.refuse()
            async with asyncio.timeout(20), engine.connect():
                pass
        await engine.close()

    async def test_when_none_answers_it_is_an_error_that_is_waited_for(
        self, several: Several
    ) -> None:
        await several.one.refuse()
        await several.other.refuse()

        with pytest.raises(ConnectionRefusedError) as raised:
            await the_pool(several.url)

        assert is_away(raised.value)


async def test_a_machine_that_is_gone_is_noticed_by_the_client(database: str) -> None:
    connection = await connecting.connect(database, application_name="test", settings={})
    opened = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]

    assert [
        opened.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in connecting._TCP_OPTIONS
    ] == list(connecting._TCP_OPTIONS.values())
    await connection.close()
