"""What is written on one connection is noted from the statements themselves."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from chassis.persistence.bulk import insert_rows
from chassis.persistence.database import Connection, Database
from chassis.persistence.written_rows import WrittenRows, WrittenTable
from tests.integration.chassis.path import schema
from tests.integration.statements import create_tables

metadata = MetaData()
goods = Table(
    "goods",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("count", Integer),
    Column("color", Text, default="red"),
)
owners = Table("owners", metadata, Column("id", Uuid, primary_key=True))


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Database]:
    async with schema(database) as engine:
        async with engine.begin() as connection:
            await create_tables(connection, metadata)
        yield engine


@pytest.fixture
async def connection(engine: Database) -> AsyncIterator[Connection]:
    async with engine.connect() as connection:
        yield connection


def row(count: int = 1) -> dict[str, object]:
    return {"id": uuid4(), "count": count, "color": "blue"}


class TestWrittenRows:
    async def test_are_those_of_an_insert_of_any_form(self, connection: Connection) -> None:
        written = WrittenRows.on(connection)
        in_bulk, many, one, copied = [row(), row()], [row(), row()], row(), row()

        await insert_rows(connection, goods, in_bulk)
        await connection.execute(insert(goods), many)
        await connection.execute(insert(goods).values(**one).returning(goods.c.id))
        await connection.copy(goods, list(copied), [tuple(copied.values())])

        assert written.tables() == [
            WrittenTable("goods", inserted=6, rows=[*in_bulk, *many, one, copied])
        ]
        assert written.rows_of(goods) == [*in_bulk, *many, one, copied]

    async def test_have_the_defaults_that_python_adds(self, connection: Connection) -> None:
        written = WrittenRows.on(connection)
        id_ = uuid4()

        await connection.execute(insert(goods).values(id=id_))

        assert written.rows_of(goods) == [{"id": id_, "color": "red"}]

    async def test_of_other_statements_are_counted(self, connection: Connection) -> None:
        first, second = row(1), row(2)
        await insert_rows(connection, goods, [first, second])
        written = WrittenRows.on(connection)

        await connection.execute(update(goods).values(count=goods.c.count + 1))
        await connection.execute(delete(goods).where(goods.c.id == first["id"]))
        await connection.execute(
            insert(owners).from_select(["id"], select(goods.c.id).where(goods.c.count == 3))
        )

        assert written.tables() == [
            WrittenTable("goods", updated=2, deleted=1, rows=None),
            WrittenTable("owners", inserted=1, rows=None),
        ]
        assert written.rows_of(goods) == ()

    async def test_that_exist_already_are_not_counted(self, connection: Connection) -> None:
        existing, new = row(), row()
        await insert_rows(connection, goods, [existing])
        written = WrittenRows.on(connection)

        await insert_rows(connection, goods, [existing], unless_there=["id"])
        assert written.tables() == []
        await insert_rows(connection, goods, [existing, new], unless_there=["id"])

        assert written.tables() == [WrittenTable("goods", inserted=1, rows=None)]

    async def test_that_the_database_computes_are_counted(self, connection: Connection) -> None:
        written = WrittenRows.on(connection)
        computed = insert(goods).values(id=uuid4(), count=func.abs(bindparam("number", -2)))
        updating = (
            upsert(goods)
            .values(row())
            .on_conflict_do_update(index_elements=["id"], set_={"count": 5})
        )

        await connection.execute(computed)
        await connection.execute(updating)

        assert written.tables() == [WrittenTable("goods", inserted=2, rows=None)]

    async def test_are_not_those_that_are_read_or_locked(self, connection: Connection) -> None:
        await insert_rows(connection, goods, [row()])
        written = WrittenRows.on(connection)

        await connection.execute(select(goods).with_for_update())

        assert written.tables() == []

    async def test_are_noted_on_their_connection_until_it_returns_to_its_pool(
        self, engine: Database
    ) -> None:
        async with engine.connect() as connection:
            written = WrittenRows.on(connection)
            async with engine.connect() as other:
                await insert_rows(other, goods, [row()])
        async with engine.connect() as connection:
            await insert_rows(connection, owners, [{"id": UUID(int=1)}])
            await connection.copy(owners, ["id"], [(UUID(int=2),)])

        assert written.tables() == []
