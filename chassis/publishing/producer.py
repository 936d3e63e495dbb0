"""Kafka's producer as the relay uses it: bounded in time, and never out of order."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Final

import orjson
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import murmur2

from chassis.failpoints import failpoint
from chassis.kafka.client import KafkaSecurity, start_or_close, translate_foreign_cancellation
from chassis.publishing.outbox_reader import Row
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

# The relay waits for one send and begins the next without a word to its database session. Two of
# them are shorter than that session may be idle, or the relay would lose its lock by waiting.
_REQUEST_TIMEOUT_S: Final = 2.8
_CLOSE_TIMEOUT_S: Final = 1.0
_LARGEST_REQUEST_BYTES: Final = 16 * 1_048_576
# Larger batches were measured to be no faster; a topic takes 1 MiB.
_BATCH_BYTES: Final = 256 * 1_024
# Well below the day after which a broker forgets a producer that was silent.
_ESTABLISHED_FOR_S: Final = 3_600.0

SendResult = tuple[Row, BaseException | None]
"""A row that was sent, and why Kafka has not acknowledged it; None: it has."""


class KafkaAway(Exception):
    """Kafka does not take records now; rows that were not acknowledged are sent again."""


class RowProducer:
    """An idempotent producer of outbox rows; after a refusal it is of no more use.

    aiokafka counts on as if the refused batch had been taken, so the broker refuses every later
    batch to the same partition. That keeps the order, but only where the broker has taken a batch
    of this producer before. So the first row to each partition is sent alone, which establishes
    the producer there.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._acknowledged_at: dict[TopicPartition, float] = {}

    @classmethod
    async def open(cls, settings: ServiceSettings) -> "RowProducer":
        """Start a producer.

        :raises KafkaAway: no broker answers
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap,
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1_000),
            max_batch_size=_BATCH_BYTES,
            # The topics' limit decides, and the broker refuses what exceeds it.
            max_request_size=_LARGEST_REQUEST_BYTES,
            **KafkaSecurity.of(settings).client_arguments(),
        )
        opened = cls(producer)
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await start_or_close(producer.client, producer.start, opened.close)
        except (KafkaError, OSError) as error:
            raise KafkaAway(type(error).__name__) from error
        return opened

    async def close(self) -> None:
        """Close it; what it has not sent by now it never sends."""
        # An idempotent producer gives up no record by itself, and would wait for a broker for ever.
        self._producer._message_accumulator.fail_all(KafkaConnectionError("given up"))  # noqa: SLF001
        client = self._producer.client
        transports = [each._writer.transport for each in client._conns.values() if each.connected()]  # noqa: SLF001
        # The second is for what a stop that fails, or takes too long, leaves open.
        for close in (self._producer.stop, client.close):
            try:
                with translate_foreign_cancellation():
                    async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                        await close()
                break
            except Exception as error:  # noqa: BLE001 - the error of its last request, of any type
                log.debug("producer-given-up", error=type(error).__name__)
        for transport in transports:
            transport.abort()  # one whose broker is frozen keeps what it could not send

    async def has_topic(self, topic: str) -> bool:
        """Return whether the topic exists.

        :raises KafkaAway: no broker answers
        """
        client = self._producer.client
        if client.cluster.partitions_for_topic(topic) is None:
            client.add_topic(topic)
            updated = False
            with suppress(TimeoutError):
                async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                    updated = await client.force_metadata_update()
            if not updated:
                raise KafkaAway("no metadata")
        return client.cluster.partitions_for_topic(topic) is not None

    def is_hidden(self, topic: str) -> bool:
        """Return whether a topic that ``has_topic`` did not find is forbidden, not missing."""
        return topic in self._producer.client.cluster.unauthorized_topics

    def batches_of(self, rows: Sequence[Row]) -> Sequence["Batch"]:
        """Put rows of existing topics into batches, as far as they may be sent now.

        Of a partition where this producer is not established, only the first row may. The first
        batch of every partition comes before any second one: they go in one request.
        """
        cluster = self._producer.client.cluster
        topics = {row["aggregatetype"] for row in rows}
        partitions = {topic: len(cluster.partitions_for_topic(topic)) for topic in topics}
        oldest = asyncio.get_running_loop().time() - _ESTABLISHED_FOR_S
        established = {each for each, at in self._acknowledged_at.items() if at > oldest}
        batches: dict[TopicPartition, list[Batch]] = {}
        for row in rows:
            topic = row["aggregatetype"]
            # Kafka keeps order only within a partition, and the key chooses it.
            partition = TopicPartition(topic, _hash_of(row["aggregateid"]) % partitions[topic])
            of_partition = batches.get(partition)
            if of_partition is None:
                of_partition = batches[partition] = []
            elif partition not in established:
                continue
            if not of_partition or not of_partition[-1].add(row):
                of_partition.append(Batch(partition, self._producer.create_batch()))
                of_partition[-1].add(row)
        rounds = zip_longest(*batches.values())
        return [batch for each_round in rounds for batch in each_round if batch is not None]

    async def send(self, batches: Sequence["Batch"]) -> Sequence[SendResult]:
        """Send batches, and return the result of each of their rows."""
        await failpoint("relay.before-send")
        with suppress(TimeoutError):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                acknowledgements = [await self._enqueue(batch) for batch in batches]
                await failpoint("relay.before-ack")
                await asyncio.wait(acknowledgements)
        return [result for batch in batches for result in self._results(batch)]

    async def send_alone(self, row: Row) -> BaseException | None:
        """Send one row, and return why Kafka has not acknowledged it; None: it has."""
        [(_, error)] = await self.send(self.batches_of([row]))
        return error

    async def _enqueue(self, batch: "Batch") -> "asyncio.Future[Any]":
        acknowledgement: asyncio.Future[Any]
        try:
            acknowledgement = await self._producer.send_batch(
                batch.builder, batch.partition.topic, partition=batch.partition.partition
            )
        except KafkaError as error:
            acknowledgement = asyncio.get_running_loop().create_future()
            acknowledgement.set_exception(error)
        # The relay may have stopped by then, and asyncio reports an error that is never retrieved.
        acknowledgement.add_done_callback(lambda done: done.cancelled() or done.exception())
        batch.acknowledgement = acknowledgement
        return acknowledgement

    def _results(self, batch: "Batch") -> Iterator[SendResult]:
        error = batch.error()
        if error is None:
            self._acknowledged_at[batch.partition] = asyncio.get_running_loop().time()
        return ((row, error) for row in batch.rows)


@dataclass(slots=True)
class Batch:
    """Rows of one partition that Kafka takes or refuses together."""

    partition: TopicPartition
    builder: Any
    rows: list[Row] = field(default_factory=list)
    # None: the producer has not taken it yet.
    acknowledgement: "asyncio.Future[Any] | None" = None

    def add(self, row: Row) -> bool:
        """Add a row; false when there is no room for it."""
        added = self.builder.append(
            key=row["aggregateid"].encode(),
            value=row["payload"],
            # When it was committed, not when it was sent: a reader sees how long it waited.
            timestamp=row["created_ms"],
            headers=[
                (name, value.encode()) for name, value in orjson.loads(row["headers"]).items()
            ],
        )
        if added is not None:
            self.rows.append(row)
        return added is not None

    def error(self) -> BaseException | None:
        """Return why Kafka has not acknowledged it; None: it has. One that is late is given up."""
        acknowledgement = self.acknowledgement
        if acknowledgement is None:
            return TimeoutError("not sent")
        if not acknowledgement.done():
            acknowledgement.cancel()
            return TimeoutError("not answered")
        error: BaseException | None = (
            KafkaConnectionError("given up by the client")
            if acknowledgement.cancelled()
            else acknowledgement.exception()
        )
        return error


@lru_cache(maxsize=10_000)
def _hash_of(key: str) -> int:
    """Return the number from which Kafka's default partitioner computes a key's partition."""
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def is_away(error: BaseException) -> bool:
    """Return whether the broker does not answer or not now, rather than refuses for good."""
    if isinstance(error, KafkaConnectionError | KafkaTimeoutError | OSError):
        return True
    return isinstance(error, KafkaError) and bool(error.retriable)


def is_forbidden(error: BaseException) -> bool:
    """Return whether this service may not write to the topic, whatever the record."""
    return isinstance(error, TopicAuthorizationFailedError)
