"""Accounts kept by SQLAlchemy's own unit of work: the other way, to measure beside ours."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, event, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import registry, relationship

from accounts_service.adapters.tables import PERSONAL, accounts, ledger_entries
from accounts_service.application.integration_events import translate
from accounts_service.domain.account import Account, Transaction
from accounts_service.domain.errors import AccountExists
from chassis.persistence import tables
from chassis.persistence.outbox import Outbox, OutboxRow
from contracts.topics import ACCOUNTS_ACCOUNT


class MappedAccount(Account):
    """A subclass: what is mapped is instrumented, and the aggregate itself shall stay plain."""

    kind: str


class MappedEntry:
    """A transaction as the mapper needs it: neither frozen nor with slots."""

    def __init__(self, account: Account, transaction: Transaction) -> None:
        self.account = account
        self.account_id = account.id
        self.transaction_id = transaction.id
        self.position = transaction.position
        self.delta = transaction.delta
        self.balance_after = transaction.balance_after
        self.description = transaction.description
        self.occurred_at = transaction.occurred_at


class MappedOutboxRow:
    def __init__(self, row: OutboxRow) -> None:
        for name, value in row.items():
            setattr(self, name, value)


mapper = registry()
mapper.map_imperatively(MappedAccount, accounts, version_id_col=accounts.c.version)
mapper.map_imperatively(
    MappedEntry,
    ledger_entries,
    # Without a relationship the mapper does not know which of the two tables comes first.
    properties={"account": relationship(MappedAccount, lazy="raise")},
)
mapper.map_imperatively(
    MappedOutboxRow,
    tables.outbox,
    primary_key=[tables.outbox.c.id],
    exclude_properties=["position"],  # else each insert asks for the position back
)


@event.listens_for(MappedAccount, "load")
def _complete(account: MappedAccount, _context: Any) -> None:
    # The mapper makes an object without __init__.
    account._recorded = []  # noqa: SLF001
    account._new_transactions = []  # noqa: SLF001


class OrmAccounts:
    """A repository over a session, and its share of the outbox."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        self.session = AsyncSession(connection, autoflush=False, expire_on_commit=False)
        self._outbox = outbox

    def save(self, account: MappedAccount) -> None:
        account.kind = PERSONAL
        self.session.add(account)
        self.session.add_all(MappedEntry(account, each) for each in account.take_transactions())
        self._publish(account)

    async def load(self, ids: Sequence[UUID]) -> Sequence[MappedAccount]:
        wanted = select(MappedAccount).where(accounts.c.id == func.any(bindparam("ids", ids)))
        return (await self.session.scalars(wanted)).all()

    async def flush(self) -> None:
        self.session.add_all(map(MappedOutboxRow, self._outbox.take_rows()))
        try:
            await self.session.flush()
        except IntegrityError as error:
            raise AccountExists from error

    def _publish(self, account: Account) -> None:
        self._outbox.append_events_of(account, topic=ACCOUNTS_ACCOUNT, translate=translate)


class OrmBulkAccounts(OrmAccounts):
    """The same with bulk inserts, which go through the mapping and past the unit of work."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        super().__init__(connection, outbox)
        self._accounts: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []

    def save(self, account: MappedAccount) -> None:
        account.kind = PERSONAL
        for each in account.take_transactions():
            self._entries.append(_columns(MappedEntry(account, each)))
        self._publish(account)
        self._accounts.append(_columns(account) | {"version": 1})

    async def flush(self) -> None:
        outbox = [_columns(MappedOutboxRow(row)) for row in self._outbox.take_rows()]
        await self.session.execute(insert(MappedAccount), self._accounts)
        await self.session.execute(insert(MappedEntry), self._entries)
        await self.session.execute(insert(MappedOutboxRow), outbox)


def _columns(mapped: object) -> dict[str, Any]:
    return {name: value for name, value in vars(mapped).items() if not name.startswith("_")}
