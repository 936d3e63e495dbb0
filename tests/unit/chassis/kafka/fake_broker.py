"""A broker that answers only some requests, and counts the connections to it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiokafka.protocol.admin import ApiVersionRequest, ApiVersionResponse_v0
from aiokafka.protocol.api import Response
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v0
from aiokafka.protocol.transaction import InitProducerIdRequest, InitProducerIdResponse_v0

# The requests of a client's start, in their order.
VERSIONS = ApiVersionRequest.API_KEY
METADATA = MetadataRequest.API_KEY
INIT_PRODUCER_ID = InitProducerIdRequest.API_KEY
_SUPPORTED = [(each, 0, 0) for each in (VERSIONS, METADATA, INIT_PRODUCER_ID)]


class FakeBroker:
    """One broker on a port of its own; a request that it does not answer waits for ever.

    :ivar answers: the API keys of the requests that it answers
    :ivar advertised_port: where its metadata has the one broker of the cluster
    :ivar connections: how many are open
    :ivar received: the API keys of the requests that came
    :ivar unanswered: how many of them it does not answer
    """

    def __init__(self, *answers: int) -> None:
        self.answers = frozenset(answers)
        self.port = self.advertised_port = 0
        self.received: list[int] = []
        self.unanswered = 0
        self.received_bytes = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        return len(self._writers)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.advertised_port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Take no more connections, and cut those that are open."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Read nothing more from the connections that are open."""
        for writer in self._writers:
            assert isinstance(writer.transport, asyncio.ReadTransport)
            writer.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        for writer in self._writers:
            assert isinstance(writer.transport, asyncio.ReadTransport)
            writer.transport.resume_reading()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(ConnectionError):
                while True:
                    await self._answer_next(reader, writer)
        except asyncio.IncompleteReadError as error:
            self.received_bytes += len(error.partial)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer_next(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        request = await reader.readexactly(size)
        api_key, _version, correlation_id = struct.unpack(">hhi", request[:8])
        self.received.append(api_key)
        self.received_bytes += size
        if api_key in self.answers:
            answer = struct.pack(">i", correlation_id) + self._response(api_key).encode()
            writer.write(struct.pack(">i", len(answer)) + answer)
        else:
            self.unanswered += 1

    def _response(self, api_key: int) -> Response:
        if api_key == VERSIONS:
            return ApiVersionResponse_v0(0, _SUPPORTED)
        if api_key == METADATA:
            return MetadataResponse_v0([(1, "127.0.0.1", self.advertised_port)], [])
        return InitProducerIdResponse_v0(0, 0, 1, 0)


@asynccontextmanager
async def fake_broker(*answers: int) -> AsyncIterator[FakeBroker]:
    """Have a broker that answers these requests while the block runs."""
    broker = FakeBroker(*answers)
    await broker.start()
    try:
        yield broker
    finally:
        broker.stop()
