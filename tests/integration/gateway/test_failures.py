import asyncio
import json
import socket
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Send

from .conftest import LogLines
from .toys import Toy, connection, gateway, never, respond, serving, tcp_service, until


async def begin(request: Request, send: Send) -> None:
    await respond(send, 200, b"first", more_body=True)
    await never(request, send)


def problem_of(response: httpx.Response) -> tuple[int, str, str]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["correlation_id"] == response.headers["x-correlation-id"]
    assert problem["status"] == response.status_code
    return problem["status"], problem["code"], problem["detail"]


class TestAServiceThatFails:
    async def test_is_unreachable_where_nothing_listens(self) -> None:
        async with gateway() as client:
            response = await client.get("/users/me")

        assert problem_of(response) == (
            502,
            "service-unreachable",
            "the users service cannot be reached",
        )

    async def test_does_not_affect_the_others(self, users_url: str) -> None:
        async with gateway(users_url=users_url) as client:
            unreachable = await client.get("/accounts/1")
            reachable = await client.get("/users/me")

        assert (unreachable.status_code, reachable.status_code) == (502, 200)

    async def test_has_not_answered_in_time(self, users: Toy, users_url: str) -> None:
        users.answer = never
        async with gateway(users_url=users_url, answer_timeout_s=0.1) as client:
            response = await client.get("/users/me")
            await until(lambda: users.in_flight == 0)

        assert problem_of(response) == (
            504,
            "service-timeout",
            "the users service did not answer in time",
        )

    @pytest.mark.parametrize(
        "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"not HTTP at all\r\n"]
    )
    async def test_gave_no_complete_answer(self, answer: bytes) -> None:
        requests = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            writer.write(answer)

        async with tcp_service(serve) as url, gateway(users_url=url) as client:
            response = await client.post("/users", content=b"{}")

        assert problem_of(response) == (
            502,
            "service-answer-broken",
            "the users service gave no complete answer",
        )
        assert requests == 1  # the service may have done it, so it is not sent again

    async def test_does_not_take_the_connection_in_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            port = full.getsockname()[1]
            # These connections fill the backlog; then the kernel answers no further one.
            waiting = [
                asyncio.create_task(asyncio.open_connection("127.0.0.1", port)) for _ in range(3)
            ]
            async with gateway(
                users_url=f"http://127.0.0.1:{port}", connect_timeout_s=0.3
            ) as client:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                response = await client.get("/users/me")
            for each in waiting:
                each.cancel()
            for opened in await asyncio.gather(*waiting, return_exceptions=True):
                if isinstance(opened, tuple):
                    opened[1].close()

        assert problem_of(response) == (
            504,
            "service-timeout",
            "the users service did not take the connection in time",
        )

    async def test_has_more_requests_than_it_may(self, users: Toy, users_url: str) -> None:
        users.answer = never
        async with gateway(users_url=users_url, max_connections=1, queue_timeout_s=0.1) as client:
            first = asyncio.create_task(client.get("/users/me"))
            await until(lambda: users.in_flight == 1)
            second = await client.get("/users/me")
            first.cancel()

        assert problem_of(second) == (
            503,
            "service-busy",
            "the users service has more requests than it can take",
        )
        assert second.headers["retry-after"] == "2"

    async def test_is_named_in_the_log(self, log_lines: LogLines) -> None:
        async with gateway() as client:
            await client.get("/accounts/1")

        failed = next(line for line in log_lines if line["event"] == "service failed")
        assert failed["to"] == "accounts"
        assert failed["code"] == "service-unreachable"


class TestAnAnswerThatBreaksOff:
    @pytest.mark.parametrize(
        "framing",
        [b"Content-Length: 1000\r\n\r\nfirst", b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"],
    )
    async def test_is_cut_for_the_client_too(self, framing: bytes, log_lines: LogLines) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n" + framing)

        async with tcp_service(serve) as url, gateway(users_url=url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/users/me")

        assert any(line["event"] == "answer broke off" for line in log_lines)

    async def test_by_falling_silent_is_cut_too(self, users: Toy, users_url: str) -> None:
        users.answer = begin
        async with gateway(users_url=users_url, answer_timeout_s=1) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/users/me")


class TestAConnection:
    async def test_that_broke_is_not_used_again(self, users: Toy, users_url: str) -> None:
        users.answer = never
        async with gateway(users_url=users_url, max_connections=1, answer_timeout_s=1) as client:
            await client.get("/users/me")
            users.answer = Toy().answer
            response = await client.get("/users/me")

        assert response.status_code == 200

    async def test_is_kept_for_the_next_request(self) -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        async with tcp_service(serve) as url, gateway(users_url=url) as client:
            for _ in range(3):
                await client.get("/users/me")

        assert connections == 1

    @pytest.mark.parametrize(
        ("method", "path", "status", "times"),
        [("POST", "/users", 502, 1), ("GET", "/users/me", 200, 2)],
    )
    async def test_that_turns_out_closed_fails_a_command_and_repeats_a_safe_request(
        self, method: str, path: str, status: int, times: int
    ) -> None:
        received: list[str] = []

        async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            received.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[0])

        async with tcp_service(answer_once) as url, gateway(users_url=url) as client:
            await client.get("/users/me")
            response = await client.request(method, path)

        assert response.status_code == status
        assert received == ["GET", *[method] * times]


class TestABodyThatIsTooLarge:
    async def test_by_its_announced_length_reaches_no_service(
        self, users: Toy, users_url: str
    ) -> None:
        async with gateway(users_url=users_url, max_body_bytes=1000) as client:
            response = await client.post("/users", content=b"x" * 1001)

        assert problem_of(response)[:2] == (413, "body-too-large")
        assert users.requests == []

    async def test_by_what_comes_reaches_no_service_either(
        self, users: Toy, users_url: str
    ) -> None:
        async def chunks() -> Any:
            for _ in range(20):
                yield b"x" * 100

        async with gateway(users_url=users_url, max_body_bytes=1000) as client:
            response = await client.post("/users", content=chunks())

        assert problem_of(response)[:2] == (413, "body-too-large")
        assert users.requests == []

    async def test_just_within_the_bound_goes_through(self, users_url: str) -> None:
        async with gateway(users_url=users_url, max_body_bytes=1000) as client:
            response = await client.post("/users", content=b"x" * 1000)

        assert response.json()["body"] == "x" * 1000


class TestASlowClient:
    async def test_that_does_not_send_its_body_gets_408_and_is_disconnected(
        self, users: Toy, users_url: str
    ) -> None:
        async with (
            gateway(users_url=users_url, http_body_timeout_s=0.1) as client,
            connection(client) as (reader, writer),
        ):
            writer.write(b"POST /users HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n")
            answer = await reader.read()

        assert answer.startswith(b"HTTP/1.1 408")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body-too-slow"
        assert users.requests == []

    async def test_that_does_not_send_its_body_takes_no_place_at_the_service(
        self, users: Toy, users_url: str
    ) -> None:
        head = b"POST /users HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n"
        async with (
            gateway(users_url=users_url, max_connections=1, queue_timeout_s=0.1) as client,
            connection(client) as (reader, writer),
        ):
            writer.write(head + b"Expect: 100-continue\r\n\r\n")
            # The gateway has begun to read the body.
            await reader.readuntil(b"100 Continue\r\n\r\n")
            writer.write(b"hal")
            others = [(await client.get("/users/me")).status_code for _ in range(3)]
            asked_before = list(users.requests)
            writer.write(b"f")
            answer = await reader.readuntil(b"\r\n\r\n")

        assert others == [200] * 3
        assert asked_before == ["GET /users/me"] * 3
        assert answer.startswith(b"HTTP/1.1 200")

    async def test_that_does_not_read_its_answer_is_disconnected(
        self, users: Toy, users_url: str
    ) -> None:
        users.answer = flood
        async with (
            gateway(users_url=users_url, http_reading_timeout_s=0.2) as client,
            connection(client) as (_, writer),
        ):
            writer.write(b"GET /users/me HTTP/1.1\r\nHost: g\r\n\r\n")
            await until(lambda: users.requests != [])
            await until(lambda: users.in_flight == 0)


class TestANetwork:
    """Clients behind a trusted proxy come from the networks that it names."""

    async def test_that_has_its_share_in_use_is_refused_and_others_are_not(
        self, users: Toy, users_url: str
    ) -> None:
        users.answer = never
        async with gateway(
            users_url=users_url,
            trusted_proxies="127.0.0.1",
            max_connections=5,
            max_connections_per_network=2,
            queue_timeout_s=0.1,
        ) as client:
            ours = [asyncio.create_task(ask_from(client, f"2001:db8::{i}")) for i in range(2)]
            await until(lambda: users.in_flight == 2)
            refused = await ask_from(client, "2001:db8::ffff")
            users.answer = Toy().answer
            other = await ask_from(client, "192.0.2.1")
            for each in ours:
                each.cancel()
            await until(lambda: users.in_flight == 0)
            again = await ask_from(client, "2001:db8::ffff")

        assert problem_of(refused)[:2] == (429, "network-busy")
        assert refused.headers["retry-after"] == "2"
        assert (other.status_code, again.status_code) == (200, 200)


async def ask_from(client: httpx.AsyncClient, address: str) -> httpx.Response:
    return await client.get("/users/me", headers={"X-Forwarded-For": address})


async def flood(request: Request, send: Send) -> None:
    await respond(send, 200, b"", more_body=True)
    while not await request.is_disconnected():
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})


class TestAClientThatDisconnects:
    @pytest.mark.parametrize("when", ["before the answer", "in the middle of it"])
    async def test_cancels_its_request(
        self, users: Toy, client: httpx.AsyncClient, when: str
    ) -> None:
        users.answer = begin if when == "in the middle of it" else never
        async with connection(client) as (reader, writer):
            writer.write(b"GET /users/me HTTP/1.1\r\nHost: g\r\n\r\n")
            await until(lambda: users.in_flight == 1)
            if when == "in the middle of it":
                await reader.readuntil(b"first")
        await until(lambda: users.in_flight == 0)

    async def test_in_the_middle_of_its_body_leaves_no_request(
        self, users: Toy, client: httpx.AsyncClient, log_lines: LogLines
    ) -> None:
        async with connection(client) as (_, writer):
            writer.write(b"POST /users HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nhalf")
        await until(lambda: any(line["event"] == "request" for line in log_lines))

        assert users.requests == []

    async def test_frees_its_connection_for_the_next(self, users: Toy, users_url: str) -> None:
        users.answer = never
        async with gateway(users_url=users_url, max_connections=1) as client:
            async with connection(client) as (_, writer):
                writer.write(b"GET /users/me HTTP/1.1\r\nHost: g\r\n\r\n")
                await until(lambda: users.in_flight == 1)
            users.answer = Toy().answer
            response = await client.get("/users/me")

        assert response.status_code == 200


async def test_a_slow_service_does_not_use_up_anothers_connections(
    users: Toy, users_url: str
) -> None:
    users.answer = never
    async with (
        serving(Toy()) as accounts_url,
        gateway(users_url=users_url, accounts_url=accounts_url, max_connections=2) as client,
    ):
        hanging = [asyncio.create_task(client.get("/users/me")) for _ in range(2)]
        await until(lambda: users.in_flight == 2)
        response = await client.get("/accounts/1")
        for each in hanging:
            each.cancel()

    assert response.status_code == 200
