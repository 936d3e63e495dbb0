"""Kafka's producer as the relay uses it: opened and given up in time, and never out of order."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
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
from aiokafka.partitioner import murmur2

from chassis.failpoints import failpoint
from chassis.kafka.client import KafkaSecurity, start_or_close, translate_foreign_cancellation
from chassis.publishing.outbox_reader import Row
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

# Two of them are shorter than the relay's session may be silent, so that its lock is not lost over
# waiting: it may wait for one batch, send the next, and wait for that.
_ANSWER_WITHIN_S: Final = 2.8
_CLOSE_WITHIN_S: Final = 1.0
_LARGEST_REQUEST_BYTES: Final = 16 * 1_048_576
# The largest that brought anything; a topic takes 1 MiB.
_BATCH_BYTES: Final = 256 * 1_024
# Well below the day after which a broker forgets a producer that was silent.
_KNOWN_FOR_S: Final = 3_600.0

Place = tuple[str, int]
"""A topic and a partition of it."""

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
        self._known_at: dict[Place, float] = {}

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
            await start_or_close(producer.start(), opened.close, within_s=_ANSWER_WITHIN_S)
        except (KafkaError, OSError) as error:
            raise KafkaAway(type(error).__name__) from error
        return opened

    async def close(self) -> None:
        """Close it; what it has not sent by now it never sends."""
        # An idempotent one lets go of no record by itself, and would wait for a broker for ever.
        self._producer._message_accumulator.fail_all(KafkaConnectionError("given up"))  # noqa: SLF001
        try:
            with translate_foreign_cancellation():
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await self._producer.stop()
        except Exception as error:  # noqa: BLE001 - whatever its last request made of that
            log.debug("producer-given-up", error=type(error).__name__)
            with suppress(KafkaConnectionError), translate_foreign_cancellation():
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

    def batches_of(self, rows: Sequence[Row]) -> Sequence["Batch"]:
        """Put rows of topics that are there into batches, those that may be sent now.

        That is all, but of a partition where this producer is not known yet the first row alone.
        The first batches of all partitions come first: they make one request.
        """
        cluster = self._producer.client.cluster
        topics = {row["aggregatetype"] for row in rows}
        partitions = {topic: len(cluster.partitions_for_topic(topic)) for topic in topics}
        now = asyncio.get_running_loop().time()
        known = {place for place, at in self._known_at.items() if now - at < _KNOWN_FOR_S}
        lanes: dict[Place, list[Batch]] = {}
        for row in rows:
            topic = row["aggregatetype"]
            # Kafka keeps order only within a partition, and the key chooses it.
            place = topic, _hash_of(row["aggregateid"]) % partitions[topic]
            lane = lanes.get(place)
            if lane is None:
                lane = lanes[place] = []
            elif place not in known:
                continue
            if not lane or not lane[-1].add(row):
                lane.append(Batch(place, self._producer.create_batch()))
                lane[-1].add(row)
        return [batch for turn in zip_longest(*lanes.values()) for batch in turn if batch]

    async def send(self, batches: Sequence["Batch"]) -> Sequence[Answer]:
        """Send batches, and return for each of their rows what became of it."""
        await failpoint("relay.before-send")
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                for batch in batches:
                    batch.answer = await self._hand_over(batch)
                await failpoint("relay.before-ack")
                await asyncio.wait([batch.answer for batch in batches if batch.answer is not None])
        return [answer for batch in batches for answer in self._answers(batch)]

    async def send_alone(self, row: Row) -> BaseException | None:
        """Send one row, and return what went wrong with it."""
        [(_, error)] = await self.send(self.batches_of([row]))
        return error

    async def _hand_over(self, batch: "Batch") -> "asyncio.Future[Any]":
        topic, partition = batch.place
        answer: asyncio.Future[Any]
        try:
            answer = await self._producer.send_batch(batch.builder, topic, partition=partition)
        except KafkaError as error:
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        # Who asked may have left by then, and asyncio complains of what nobody looks at.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return answer

    def _answers(self, batch: "Batch") -> Iterator[Answer]:
        error = batch.error()
        if error is None:
            self._known_at[batch.place] = asyncio.get_running_loop().time()
        return ((row, error) for row in batch.rows)


@dataclass(slots=True)
class Batch:
    """Rows that go to one partition together, and are taken or refused together."""

    place: Place
    builder: Any
    rows: list[Row] = field(default_factory=list)
    answer: "asyncio.Future[Any] | None" = None

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
        if self.answer is None or not self.answer.done():
            if self.answer is not None:
                self.answer.cancel()
            return TimeoutError("not answered")
        error: BaseException | None = (
            KafkaConnectionError("given up by the client")
            if self.answer.cancelled()
            else self.answer.exception()
        )
        return error


@lru_cache(maxsize=10_000)
def _hash_of(key: str) -> int:
    """Return what Kafka's default partitioner divides; events of an aggregate come together."""
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def is_away(error: BaseException) -> bool:
    """Tell whether the broker did not answer or not now, rather than refuse for good."""
    if isinstance(error, KafkaConnectionError | KafkaTimeoutError | OSError):
        return True
    return isinstance(error, KafkaError) and bool(error.retriable)


def is_forbidden(error: BaseException) -> bool:
    """Tell whether the whole topic is closed to us, whatever the record."""
    return isinstance(error, TopicAuthorizationFailedError)
