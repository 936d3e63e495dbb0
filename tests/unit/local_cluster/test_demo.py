"""The demo's client repeats requests while processes are killed."""

import asyncio
import io
from collections.abc import Sequence

import httpx
from rich.console import Console

from local_cluster.demo import Journey, RetryingTransport

_NO_ANSWER = b""
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CREATED = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def post_to_a_server(answers: Sequence[bytes]) -> tuple[httpx.Response, list[bytes]]:
    """Post to a server that gives these answers in turn; return the last, and all bodies."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
        bodies.append(body)
        writer.write(answers[len(bodies) - 1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server, httpx.AsyncClient(transport=RetryingTransport()) as client:
        port = server.sockets[0].getsockname()[1]
        return await client.post(f"http://127.0.0.1:{port}/", content=b"sign up"), bodies


class TestRetryingTransport:
    async def test_a_request_without_an_answer_is_sent_again(self) -> None:
        answer, bodies = await post_to_a_server([_NO_ANSWER, _BAD_GATEWAY, _CREATED])

        assert answer.status_code == 201
        assert bodies == [b"sign up"] * 3


class TestAJourney:
    def test_is_printed_in_the_order_of_time(self) -> None:
        shown = io.StringIO()
        journey = Journey(httpx.AsyncClient(), "", began_at=100.0)
        journey.add_step("Kafka", 100.25, "users.user, partition 2")
        journey.add_step("outbox", 100.125, "[number] 1")

        journey.print_steps(Console(file=shown, width=200, color_system=None))

        head, first, second = shown.getvalue().splitlines()
        assert head == "milliseconds from sending the request"
        assert first == "    125.0 ms  outbox            [number] 1"
        assert second.startswith("    250.0 ms  Kafka")
