"""Reads accounts and their transactions, each read in one statement and no transaction."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    select,
    true,
)

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.tables import PERSONAL, accounts, hold_is_open, holds, ledger_entries
from accounts_service.application.ports import AccountHead, AccountView
from accounts_service.domain.account import State, Transaction, TransactionKind
from chassis.persistence.database import Database, Row

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_AFTER_ALL: Final = 2**63 - 1

_STILL_HELD: Final = (
    select(func.coalesce(func.sum(holds.c.amount), 0))
    .where(
        holds.c.account_id == accounts.c.id,
        hold_is_open,
        holds.c.expires_at > func.clock_timestamp(),
    )
    .scalar_subquery()
)
_HEAD: Final = (
    # The holds themselves are read only where one has expired and no timer has come to it yet.
    case(
        (accounts.c.next_expiry <= func.clock_timestamp(), cast(_STILL_HELD, BigInteger)),
        else_=accounts.c.held,
    ).label("held"),
    accounts.c.id,
    accounts.c.user_id,
    accounts.c.currency,
    accounts.c.version,
    accounts.c.last_position,
)
_FIND: Final = select(*_HEAD).where(accounts.c.kind == PERSONAL)
_FIND_BY_ID: Final = _FIND.where(accounts.c.id == bindparam("asked_id"))
_FIND_OF_USER: Final = _FIND.where(accounts.c.user_id == bindparam("asked_id"))

_entry: Final = ledger_entries.c
_LINE: Final = select(
    _entry.transaction_id,
    _entry.position,
    _entry.kind,
    _entry.delta,
    _entry.balance_after,
    _entry.description,
    _entry.occurred_at,
)
_latest = (
    _LINE.where(_entry.account_id == accounts.c.id)
    .order_by(_entry.position.desc())
    .limit(bindparam("latest"))
    .lateral("latest")
)
_BY_ID: Final = (
    select(
        *_HEAD,
        accounts.c.state,
        accounts.c.balance,
        accounts.c.opened_at,
        _latest.c.transaction_id,
        _latest.c.position,
        _latest.c.kind,
        _latest.c.delta,
        _latest.c.balance_after,
        _latest.c.description,
        _latest.c.occurred_at,
    )
    # Every account has a transaction from its opening, so the join loses no account.
    .join_from(accounts, _latest, true())
    .where(accounts.c.kind == PERSONAL, accounts.c.id == bindparam("asked_id"))
    .order_by(_latest.c.position.desc())
)

_TRANSACTIONS: Final = (
    _LINE.where(
        and_(
            _entry.account_id == bindparam("account_id"),
            _entry.position >= bindparam("start", type_=BigInteger),
            _entry.position < bindparam("stop", type_=BigInteger),
        )
    )
    .order_by(_entry.position.desc())
    .limit(bindparam("most", type_=Integer))
)
_TRANSACTIONS_OF_KIND: Final = _TRANSACTIONS.where(_entry.kind == bindparam("kind"))

# The time of an account's entries never decreases, so those of some time are next to each other.
_IN_TIME: Final = (_entry.occurred_at, _entry.position)
_OF_ACCOUNT: Final = and_(
    _entry.account_id == bindparam("account_id"), _entry.position.is_not(None)
)


def _first_from(time: str) -> Select[tuple[int | None]]:
    return (
        select(_entry.position)
        .where(_OF_ACCOUNT, _entry.occurred_at >= bindparam(time))
        .order_by(*_IN_TIME)
        .limit(1)
    )


_POSITIONS: Final = select(
    *(
        func.coalesce(_first_from(time).scalar_subquery(), _AFTER_ALL, type_=BigInteger).label(name)
        for name, time in (("start", "since"), ("stop", "until"))
    )
)
_BALANCE_AT: Final = (
    select(_entry.balance_after)
    .where(_OF_ACCOUNT, _entry.occurred_at <= bindparam("at"))
    .order_by(*(column.desc() for column in _IN_TIME))
    .limit(1)
)


class PostgresAccountViews:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self, account_id: UUID, /) -> AccountHead | None:
        return await self._head(_FIND_BY_ID, account_id)

    async def head_of_user(self, user_id: UUID, /) -> AccountHead | None:
        return await self._head(_FIND_OF_USER, user_id)

    async def by_id(self, account_id: UUID, /, *, latest: int) -> AccountView | None:
        # One statement is one snapshot; a transaction around it would be two more round trips.
        rows = await self._rows(_BY_ID, {"asked_id": account_id, "latest": latest})
        if not rows:
            return None
        account = rows[0]
        return AccountView(
            **_head_of(account),
            state=State(account.state),
            balance=account.balance,
            opened_at=account.opened_at,
            transactions=[_transaction_of(row) for row in rows],
        )

    async def positions(
        self, account_id: UUID, /, *, since: datetime | None, until: datetime | None
    ) -> range:
        values = {"account_id": account_id, "since": since or _BEGINNING, "until": until}
        [found] = await self._rows(_POSITIONS, values)
        return range(found.start, found.stop)

    async def transactions(
        self, account_id: UUID, positions: range, /, *, kind: TransactionKind | None, most: int
    ) -> Sequence[Transaction]:
        values = {
            "account_id": account_id,
            "start": positions.start,
            "stop": positions.stop,
            "most": most,
        }
        if kind is None:
            rows = await self._rows(_TRANSACTIONS, values)
        else:
            rows = await self._rows(_TRANSACTIONS_OF_KIND, values | {"kind": kind.value})
        return [_transaction_of(row) for row in rows]

    async def balance_at(self, account_id: UUID, at: datetime, /) -> int:
        rows = await self._rows(_BALANCE_AT, {"account_id": account_id, "at": at})
        return rows[0].balance_after if rows else 0

    async def _head(self, find: Select[Any], asked_id: UUID) -> AccountHead | None:
        rows = await self._rows(find, {"asked_id": asked_id})
        return AccountHead(**_head_of(rows[0])) if rows else None

    async def _rows(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Row]:
        async with self._database.connect() as connection:
            return (await connection.execute(statement, values)).all()


def _head_of(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "user_id": row.user_id,
        "currency": CURRENCIES[row.currency],
        "version": row.version,
        "last_position": row.last_position,
        "held": row.held,
    }


def _transaction_of(row: Row) -> Transaction:
    return Transaction(
        row.transaction_id,
        row.position,
        TransactionKind(row.kind),
        row.delta,
        row.balance_after,
        row.description,
        row.occurred_at,
    )
