"""Reads a partition's batches as the broker keeps them, where aiokafka's consumer fails.

aiokafka hands out no record of a batch in which one header's name is not UTF-8, it does not tell
where a batch ends that can't be decoded, and some errors that a broker reports it only logs. So a
partition that can't be read in the usual way is read by one request of our own, and its batches are
parsed here (format v2, as all of Kafka since 0.11 writes it).
"""

import asyncio
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.util import calc_crc32c, decode_varint

from chassis.kafka.client import translate_foreign_cancellation

_WAIT_MS: Final = 100
_ANSWER_WITHIN_S: Final = 2.0
_READ_COMMITTED: Final = 1
_READ_UNCOMMITTED: Final = 0

# Of a batch: base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first
# and largest timestamp, producer's id, epoch and sequence, number of records.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH_COUNTS: Final = struct.calcsize(">qi")
_CRC_BEGINS_AT: Final = struct.calcsize(">qiibI")
_FORMAT: Final = 2
_CODEC: Final = 0x07
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_DECODERS: Final = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record; a header's name that is not UTF-8 is kept by means of ``surrogateescape``."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class UnreadableBatch:
    """A batch that can't be read, from ``offset`` on.

    :ivar end: the next offset behind it; None: the batch's own figures are not to be trusted
    :ivar raw: its bytes; those of its records are whatever the broker has
    :ivar reason: what is wrong with it; it quotes nothing of the records
    """

    offset: int
    end: int | None
    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class RawFetch:
    """What a partition holds from an offset on, as far as one request goes.

    :ivar end: the records before it are in ``records``; other offsets before it hold none
    :ivar unreadable: the batch that begins there, or goes on there, if it can't be read
    :ivar is_plain: aiokafka can read all of it too, as far as is known
    """

    records: Sequence[RawRecord]
    end: int
    unreadable: UnreadableBatch | None
    stable_offset: int
    is_plain: bool


async def raw_fetch(
    client: AIOKafkaClient,
    tp: TopicPartition,
    offset: int,
    *,
    max_bytes: int,
    max_records: int | None = None,
) -> RawFetch:
    """Read committed records from an offset on; the first batch is returned whatever its size.

    :raises KafkaError: the broker does not answer within seconds, or not with batches
    """
    request = FetchRequest(
        _WAIT_MS, 1, max_bytes, _READ_COMMITTED, [(tp.topic, [(tp.partition, offset, max_bytes)])]
    )
    response = await _send(client, _leader_of(client, tp), request)
    [(_topic, [(_partition, error_code, _highwater, stable_offset, *rest)])] = response.topics
    if error_code:
        raise for_code(error_code)(str(tp))
    # What lies between differs from one version of the response to the next.
    aborted = rest[-3] if response.API_VERSION >= 11 else rest[-2]
    return parse_batches(
        tp, rest[-1] or b"", offset, stable_offset, aborted or (), max_records=max_records
    )


async def high_watermarks(
    client: AIOKafkaClient, partitions: Sequence[TopicPartition]
) -> Mapping[TopicPartition, int]:
    """Return the next offset of each partition, also where an open transaction hides records.

    :raises KafkaError: a broker does not answer within seconds, or not with offsets
    """
    by_leader: dict[int, dict[str, list[tuple[int, int]]]] = {}
    for tp in partitions:
        asked = by_leader.setdefault(_leader_of(client, tp), {}).setdefault(tp.topic, [])
        asked.append((tp.partition, OffsetResetStrategy.LATEST))
    found: dict[TopicPartition, int] = {}
    for leader, topics in by_leader.items():
        request = OffsetRequest(-1, _READ_UNCOMMITTED, list(topics.items()))
        response = await _send(client, leader, request)
        for topic, answers in response.topics:
            for partition, error_code, _timestamp, offset, *_epoch in answers:
                if error_code:
                    raise for_code(error_code)(f"{topic}[{partition}]")
                found[TopicPartition(topic, partition)] = offset
    return found


def _leader_of(client: AIOKafkaClient, tp: TopicPartition) -> int:
    leader = client.cluster.leader_for_partition(tp)
    if leader is None or leader == -1:
        client.force_metadata_update()
        raise LeaderNotAvailableError(str(tp))
    return int(leader)


async def _send(client: AIOKafkaClient, node: int, request: Any) -> Any:
    try:
        with translate_foreign_cancellation():
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await client.send(node, request)
    except TimeoutError as error:
        raise KafkaTimeoutError(f"no answer within {_ANSWER_WITHIN_S:g} s") from error
    except OSError as error:
        raise KafkaConnectionError(str(error)) from error


def parse_batches(
    tp: TopicPartition,
    data: bytes,
    offset: int,
    stable_offset: int,
    aborted: Sequence[tuple[int, int]] = (),
    *,
    max_records: int | None = None,
) -> RawFetch:
    """Parse the batches of a response, up to the first that can't be read.

    :param offset: the first that is wanted; a batch holds others before it
    :param aborted: producers' ids, and where a transaction begins that each has aborted
    :param max_records: parse no more than these
    """
    records: list[RawRecord] = []
    end, unreadable = offset, None
    in_aborted = _AbortedTransactions(aborted)
    for batch in _batches(data):
        try:
            batch.check(end, stable_offset)
            if not in_aborted.pass_over(batch):
                for record in batch.records(tp):
                    if record.offset >= end:
                        records.append(record)
                        end = record.offset + 1
                        if len(records) == max_records:
                            return _fetched(records, end, None, stable_offset)
        except Exception as error:  # noqa: BLE001 - decompressors raise whatever they like
            behind = batch.end_within(data, end, stable_offset)
            unreadable = UnreadableBatch(end, behind, bytes(batch.raw), _reason_of(error))
            break
        end = batch.end
    return _fetched(records, end, unreadable, stable_offset)


def _fetched(
    records: Sequence[RawRecord], end: int, unreadable: UnreadableBatch | None, stable_offset: int
) -> RawFetch:
    is_plain = not any(is_not_utf8(name) for each in records for name, _ in each.headers)
    return RawFetch(records, end, unreadable, stable_offset, is_plain)


def is_not_utf8(name: str) -> bool:
    """Tell whether a header's name came in bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


class _Damaged(Exception):
    """A batch is not what its format asks for; the message says in what."""


def _reason_of(error: Exception) -> str:
    return str(error) if isinstance(error, _Damaged) else type(error).__name__


class _Batch:
    """A batch in the bytes of a response; one that is cut off at their end has no header."""

    def __init__(self, data: bytes, position: int) -> None:
        self._position = position
        self._fields: tuple[int, ...] | None = None
        rest = memoryview(data)[position:]
        length = int.from_bytes(rest[8:12], signed=True)
        self.next_position = position + _BEFORE_LENGTH_COUNTS + max(0, length)
        self.is_whole = len(rest) >= _HEADER.size and self.next_position <= len(data)
        self.raw = rest[: self.next_position - position] if self.is_whole else rest
        if len(self.raw) >= _HEADER.size:
            self._fields = _HEADER.unpack_from(self.raw)

    @property
    def base_offset(self) -> int:
        return self._field(0)

    @property
    def end(self) -> int:
        return self.base_offset + self._field(6) + 1

    @property
    def producer_id(self) -> int:
        return self._field(9)

    def has(self, attribute: int) -> bool:
        return bool(self._field(5) & attribute)

    def _field(self, number: int) -> int:
        if self._fields is None:
            raise _Damaged("its length is wrong")
        return self._fields[number]

    def check(self, offset: int, stable_offset: int) -> None:
        """Check what can be checked of a batch as a whole.

        :raises _Damaged: it is no whole batch of this format, or not as it was written
        """
        if not self.is_whole:
            raise _Damaged("the broker does not return all of it")
        if self._field(3) != _FORMAT:
            raise _Damaged(f"its format is {self._field(3)}, not {_FORMAT}")
        if calc_crc32c(self.raw[_CRC_BEGINS_AT:].tobytes()) != self._field(4):
            raise _Damaged("its CRC does not match")
        # The CRC does not cover the base offset.
        if not offset < self.end <= stable_offset:
            raise _Damaged("its offsets are not those that come next")

    def records(self, tp: TopicPartition) -> Iterator[RawRecord]:
        """Decompress and parse the records.

        :raises Exception: they can't be
        """
        body = self.raw[_HEADER.size :].tobytes()
        if codec := self._field(5) & _CODEC:
            if codec not in _DECODERS:
                raise _Damaged(f"its codec is {codec}")
            body = _DECODERS[codec](body)
        fields = _Fields(bytearray(body))
        for _ in range(self._field(12)):
            record = _parse_record(tp, fields, self.base_offset)
            if record.offset >= self.end:
                raise _Damaged("a record's offset lies behind its batch")
            yield record

    def is_abort_marker(self) -> bool:
        [control, *_] = self.records(TopicPartition("", 0))
        return bool(ControlRecord.parse(control.key) == ABORT_MARKER)

    def end_within(self, data: bytes, offset: int, stable_offset: int) -> int | None:
        """Return the next offset behind a batch that can't be read; None: it is not known.

        What the batch says of itself may be what is wrong with it. So where the next batch begins,
        or the partition ends, has to agree.
        """
        said = self.end if self._fields is not None else offset
        following = _Batch(data, self.next_position) if self.is_whole else None
        if following is not None and following._fields is not None:
            limit = following.base_offset
            if offset < limit <= stable_offset:
                return said if offset < said <= limit else limit
        return said if offset < said == stable_offset else None


def _batches(data: bytes) -> Iterator[_Batch]:
    position = 0
    while position < len(data):
        batch = _Batch(data, position)
        if not batch.is_whole and position > 0:
            return  # cut off at the end of the response: the next request returns it
        yield batch
        position = batch.next_position


class _AbortedTransactions:
    """Which of the batches that follow one another are of transactions that were aborted."""

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._to_come = sorted(aborted, key=lambda each: each[1])
        self._producers: set[int] = set()

    def pass_over(self, batch: _Batch) -> bool:
        """Tell whether a batch holds no record for readers; each is asked about once."""
        while self._to_come and self._to_come[0][1] <= batch.base_offset:
            self._producers.add(self._to_come.pop(0)[0])
        if batch.has(_CONTROL):
            if batch.is_abort_marker():
                self._producers.discard(batch.producer_id)
            return True
        return batch.has(_TRANSACTIONAL) and batch.producer_id in self._producers


class _Fields:
    """Reads the fields of records one after the other."""

    def __init__(self, data: bytearray) -> None:
        self._data = data
        self.position = 0

    def number(self) -> int:
        number, self.position = decode_varint(self._data, self.position)
        return int(number)

    def bytes_or_none(self) -> bytes | None:
        return None if (length := self.number()) < 0 else self._take(length)

    def some_bytes(self) -> bytes:
        return self._take(self.number())

    def _take(self, length: int) -> bytes:
        begin, self.position = self.position, self.position + length
        if length < 0 or self.position > len(self._data):
            raise _Damaged("a field is longer than its record")
        return bytes(self._data[begin : self.position])


def _parse_record(tp: TopicPartition, fields: _Fields, base_offset: int) -> RawRecord:
    length = fields.number()
    begin = fields.position
    fields.position += 1  # attributes, of which there are none
    fields.number()  # the timestamp
    offset = base_offset + fields.number()
    key, value = fields.bytes_or_none(), fields.bytes_or_none()
    headers = [
        (fields.some_bytes().decode("utf-8", "surrogateescape"), fields.bytes_or_none())
        for _ in range(fields.number())
    ]
    if fields.position != begin + length:
        raise _Damaged("a record has another length than it says")
    return RawRecord(tp.topic, tp.partition, offset, key, value, headers)
