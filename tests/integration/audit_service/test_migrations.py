"""The schema can be migrated up, down and up again, and equals the declared tables."""

import pytest
from asyncpg import PostgresError
from sqlalchemy import text

from audit_service.numbers import RecordNumbers
from chassis.persistence.database import Database
from tests.integration.audit_service.evidence import all_records, keep_chunk
from tests.integration.migrations import assert_migrations_round_trip
from tests.unit.audit_service.making import event, record


def test_the_schema_can_be_migrated_up_down_and_up_again(database: str) -> None:
    assert_migrations_round_trip("audit_service", database)


class TestARecord:
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE records SET payload = NULL",
            "UPDATE records SET topic = topic WHERE false",
            "DELETE FROM records",
            "TRUNCATE records",
            (
                "INSERT INTO records OVERRIDING SYSTEM VALUE SELECT * FROM records"
                " ON CONFLICT (position) DO UPDATE SET key = excluded.key"
            ),
        ],
    )
    async def test_cannot_be_changed_or_removed(self, engine: Database, change: str) -> None:
        await keep_chunk(engine, record(event()))
        before = await all_records(engine)
        with pytest.raises(PostgresError, match="never changed or removed"):
            async with engine.begin() as connection:
                await connection.execute(text(change))
        assert await all_records(engine) == before

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE record_numbers SET number = 2",
            "DELETE FROM record_numbers",
            "TRUNCATE record_numbers",
        ],
    )
    async def test_keeps_its_number(self, engine: Database, change: str) -> None:
        await keep_chunk(engine, record(event()))
        await RecordNumbers(engine).number()
        refused = ""
        try:
            async with engine.begin() as connection:
                await connection.execute(text(change))
        except PostgresError as error:
            refused = str(error)
        async with engine.connect() as connection:
            kept = (await connection.execute(text("SELECT * FROM record_numbers"))).all()
        assert [tuple(row) for row in kept] == [(1, 1)]
        assert "never changed or removed" in refused
