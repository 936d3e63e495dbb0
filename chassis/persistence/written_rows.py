"""Notes which rows are written on one connection, without a look at the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Delete, Insert, Table, Update

from chassis.persistence.bulk import rows_in
from chassis.persistence.database import Connection, Executed

Row = Mapping[str, Any]


@dataclass(slots=True)
class WrittenTable:
    """What was written to one table.

    :ivar rows: those that were inserted and updated, as they were written; None if a statement did
        not contain its rows, as ``UPDATE … WHERE`` does not
    """

    name: str
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rows: list[Row] | None = field(default_factory=list)


class WrittenRows:
    """What was written by SQLAlchemy's INSERT, UPDATE and DELETE, and by COPY.

    Statements in text and what the database does by itself (triggers, cascades) are not noted.
    An INSERT that updates on conflict counts as one that inserts.
    """

    def __init__(self) -> None:
        self._tables: dict[str, WrittenTable] = {}

    @classmethod
    def on(cls, connection: Connection) -> "WrittenRows":
        """Begin to note what is written on a connection, until it returns to its pool."""
        written = cls()
        connection.observers.append(written._executed)
        return written

    def tables(self) -> Sequence[WrittenTable]:
        """Return what was written to each table, in the order of the tables' names."""
        return sorted(self._tables.values(), key=lambda each: each.name)

    def rows_of(self, table: Table) -> Sequence[Row]:
        """Return the rows that were written to a table; none where they are not known."""
        written = self._tables.get(table.name)
        return written.rows or () if written is not None else ()

    def _executed(self, executed: Executed) -> None:
        values, count = executed.values, executed.count or 0
        match executed.clause:
            case Insert() as clause:
                self._note(clause.table, "inserted", count, _inserted(clause, values))
            case Update() as clause:
                self._note(clause.table, "updated", count, rows_in(values[0]))
            case Delete() as clause:
                self._note(clause.table, "deleted", count, [])

    def _note(
        self,
        table: Any,
        done: Literal["inserted", "updated", "deleted"],
        count: int,
        rows: Sequence[Row] | None,
    ) -> None:
        if not count:
            return
        written = self._tables.setdefault(table.name, WrittenTable(table.name))
        setattr(written, done, getattr(written, done) + count)
        if done == "deleted":
            return
        # Fewer were written than given: it is not known which.
        if rows is None or len(rows) != count or written.rows is None:
            written.rows = None
        else:
            written.rows += rows


def _inserted(statement: Insert, parameters: Sequence[Row]) -> Sequence[Row] | None:
    """Return the rows that an INSERT contains; None if the database computes a part of them."""
    arrays = rows_in(parameters[0])
    if arrays is not None:
        return arrays
    columns = statement.table.columns
    known = all(parameters) and all(name in columns for row in parameters for name in row)
    return parameters if known else None
