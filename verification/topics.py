"""Reads every committed record of every topic of the catalogue, as a consumer of no group."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from chassis.consuming.careful_reading import WAITED_FOR
from chassis.consuming.records import Record, identity_of, open_record
from chassis.kafka.client import admin_client
from chassis.kafka.raw_fetch import raw_fetch
from chassis.kafka.topic_ids import topic_ids
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from contracts.accounts import (
    AccountOpenedV1,
    HoldCapturedV1,
    HoldExpiredV1,
    HoldPlacedV1,
    HoldReleasedV1,
    TransactionCreatedV1,
)
from contracts.envelope import Envelope, InvalidEnvelope, event_in
from contracts.events import family_of
from contracts.operations import ParkedEventDiscardedV1, RecordToleratedV1
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
        """Return the offset after the last committed record of each partition."""
        try:
            ends = await self._consumer.end_offsets(self._partitions)
        except (KafkaError, OSError) as error:
            raise CannotVerify(f"{self._name}: {type(error).__name__}") from error
        return {(each.topic, each.partition): offset for each, offset in ends.items()}

    async def read_into(self, evidence: Evidence, progress: ReportProgress) -> None:
        """Add every committed record up to the present end of the topics.

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
            await self._read(unread, first, total, evidence, progress)
        except (KafkaError, OSError) as error:
            raise CannotVerify(f"{self._name}: {type(error).__name__}") from error

    async def _read(
        self,
        unread: dict[TopicPartition, int],
        first: Mapping[TopicPartition, int],
        total: int,
        evidence: Evidence,
        progress: ReportProgress,
    ) -> None:
        read, received_at = 0, time.monotonic()
        positions = {each: first[each] for each in unread}
        while unread:
            fetched = await self._fetch({each: positions[each] for each in unread}, evidence)
            has_moved = False
            for partition, (records, position) in fetched.items():
                until_end = [each for each in records if each.offset < unread[partition]]
                _add(until_end, evidence)
                read += len(until_end)
                has_moved = has_moved or position > positions[partition]
                # By position, not by the last record: a batch may end with offsets
                # that hold no record.
                positions[partition] = position
                if position >= unread[partition]:
                    del unread[partition]
            if has_moved:
                received_at = time.monotonic()
                progress(f"read {read:,} of {total:,} records on the topics")
            elif time.monotonic() - received_at > _MAX_SILENCE_S:
                raise CannotVerify(f"{self._name}: no record for {_MAX_SILENCE_S:g} s")

    async def _fetch(
        self, positions: Mapping[TopicPartition, int], evidence: Evidence
    ) -> dict[TopicPartition, tuple[Sequence[Record], int]]:
        """Return what comes next in each partition, and the position behind it."""
        try:
            chunks = await self._consumer.getmany(
                *positions, timeout_ms=1_000, max_records=_RECORDS_AT_ONCE
            )
        except Exception as error:
            if type(error) in WAITED_FOR:
                raise
            # Records that this call had taken of other partitions are gone.
            return {
                each: await self._fetch_one(each, position, evidence)
                for each, position in positions.items()
            }
        return {
            each: (chunks.get(each, []), await self._consumer.position(each)) for each in positions
        }

    async def _fetch_one(
        self, partition: TopicPartition, position: int, evidence: Evidence
    ) -> tuple[Sequence[Record], int]:
        """Read a partition batch by batch, and note one that can't be read.

        :raises CannotVerify: it is not known where that ends
        """
        fetched = await raw_fetch(
            self._consumer._client,  # noqa: SLF001 - aiokafka offers no raw fetch
            partition,
            position,
            max_bytes=_FETCH_BYTES,
        )
        position = fetched.end
        if (batch := fetched.unreadable) is not None:
            if batch.end is None:
                raise CannotVerify(
                    f"{self._name}: {partition.topic}[{partition.partition}] can't be read at"
                    f" offset {batch.offset}, and where that batch ends is not known"
                )
            evidence.add(
                "unreadable_batches", [(*partition, batch.offset, batch.end, batch.reason)]
            )
            position = batch.end
        self._consumer.seek(partition, position)
        return fetched.records, position


def _add(records: Sequence[Record], evidence: Evidence) -> None:
    published: list[tuple[Any, ...]] = []
    discarded: list[tuple[Any, ...]] = []
    tolerated: list[tuple[Any, ...]] = []
    versions: list[tuple[str, str]] = []
    changes: list[tuple[Any, ...]] = []
    hold_steps: list[tuple[Any, ...]] = []
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
            elif event.type == RecordToleratedV1.event_type:
                accepted = event_in(event, RecordToleratedV1)
                at = (accepted.topic, accepted.partition, accepted.offset)
                tolerated.append((*at, bytes.fromhex(accepted.value_sha256)))
            changes += _changes(event)
            hold_steps += _hold_steps(event)
        except InvalidEnvelope as error:
            published.append((*place, None, None, None, None, sha256, False, str(error)))
            continue
        identity = (event.subject, event.sequence, str(event.id), event.type)
        key_is_subject = record.key == event.subject.encode()
        if event.versions is not None:
            first = min(event.versions.values())
            versions.append((str(event.id), f"{event.subject} {first} {family_of(event.type)}"))
        published.append((*place, *identity, sha256, key_is_subject, None))
    evidence.add("published", published)
    evidence.add("discarded", discarded)
    evidence.add("tolerated", tolerated)
    evidence.add("versions", versions)
    evidence.add("changes", changes)
    evidence.add("hold_steps", hold_steps)


def _changes(event: Envelope) -> list[tuple[Any, ...]]:
    """Return the change of a balance that an event tells; none: it tells of something else."""
    if event.type == AccountOpenedV1.event_type:
        opened = event_in(event, AccountOpenedV1)
        account = str(opened.account_id)
        return [(str(event.id), account, 1, None, "opening", opened.currency, 0, 0, None)]
    if event.type != TransactionCreatedV1.event_type:
        return []
    line = event_in(event, TransactionCreatedV1)
    of = (str(event.id), str(line.account_id), line.position, str(line.transaction_id), line.kind)
    return [(*of, line.currency, line.delta, line.balance_after, _id(line.reverses))]


def _hold_steps(event: Envelope) -> list[tuple[Any, ...]]:
    """Return what an event tells of a hold; none: it tells of something else."""
    step = _STEPS.get(event.type)
    if step is None:
        return []
    found = event_in(event, step)
    of = (str(event.id), str(found.account_id), str(found.hold_id))
    match found:
        case HoldPlacedV1():
            return [(*of, "placed", found.amount, None)]
        case HoldCapturedV1():
            return [(*of, "captured", found.amount, str(found.transaction_id))]
        case HoldReleasedV1():
            return [(*of, "released", None, None)]
        case HoldExpiredV1():
            return [(*of, "expired", None, None)]


_STEPS: Final[
    Mapping[str, type[HoldPlacedV1 | HoldCapturedV1 | HoldReleasedV1 | HoldExpiredV1]]
] = {
    each.event_type: each for each in (HoldPlacedV1, HoldCapturedV1, HoldReleasedV1, HoldExpiredV1)
}


def _id(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None


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
        isolation_level="read_committed",
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
