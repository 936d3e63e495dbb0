"""The gateway's client of one service, with its own connections and time-outs."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from gateway.headers import Header
from gateway.settings import GatewaySettings

# Shorter than the 5 s after which the services' server closes an idle connection: a request sent
# at that moment would be lost, and the gateway never repeats a command.
_KEEPALIVE_S: Final = 3.0
# Fields that aiohttp would add to those of the client.
_NOT_ADDED: Final = frozenset({"Accept", "Accept-Encoding", "Content-Type", "User-Agent"})


@dataclass(eq=False)
class ServiceFailed(Exception):
    """A service gave no answer: the status and code for the client, and the reason as text."""

    status: int
    code: str
    reason: str


class Upstream:
    """Sends requests to one service. A slow service cannot use up another's connections."""

    def __init__(
        self, service: str, url: str, settings: GatewaySettings, tls: ssl.SSLContext
    ) -> None:
        self.service = service
        self._url = url.rstrip("/")
        self._queue_timeout_s = settings.queue_timeout_s
        self._free = asyncio.Semaphore(settings.max_connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ssl=tls),
            # A jar would send one client's cookies with the requests of others.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=settings.connect_timeout_s,
                sock_read=settings.answer_timeout_s,
            ),
            auto_decompress=False,
            skip_auto_headers=_NOT_ADDED,
        )

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        target: str,
        headers: Sequence[Header] = (),
        content: bytes | AsyncIterable[bytes] = b"",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and yield the answer once its head is there; its body is still to come.

        A command is sent once. A safe request is sent a second time if a kept connection turns out
        to be closed.

        :raises ServiceFailed: no connection, no answer in time, or none that is HTTP; also while
            the answer's body is read
        """
        with _failures():
            await self._wait_for_connection()
            try:
                async with self._session.request(
                    method,
                    URL(self._url + target, encoded=True),
                    headers=[
                        (name.decode(), value.decode("utf-8", "replace")) for name, value in headers
                    ],
                    data=content or None,
                    allow_redirects=False,
                ) as answer:
                    try:
                        yield answer
                    except BaseException:
                        # Left early, the connection would be kept until the body is sent.
                        answer.close()
                        raise
            finally:
                self._free.release()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Get this path for the gateway itself, and return the status and the body.

        :raises ServiceFailed: as ``ask``
        """
        async with self.ask("GET", path) as answer:
            return answer.status, await answer.read()

    async def aclose(self) -> None:
        await self._session.close()

    async def _wait_for_connection(self) -> None:
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise ServiceFailed(
                503, "service-busy", "has more requests than it can take"
            ) from error


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise ServiceFailed(
            504, "service-timeout", "did not take the connection in time"
        ) from error
    except aiohttp.ServerTimeoutError as error:
        raise ServiceFailed(504, "service-timeout", "did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        raise ServiceFailed(502, "service-unreachable", "cannot be reached") from error
    except aiohttp.ClientError as error:
        raise ServiceFailed(502, "service-answer-broken", "gave no complete answer") from error
