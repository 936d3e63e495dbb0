"""Keeps every record of a chunk: once, as it came, and with what it turned out to be."""

import base64
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
from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service import tables
from chassis import telemetry
from chassis.consuming.inbox import Inbox, Verdict
from chassis.consuming.records import Record, identity_in, identity_of, open_record
from contracts.envelope import Envelope, InvalidEnvelope

SUBSCRIBER: Final = "audit.keep"

_COLUMNS: Final = [column.name for column in tables.records.columns if column.name != "position"]
# OpenTelemetry drops what is more; made it would be all the same, in vain.
_MOST_LINKS: Final = 128
# A traceparent is `version-trace-parent-flags`, of 2, 32, 16 and 2 characters.
_TRACE_ID_ENDS: Final = 35
_OFFSETS_IN_A_LINE: Final = 10

_c: Final = tables.records.c
_OF_EVENTS: Final = select(_c.source, _c.event_id, _c.sha256).where(
    _c.event_id == func.any(bindparam("events", type_=ARRAY(Uuid)))
)
_PLACES: Final = (
    func.unnest(
        bindparam("topics", type_=ARRAY(Text)),
        bindparam("partitions", type_=ARRAY(Integer)),
        bindparam("offsets", type_=ARRAY(BigInteger)),
    )
    .table_valued("topic", "partition", "offset", name="place")
    .render_derived()
)
_AT_PLACES: Final = select(_c.topic, _c.partition, _c.offset, _c.sha256).where(
    _c.event_id.is_(None),
    _c.topic == _PLACES.c.topic,
    _c.partition == _PLACES.c.partition,
    _c.offset == _PLACES.c.offset,
)

_log = structlog.get_logger(__name__)
_outcomes = Counter("audit_records", "Records by what they turned out to be.", ["topic", "outcome"])


class AuditWork:
    """The open transaction that a chunk of records is kept in."""

    def __init__(self, connection: AsyncConnection, now: Callable[[], datetime]) -> None:
        self.connection = connection
        self.now = now

    async def flush(self) -> None:
        """Write nothing more: ``keep`` has added the whole chunk at once."""


@dataclass(slots=True)
class Kept:
    """A record beside what is known of it; no envelope where it is no event of ours."""

    record: Record
    sha256: bytes
    envelope: Envelope | None
    invalid_reason: str | None
    altered: bool = False
    verdict: Verdict | None = None

    @classmethod
    def of(cls, record: Record) -> "Kept":
        digest = hashlib.sha256(record.value or b"").digest()
        try:
            return cls(record, digest, open_record(record, identity_of(record)), None)
        except InvalidEnvelope as error:
            return cls(record, digest, None, str(error))

    @property
    def identity(self) -> Hashable:
        """What, with the hash, makes it one and the same record wherever it comes again."""
        if self.envelope is None:
            return self.record.topic, self.record.partition, self.record.offset
        return self.envelope.source, self.envelope.id

    @property
    def outcome(self) -> str:
        """The one word for it: the most alarming that is true."""
        if self.altered:
            return "altered"
        return self.verdict or "invalid"


async def keep(work: AuditWork, records: Sequence[Record]) -> None:
    """Add records, those of a partition in their order, but for those that are there already.

    An event that differs from one of the same source and id is kept and marked as altered, and
    so is a record that is no event where other bytes once had its place.
    """
    came = [Kept.of(record) for record in records]
    with _span(came):
        # First of all: the locks keep everybody else from adding what is about these subjects.
        inbox = await Inbox.lock(
            work.connection,
            SUBSCRIBER,
            records[0].topic,
            [identity_in(each.envelope) for each in came if each.envelope is not None],
            from_beginning=True,
        )
        fresh = _without_repeats(came, await _known(work.connection, came))
        for each in fresh:
            if each.envelope is not None:
                each.verdict = inbox.judge(identity_in(each.envelope))
        await _add(work.connection, fresh, work.now())
        await inbox.flush(work.connection, work.now)
    _report(came, fresh)


async def _known(connection: AsyncConnection, came: Iterable[Kept]) -> dict[Hashable, set[bytes]]:
    """Return the hashes that are kept under the identities of these records."""
    known = defaultdict[Hashable, set[bytes]](set)
    events = [each.envelope.id for each in came if each.envelope is not None]
    if events:
        found = await connection.execute(_OF_EVENTS, {"events": events})
        for source, event_id, sha256 in found:
            known[source, event_id].add(sha256)
    others = [each.record for each in came if each.envelope is None]
    if others:
        places = await connection.execute(
            _AT_PLACES,
            {
                "topics": [record.topic for record in others],
                "partitions": [record.partition for record in others],
                "offsets": [record.offset for record in others],
            },
        )
        for topic, partition, offset, sha256 in places:
            known[topic, partition, offset].add(sha256)
    return known


def _without_repeats(came: Iterable[Kept], known: Mapping[Hashable, set[bytes]]) -> list[Kept]:
    fresh = []
    for each in came:
        hashes = known[each.identity]
        if each.sha256 not in hashes:
            each.altered = bool(hashes)
            hashes.add(each.sha256)
            fresh.append(each)
    return fresh


async def _add(connection: AsyncConnection, fresh: Sequence[Kept], now: datetime) -> None:
    # COPY takes two thirds of the time of any INSERT here. It can't pass over a repeat, and need
    # not: they are left out by now. One that comes by another topic at this very moment breaks the
    # unique constraint; the chunk is then handled again, and the repeat is found.
    if fresh:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await driver.copy_records_to_table(
            tables.records.name, columns=_COLUMNS, records=[_row(each, now) for each in fresh]
        )


def _row(kept: Kept, now: datetime) -> tuple[Any, ...]:
    record, envelope = kept.record, kept.envelope
    as_it_came = (
        record.topic,
        record.partition,
        record.offset,
        record.key,
        _as_json(record.headers),
        record.value,
        kept.sha256,
        now,
        kept.invalid_reason,
    )
    if envelope is None:
        return *as_it_came, None, None, None, None, now, None, None, None, None, None, kept.altered
    return (
        *as_it_came,
        envelope.id,
        envelope.source,
        envelope.type,
        envelope.subject,
        envelope.time,
        envelope.sequence,
        envelope.correlationid,
        envelope.causationid,
        envelope.traceparent,
        kept.verdict,
        kept.altered,
    )


def _as_json(headers: Sequence[tuple[str, bytes | None]]) -> str:
    pairs = [
        (name, None if value is None else base64.b64encode(value).decode())
        for name, value in headers
    ]
    return orjson.dumps(pairs).decode()


def _span(came: Sequence[Kept]) -> AbstractContextManager[Span]:
    """Open the span of a chunk: a part of the trace that all of it is of, else linked to each."""
    traces: dict[str, str] = {}
    for each in came:
        if each.envelope is not None and each.envelope.traceparent is not None:
            parent = each.envelope.traceparent
            traces.setdefault(parent[:_TRACE_ID_ENDS], parent)
    parents = list(traces.values())[:_MOST_LINKS]
    if len(parents) == 1:
        return telemetry.span(SUBSCRIBER, SpanKind.CONSUMER, parent=parents[0], records=len(came))
    return telemetry.span(SUBSCRIBER, SpanKind.CONSUMER, links=parents, records=len(came))


def _report(came: Sequence[Kept], fresh: Sequence[Kept]) -> None:
    """Count what was kept, and tell of what should not have come."""
    topic = came[0].record.topic
    _outcomes.labels(topic, "dropped").inc(len(came) - len(fresh))
    offsets = defaultdict[tuple[str, int], list[int]](list)
    for each in fresh:
        offsets[each.outcome, each.record.partition].append(each.record.offset)
    for (outcome, partition), places in offsets.items():
        _outcomes.labels(topic, outcome).inc(len(places))
        if outcome != Verdict.NEXT:
            _log.warning(
                f"record-{outcome}",
                topic=topic,
                partition=partition,
                count=len(places),
                offsets=places[:_OFFSETS_IN_A_LINE],
            )
