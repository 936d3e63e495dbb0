"""Aggregates of one table: loaded once, saved into a buffer, written in one statement.

State and outbox are written by the same ``save``, so that neither can be forgotten.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Table, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from chassis.domain import Aggregate, DomainError, DomainEvent
from chassis.persistence.bulk import arrays_of, insert_rows, unnested
from chassis.persistence.database import constraint_of
from chassis.persistence.outbox import Outbox
from chassis.persistence.transactor import StaleAggregate
from contracts.events import IntegrationEvent
from contracts.topics import Topic

A = TypeVar("A", bound=Aggregate)


class AggregateTable(ABC, Generic[A]):
    """One kind of aggregate in one table with ``id``, ``version`` and ``sequence``.

    A service's repository derives from it and adds the aggregate's own verbs.
    """

    table: ClassVar[Table]
    topic: ClassVar[Topic]
    #: Which rule a broken unique constraint stands for.
    conflicts: ClassVar[Mapping[str, type[DomainError]]] = {}

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self._loaded: dict[UUID, A] = {}
        self._saved: dict[UUID, A] = {}

    @abstractmethod
    def to_row(self, aggregate: A) -> dict[str, Any]:
        """Return the columns, apart from ``id``, ``version`` and ``sequence``."""

    @abstractmethod
    def from_row(self, row: Row[Any]) -> A:
        """Rebuild the aggregate, with its version and sequence, recording nothing."""

    @abstractmethod
    def translate(self, event: Any) -> IntegrationEvent | None:
        """Say a domain event in the words of the contract, or decide to be silent."""

    def save(self, aggregate: A) -> list[DomainEvent]:
        """Keep the aggregate's new state and events for the flush; return the events."""
        self._loaded[aggregate.id] = self._saved[aggregate.id] = aggregate
        recorded = list(aggregate.take_events())
        for event in recorded:
            told = self.translate(event)
            if told is not None:
                aggregate.sequence += 1
                self._outbox.append(
                    told,
                    topic=self.topic,
                    subject=aggregate.id,
                    sequence=aggregate.sequence,
                    occurred_at=event.occurred_at,
                )
        return recorded

    async def load(self, ids: Iterable[UUID]) -> Mapping[UUID, A]:
        """Return those that exist, with one query for all that were not loaded before."""
        wanted = list(dict.fromkeys(ids))
        unseen = [id_ for id_ in wanted if id_ not in self._loaded]
        if unseen:
            await self._fetch(self.table.c.id == func.any(bindparam("ids", unseen)))
        return {id_: self._loaded[id_] for id_ in wanted if id_ in self._loaded}

    async def _fetch(self, condition: ColumnElement[bool]) -> Sequence[A]:
        """Return all that match; one that is loaded already comes as it is now in memory."""
        found = await self._connection.execute(select(self.table).where(condition))
        return [
            self._loaded.setdefault(aggregate.id, aggregate)
            for aggregate in map(self.from_row, found)
        ]

    async def flush(self) -> None:
        """Write everything that was saved: one statement for the new, one for the changed.

        :raises DomainError: a rule that a unique constraint stands for (``conflicts``)
        :raises StaleAggregate: another transaction changed one of them since it was loaded
        """
        saved, self._saved = list(self._saved.values()), {}
        new = [aggregate for aggregate in saved if aggregate.version == 0]
        changed = [aggregate for aggregate in saved if aggregate.version > 0]
        try:
            await insert_rows(self._connection, self.table, [self._columns(a) for a in new])
            if changed:
                await self._update(changed)
        except IntegrityError as error:
            rule = self.conflicts.get(constraint_of(error) or "")
            if rule is None:
                raise
            raise rule from error
        for aggregate in saved:
            aggregate.version += 1

    def _columns(self, aggregate: A) -> dict[str, Any]:
        return self.to_row(aggregate) | {
            "id": aggregate.id,
            "version": aggregate.version + 1,
            "sequence": aggregate.sequence,
        }

    async def _update(self, changed: Sequence[A]) -> None:
        rows = [self._columns(aggregate) for aggregate in changed]
        written = await self._connection.execute(_update_of(self.table), arrays_of(rows))
        if len(written.all()) != len(changed):
            raise StaleAggregate(self.table.name)


@cache
def _update_of(table: Table) -> ReturningUpdate[Any]:
    """Update many rows from arrays; one whose version has moved on is not among those returned."""
    given = unnested(table.columns)
    return (
        update(table)
        # The version in WHERE is the optimistic lock: no row back, no save.
        .where(table.c.id == given.c.id, table.c.version == given.c.version - 1)
        .values({column.name: given.c[column.name] for column in table.c if column.name != "id"})
        .returning(table.c.id)
    )
