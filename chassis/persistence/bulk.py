"""Many rows in one statement, the same whatever their number: each column is one array."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ARRAY, Column, Table, TableValuedAlias, bindparam, func, select
from sqlalchemy.dialects.postgresql import Insert, insert

from chassis.persistence.database import Connection

_PREFIX: Final = "all_"


async def insert_rows(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    unless_there: Sequence[str] = (),
) -> None:
    """Insert rows that all have the same columns, in their order; without rows do nothing.

    :param unless_there: unique columns; a row that equals an existing one in them is left out
    """
    if rows:
        statement = insert_of(table, tuple(rows[0]), tuple(unless_there))
        await connection.execute(statement, arrays_of(rows))


def arrays_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return what ``unnested`` binds: for each column, its value in every row."""
    return {f"{_PREFIX}{name}": [row[name] for row in rows] for name in rows[0]}


def rows_in(arrays: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows that ``arrays_of`` was given; None if it did not make these parameters."""
    columns = {k.removeprefix(_PREFIX): v for k, v in arrays.items() if k.startswith(_PREFIX)}
    if not columns:
        return None
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def unnested(columns: Iterable[Column[Any]]) -> TableValuedAlias:
    """Return the rows of the bound arrays as a table with these columns, in the arrays' order.

    A column that is itself an array would be flattened: ``inbox`` has one, and is not written so.
    ``dimensions`` keeps a JSON value that is a list from being taken for an array.
    """
    chosen = list(columns)
    arrays = (bindparam(f"{_PREFIX}{c.name}", type_=ARRAY(c.type, dimensions=1)) for c in chosen)
    return func.unnest(*arrays).table_valued(*chosen, name="given").render_derived()


@cache
def insert_of(table: Table, names: tuple[str, ...], unless_there: tuple[str, ...] = ()) -> Insert:
    """Return the statement that inserts the rows of ``arrays_of`` in their order."""
    given = unnested(table.c[name] for name in names)
    statement = insert(table).from_select(list(names), select(*given.c))
    if unless_there:
        return statement.on_conflict_do_nothing(index_elements=unless_there)
    return statement
