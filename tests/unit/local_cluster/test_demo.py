"""The demo's client while processes are killed under it."""

import asyncio
from collections.abc import Sequence

import httpx

from local_cluster.demo import Patient

_GONE = b""
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CREATED = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def answers_to_a_command(said: Sequence[bytes]) -> tuple[httpx.Response, list[bytes]]:
    """Post where each connection in turn is answered so; return the answer, and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
        came.append(body)
        writer.write(said[len(came) - 1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server, httpx.AsyncClient(transport=Patient()) as client:
        port = server.sockets[0].getsockname()[1]
        return await client.post(f"http://127.0.0.1:{port}/", content=b"sign up"), came


class TestPatience:
    async def test_what_dies_before_it_answers_is_asked_again(self) -> None:
        answer, came = await answers_to_a_command([_GONE, _BAD_GATEWAY, _CREATED])

        assert answer.status_code == 201
        assert came == [b"sign up"] * 3
