"""Reads every record of every topic of the catalogue, as a consumer of no group."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from chassis.consuming.records import Record, identity_of, open_record
from chassis.kafka.client import admin_client
from chassis.kafka.topic_ids import topic_ids
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from contracts.envelope import InvalidEnvelope, event_in
from contracts.operations import ParkedEventDiscardedV1
from contracts.topics import TOPICS
from verification.addresses import Addresses, CannotVerify
from verification.evidence import Evidence

_REQUEST_TIMEOUT_MS: Final = 10_000
_FETCH_BYTES: Final = 4 << 20
_RECORDS_AT_ONCE: Final = 5_000
_MAX_SILENCE_S: Final = 30.0

ReportProgress = Callable[[str], None]


class Topics:
    """An open consumer of all topics of the catalogue."""

    def __init__(
        self, consumer: AIOKafkaConsumer, partitions: Mapping[TopicPartition, UUID], name: str
    ) -> None:
        """Make it.

        :param partitions: all of them, each with the id of its topic
        """
        self._consumer = consumer
        self._topic_ids = partitions
        self._partitions = list(partitions)
        self._name = name

    async def ends(self) -> dict[tuple[str, int], int]:
        """Return the offset after the last record of each partition."""
        try:
            ends = await self._consumer.end_offsets(self._partitions)
        except (KafkaError, OSError) as error:
            raise CannotVerify(f"{self._name}: {type(error).__name__}") from error
        return {(each.topic, each.partition): offset for each, offset in ends.items()}

    async def read_into(self, evidence: Evidence, progress: ReportProgress) -> None:
        """Add every record up to the present end of the topics.

        :raises CannotVerify: Kafka stopped answering before the end
        """
        try:
            first = await self._consumer.beginning_offsets(self._partitions)
            ends = await self._consumer.end_offsets(self._partitions)
            evidence.add(
                "partitions",
                ((*each, first[each], ends[each], str(self._topic_ids[each])) for each in ends),
            )
            for each in self._partitions:
                self._consumer.seek(each, first[each])
            total = sum(ends[each] - first[each] for each in ends)
            unread = {each: ends[each] for each in ends if first[each] < ends[each]}
            await self._read(unread, total, evidence, progress)
        except (KafkaError, OSError) as error:
            raise CannotVerify(f"{self._name}: {type(error).__name__}") from error

    async def _read(
        self,
        unread: dict[TopicPartition, int],
        total: int,
        evidence: Evidence,
        progress: ReportProgress,
    ) -> None:
        read, received_at = 0, time.monotonic()
        while unread:
            chunks = await self._consumer.getmany(
                *unread, timeout_ms=1_000, max_records=_RECORDS_AT_ONCE
            )
            for partition, records in chunks.items():
                until_end = [each for each in records if each.offset < unread[partition]]
                _add(until_end, evidence)
                read += len(until_end)
            for partition in list(unread):
                # By position, not by the last record: a batch may end with offsets
                # that hold no record.
                if await self._consumer.position(partition) >= unread[partition]:
                    del unread[partition]
            if chunks:
                received_at = time.monotonic()
                progress(f"read {read:,} of {total:,} records on the topics")
            elif time.monotonic() - received_at > _MAX_SILENCE_S:
                raise CannotVerify(f"{self._name}: no record for {_MAX_SILENCE_S:g} s")


def _add(records: Sequence[Record], evidence: Evidence) -> None:
    published: list[tuple[Any, ...]] = []
    discarded: list[tuple[Any, ...]] = []
    for record in records:
        place = (record.topic, record.partition, record.offset)
        sha256 = hashlib.sha256(record.value or b"").digest()
        try:
            event = open_record(record, identity_of(record))
            if event.type == ParkedEventDiscardedV1.event_type:
                act = event_in(event, ParkedEventDiscardedV1)
                discarded.append(
                    (act.subscriber, act.topic, act.partition, act.offset, _id(act.parked_event_id))
                )
        except InvalidEnvelope as error:
            published.append((*place, None, None, None, None, sha256, False, str(error)))
            continue
        identity = (event.subject, event.sequence, str(event.id), event.type)
        key_is_subject = record.key == event.subject.encode()
        published.append((*place, *identity, sha256, key_is_subject, None))
    evidence.add("published", published)
    evidence.add("discarded", discarded)


def _id(event_id: UUID | None) -> str | None:
    return str(event_id) if event_id else None


@asynccontextmanager
async def open_topics(addresses: Addresses) -> AsyncIterator[Topics]:
    """Open a consumer of the topics.

    :raises CannotVerify: no broker answers
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=addresses.kafka_bootstrap,
        client_id="verification",
        enable_auto_commit=False,
        auto_offset_reset="none",
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        max_partition_fetch_bytes=_FETCH_BYTES,
        **addresses.kafka_security.client_arguments(),
    )
    name = f"Kafka ({addresses.kafka_bootstrap})"
    try:
        try:
            partitions = await _partitions(addresses)
            await consumer.start()
        except (KafkaError, OSError) as error:
            raise CannotVerify(f"{name}: {type(error).__name__}") from error
        consumer.assign(list(partitions))
        yield Topics(consumer, partitions, name)
    finally:
        await consumer.stop()


async def _partitions(addresses: Addresses) -> dict[TopicPartition, UUID]:
    """Return every partition of the catalogue's topics, and the id of its topic."""
    names = [topic.name for topic in TOPICS]
    async with admin_client(addresses.kafka_bootstrap, addresses.kafka_security) as client:
        described = await client.describe_topics(names)
        ids = await topic_ids(client, names)
    return {
        TopicPartition(topic["topic"], partition["partition"]): ids.get(
            topic["topic"], UNKNOWN_TOPIC_ID
        )
        for topic in described
        for partition in topic["partitions"]
    }
