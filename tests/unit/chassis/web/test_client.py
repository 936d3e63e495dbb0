"""The client for what is ours connects directly, whatever the environment says."""

import asyncio

import httpx
import pytest

from chassis.web.client import DirectTransport, direct_client

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTP_PROXY": "http://127.0.0.1:1"},
        {"all_proxy": "socks5://127.0.0.1:1"},
        {"NO_PROXY": "::1/128,[::1],*.local,127.0.0.1/8", "HTTPS_PROXY": "http://127.0.0.1:1"},
        {"SSL_CERT_FILE": "/gone/ca.pem", "SSL_CERT_DIR": "/gone"},
    ],
    ids=", ".join,
)
@pytest.mark.parametrize("transport", [None, DirectTransport], ids=["usual", "subclassed"])
async def test_it_reaches_loopback(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    transport: type[DirectTransport] | None,
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    options: dict[str, httpx.AsyncBaseTransport] = {"transport": transport()} if transport else {}
    async with server, direct_client(**options) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/")

    assert answer.text == "ok"
