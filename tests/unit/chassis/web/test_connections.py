import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from chassis.web.connections import ClientConnection, ConnectionLimits, Connections
from tests.unit.chassis.conftest import Logged

LIMITS = ConnectionLimits(total=3, per_network=2, head_s=10, body_s=30, reading_s=20)
HEAD = b"POST /toys HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written; ``unread`` is how much of it the client has not received."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.unread = 0
        self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Server:
    """Connections of one server, with an app that answers when the test lets it."""

    def __init__(self, limits: ConnectionLimits = LIMITS, app: ASGIApp | None = None) -> None:
        self.connections = Connections(limits)
        self.requests: list[Scope] = []
        self.bodies: list[bytes] = []
        self.received: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._config = Config(app or self._app, interface="asgi3", log_config=None, ws="none")
        self._config.load()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            self.received.append(message["type"])
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def connect(self, address: str = "192.0.2.1") -> tuple[ClientConnection, FakeTransport]:
        connection = ClientConnection(self._config, ServerState(), {}, connections=self.connections)
        transport = FakeTransport(address)
        connection.connection_made(transport)
        return connection, transport


def counted(reason: str) -> float:
    return REGISTRY.get_sample_value("http_connections_closed_total", {"reason": reason}) or 0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it happens in this event loop
            await asyncio.sleep(0)


def status_of(transport: FakeTransport) -> str:
    return transport.written.split(b" ")[1].decode() if transport.written else ""


def problem_of(transport: FakeTransport) -> dict[str, Any]:
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"Connection: close" in head or b"connection: close" in head
    assert b"x-content-type-options: nosniff" in head.lower()
    problem: dict[str, Any] = json.loads(body)
    assert f"x-correlation-id: {problem['correlation_id']}" in head.decode().lower()
    return problem


class TestTheHead:
    async def test_has_its_time_from_the_moment_of_connecting(self) -> None:
        connection, transport = Server().connect()

        connection.check(100)
        connection.check(109.9)
        before = transport.closed
        connection.check(110)

        assert (before, transport.closed) == (False, True)
        assert transport.written == b""  # it asked for nothing

    async def test_has_no_more_time_for_coming_byte_by_byte(self) -> None:
        connection, transport = Server().connect()
        for second, byte in enumerate(HEAD[:10]):
            connection.data_received(bytes([byte]))
            connection.check(second)
        connection.check(10)

        assert transport.closed
        assert (status_of(transport), problem_of(transport)["code"]) == ("408", "head-too-slow")

    async def test_of_a_later_request_has_its_time_from_its_first_byte(self) -> None:
        server = Server()
        connection, transport = server.connect()
        connection.check(0)
        connection.data_received(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        await until(lambda: server.bodies)
        connection.check(500)  # how long a connection stays idle is not the head's time
        connection.data_received(b"GET")
        connection.check(1000)
        connection.check(1009)
        before = transport.closed
        connection.check(1010)

        assert (before, transport.closed) == (False, True)


class TestTheBody:
    async def test_that_is_too_slow_gets_408_and_its_request_is_ended(self) -> None:
        server = Server()
        connection, transport = server.connect()
        connection.data_received(HEAD)
        for second, byte in enumerate(b"body"):
            connection.data_received(bytes([byte]))
            connection.check(second)
        connection.check(30)
        await until(lambda: "http.disconnect" in server.received)

        assert transport.closed
        assert (status_of(transport), problem_of(transport)["code"]) == ("408", "body-too-slow")

    async def test_that_is_complete_gives_the_answer_all_the_time_it_takes(self) -> None:
        server = Server()
        server.may_answer.clear()
        connection, transport = server.connect()
        connection.data_received(HEAD + b"whole")
        for second in range(0, 1000, 100):
            connection.check(second)
        closed = transport.closed
        server.may_answer.set()
        await until(lambda: transport.written)

        assert (closed, status_of(transport)) == (False, "200")


class TestAConnectionThatAsksNoMore:
    async def test_is_closed_although_its_last_body_came_after_the_answer(self) -> None:
        async def answer_at_once(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            answered.set()

        answered = asyncio.Event()
        connection, transport = Server(app=answer_at_once).connect()
        connection.data_received(HEAD + b"whol")
        await answered.wait()
        connection.data_received(b"e")
        connection.check(100)
        connection.check(109.9)
        before = transport.closed
        connection.check(110)

        assert (before, transport.closed) == (False, True)


class TestAnAnswer:
    async def test_that_its_client_does_not_read_is_given_up(self) -> None:
        server = Server()
        connection, transport = server.connect()
        connection.data_received(HEAD + b"whole")
        await until(lambda: transport.written)
        transport.unread = 1
        connection.check(0)
        connection.check(19)
        before = transport.aborted
        connection.check(20)

        assert (before, transport.aborted) == (False, True)

    async def test_is_given_up_although_the_connection_closes_once_it_is_read(self) -> None:
        connection, transport = Server().connect()
        transport.unread = 1
        transport.close()
        connection.check(0)
        connection.check(20)

        assert transport.aborted

    async def test_that_is_read_slowly_continues(self) -> None:
        connection, transport = Server().connect()
        connection.data_received(HEAD + b"whole")
        transport.unread = 1
        for second in range(0, 100, 15):
            connection.check(second)
            connection.pause_writing()
            connection.resume_writing()

        assert not transport.aborted


class TestTheBounds:
    async def test_one_more_of_a_network_is_refused_and_others_are_not(self) -> None:
        server = Server()
        ours = [server.connect("2001:db8::1"), server.connect("2001:db8::2")]
        _, third = server.connect("2001:db8::3")
        _, other = server.connect("192.0.2.7")

        assert [transport.closed for _, transport in ours] == [False, False]
        assert problem_of(third)["code"] == "too-many-connections-of-network"
        assert (status_of(third), third.closed, other.closed) == ("503", True, False)

    async def test_one_more_in_all_is_refused(self) -> None:
        server = Server()
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            server.connect(address)
        _, fourth = server.connect("192.0.2.4")

        assert problem_of(fourth)["code"] == "too-many-connections"
        assert b"retry-after: 2" in fourth.written.lower()

    async def test_what_has_ended_makes_room_once(self) -> None:
        server = Server()
        kept, _ = server.connect()
        ended, _ = server.connect()
        refused, _ = server.connect()
        for each in (refused, ended, ended):
            each.connection_lost(None)
        _, next_one = server.connect()
        _, one_more = server.connect()

        assert (next_one.closed, one_more.closed) == (False, True)
        assert kept.transport is not None

    async def test_a_trusted_proxy_has_the_connections_of_many_networks(self) -> None:
        server = Server(replace(LIMITS, trusted="10.0.0.0/8"))

        transports = [server.connect("10.0.0.1")[1] for _ in range(3)]

        assert [each.closed for each in transports] == [False] * 3


class TestWhatIsClosed:
    async def test_is_counted_and_logged_in_one_line(self, logged: Logged) -> None:
        server = Server()
        before = counted("too-many-connections-of-network")
        for _ in range(2 + 100):
            server.connect()
        for second in range(20):
            server.connections.report(second)

        assert counted("too-many-connections-of-network") == before + 100
        assert [line for line in logged if line["event"] == "connections closed"] == [
            {
                "event": "connections closed",
                "log_level": "warning",
                "open": 2,
                "reasons": {"too-many-connections-of-network": 100},
            }
        ]


class TestAMalformedRequest:
    @pytest.mark.parametrize(
        ("sent", "status", "code"),
        [
            (b"nonsense\r\n\r\n", "400", "malformed-request"),
            (b"GET / HTTP/1.1\r\n\r\n", "400", "malformed-request"),  # without Host
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 17_000, "431", "head-too-large"),
            (
                b"GET / HTTP/1.1\r\nHost: shop\r\nX: " + b"a" * 17_000 + b"\r\n\r\n",
                "431",
                "head-too-large",
            ),
            (
                b"POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: gzip\r\n\r\n",
                "501",
                "transfer-encoding-not-implemented",
            ),
        ],
        ids=["no-request", "no-host", "long-and-unfinished", "long", "unknown-coding"],
    )
    async def test_is_answered_with_a_problem_and_reaches_no_route(
        self, sent: bytes, status: str, code: str, logged: Logged
    ) -> None:
        server = Server()
        before = counted("malformed")
        connection, transport = server.connect()
        connection.data_received(sent)

        assert (status_of(transport), problem_of(transport)["code"]) == (status, code)
        assert transport.closed
        assert server.requests == []
        assert counted("malformed") == before + 1
        assert logged == []  # a summary has it

    @pytest.mark.parametrize(
        "sent",
        [
            b"GET / HTTP/1.1\nHost: shop\n\n",
            b"GET / HTTP/1.1\r\nHost: shop\r\nX: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: shop\n\r\n",
        ],
    )
    @pytest.mark.parametrize("size", [1, 1000])
    async def test_is_one_with_a_line_that_ends_with_lf_alone(self, sent: bytes, size: int) -> None:
        server = Server()
        connection, transport = server.connect()
        for begin in range(0, len(sent), size):
            if not transport.closed:
                connection.data_received(sent[begin : begin + size])

        assert status_of(transport) == "400"
        assert server.requests == []

    async def test_in_the_middle_of_its_body_ends_its_request(self) -> None:
        server = Server()
        connection, transport = server.connect()
        head = HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
        connection.data_received(head + b"no length\r\n")
        await until(lambda: "http.disconnect" in server.received)

        assert (status_of(transport), transport.closed) == ("400", True)


class TestFraming:
    async def test_a_length_beside_a_transfer_coding_is_ignored_and_the_connection_closed(
        self,
    ) -> None:
        server = Server()
        connection, transport = server.connect()
        framings = b"Content-Length: 5\r\nTransfer-Encoding: chunked"
        connection.data_received(
            HEAD.replace(b"Content-Length: 5", framings)
            + b"2\r\nab\r\n0\r\n\r\n"
            + b"GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n"
        )
        await until(lambda: transport.closed)

        assert server.bodies == [b"ab"]
        assert [scope["path"] for scope in server.requests] == ["/toys"]
        assert b"connection: close" in transport.written.lower()
        assert not any(name == b"content-length" for name, _ in server.requests[0]["headers"])


class TestATarget:
    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            (b"http://other.example/toys?a=b", "/toys", b"a=b"),
            (b"HTTPS://other.example", "/", b""),
            (b"http://other.example?a=b", "/", b"a=b"),
        ],
    )
    async def test_in_absolute_form_is_accepted_and_its_authority_is_the_host(
        self, target: bytes, path: str, query: bytes
    ) -> None:
        server = Server()
        connection, _ = server.connect()
        connection.data_received(b"GET " + target + b" HTTP/1.1\r\nHost: shop\r\n\r\n")
        await until(lambda: server.requests)

        (scope,) = server.requests
        assert (scope["path"], scope["query_string"]) == (path, query)
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        assert hosts == [b"other.example"]
