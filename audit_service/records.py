"""Adds every record of a chunk once: its bytes, and what the service found out about it."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import structlog
from opentelemetry.trace import Span, SpanKind
from prometheus_client import Counter
from sqlalchemy import ARRAY, BigInteger, Integer, Text, Uuid, bindparam, func, select

from audit_service import tables
from chassis import telemetry
from chassis.consuming.inbox import Inbox, Verdict
from chassis.consuming.records import (
    Record,
    header_as_json,
    identity_in,
    identity_of,
    open_record,
)
from chassis.correlation import acceptable
from chassis.persistence.database import Connection
from contracts.envelope import CLIENT_CORRELATION_ID, Envelope, InvalidEnvelope

SUBSCRIBER: Final = "audit.keep"

_COLUMNS: Final = [column.name for column in tables.records.columns if column.name != "position"]
# OpenTelemetry drops further links, but only after they have been made.
_MOST_LINKS: Final = 128
# A traceparent is `version-trace-parent-flags`: 2, 32, 16 and 2 characters.
_TRACE_ID_ENDS: Final = 35
_OFFSETS_IN_A_LOG_LINE: Final = 10

_c: Final = tables.records.c
_OF_EVENTS: Final = select(_c.source, _c.event_id, _c.sha256).where(
    _c.event_id == func.any(bindparam("events", type_=ARRAY(Uuid)))
)
_POSITIONS: Final = (
    func.unnest(
        bindparam("topics", type_=ARRAY(Text)),
        bindparam("partitions", type_=ARRAY(Integer)),
        bindparam("offsets", type_=ARRAY(BigInteger)),
    )
    .table_valued("topic", "partition", "offset", name="kafka_position")
    .render_derived()
)
_AT_POSITIONS: Final = select(_c.topic, _c.partition, _c.offset, _c.sha256).where(
    _c.event_id.is_(None),
    _c.topic == _POSITIONS.c.topic,
    _c.partition == _POSITIONS.c.partition,
    _c.offset == _POSITIONS.c.offset,
)

_log = structlog.get_logger(__name__)
_outcomes = Counter("audit_records", "Records received, by outcome.", ["topic", "outcome"])


class AuditWork:
    """The open transaction in which a chunk is recorded."""

    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        self.connection = connection
        self.now = now

    async def flush(self) -> None:
        """Write nothing: ``keep`` has written the whole chunk already."""


@dataclass(slots=True)
class ReceivedRecord:
    """A record and what is known about it; without an envelope if it is no event of ours."""

    record: Record
    sha256: bytes
    envelope: Envelope | None
    invalid_reason: str | None
    altered: bool = False
    verdict: Verdict | None = None

    @classmethod
    def of(cls, record: Record) -> "ReceivedRecord":
        digest = hashlib.sha256(record.value or b"").digest()
        try:
            return cls(record, digest, open_record(record, identity_of(record)), None)
        except InvalidEnvelope as error:
            return cls(record, digest, None, str(error))

    @property
    def identity(self) -> Hashable:
        """What, together with the hash, is the same if the record is delivered again."""
        if self.envelope is None:
            return self.record.topic, self.record.partition, self.record.offset
        return self.envelope.source, self.envelope.id

    @property
    def outcome(self) -> str:
        """The most serious word that is true of the record."""
        if self.altered:
            return "altered"
        return self.verdict or "invalid"


async def keep(work: AuditWork, records: Sequence[Record]) -> None:
    """Add the records of one partition in their order, except those that are recorded already.

    An event whose bytes differ from those recorded under its source and id is added too, and
    marked as altered. The same holds for a record that is no event, under its Kafka position.
    """
    received = [ReceivedRecord.of(record) for record in records]
    with _span(received):
        # First: while these rows are locked no other transaction adds records of these subjects.
        inbox = await Inbox.lock(
            work.connection,
            SUBSCRIBER,
            records[0].topic,
            [identity_in(each.envelope) for each in received if each.envelope is not None],
            from_beginning=True,
        )
        new = _without_repeats(received, await _known(work.connection, received))
        for each in new:
            if each.envelope is not None:
                each.verdict = inbox.judge(identity_in(each.envelope))
        await _add(work.connection, new, work.now())
        await inbox.flush(work.connection, work.now)
    _report(received, new)


async def _known(
    connection: Connection, received: Iterable[ReceivedRecord]
) -> dict[Hashable, set[bytes]]:
    """Return the hashes that are recorded under the identities of these records."""
    known = defaultdict[Hashable, set[bytes]](set)
    events = [each.envelope.id for each in received if each.envelope is not None]
    if events:
        found = await connection.execute(_OF_EVENTS, {"events": events})
        for source, event_id, sha256 in found:
            known[source, event_id].add(sha256)
    others = [each.record for each in received if each.envelope is None]
    if others:
        at_positions = await connection.execute(
            _AT_POSITIONS,
            {
                "topics": [record.topic for record in others],
                "partitions": [record.partition for record in others],
                "offsets": [record.offset for record in others],
            },
        )
        for topic, partition, offset, sha256 in at_positions:
            known[topic, partition, offset].add(sha256)
    return known


def _without_repeats(
    received: Iterable[ReceivedRecord], known: Mapping[Hashable, set[bytes]]
) -> list[ReceivedRecord]:
    new = []
    for each in received:
        hashes = known[each.identity]
        if each.sha256 not in hashes:
            each.altered = bool(hashes)
            hashes.add(each.sha256)
            new.append(each)
    return new


async def _add(connection: Connection, new: Sequence[ReceivedRecord], now: datetime) -> None:
    # COPY takes two thirds of the time of any INSERT here. It cannot skip repeats, but they are
    # left out already. A repeat that another topic delivers at the same moment breaks the unique
    # constraint; the chunk is then handled again, and the repeat is found.
    await connection.copy(tables.records, _COLUMNS, [_row(each, now) for each in new])


def _row(received: ReceivedRecord, now: datetime) -> tuple[Any, ...]:
    record, envelope = received.record, received.envelope
    always = (
        record.topic,
        record.partition,
        record.offset,
        record.key,
        _as_json(record.headers),
        record.value,
        received.sha256,
        now,
        received.invalid_reason,
    )
    if envelope is None:
        of_no_event = (None, None, None, None, now, None, None, None, None, None)
        return *always, *of_no_event, received.altered, None
    return (
        *always,
        envelope.id,
        envelope.source,
        envelope.type,
        envelope.subject,
        envelope.time,
        envelope.sequence,
        envelope.correlationid,
        envelope.causationid,
        envelope.traceparent,
        received.verdict,
        received.altered,
        _client_correlation_id(record),
    )


def _client_correlation_id(record: Record) -> str | None:
    """Return what a client calls the request that published an event, if it could be an id."""
    for name, value in record.headers:
        if name == CLIENT_CORRELATION_ID and value is not None:
            return acceptable(value.decode("ascii", "replace"))
    return None


def _as_json(headers: Sequence[tuple[str, bytes | None]]) -> str:
    return orjson.dumps([header_as_json(name, value) for name, value in headers]).decode()


def _span(received: Sequence[ReceivedRecord]) -> AbstractContextManager[Span]:
    """Open the span of a chunk: within the trace of all its events, or linked to each trace."""
    traces: dict[str, str] = {}
    for each in received:
        if each.envelope is not None and each.envelope.traceparent is not None:
            parent = each.envelope.traceparent
            traces.setdefault(parent[:_TRACE_ID_ENDS], parent)
    parents = list(traces.values())[:_MOST_LINKS]
    if len(parents) == 1:
        return telemetry.span(
            SUBSCRIBER, SpanKind.CONSUMER, parent=parents[0], records=len(received)
        )
    return telemetry.span(SUBSCRIBER, SpanKind.CONSUMER, links=parents, records=len(received))


def _report(received: Sequence[ReceivedRecord], new: Sequence[ReceivedRecord]) -> None:
    """Count the records by outcome, and log those that are not the next of their subject."""
    topic = received[0].record.topic
    _outcomes.labels(topic, "dropped").inc(len(received) - len(new))
    offsets = defaultdict[tuple[str, int], list[int]](list)
    for each in new:
        offsets[each.outcome, each.record.partition].append(each.record.offset)
    for (outcome, partition), found in offsets.items():
        _outcomes.labels(topic, outcome).inc(len(found))
        if outcome != Verdict.NEXT:
            _log.warning(
                f"record-{outcome}",
                topic=topic,
                partition=partition,
                count=len(found),
                offsets=found[:_OFFSETS_IN_A_LOG_LINE],
            )
