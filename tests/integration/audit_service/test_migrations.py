"""The schema goes up, down and up again, and is what the tables say."""

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.migrations import config_of
from tests.integration.audit_service.evidence import all_kept, keep_chunk
from tests.unit.audit_service.making import event, record


def test_the_schema_goes_up_and_down_and_up_again_without_a_difference(database: str) -> None:
    config = config_of("audit_service", database)
    command.upgrade(config, "heads")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "heads")
    command.check(config)


class TestEvidence:
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
    async def test_nobody_changes_or_removes_a_record(
        self, engine: AsyncEngine, change: str
    ) -> None:
        await keep_chunk(engine, record(event()))
        before = await all_kept(engine)
        with pytest.raises(DBAPIError, match="never changed or removed"):
            async with engine.begin() as connection:
                await connection.execute(text(change))
        assert await all_kept(engine) == before
