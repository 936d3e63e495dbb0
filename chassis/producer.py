"""Kafka's producer as the relay uses it: opened and given up in time, and never out of order."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import DefaultPartitioner

from chassis.failpoints import failpoint
from chassis.kafka import KafkaSecurity, cancelled_by_us_only
from chassis.outbox_queue import Row
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

# Shorter than the relay's session may be silent, so that its lock is not lost over waiting.
_ANSWER_WITHIN_S: Final = 4.0
_CLOSE_WITHIN_S: Final = 1.0
_LARGEST_REQUEST_BYTES: Final = 16 * 1_048_576
_BATCH_BYTES: Final = 64 * 1_024
# Well below the day after which a broker forgets a producer that was silent.
_KNOWN_FOR_S: Final = 3_600.0

_partition_of = DefaultPartitioner()

Answer = tuple[Row, BaseException | None]
"""A row that was sent, and what went wrong with it."""


class KafkaAway(Exception):
    """Kafka does not take records now; what was not acknowledged is sent again."""


class RowProducer:
    """An idempotent producer of outbox rows; once something was refused, it is of no more use.

    aiokafka counts on as if the refused batch had been taken, so the broker refuses whatever
    comes after it to the same partition. That keeps the order; but only where the broker knows
    the producer already. So the first row to each partition goes alone.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._known_at: dict[tuple[str, int], float] = {}

    @classmethod
    async def open(cls, settings: ServiceSettings) -> "RowProducer":
        """Start a producer.

        :raises KafkaAway: no broker answers
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap,
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=int(_ANSWER_WITHIN_S * 1_000),
            max_batch_size=_BATCH_BYTES,
            # The topics' limit decides, and the broker says so.
            max_request_size=_LARGEST_REQUEST_BYTES,
            **KafkaSecurity.of(settings).client_arguments(),
        )
        opened = cls(producer)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await producer.start()
        except BaseException as error:
            await opened.close()
            if isinstance(error, KafkaError | OSError):
                raise KafkaAway(type(error).__name__) from error
            raise
        return opened

    async def close(self) -> None:
        """Close it; what it has not sent by now it never sends."""
        # An idempotent one lets go of no record by itself, and would wait for a broker for ever.
        self._producer._message_accumulator.fail_all(KafkaConnectionError("given up"))  # noqa: SLF001
        try:
            with cancelled_by_us_only():
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await self._producer.stop()
        except Exception as error:  # noqa: BLE001 - whatever its last request made of that
            log.debug("producer-given-up", error=type(error).__name__)
            with suppress(KafkaConnectionError), cancelled_by_us_only():
                await self._producer.client.close()

    async def has_topic(self, topic: str) -> bool:
        """Tell whether the topic is there.

        :raises KafkaAway: no broker answers
        """
        client = self._producer.client
        if client.cluster.partitions_for_topic(topic) is None:
            client.add_topic(topic)
            updated = False
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    updated = await client.force_metadata_update()
            if not updated:
                raise KafkaAway("no metadata")
        return client.cluster.partitions_for_topic(topic) is not None

    async def send(self, rows: Sequence[Row]) -> Sequence[Answer]:
        """Send rows of topics that are there, in their order, as far as they may go now."""
        sent: list[tuple[Row, tuple[str, int], asyncio.Future[Any]]] = []
        first: set[tuple[str, int]] = set()
        await failpoint("relay.before-send")
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                for row in rows:
                    place = self._place_of(row)
                    if not self._is_known_at(place):
                        if place in first:
                            continue
                        first.add(place)
                    sent.append((row, place, await self._hand_over(row, place)))
                await failpoint("relay.before-ack")
                if sent:
                    await asyncio.wait([answer for _, _, answer in sent])
        return [(row, self._error_of(place, answer)) for row, place, answer in sent]

    async def send_alone(self, row: Row) -> BaseException | None:
        """Send one row, and return what went wrong with it."""
        sent = await self.send([row])
        return sent[0][1] if sent else TimeoutError("not taken")

    def _place_of(self, row: Row) -> tuple[str, int]:
        topic = row["aggregatetype"]
        partitions = sorted(self._producer.client.cluster.partitions_for_topic(topic))
        # Kafka keeps order only within a partition, and the key chooses it.
        return topic, _partition_of(row["aggregateid"].encode(), partitions, partitions)

    def _is_known_at(self, place: tuple[str, int]) -> bool:
        at = self._known_at.get(place)
        return at is not None and asyncio.get_running_loop().time() - at < _KNOWN_FOR_S

    async def _hand_over(self, row: Row, place: tuple[str, int]) -> "asyncio.Future[Any]":
        topic, partition = place
        headers = orjson.loads(row["headers"])
        answer: asyncio.Future[Any]
        try:
            answer = await self._producer.send(
                topic,
                partition=partition,
                value=row["payload"],
                key=row["aggregateid"].encode(),
                # When it was committed, not when it was sent: a reader sees how long it waited.
                timestamp_ms=int(row["created_at"].timestamp() * 1_000),
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
        except KafkaError as error:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        return answer

    def _error_of(
        self, place: tuple[str, int], answer: "asyncio.Future[Any]"
    ) -> BaseException | None:
        if not answer.done():
            answer.cancel()
            return TimeoutError("not answered")
        error: BaseException | None = (
            KafkaConnectionError("given up by the client")
            if answer.cancelled()
            else answer.exception()
        )
        if error is None:
            self._known_at[place] = asyncio.get_running_loop().time()
        return error


def is_away(error: BaseException) -> bool:
    """Tell whether the broker did not answer or not now, rather than refuse for good."""
    if isinstance(error, KafkaConnectionError | KafkaTimeoutError | OSError):
        return True
    return isinstance(error, KafkaError) and bool(error.retriable)


def is_forbidden(error: BaseException) -> bool:
    """Tell whether the whole topic is closed to us, whatever the record."""
    return isinstance(error, TopicAuthorizationFailedError)
