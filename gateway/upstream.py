"""The gateway's client of one service, with its own connections and time-outs."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

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


class NetworkBusy(Exception):
    """The client's network has its whole share of a service's connections in use."""


class Upstream:
    """Sends requests to one service. A slow service cannot use up another's connections.

    Nor can one network of clients use up those of others: it has a share of them.

    :param streams: for answers that last: with the connections and the patience of those
    """

    def __init__(
        self,
        service: str,
        url: str,
        settings: GatewaySettings,
        tls: ssl.SSLContext,
        *,
        streams: bool = False,
    ) -> None:
        self.service = service
        self._url = url.rstrip("/")
        self._queue_timeout_s = settings.queue_timeout_s
        # A stream begins as soon as any answer; only then is there more patience.
        self._head_timeout_s = settings.answer_timeout_s if streams else None
        self._free = asyncio.Semaphore(
            settings.max_streams if streams else settings.max_connections
        )
        self._share = (
            settings.max_streams_per_network if streams else settings.max_connections_per_network
        )
        # Of the networks that have requests in progress; the others leave nothing behind.
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ssl=tls),
            # A jar would send one client's cookies with the requests of others.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=settings.connect_timeout_s,
                sock_read=(
                    settings.stream_silence_timeout_s if streams else settings.answer_timeout_s
                ),
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
        content: bytes = b"",
        *,
        network: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, and yield the answer once its head is there; its body is still to come.

        A command is sent once. A safe request is sent a second time if a kept connection turns out
        to be closed.

        :param network: of the client; None for the gateway's own requests, which have no share
        :raises NetworkBusy: the network's share of the connections is in use
        :raises ServiceFailed: no connection, no answer in time, or none that is HTTP; also while
            the answer's body is read
        """
        with _failures():
            async with self._place(network), AsyncExitStack() as asked:
                async with asyncio.timeout(self._head_timeout_s):
                    answer = await asked.enter_async_context(
                        self._session.request(
                            method,
                            URL(self._url + target, encoded=True),
                            headers=[
                                (name.decode(), value.decode("utf-8", "replace"))
                                for name, value in headers
                            ],
                            data=content or None,
                            allow_redirects=False,
                        )
                    )
                try:
                    yield answer
                except BaseException:
                    # Left early, the connection would be kept until the body is sent.
                    answer.close()
                    raise

    async def get(self, path: str) -> tuple[int, bytes]:
        """Get this path for the gateway itself, and return the status and the body.

        :raises ServiceFailed: as ``ask``
        """
        async with self.ask("GET", path) as answer:
            return answer.status, await answer.read()

    async def aclose(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def _place(self, network: str | None) -> AsyncIterator[None]:
        """Hold one of the connections, of the network's share first: it waits among its own."""
        busy: Exception = ServiceFailed(503, "service-busy", "has more requests than it can take")
        async with AsyncExitStack() as held:
            waited_for = busy
            try:
                async with asyncio.timeout(self._queue_timeout_s):
                    if network is not None:
                        waited_for = NetworkBusy()
                        share = self._shares.setdefault(network, asyncio.Semaphore(self._share))
                        await held.enter_async_context(share)
                        waited_for = busy
                    await held.enter_async_context(self._free)
            except TimeoutError as error:
                raise waited_for from error
            yield


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise ServiceFailed(
            504, "service-timeout", "did not take the connection in time"
        ) from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise ServiceFailed(504, "service-timeout", "did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        raise ServiceFailed(502, "service-unreachable", "cannot be reached") from error
    except aiohttp.ClientError as error:
        raise ServiceFailed(502, "service-answer-broken", "gave no complete answer") from error
