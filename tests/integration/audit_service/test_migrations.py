"""The schema can be migrated up, down and up again, and equals the declared tables."""

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.migrations import config_of
from tests.integration.audit_service.evidence import all_records, keep_chunk
from tests.unit.audit_service.making import event, record


def test_the_schema_can_be_migrated_up_down_and_up_again(database: str) -> None:
    config = config_of("audit_service", database)
    command.upgrade(config, "heads")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "heads")
    command.check(config)


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
    async def test_cannot_be_changed_or_removed(self, engine: AsyncEngine, change: str) -> None:
        await keep_chunk(engine, record(event()))
        before = await all_records(engine)
        with pytest.raises(DBAPIError, match="never changed or removed"):
            async with engine.begin() as connection:
                await connection.execute(text(change))
        assert await all_records(engine) == before
