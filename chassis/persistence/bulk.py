"""Many rows in one statement, the same whatever their number: each column is one array."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    Insert,
    Table,
    TableValuedAlias,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection


async def insert_rows(
    connection: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows that all have the same columns, in their order; none, and nothing is sent."""
    if rows:
        await connection.execute(_insert_of(table, tuple(rows[0])), arrays_of(rows))


def arrays_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return what ``unnested`` binds: for each column, its value in every row."""
    return {f"all_{name}": [row[name] for row in rows] for name in rows[0]}


def unnested(columns: Iterable[Column[Any]]) -> TableValuedAlias:
    """Return the rows of the bound arrays as a table with these columns, in the arrays' order.

    A column that is itself an array would be flattened: no table has one. ``dimensions`` keeps a
    JSON value that is a list from being taken for an array.
    """
    chosen = list(columns)
    arrays = (bindparam(f"all_{c.name}", type_=ARRAY(c.type, dimensions=1)) for c in chosen)
    return func.unnest(*arrays).table_valued(*chosen, name="given").render_derived()


@cache
def _insert_of(table: Table, names: tuple[str, ...]) -> Insert:
    given = unnested(table.c[name] for name in names)
    return insert(table).from_select(list(names), select(*given.c))
