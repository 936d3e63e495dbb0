"""Ways to insert rows that are already made."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ARRAY, Table, bindparam, func, insert, select

from accounts_service.adapters.tables import PERSONAL, accounts, ledger_entries
from chassis.correlation import new_id
from chassis.persistence.database import Connection
from chassis.persistence.tables import outbox

Rows = Sequence[Mapping[str, Any]]
Insert = Callable[[Connection, Table, Rows], Awaitable[None]]


async def executemany(connection: Connection, table: Table, rows: Rows) -> None:
    await connection.execute(insert(table), rows)


_from_arrays: Final[dict[str, Any]] = {}


async def unnest(connection: Connection, table: Table, rows: Rows) -> None:
    names = list(rows[0])
    if table.name not in _from_arrays:
        columns = [table.c[name] for name in names]
        arrays = (bindparam(f"all_{c.name}", type_=ARRAY(c.type)) for c in columns)
        new = func.unnest(*arrays).table_valued(*columns, name="new").render_derived()
        _from_arrays[table.name] = insert(table).from_select(names, select(*new.c))
    await connection.execute(
        _from_arrays[table.name], {f"all_{name}": [row[name] for row in rows] for name in names}
    )


async def copy(connection: Connection, table: Table, rows: Rows) -> None:
    records = [
        tuple(json.dumps(value) if isinstance(value, dict) else value for value in row.values())
        for row in rows
    ]
    await connection.copy(table, list(rows[0]), records)


INSERTS: Final[Mapping[str, Insert]] = {
    "INSERT, executemany": executemany,
    "INSERT from unnest": unnest,
    "COPY": copy,
}


async def insert_accounts(connection: Connection, insert: Insert, count: int) -> None:
    """Insert rows as account opening does, without making aggregates and events."""
    now = datetime.now(UTC)
    ids = [new_id() for _ in range(count)]
    await insert(
        connection,
        accounts,
        [
            {
                "id": id_,
                "kind": PERSONAL,
                "user_id": new_id(),
                "currency": "USD",
                "balance": 0,
                "last_position": 1,
                "opened_at": now,
                "version": 1,
                "sequence": 1,
            }
            for id_ in ids
        ],
    )
    await insert(
        connection,
        ledger_entries,
        [
            {
                "transaction_id": new_id(),
                "account_id": id_,
                "position": 1,
                "delta": 0,
                "balance_after": 0,
                "description": "Initial",
                "occurred_at": now,
            }
            for id_ in ids
        ],
    )
    await insert(
        connection,
        outbox,
        [
            {
                "id": new_id(),
                "aggregatetype": "accounts.account",
                "aggregateid": str(id_),
                "type": "accounts.account-opened.v1",
                "sequence": 1,
                "payload": b"." * 600,
                "headers": {"content-type": "application/cloudevents+json", "id": str(id_)},
                "created_at": now,
            }
            for id_ in ids
        ],
    )
