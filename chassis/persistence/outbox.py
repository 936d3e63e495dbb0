"""The outbox: integration events, written in the transaction of the change they are about."""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

from sqlalchemy import text

from chassis.correlation import CorrelationContext, correlation_or_none, new_id
from chassis.domain import Aggregate, DomainEvent
from chassis.persistence import tables
from chassis.persistence.bulk import arrays_of, insert_of
from chassis.persistence.database import MARK, Connection
from chassis.telemetry import current_traceparent
from contracts.envelope import encode
from contracts.events import IntegrationEvent, family_of, version_of
from contracts.topics import Topic

before_append: ContextVar[Callable[[], None] | None] = ContextVar("before_append", default=None)
"""Called before each event that a command publishes; what it raises refuses the command."""

Translate = Callable[[Any], Sequence[IntegrationEvent]]
"""Gives the integration events that publish a domain event; none: it is not published."""


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


_ADD: Final = insert_of(tables.outbox, tuple(OutboxRow.__annotations__)).returning(
    *MARK, tables.outbox.c.position
)
# A slot has a position to confirm once it has found where it begins. It gives its reader what is
# committed from then on, with all rows of that transaction; but Debezium is given nothing of a
# table that is in no publication.
SLOT_GIVES_OUTBOX: Final = """
    FROM pg_replication_slots
    WHERE slot_name = :slot
      AND database = current_database()
      AND confirmed_flush_lsn IS NOT NULL
      AND invalidation_reason IS NULL
      AND EXISTS (
          SELECT FROM pg_publication_rel JOIN pg_publication ON pg_publication.oid = prpubid
          WHERE prrelid = 'outbox'::regclass AND pubinsert
      )
"""
"""The slot of that name, if Debezium is given through it what is written to the outbox now."""
_DELETE: Final = text(f"""
    DELETE FROM outbox
    WHERE position = ANY (:positions) AND EXISTS (SELECT {SLOT_GIVES_OUTBOX})
""")  # noqa: S608


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

        An event that is not published is returned as well, and not counted. The versions of a fact
        have adjacent sequences, the oldest version first, and each names all of them.

        :raises ValueError: a domain event is published twice as the same type
        """
        recorded = list(aggregate.take_events())
        for event in recorded:
            for fact in _facts_in(translate(event)):
                first = aggregate.sequence + 1
                aggregate.sequence += len(fact)
                sequences = {version: first + n for n, version in enumerate(fact)}
                for version, integration_event in fact.items():
                    self.append(
                        integration_event,
                        topic=topic,
                        subject=aggregate.id,
                        sequence=sequences[version],
                        occurred_at=event.occurred_at,
                        versions=sequences if len(fact) > 1 else None,
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
        versions: Mapping[int, int] | None = None,
    ) -> None:
        """Append an event, with the current correlation and trace.

        :param versions: each version in which the fact is published, and its sequence; None: only
            this
        """
        if refuse := before_append.get():
            refuse()
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
            versions=versions,
            client_correlation_id=context.client_id,
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

    async def flush(self, connection: Connection) -> None:
        """Write what was appended, in one statement, which reads the transaction's mark too."""
        rows = self.take_rows()
        if rows:
            written = (await connection.execute(_ADD, arrays_of(rows))).all()
            connection.mark = written[0]
            connection.wrote(tables.outbox)
            await delete_if_in_slot(connection, [row.position for row in written])


async def delete_if_in_slot(connection: Connection, positions: Sequence[int]) -> None:
    """Delete rows that this transaction wrote, if a slot gives them to whoever publishes them.

    Who reads the log sees that they were inserted, and does not delete them itself. Without the
    slot they would be lost, so then they stay in the outbox.
    """
    if connection.outbox_slot is not None:
        values = {"positions": positions, "slot": connection.outbox_slot}
        await connection.execute(_DELETE, values)


def _facts_in(events: Sequence[IntegrationEvent]) -> list[dict[int, IntegrationEvent]]:
    """Return the events of each fact together, by version, the oldest version first.

    :raises ValueError: two events have the same type, so that a version could not name the other
    """
    if len(events) == 1:
        return [{version_of(events[0].event_type): events[0]}]
    facts: dict[str, dict[int, IntegrationEvent]] = {}
    for event in events:
        fact, version = (
            facts.setdefault(family_of(event.event_type), {}),
            version_of(event.event_type),
        )
        if version in fact:
            raise ValueError(f"a domain event is published twice as {event.event_type}")
        fact[version] = event
    return [dict(sorted(fact.items())) for fact in facts.values()]


def relay_lock_name(service: str) -> str:
    """Return the name of the lock that the process which publishes a service's outbox holds."""
    return f"{service}-relay"
