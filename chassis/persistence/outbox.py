"""Integration events, written in the transaction of the change they tell of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.correlation import CorrelationContext, correlation_or_none, new_id
from chassis.persistence import tables
from chassis.persistence.bulk import insert_rows
from chassis.telemetry import current_traceparent
from contracts.envelope import encode
from contracts.events import IntegrationEvent
from contracts.topics import Topic


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One event on its way: where it goes, and the exact bytes and headers it goes with."""

    id: UUID
    topic: str
    subject: str
    type: str
    sequence: int
    payload: bytes
    headers: dict[str, str]
    created_at: datetime


class Outbox:
    """What one unit of work will have told the others, in the order it happened."""

    def __init__(self, source: str, now: Callable[[], datetime]) -> None:
        self._source = source
        self._now = now
        self._rows: list[OutboxRow] = []
        self._own_trail: CorrelationContext | None = None

    def append(
        self,
        event: IntegrationEvent,
        *,
        topic: Topic,
        subject: UUID,
        sequence: int,
        occurred_at: datetime,
    ) -> None:
        """Keep an event for the flush, with the trail and the trace that it happened on."""
        trail = correlation_or_none() or self._begin_trail()
        id_ = new_id()
        encoded = encode(
            event,
            id=id_,
            source=self._source,
            subject=str(subject),
            time=occurred_at,
            sequence=sequence,
            correlationid=trail.correlation_id,
            causationid=trail.causation_id,
            traceparent=current_traceparent(),
        )
        self._rows.append(
            OutboxRow(
                id=id_,
                topic=topic.name,
                subject=str(subject),
                type=event.event_type,
                sequence=sequence,
                payload=encoded.payload,
                headers={name: value.decode() for name, value in encoded.headers},
                created_at=self._now(),
            )
        )

    def _begin_trail(self) -> CorrelationContext:
        """Begin a trail for work that nobody asked for; it ends with this unit of work."""
        self._own_trail = self._own_trail or CorrelationContext(str(new_id()))
        return self._own_trail

    def take_rows(self) -> Sequence[OutboxRow]:
        """Hand over what was appended since the last time."""
        rows, self._rows = self._rows, []
        return rows

    async def flush(self, connection: AsyncConnection) -> None:
        """Write what was appended, in one statement."""
        await insert_rows(connection, tables.outbox, [columns_of(row) for row in self.take_rows()])


def columns_of(row: OutboxRow) -> dict[str, Any]:
    """Return the columns of a row, apart from its position."""
    return {
        "id": row.id,
        "aggregatetype": row.topic,
        "aggregateid": row.subject,
        "type": row.type,
        "sequence": row.sequence,
        "payload": row.payload,
        "headers": row.headers,
        "created_at": row.created_at,
    }


def relay_lock_name(service: str) -> str:
    """Return the name of the lock that whoever publishes a service's outbox holds."""
    return f"{service}-relay"
