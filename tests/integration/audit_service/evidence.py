"""Writes and reads the service's records."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select

from audit_service.records import AuditWork, keep
from audit_service.tables import records
from chassis.persistence.database import Database, Row
from chassis.testing import FakeRecord

RECORDED_AT = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


async def keep_chunk(engine: Database, *delivered: FakeRecord) -> None:
    async with engine.begin() as connection:
        await keep(AuditWork(connection, lambda: RECORDED_AT), delivered)


async def all_records(engine: Database) -> Sequence[Row]:
    """Return all records, in the order in which they were written."""
    async with engine.connect() as connection:
        return (await connection.execute(select(records).order_by(records.c.position))).all()
