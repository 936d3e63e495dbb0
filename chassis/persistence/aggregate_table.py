"""Aggregates of one table: loaded once and locked, saved into a buffer, written in one statement.

``save`` writes state and outbox together, so that neither can be forgotten. What is loaded is
locked until the transaction ends, in the order of ids, so a rule holds over all that it has loaded
(``docs/decisions/0014``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from asyncpg import IntegrityConstraintViolationError
from sqlalchemy import (
    ARRAY,
    Select,
    Table,
    UniqueConstraint,
    bindparam,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from chassis.domain import Aggregate, DomainError, DomainEvent
from chassis.persistence.bulk import arrays_of, insert_rows, unnested
from chassis.persistence.database import Connection, Row
from chassis.persistence.outbox import Outbox
from chassis.persistence.transactor import StaleAggregate
from contracts.events import IntegrationEvent
from contracts.topics import Topic

A = TypeVar("A", bound=Aggregate)
V = TypeVar("V")


class AggregateTable(ABC, Generic[A]):
    """One kind of aggregate in one table with ``id``, ``version`` and ``sequence``.

    A service's repository derives from it and adds the aggregate's own verbs.
    """

    table: ClassVar[Table]
    topic: ClassVar[Topic]
    #: The unique columns by which ``_find`` is asked.
    found_by: ClassVar[Sequence[str]] = ()
    #: The error that a violated unique constraint is raised as, by the constraint's name.
    conflicts: ClassVar[Mapping[str, type[DomainError]]] = {}

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self._loaded: dict[UUID, A] = {}
        self._saved: dict[UUID, A] = {}
        # By a unique column and its value; an aggregate that was changed since is found no more.
        self._known: dict[tuple[str, Any], A] = {}

    @abstractmethod
    def to_row(self, aggregate: A) -> dict[str, Any]:
        """Return the columns, apart from ``id``, ``version`` and ``sequence``."""

    @abstractmethod
    def from_row(self, row: Row) -> A:
        """Rebuild the aggregate, with its version and sequence, recording nothing."""

    @staticmethod
    @abstractmethod
    def translate(event: Any, /) -> Sequence[IntegrationEvent]:
        """Return the events that publish a domain event: of one fact, one for each version."""

    def save(self, aggregate: A) -> list[DomainEvent]:
        """Keep the aggregate's new state and events for the flush; return the events."""
        self._loaded[aggregate.id] = self._saved[aggregate.id] = aggregate
        self._know(aggregate)
        return self._outbox.append_events_of(aggregate, topic=self.topic, translate=self.translate)

    async def load(self, ids: Iterable[UUID]) -> Mapping[UUID, A]:
        """Return the aggregates that exist, locked; one query reads all not loaded before.

        A rule over several loads them in one call: other transactions lock them in the same order.
        """
        wanted = list(dict.fromkeys(ids))
        unseen = [id_ for id_ in wanted if id_ not in self._loaded]
        if unseen:
            await self._fetch("id", unseen)
        return {id_: self._loaded[id_] for id_ in wanted if id_ in self._loaded}

    async def _find(self, column: str, values: Iterable[V]) -> Mapping[V, A]:
        """Return those with these values in a column of ``found_by``, locked as by ``load``.

        An aggregate that was saved in this unit of work is found by its new value, and by no other.
        """
        wanted = list(dict.fromkeys(values))
        unseen = [value for value in wanted if self._known_by(column, value) is None]
        if unseen:
            await self._fetch(column, unseen)
        found = ((value, self._known_by(column, value)) for value in wanted)
        return {value: aggregate for value, aggregate in found if aggregate is not None}

    def _known_by(self, column: str, value: object) -> A | None:
        aggregate = self._known.get((column, value))
        if aggregate is None or self.to_row(aggregate)[column] != value:
            return None
        return aggregate

    def _know(self, aggregate: A) -> None:
        if self.found_by:
            row = self.to_row(aggregate)
            self._known.update({(column, row[column]): aggregate for column in self.found_by})

    async def _fetch(self, column: str, values: Sequence[Any]) -> None:
        """Read and lock all that match; one that was loaded before keeps its state in memory."""
        found = await self._connection.execute(_lock_by(self.table, column), {"values": values})
        for aggregate in map(self.from_row, found):
            if aggregate.id not in self._loaded:
                self._loaded[aggregate.id] = aggregate
                self._know(aggregate)

    async def flush(self) -> None:
        """Write everything that was saved: one statement for the new, one for the changed.

        :raises DomainError: a unique constraint in ``conflicts`` is violated
        :raises StaleAggregate: another transaction changed one of them after it was loaded
        """
        saved, self._saved = list(self._saved.values()), {}
        new = [aggregate for aggregate in saved if aggregate.version == 0]
        changed = [aggregate for aggregate in saved if aggregate.version > 0]
        try:
            await self._insert(new)
            if changed:
                await self._update(changed)
        except IntegrityConstraintViolationError as error:
            conflict = self.conflicts.get(error.constraint_name or "")
            if conflict is None:
                raise
            raise conflict from error
        for aggregate in saved:
            aggregate.version += 1

    def _columns(self, aggregate: A) -> dict[str, Any]:
        return self.to_row(aggregate) | {
            "id": aggregate.id,
            "version": aggregate.version + 1,
            "sequence": aggregate.sequence,
        }

    async def _insert(self, new: Sequence[A]) -> None:
        rows = [self._columns(aggregate) for aggregate in new]
        if rows and self.conflicts:
            # A violated constraint would be an error in the server's log, which names the values.
            added = await self._connection.execute(_insert_free(self.table), arrays_of(rows))
            there = frozenset(added.scalars())
            rows = [row for row in rows if row["id"] not in there]
            for row in rows:
                await self._raise_conflict_of(row)
            # What was in its way is gone, or is no expected conflict: then this raises it.
        await insert_rows(self._connection, self.table, rows)

    async def _raise_conflict_of(self, row: Mapping[str, Any]) -> None:
        constraints = self.table.constraints
        unique = {c.name: c for c in constraints if isinstance(c, UniqueConstraint)}
        for name, conflict in self.conflicts.items():
            same = [column == row[column.name] for column in unique[name].columns]
            if await self._connection.scalar(select(exists().where(*same))):
                raise conflict

    async def _update(self, changed: Sequence[A]) -> None:
        rows = [self._columns(aggregate) for aggregate in changed]
        written = await self._connection.execute(_update_of(self.table), arrays_of(rows))
        current = frozenset(written.scalars())
        stale = {each.id: each.version for each in changed if each.id not in current}
        if stale:
            raise StaleAggregate(self.table.name, stale)


@cache
def _lock_by(table: Table, column: str) -> Select[Any]:
    """Select and lock the rows with one of these values in a column."""
    key = table.c[column]
    return (
        select(table)
        .where(key == func.any(bindparam("values", type_=ARRAY(key.type))))
        # One order for all transactions, so that none waits for one that waits for it.
        .order_by(table.c.id)
        .with_for_update(key_share=True)
    )


@cache
def _insert_free(table: Table) -> ReturningInsert[Any]:
    """Insert rows from arrays, but for those that a unique constraint refuses; return the ids."""
    names = [column.name for column in table.columns]
    given = unnested(table.columns)
    inserted = insert(table).from_select(names, select(*given.c))
    return inserted.on_conflict_do_nothing().returning(table.c.id)


@cache
def _update_of(table: Table) -> ReturningUpdate[Any]:
    """Update many rows from arrays, and return the ids of those that still had their version."""
    given = unnested(table.columns)
    return (
        update(table)
        # The version in WHERE is the optimistic lock: no row back, no save.
        .where(table.c.id == given.c.id, table.c.version == given.c.version - 1)
        .values({column.name: given.c[column.name] for column in table.c if column.name != "id"})
        .returning(table.c.id)
    )
