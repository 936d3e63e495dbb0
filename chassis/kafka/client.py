"""Connects clients to Kafka, and closes each one that fails or is cancelled while it starts."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from chassis.settings import KafkaSettings

_REQUEST_TIMEOUT_MS: Final = 5_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How a client authenticates itself, and how it verifies the brokers."""

    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: KafkaSettings) -> "KafkaSecurity":
        password = settings.kafka_sasl_password
        encrypted = settings.kafka_security_protocol.endswith("SSL")
        context = ssl.create_default_context(cafile=settings.kafka_ca_file) if encrypted else None
        if context is not None and settings.kafka_certificate_file is not None:
            context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_key_file)
        return cls(
            protocol=settings.kafka_security_protocol,
            sasl_mechanism=settings.kafka_sasl_mechanism,
            sasl_username=settings.kafka_sasl_username,
            sasl_password=password.get_secret_value() if password else None,
            ssl_context=context,
        )

    def client_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that every aiokafka client takes."""
        return {
            "security_protocol": self.protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_context": self.ssl_context,
        }


async def start_or_close(
    client: AIOKafkaClient,
    start: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Start what uses this client; if that fails, times out or is cancelled, close it.

    A bootstrap that is cancelled loses the connection that it has opened. So a cancellation waits
    for the bootstrap, which the request time-out bounds for each bootstrap address. What follows
    is cancelled at once: an idempotent producer asks for its id for as long as no broker answers.

    :raises KafkaError: no broker answers
    """
    bootstrap = client.bootstrap
    client.bootstrap = lambda: complete(bootstrap())
    try:
        with translate_foreign_cancellation():
            await start()
    except BaseException:
        await complete(close())
        raise


async def complete(work: Awaitable[T]) -> T:
    """Wait until the work is done, however often this task is cancelled meanwhile.

    :raises CancelledError: this task was cancelled; the work is done all the same
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # asyncio reports an exception that is never retrieved
    raise cancellation


@asynccontextmanager
async def admin_client(
    bootstrap: str, security: KafkaSecurity = KafkaSecurity()
) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an administrative client.

    :raises KafkaError: no broker answers
    :raises TimeoutError: no broker answers in time
    """
    client = await _open_admin_client(bootstrap, security)
    try:
        yield client
    finally:
        await complete(client.close())


async def _open_admin_client(bootstrap: str, security: KafkaSecurity) -> AIOKafkaAdminClient:
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        **security.client_arguments(),
    )
    # Brokers are asked one after the other, each for as long as a request may take.
    async with asyncio.timeout(_REQUEST_TIMEOUT_MS / 1_000 * (bootstrap.count(",") + 2)):
        await start_or_close(client._client, client.start, client.close)  # noqa: SLF001
    return client


class LastingAdminClient:
    """One administrative client for many requests; after a failed one it is opened again.

    After its start aiokafka does not use the bootstrap addresses any more, so a client never
    recovers when all its brokers have moved.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._bootstrap = settings.kafka_bootstrap
        self._security = KafkaSecurity.of(settings)
        self._client: AIOKafkaAdminClient | None = None
        self._in_use = asyncio.Lock()

    async def ask(self, request: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
        """Return the result of a request; several at once are carried out one after the other.

        :raises Exception: the request's own; the next request opens the client again
        """
        async with self._in_use:
            try:
                with translate_foreign_cancellation():
                    if self._client is None:
                        self._client = await _open_admin_client(self._bootstrap, self._security)
                    return await request(self._client)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await complete(client.close())


@contextmanager
def translate_foreign_cancellation() -> Generator[None, None, None]:
    """Turn a cancellation that is not this task's own into an error.

    aiokafka cancels its own futures and tasks when a broker dies, or when a client is closed soon
    after it was opened. It lets that ``CancelledError`` out, which would end the caller without an
    error.

    :raises KafkaConnectionError: aiokafka cancelled one of its own futures or tasks
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise KafkaConnectionError("given up by the client") from error
