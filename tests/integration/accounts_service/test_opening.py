"""Accounts are opened for a chunk of sign-ups, in one transaction and with one write per table."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import func, select

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.adapters.tables import accounts, ledger_entries
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.ports import AccountsWork
from accounts_service.entrypoints.agents import subscribers
from chassis.consuming import offsets
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import EventSubscriber
from chassis.correlation import new_id
from chassis.persistence.database import Connection, Database
from chassis.persistence.tables import inbox, outbox, parked
from chassis.persistence.transactor import Transactor
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of
from contracts.accounts import AccountOpenedV1
from contracts.envelope import decode, encode, event_in
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from tests.integration.statements import statements_on
from tests.unit.accounts_service.making import an_account, now
from tests.unit.accounts_service.ports_suite import store


def signed_up(user_id: UUID, offset: int) -> FakeRecord:
    event = encode(
        UserSignedUpV1(user_id=user_id, username="ada"),
        id=new_id(),
        source="/users",
        subject=str(user_id),
        time=datetime.now(UTC),
        sequence=1,
        correlationid=f"request-{offset}",
    )
    return FakeRecord.of(event, USERS_USER.name, offset)


def open_work(connection: Connection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, now)


@pytest.fixture
def subscriber() -> EventSubscriber[AccountsWork]:
    known = subscribers(OpenAccountHandler(new_id, now, currency=CURRENCIES["USD"]))
    return next(each for each in known if each.name == "accounts.open-account")


OF_USERS = accounts.c.user_id.is_not(None)


async def take(
    engine: Database,
    subscriber: EventSubscriber[AccountsWork],
    records: Sequence[FakeRecord],
) -> None:
    async with engine.begin() as connection:
        work = open_work(connection)
        await subscriber.take(work, connection, records, now)
        await work.flush()


class TestAChunkOfSignUps:
    async def test_opens_an_account_with_a_first_transaction_for_each(
        self, engine: Database, subscriber: EventSubscriber[AccountsWork]
    ) -> None:
        user_ids = [new_id() for _ in range(500)]

        await take(engine, subscriber, [signed_up(id_, n) for n, id_ in enumerate(user_ids)])

        async with engine.connect() as connection:
            opened = (await connection.execute(select(accounts).where(OF_USERS))).all()
            entries = (await connection.execute(select(ledger_entries))).all()
        assert sorted(row.user_id for row in opened) == sorted(user_ids)
        assert {(row.balance, row.currency, row.last_position) for row in opened} == {(0, "USD", 1)}
        assert sorted(row.account_id for row in entries) == sorted(row.id for row in opened)
        assert {
            (row.position, row.delta, row.balance_after, row.description) for row in entries
        } == {(1, 0, 0, "Initial")}

    async def test_publishes_each_with_the_correlation_of_its_sign_up(
        self, engine: Database, subscriber: EventSubscriber[AccountsWork]
    ) -> None:
        records = [signed_up(new_id(), offset) for offset in range(500)]

        await take(engine, subscriber, records)

        async with engine.connect() as connection:
            rows = (await connection.execute(select(outbox).order_by(outbox.c.position))).all()
            account_of = {row.user_id: row.id for row in await connection.execute(select(accounts))}
        assert len(rows) == 500
        for record, row in zip(records, rows, strict=True):
            caused_by, published = decode(record.value), decode(row.payload)
            opened = event_in(published, AccountOpenedV1)
            assert str(opened.user_id) == caused_by.subject
            assert opened.account_id == account_of[opened.user_id]
            assert row.aggregateid == published.subject == str(opened.account_id)
            assert (row.sequence, published.sequence) == (1, 1)
            assert published.correlationid == caused_by.correlationid
            assert published.causationid == str(caused_by.id)

    async def test_writes_each_table_once(
        self, engine: Database, subscriber: EventSubscriber[AccountsWork]
    ) -> None:
        records = [signed_up(new_id(), offset) for offset in range(500)]

        with statements_on(engine) as executed:
            await take(engine, subscriber, records)

        writes = [
            re.match(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", each) for each in executed
        ]
        written = Counter(match[1] for match in writes if match)
        # The subjects are new, so there is nothing to read.
        assert written == {"inbox": 1, "accounts": 1, "ledger_entries": 1, "outbox": 1}
        assert len(executed) == written.total()

    async def test_opens_nothing_if_it_is_delivered_again(
        self, engine: Database, subscriber: EventSubscriber[AccountsWork]
    ) -> None:
        records = [signed_up(new_id(), offset) for offset in range(10)]
        await take(engine, subscriber, records)

        await take(engine, subscriber, records)

        async with engine.connect() as connection:
            opened = select(func.count()).select_from(accounts).where(OF_USERS)
            assert await connection.scalar(opened) == 10
            for table in (ledger_entries, outbox, inbox):
                count = await connection.scalar(select(func.count()).select_from(table))
                assert count == 10


class TestAUserWhoHasAnAccount:
    async def test_is_parked_and_the_others_get_their_accounts(
        self, engine: Database, subscriber: EventSubscriber[AccountsWork]
    ) -> None:
        before = an_account()
        await store(Transactor(engine, open_work), before)
        others = [new_id(), new_id()]
        records = [
            signed_up(others[0], 0),
            signed_up(before.user_id, 1),
            signed_up(others[1], 2),
        ]
        async with engine.begin() as connection:
            await offsets.begin(connection, [subscriber], USERS_USER.name, {0: (0, 0)}, now)
        processor = ChunkProcessor(USERS_USER, [subscriber], engine, open_work, now)
        source = FakeChunkSource()

        await processor.process(chunk_of(records), source)

        assert source.done == 3
        async with engine.connect() as connection:
            users = (await connection.execute(select(accounts.c.user_id).where(OF_USERS))).scalars()
            parked_rows = (await connection.execute(select(parked))).all()
        assert sorted(users) == sorted([before.user_id, *others])
        assert [(row.offset, row.error_code) for row in parked_rows] == [(1, "account-exists")]
        assert parked_rows[0].subject == str(before.user_id)
