"""Accounts and their ledger in PostgreSQL, and the unit of work that saves them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, and_, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import Insert, insert

from accounts_service.adapters.currencies import CASH_ACCOUNTS, CURRENCIES, HOUSE_ACCOUNTS
from accounts_service.adapters.tables import (
    PERSONAL,
    accounts,
    hold_is_open,
    holds,
    ledger_entries,
    owners,
    reversals,
)
from accounts_service.application import integration_events
from accounts_service.application.ports import HoldParties, Owner
from accounts_service.domain.account import (
    Account,
    State,
    Transaction,
    TransactionKind,
    Transfer,
)
from accounts_service.domain.errors import AccountExists
from accounts_service.domain.hold import Hold, HoldState
from chassis.domain import DomainError
from chassis.persistence.aggregate_table import AggregateTable
from chassis.persistence.bulk import arrays_of, insert_rows, unnested
from chassis.persistence.database import Connection, Row
from chassis.persistence.idempotency_keys import PostgresIdempotencyKeys
from chassis.persistence.outbox import Outbox
from chassis.timers.postgres_timers import PostgresTimers
from contracts.topics import ACCOUNTS_ACCOUNT

SOURCE = "/accounts"


class PostgresAccounts(AggregateTable[Account]):
    """Personal accounts. Their new transactions are written after them, as ledger entries."""

    table = accounts
    topic = ACCOUNTS_ACCOUNT
    translate = staticmethod(integration_events.translate)
    conflicts: ClassVar[Mapping[str, type[DomainError]]] = {"accounts_user_id_key": AccountExists}

    def to_row(self, aggregate: Account) -> dict[str, Any]:
        return {
            "kind": PERSONAL,
            "user_id": aggregate.user_id,
            "currency": aggregate.currency.code,
            "balance": aggregate.balance,
            "last_position": aggregate.last_position,
            "opened_at": aggregate.opened_at,
            "held": aggregate.held,
            "next_expiry": aggregate.next_expiry,
            "moved_at": aggregate.moved_at,
            "state": aggregate.state,
        }

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        super().__init__(connection, outbox)
        self._holders: list[UUID] = []

    def from_row(self, row: Row) -> Account:
        if row.next_expiry is not None:
            self._holders.append(row.id)
        return Account(
            row.id,
            user_id=row.user_id,
            currency=CURRENCIES[row.currency],
            opened_at=row.opened_at,
            moved_at=row.moved_at,
            balance=row.balance,
            last_position=row.last_position,
            state=State(row.state),
            version=row.version,
            sequence=row.sequence,
        )

    async def load(self, ids: Iterable[UUID]) -> Mapping[UUID, Account]:
        # Nobody owns the house's, and nothing about them is decided.
        return await super().load(id_ for id_ in ids if id_ not in HOUSE_ACCOUNTS)

    async def _fetch(self, column: str, values: Sequence[Any]) -> None:
        """Read and lock the accounts, and then their open holds; those that are over expire."""
        await super()._fetch(column, values)
        holders, self._holders = self._holders, []
        if not holders:
            return
        found = (await self._connection.execute(_OPEN_HOLDS, {"ids": holders})).all()
        of_account = defaultdict(list)
        for row in found:
            of_account[row.account_id].append(_hold_of(row))
        for account_id, open_holds in of_account.items():
            self._loaded[account_id].with_holds(open_holds, found[0].now)

    async def flush(self) -> None:
        entries = [
            entry
            for account in self._saved.values()
            for transaction in account.take_transactions()
            for entry in _entries(account, transaction)
        ]
        changed = [
            _row_of(hold)
            for account in self._saved.values()
            for hold in account.take_changed_holds()
        ]
        await super().flush()
        if changed:
            await self._connection.execute(_WRITE_HOLDS, arrays_of(changed))
        # In one statement, as the trigger wants it that adds up each transaction.
        await insert_rows(self._connection, ledger_entries, entries)


def _entries(account: Account, transaction: Transaction) -> Sequence[dict[str, Any]]:
    """Return the account's entry, and the house's where it is the other side."""
    entry = {
        "transaction_id": transaction.id,
        "account_id": account.id,
        "position": transaction.position,
        "kind": transaction.kind,
        "delta": transaction.delta,
        "balance_after": transaction.balance_after,
        "description": transaction.description,
        "occurred_at": transaction.occurred_at,
    }
    if not transaction.kind.is_with_the_house:
        return [entry]
    of_house = {
        "account_id": CASH_ACCOUNTS[account.currency.code],
        "position": None,
        "delta": -transaction.delta,
        "balance_after": None,
    }
    return [entry, entry | of_house]


# The clock by which timers are due.
_NOW: Final = func.clock_timestamp().label("now")
_OPEN_HOLDS: Final = (
    select(holds, _NOW)
    .where(
        and_(
            holds.c.account_id == any_(bindparam("ids", type_=ARRAY(Uuid))),
            hold_is_open,
        )
    )
    .order_by(holds.c.id)
)
_TIME: Final = select(_NOW)
_IS_HOLD: Final = select(holds.c.account_id, holds.c.payee_id).where(holds.c.id == bindparam("id"))


def _write_holds() -> Insert:
    names = [column.name for column in holds.columns]
    new = insert(holds).from_select(names, select(*unnested(holds.columns).c))
    ended = {name: new.excluded[name] for name in ("state", "captured")}
    return new.on_conflict_do_update(index_elements=[holds.c.id], set_=ended)


_WRITE_HOLDS: Final = _write_holds()


def _hold_of(row: Row) -> Hold:
    return Hold(
        id=row.id,
        account_id=row.account_id,
        payee_id=row.payee_id,
        minor_units=row.amount,
        description=row.description,
        placed_at=row.placed_at,
        expires_at=row.expires_at,
        state=HoldState(row.state),
        captured=row.captured,
    )


def _row_of(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "account_id": hold.account_id,
        "payee_id": hold.payee_id,
        "amount": hold.minor_units,
        "captured": hold.captured,
        "description": hold.description,
        "placed_at": hold.placed_at,
        "expires_at": hold.expires_at,
        "state": hold.state,
    }


class PostgresHolds:
    """Holds as they are found by their ids; their accounts change them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find(self, hold_id: UUID, /) -> HoldParties | None:
        found = (await self._connection.execute(_IS_HOLD, {"id": hold_id})).first()
        return None if found is None else HoldParties(found.account_id, found.payee_id)

    async def now(self) -> datetime:
        found: datetime = await self._connection.scalar(_TIME)
        return found


_FIND_TRANSFER: Final = select(ledger_entries.c.account_id, ledger_entries.c.delta).where(
    and_(
        ledger_entries.c.transaction_id == bindparam("id"),
        ledger_entries.c.kind == TransactionKind.TRANSFER.value,
    )
)
_REVERSAL_OF: Final = select(reversals.c.reversal_id).where(
    reversals.c.transfer_id == bindparam("id")
)


class PostgresTransfers:
    """Transfers as the ledger has them: an entry below zero, and one above."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reversed: list[dict[str, Any]] = []

    async def find(self, transfer_id: UUID, /) -> Transfer | None:
        entries = (await self._connection.execute(_FIND_TRANSFER, {"id": transfer_id})).all()
        if not entries:
            return None
        payer, payee = sorted(entries, key=lambda entry: entry.delta)
        return Transfer(transfer_id, payer.account_id, payee.account_id, payee.delta)

    async def reversal_of(self, transfer_id: UUID, /) -> UUID | None:
        found: UUID | None = await self._connection.scalar(_REVERSAL_OF, {"id": transfer_id})
        return found

    def mark_reversed(self, transfer_id: UUID, /, *, by: UUID) -> None:
        self._reversed.append({"transfer_id": transfer_id, "reversal_id": by})

    async def flush(self) -> None:
        marked, self._reversed = self._reversed, []
        await insert_rows(self._connection, reversals, marked)


_FIND_OWNER: Final = (
    select(owners.c.user_id, accounts.c.id.label("account_id"))
    .join_from(owners, accounts, accounts.c.user_id == owners.c.user_id, isouter=True)
    .where(owners.c.username == bindparam("username"))
)


class PostgresOwners:
    """The users by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._added: dict[str, UUID] = {}

    def add(self, user_id: UUID, username: str, /) -> None:
        self._added.setdefault(username, user_id)

    async def find(self, username: str, /) -> Owner | None:
        found = (await self._connection.execute(_FIND_OWNER, {"username": username})).first()
        return None if found is None else Owner(found.user_id, found.account_id)

    async def flush(self) -> None:
        added, self._added = self._added, {}
        # In one order, so that two transactions that add the same names wait for each other once.
        rows = [{"username": name, "user_id": added[name]} for name in sorted(added)]
        await insert_rows(self._connection, owners, rows, unless_there=["username"])


class PostgresAccountsWork:
    """One transaction on the service's database."""

    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        self._connection = connection
        self._outbox = Outbox(SOURCE, now)
        self.accounts = PostgresAccounts(connection, self._outbox)
        self.transfers = PostgresTransfers(connection)
        self.holds = PostgresHolds(connection)
        self.owners = PostgresOwners(connection)
        self.timers = PostgresTimers(connection)
        self.idempotency_keys = PostgresIdempotencyKeys(connection)

    async def flush(self) -> None:
        await self.accounts.flush()
        await self.transfers.flush()
        await self.owners.flush()
        await self.timers.flush()
        await self._outbox.flush(self._connection)
