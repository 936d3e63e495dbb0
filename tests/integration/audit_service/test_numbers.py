"""Records are numbered without a gap, however their transactions end."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import text

from audit_service import numbers
from audit_service.numbers import RecordNumbers
from audit_service.records import AuditWork, keep
from chassis.persistence.database import Connection, Database
from tests.integration.audit_service.evidence import RECORDED_AT, keep_chunk
from tests.integration.explained import pages_read
from tests.unit.audit_service.making import event, numbered, record

LOCK = numbers._TRY_LOCK


async def add(connection: Connection, *offsets: int, partition: int = 0) -> None:
    """Add records, and leave the transaction open."""
    records = [record(event(), offset, partition=partition) for offset in offsets]
    await keep(AuditWork(connection, lambda: RECORDED_AT), records)


async def in_order(engine: Database) -> Sequence[tuple[int, int, int]]:
    """Return number, partition and offset of each numbered record, in the order of numbers."""
    query = text(
        'SELECT number, partition, "offset" FROM record_numbers JOIN records USING (position)'
        " ORDER BY number"
    )
    async with engine.connect() as connection:
        return [(row[0], row[1], row[2]) for row in await connection.execute(query)]


async def numbered_to(engine: Database) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("SELECT numbered_to FROM numbering")) or 0)


class TestNumbers:
    async def test_are_given_in_the_order_of_the_records_once_each(self, engine: Database) -> None:
        numbering = RecordNumbers(engine)
        await keep_chunk(engine, *numbered([event() for _ in range(3)]))

        assert [await numbering.number() for _ in range(3)] == [3, 0, 0]

        await keep_chunk(engine, *numbered([event(), event()], 3))
        assert await numbering.number() == 2
        assert await in_order(engine) == [(n, 0, n - 1) for n in range(1, 6)]

    async def test_have_no_gap_where_a_transaction_was_rolled_back(self, engine: Database) -> None:
        await keep_chunk(engine, record(event()))
        async with engine.begin_rolled_back() as lost:
            await add(lost, 1, 2)
        await keep_chunk(engine, record(event(), 1))

        await RecordNumbers(engine).number()

        assert await in_order(engine) == [(1, 0, 0), (2, 0, 1)]

    async def test_are_given_to_a_record_that_commits_after_one_with_a_higher_position(
        self, engine: Database
    ) -> None:
        numbering = RecordNumbers(engine)
        async with engine.begin() as slow:
            await add(slow, 0, 1)
            await keep_chunk(engine, record(event(), 0, partition=1))
            given = [await numbering.number() for _ in range(4)]
            reached = await numbered_to(engine)

        given += [await numbering.number() for _ in range(3)]

        assert (given, reached) == ([1, 0, 0, 0, 2, 0, 0], 0)
        assert await in_order(engine) == [(1, 1, 0), (2, 0, 0), (3, 0, 1)]
        assert await numbered_to(engine) == 3

    async def test_are_given_in_batches_without_a_gap_between_them(
        self, engine: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(numbers, "_BATCH", 3)
        await keep_chunk(engine, *numbered([event() for _ in range(8)]))
        numbering = RecordNumbers(engine)

        given = [await numbering.number()]
        # Its first look has not shown yet that no lower position can appear.
        reached = [await numbered_to(engine)]
        for _ in range(3):
            given.append(await numbering.number())
            reached.append(await numbered_to(engine))

        assert given == [3, 3, 2, 0]
        assert reached == [0, 6, 8, 8]
        assert await in_order(engine) == [(n, 0, n - 1) for n in range(1, 9)]

    async def test_are_given_by_one_process_at_a_time(self, engine: Database) -> None:
        await keep_chunk(engine, record(event()))
        async with engine.begin() as other:
            assert await other.scalar(LOCK)

            assert await RecordNumbers(engine).number() == 0

        assert await RecordNumbers(engine).number() == 1

    async def test_given_by_several_processes_have_no_gap(self, engine: Database) -> None:
        processes = [RecordNumbers(engine) for _ in range(3)]

        async def add_some(partition: int) -> None:
            for chunk in range(10):
                events = [event() for _ in range(7)]
                await keep_chunk(
                    engine,
                    *(
                        record(each, 7 * chunk + at, partition=partition)
                        for at, each in enumerate(events)
                    ),
                )

        adding = asyncio.gather(*(add_some(partition) for partition in range(2)))
        while not adding.done():
            await asyncio.gather(*(each.number() for each in processes))
        for each in processes:
            await each.number()

        found = await in_order(engine)
        assert [number for number, _, _ in found] == list(range(1, 141))
        for partition in range(2):
            offsets = [offset for _, of, offset in found if of == partition]
            assert offsets == list(range(70))

    async def test_cost_the_same_however_many_there_are(self, engine: Database) -> None:
        await keep_chunk(engine, record(event()))
        async with engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO record_numbers SELECT n, n - 200000 FROM"
                    " generate_series(1, 200000) AS n"
                )
            )
        values = {"numbered_to": 0, "most": 10}
        async with engine.begin_rolled_back() as connection:
            explain = text(f"EXPLAIN (ANALYZE, BUFFERS) {numbers._NUMBER}")
            plan = list((await connection.execute(explain, values)).scalars())

        assert pages_read(plan) < 60

    async def test_that_cannot_be_given_are_reported(self, engine: Database) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE numbering RENAME TO other"))
        numbering = RecordNumbers(engine)

        await numbering.step()

        assert numbering.trouble() == "records are not numbered: UndefinedTableError"
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE other RENAME TO numbering"))
        await numbering.step()
        assert numbering.trouble() is None
