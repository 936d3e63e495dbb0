"""The outbox: integration events, written in the transaction of the change they are about."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.correlation import CorrelationContext, correlation_or_none, new_id
from chassis.domain import Aggregate, DomainEvent
from chassis.persistence import tables
from chassis.persistence.bulk import insert_rows
from chassis.telemetry import current_traceparent
from contracts.envelope import encode
from contracts.events import IntegrationEvent
from contracts.topics import Topic

Translate = Callable[[Any], IntegrationEvent | None]
"""Gives the integration event that publishes a domain event; None if it is not published."""


class OutboxRow(TypedDict):
    """The columns of one row, apart from its position; the names are Debezium's."""

    id: UUID
    aggregatetype: str
    aggregateid: str
    type: str
    sequence: int
    payload: bytes
    headers: dict[str, str]
    created_at: datetime


class Outbox:
    """The events that one unit of work publishes, in the order in which they happened."""

    def __init__(self, source: str, now: Callable[[], datetime]) -> None:
        self._source = source
        self._now = now
        self._rows: list[OutboxRow] = []
        self._own_context: CorrelationContext | None = None

    def append_events_of(
        self, aggregate: Aggregate, *, topic: Topic, translate: Translate
    ) -> list[DomainEvent]:
        """Append what the aggregate has recorded, counted by its ``sequence``, and return it.

        An event that is not published is returned as well, and not counted.
        """
        recorded = list(aggregate.take_events())
        for event in recorded:
            integration_event = translate(event)
            if integration_event is not None:
                aggregate.sequence += 1
                self.append(
                    integration_event,
                    topic=topic,
                    subject=aggregate.id,
                    sequence=aggregate.sequence,
                    occurred_at=event.occurred_at,
                )
        return recorded

    def append(
        self,
        event: IntegrationEvent,
        *,
        topic: Topic,
        subject: UUID,
        sequence: int,
        occurred_at: datetime,
    ) -> None:
        """Append an event, with the current correlation and trace."""
        context = correlation_or_none() or self._new_context()
        id_ = new_id()
        encoded = encode(
            event,
            id=id_,
            source=self._source,
            subject=str(subject),
            time=occurred_at,
            sequence=sequence,
            correlationid=context.correlation_id,
            causationid=context.causation_id,
            traceparent=current_traceparent(),
        )
        self._rows.append(
            OutboxRow(
                id=id_,
                aggregatetype=topic.name,
                aggregateid=str(subject),
                type=event.event_type,
                sequence=sequence,
                payload=encoded.payload,
                headers={name: value.decode() for name, value in encoded.headers},
                created_at=self._now(),
            )
        )

    def _new_context(self) -> CorrelationContext:
        """Return one correlation for all that this unit of work publishes without a request."""
        self._own_context = self._own_context or CorrelationContext(str(new_id()))
        return self._own_context

    def take_rows(self) -> Sequence[OutboxRow]:
        """Return what was appended since the last time."""
        rows, self._rows = self._rows, []
        return rows

    async def flush(self, connection: AsyncConnection) -> None:
        """Write what was appended, in one statement."""
        await insert_rows(connection, tables.outbox, self.take_rows())


def relay_lock_name(service: str) -> str:
    """Return the name of the lock that the process which publishes a service's outbox holds."""
    return f"{service}-relay"
