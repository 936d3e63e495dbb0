"""An outbox that is published from PostgreSQL's log, as Debezium does it."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from chassis.operations import outbox as rows_set_aside
from chassis.operations.outbox import OneRow
from chassis.persistence.database import Database
from chassis.persistence.outbox import Outbox
from chassis.persistence.outbox_age import OutboxAge
from chassis.testing import eventually
from contracts.envelope import decode
from local_cluster.testing import DatabaseServer
from tests.integration.chassis.operations.operating import (
    BY_ADA,
    runtime_of,
    service_of,
    topic_with_withheld,
)
from tests.integration.chassis.path import count, rows, schema, settings_for
from tests.integration.chassis.publishing.test_relay import YESTERDAY, append

TOPIC = topic_with_withheld()


@pytest.fixture
def slot() -> str:
    """The name of a slot that no other test has."""
    return f"test_{uuid4().hex}"


@pytest.fixture
async def engine(database: str, slot: str) -> AsyncIterator[Database]:
    """A pool whose outbox is published through the slot, whether it is there or not."""
    async with schema(database):
        engine = Database(database, pool_size=2, application_name="test", outbox_slot=slot)
        yield engine
        await engine.close()


@pytest.fixture
async def reader(
    postgres_server: DatabaseServer, database: str, engine: Database
) -> AsyncIterator["asyncpg.Connection"]:
    """A superuser in the same database, who may read the log; the outbox is in a publication."""
    url = urlsplit(postgres_server.superuser_url)._replace(path=urlsplit(database).path)
    connection = await asyncpg.connect(url.geturl())
    await connection.execute("CREATE PUBLICATION outbox FOR TABLE outbox")
    yield connection
    await connection.close()


async def make_slot(reader: "asyncpg.Connection", slot: str) -> None:
    await reader.execute("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot)


async def logged(reader: "asyncpg.Connection", slot: str) -> list[tuple[str, str]]:
    """Return what the log has about the outbox: each change, and the user's name in its payload."""
    changes = await reader.fetch(
        "SELECT data FROM pg_logical_slot_get_changes($1, NULL, NULL)", slot
    )
    found = []
    for (data,) in changes:
        if change := re.match(r"table public\.outbox: (\w+):", data):
            payload = re.search(r"payload\[bytea\]:'\\x([0-9a-f]+)'", data)
            envelope = decode(bytes.fromhex(payload[1])) if payload else None
            found.append((change[1], str(envelope.data.get("username")) if envelope else ""))
    return found


async def publish(engine: Database, *names: str) -> None:
    """Publish that users with these names have signed up."""
    outbox = Outbox("/test", lambda: YESTERDAY)
    for name in names:
        append(outbox, TOPIC, uuid4(), 1, name)
    async with engine.begin() as connection:
        await outbox.flush(connection)


class TestAnEvent:
    async def test_is_in_the_log_with_its_whole_payload_and_no_longer_in_the_table(
        self, engine: Database, database: str, reader: "asyncpg.Connection", slot: str
    ) -> None:
        # Neither small nor compressible: PostgreSQL keeps it apart from its row.
        long = secrets.token_hex(100_000)
        await make_slot(reader, slot)

        await publish(engine, long, "ada")

        assert await count(database, "outbox") == 0
        assert await logged(reader, slot) == [
            ("INSERT", long),
            ("INSERT", "ada"),
            ("DELETE", ""),
            ("DELETE", ""),
        ]

    async def test_that_is_not_read_yet_is_measured_and_a_slot_that_is_not_there_is_a_trouble(
        self, engine: Database, reader: "asyncpg.Connection", slot: str
    ) -> None:
        age = OutboxAge(engine, limit_s=None)
        await age.step()
        assert age.trouble() == (f"the slot {slot} or its publication is not there, or is invalid")

        await make_slot(reader, slot)
        await publish(engine, secrets.token_hex(100_000))
        await age.step()

        assert age.trouble() is None
        assert (REGISTRY.get_sample_value("outbox_slot_bytes") or 0) > 200_000
        assert (REGISTRY.get_sample_value("outbox_slot_inactive_seconds") or 0) > 0

    async def test_stays_in_the_table_where_the_publication_does_not_have_the_table(
        self, engine: Database, database: str, reader: "asyncpg.Connection", slot: str
    ) -> None:
        await make_slot(reader, slot)
        await reader.execute("ALTER PUBLICATION outbox DROP TABLE outbox")

        await publish(engine, "ada")

        assert await count(database, "outbox") == 1

    async def test_stays_in_the_table_while_the_slot_has_not_found_where_it_begins(
        self, engine: Database, database: str, reader: "asyncpg.Connection", slot: str
    ) -> None:
        before = await asyncpg.connect(database)
        transaction = before.transaction()
        await transaction.start()
        await before.execute("SELECT pg_current_xact_id()")
        making = asyncio.create_task(make_slot(reader, slot))

        async def is_begun() -> bool:
            return bool(await rows(database, "SELECT FROM pg_replication_slots"))

        # The slot waits for all transactions that were there before it.
        await eventually(is_begun, within_s=30)
        await publish(engine, "ada")
        waited = not making.done()
        await transaction.rollback()
        await before.close()
        await making

        assert waited
        assert await count(database, "outbox") == 1

    async def test_stays_in_the_table_while_the_slot_is_not_there(
        self, engine: Database, database: str, reader: "asyncpg.Connection", slot: str
    ) -> None:
        await publish(engine, "ada")
        await make_slot(reader, slot)
        await reader.execute("SELECT pg_drop_replication_slot($1)", slot)
        await publish(engine, "bob")

        assert await count(database, "outbox") == 2

    async def test_stays_in_the_table_where_the_slot_is_another_databases(
        self,
        engine: Database,
        database: str,
        postgres_server: DatabaseServer,
        reader: "asyncpg.Connection",
        slot: str,
    ) -> None:
        elsewhere = await asyncpg.connect(postgres_server.superuser_url)
        await make_slot(elsewhere, slot)
        try:
            await publish(engine, "ada")
        finally:
            await elsewhere.execute("SELECT pg_drop_replication_slot($1)", slot)
            await elsewhere.close()

        assert await count(database, "outbox") == 1

    async def test_that_the_relay_had_set_aside_is_in_the_log_when_it_is_released(
        self, engine: Database, database: str, reader: "asyncpg.Connection", slot: str
    ) -> None:
        runtime = runtime_of(service_of(TOPIC), settings_for(database, "127.0.0.1:1"), engine)
        await publish(engine, "ada")
        async with engine.begin() as connection:
            id_ = await connection.scalar(
                text(
                    "WITH moved AS (DELETE FROM outbox RETURNING *) INSERT INTO outbox_set_aside"
                    " SELECT moved.*, 'RecordListTooLargeError', 'too large', now() FROM moved"
                    " RETURNING id"
                )
            )
        await make_slot(reader, slot)

        await rows_set_aside.release(runtime, OneRow(event_id=id_), BY_ADA)

        assert await count(database, "outbox") == 0
        assert ("INSERT", "ada") in await logged(reader, slot)
