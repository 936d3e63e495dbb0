"""A service as the gateway reaches it: its own pool of connections, its own time-outs."""

import ssl
from collections.abc import AsyncIterable, Sequence
from typing import Final

import httpx

from gateway.headers import Header
from gateway.routes import Service
from gateway.settings import GatewaySettings

# Shorter than the 5 s after which the services' server closes an idle connection: a request sent
# just then would be lost, and it is not ours to send it again.
_KEEPALIVE_S: Final = 3.0


class Upstream:
    """Sends requests to one service. Each has its own pool: a slow one can't exhaust another's.

    Nothing is sent twice. It is httpx's transport without its client, which would keep cookies
    from one person for another.
    """

    def __init__(
        self, service: Service, url: str, settings: GatewaySettings, tls: ssl.SSLContext
    ) -> None:
        self.service = service
        self._url = httpx.URL(url)
        self._timeouts = {
            "connect": settings.connect_timeout_s,
            "read": settings.answer_timeout_s,
            "write": settings.answer_timeout_s,
            "pool": settings.queue_timeout_s,
        }
        self._transport = httpx.AsyncHTTPTransport(
            verify=tls,
            limits=httpx.Limits(
                max_connections=settings.max_connections,
                max_keepalive_connections=settings.max_connections,
                keepalive_expiry=_KEEPALIVE_S,
            ),
        )

    async def send(
        self,
        method: str,
        target: str,
        headers: Sequence[Header] = (),
        content: bytes | AsyncIterable[bytes] = b"",
    ) -> httpx.Response:
        """Send a request, and return its answer once the head is there; the caller closes it.

        :raises httpx.TransportError: no connection, no answer in time, or none that is HTTP
        """
        request = httpx.Request(
            method,
            self._url.copy_with(raw_path=target.encode("ascii")),
            headers=list(headers),
            content=content,
            extensions={"timeout": self._timeouts},
        )
        answer = await self._transport.handle_async_request(request)
        answer.request = request
        return answer

    async def get(self, path: str) -> httpx.Response:
        """Ask for this path on the gateway's own behalf, and return the whole answer.

        :raises httpx.TransportError: as ``send``
        """
        answer = await self.send("GET", path)
        try:
            await answer.aread()
        finally:
            await answer.aclose()
        return answer

    async def aclose(self) -> None:
        await self._transport.aclose()
