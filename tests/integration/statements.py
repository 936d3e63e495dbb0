"""Collects the statements that are sent to PostgreSQL, and makes tables by such."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Executable, MetaData, create_mock_engine, text
from sqlalchemy.schema import ExecutableDDLElement

from chassis.persistence.database import Connection, Database, Executed

_TABLES = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


@contextmanager
def statements_on(database: Database) -> Iterator[list[str]]:
    """Collect the text of each statement that is executed in the block, but for BEGIN and COMMIT.

    A connection that was taken before is not observed.
    """
    executed: list[str] = []

    def collect(each: Executed) -> None:
        executed.append(each.sql)

    database.observers.append(collect)
    try:
        yield executed
    finally:
        database.observers.remove(collect)


async def create_tables(connection: Connection, metadata: MetaData) -> None:
    """Create those tables of the metadata that are not there."""
    statements: list[Executable] = []

    def collect(statement: Executable, *_: object, **__: object) -> None:
        assert isinstance(statement, ExecutableDDLElement)
        statements.append(statement)

    found = await connection.scalars(_TABLES)
    missing = [table for table in metadata.sorted_tables if table.name not in found]
    engine = create_mock_engine("postgresql+asyncpg://", collect)
    metadata.create_all(engine, tables=missing, checkfirst=False)
    for statement in statements:
        await connection.execute(statement)
