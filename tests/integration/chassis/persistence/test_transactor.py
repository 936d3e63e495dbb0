"""A command runs completely and once, whenever it loses its connection."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from asyncpg import IntegrityConstraintViolationError
from sqlalchemy import Column, MetaData, Table, Text, text

from chassis.persistence.database import Connection, Database, is_connection_lost
from chassis.persistence.transactor import NotInTime, OutcomeUnknown, StaleAggregate, Transactor
from chassis.testing import eventually
from local_cluster.testing import RunningInfrastructure, running_infrastructure
from tests.integration.chassis.path import rows
from tests.integration.chassis.proxy import Proxy, postgres_through_proxy

NOTES = Table("notes", MetaData(), Column("note", Text))


class NoteWork:
    """A unit of work that inserts its notes when it is flushed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._notes: list[str] = []

    def note(self, note: str) -> None:
        self._notes.append(note)

    async def flush(self) -> None:
        self.connection.wrote(NOTES)
        for note in self._notes:
            await self.connection.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})


class Bench:
    """A transactor that connects through a proxy, and the database without the proxy."""

    def __init__(self, database: str, engine: Database, proxy: Proxy) -> None:
        self.database = database
        self.engine = engine
        self.proxy = proxy
        self.runs = 0
        self.commits = 0
        engine.on_commit(NOTES, self._count_commit)

    def transactor(self, *, deadline_s: float = 6) -> Transactor[NoteWork]:
        return Transactor(self.engine, NoteWork, deadline_s=deadline_s)

    def _count_commit(self) -> None:
        self.commits += 1

    def noting(
        self, note: str, then: Callable[[NoteWork], Awaitable[None]] | None = None
    ) -> Callable[[NoteWork], Awaitable[str]]:
        async def body(work: NoteWork) -> str:
            self.runs += 1
            work.note(note)
            if then is not None:
                await then(work)
            return f"done {self.runs}"

        return body

    async def notes(self) -> list[str]:
        return [row["note"] for row in await rows(self.database, "SELECT note FROM notes")]


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with bench_on(database) as bench:
        yield bench


@asynccontextmanager
async def bench_on(database: str, pool_size: int = 5) -> AsyncIterator[Bench]:
    await rows(database, "CREATE TABLE notes (note text)")
    async with postgres_through_proxy(database) as (url, proxy):
        engine = Database(url, pool_size=pool_size, application_name="test")
        try:
            yield Bench(database, engine, proxy)
        finally:
            await engine.close()


def cut_once(what: bytes, bench: Bench, *, answered: bool) -> None:
    """Cut all connections at the first request, or the first answer, that contains ``what``."""
    seen = False

    async def cut(data: bytes) -> bool:
        nonlocal seen
        if seen or what not in data:
            return True
        seen = True
        return False

    if answered:
        bench.proxy.on_answer = cut
    else:
        bench.proxy.on_request = cut


class TestAConnectionLost:
    @pytest.mark.parametrize("moment", [b"BEGIN", b"INSERT", b"pg_current_xact_id"])
    async def test_before_commit_runs_the_command_again(self, bench: Bench, moment: bytes) -> None:
        cut_once(moment, bench, answered=False)

        answer = await bench.transactor()(bench.noting("hello"))

        assert await bench.notes() == ["hello"]
        assert answer == f"done {bench.runs}"
        assert bench.commits == 1

    async def test_when_the_server_ends_the_session_runs_the_command_again(
        self, bench: Bench
    ) -> None:
        async def end_own_session_once(work: NoteWork) -> None:
            if bench.runs == 1:
                pid = await work.connection.scalar(text("SELECT pg_backend_pid()"))
                await rows(bench.database, "SELECT pg_terminate_backend($1)", pid)

        await bench.transactor()(bench.noting("hello", end_own_session_once))

        assert await bench.notes() == ["hello"]
        assert bench.runs == 2

    async def test_before_commit_arrives_runs_the_command_again(self, bench: Bench) -> None:
        cut_once(b"COMMIT", bench, answered=False)

        await bench.transactor()(bench.noting("hello"))

        assert await bench.notes() == ["hello"]
        assert bench.runs == 2
        assert bench.commits == 1

    async def test_before_the_answer_to_commit_does_not_run_the_command_twice(
        self, bench: Bench
    ) -> None:
        cut_once(b"COMMIT", bench, answered=True)

        answer = await bench.transactor()(bench.noting("hello"))

        assert answer == "done 1"
        assert await bench.notes() == ["hello"]
        assert bench.commits == 1

    async def test_to_a_database_that_stays_away_leaves_the_outcome_unknown(
        self, bench: Bench
    ) -> None:
        async def stay_away(data: bytes) -> bool:
            if b"COMMIT" in data:
                await bench.proxy.refuse()
                return False
            return True

        bench.proxy.on_answer = stay_away

        with pytest.raises(OutcomeUnknown):
            await bench.transactor(deadline_s=1)(bench.noting("hello"))

        assert bench.runs == 1
        assert bench.commits == 0

    async def test_a_database_that_stays_away_is_an_error_at_the_deadline(
        self, bench: Bench
    ) -> None:
        await bench.proxy.refuse()

        with pytest.raises(ConnectionRefusedError) as raised:
            await bench.transactor(deadline_s=0.3)(bench.noting("hello"))

        assert is_connection_lost(raised.value)
        assert bench.runs == 0

    async def test_a_database_that_comes_back_is_waited_for(self, bench: Bench) -> None:
        await bench.proxy.refuse()
        command = asyncio.create_task(bench.transactor()(bench.noting("hello")))
        await asyncio.sleep(0)

        await bench.proxy.accept()
        await command

        assert await bench.notes() == ["hello"]

    async def test_during_every_commit_does_not_make_commands_wait_for_each_other(
        self, database: str
    ) -> None:
        async with bench_on(database, pool_size=2) as bench:
            waiting = 0

            async def cut_two_together(data: bytes) -> bool:
                nonlocal waiting
                if b"COMMIT" not in data or waiting == 2:
                    return True
                waiting += 1
                while waiting < 2:  # noqa: ASYNC110 - the other command gets here too
                    await asyncio.sleep(0.01)
                return False

            bench.proxy.on_answer = cut_two_together
            transactor = bench.transactor(deadline_s=30)

            async with asyncio.timeout(30):
                await asyncio.gather(*(transactor(bench.noting(each)) for each in "ab"))

            assert sorted(await bench.notes()) == ["a", "b"]
            assert bench.runs == 2


class TestAServerThatCrashes:
    @pytest.fixture
    def own_server(self, tmp_path: Path) -> Iterator[RunningInfrastructure]:
        with running_infrastructure(tmp_path, kafka=False) as server:
            yield server

    async def test_a_transaction_id_that_is_given_again_is_not_taken_for_the_commands(
        self, own_server: RunningInfrastructure
    ) -> None:
        database = own_server.create_database("crashes")
        await rows(database, "CREATE TABLE others (number text)")
        async with bench_on(database) as bench:
            victim = await asyncpg.connect(database)
            victim_pid = await victim.fetchval("SELECT pg_backend_pid()")
            numbers: list[str] = []
            crashed = asyncio.Event()

            async def remember_number(work: NoteWork) -> None:
                await work.flush()
                numbers.append(
                    await work.connection.scalar(text("SELECT pg_current_xact_id()::text"))
                )

            async def crash_at_commit(data: bytes) -> bool:
                if b"COMMIT" not in data:
                    return True
                # A backend that dies of a signal makes the server restart from its log.
                os.kill(victim_pid, signal.SIGKILL)
                await bench.proxy.refuse()
                crashed.set()
                return False

            async def another_has_the_number() -> bool:
                found = await rows(
                    database,
                    "INSERT INTO others VALUES (pg_current_xact_id()::text) RETURNING number",
                )
                return bool(found[0]["number"] == numbers[0])

            bench.proxy.on_request = crash_at_commit
            command = asyncio.create_task(
                bench.transactor(deadline_s=20)(bench.noting("hello", remember_number))
            )
            await crashed.wait()
            await eventually(another_has_the_number, despite=(OSError, asyncpg.PostgresError))
            await bench.proxy.accept()

            with pytest.raises(OutcomeUnknown):
                await command
            assert await bench.notes() == []
            victim.terminate()


class TestConflicts:
    async def test_a_stale_aggregate_is_loaded_again(self, bench: Bench) -> None:
        async def be_stale_once(_work: NoteWork) -> None:
            if bench.runs == 1:
                raise StaleAggregate

        await bench.transactor()(bench.noting("hello", be_stale_once))

        assert await bench.notes() == ["hello"]


class TestTheDeadline:
    async def test_is_one_for_all_attempts(self, bench: Bench) -> None:
        async def be_stale(_work: NoteWork) -> None:
            raise StaleAggregate

        with pytest.raises(NotInTime):
            await bench.transactor(deadline_s=0.3)(bench.noting("hello", be_stale))

        assert bench.runs > 1
        assert await bench.notes() == []

    async def test_ends_the_wait_for_a_lock_here_and_at_the_server(self, bench: Bench) -> None:
        async with holding(bench, "LOCK notes"):
            with pytest.raises(NotInTime):
                await bench.transactor(deadline_s=0.3)(bench.noting("hello"))

            await eventually(lambda: nothing_waits(bench))

        assert await bench.notes() == []
        assert bench.engine.in_use == 0

    async def test_ends_the_wait_for_a_place_in_the_pool(self, database: str) -> None:
        async with bench_on(database, pool_size=1) as bench, bench.engine.connect():
            command = bench.transactor(deadline_s=0.3)(bench.noting("hello"))

            (outcome,) = await asyncio.gather(command, return_exceptions=True)

            assert isinstance(outcome, NotInTime)
            assert bench.runs == 0

    async def test_ends_a_command_whose_server_answers_no_more(self, bench: Bench) -> None:
        await bench.transactor()(bench.noting("before"))

        async with silent(bench):
            with pytest.raises(NotInTime):
                await bench.transactor(deadline_s=0.3)(bench.noting("hello"))

        assert bench.engine.in_use == 0
        assert await bench.notes() == ["before"]

    async def test_ends_the_question_what_became_of_a_commit_without_an_answer(
        self, bench: Bench
    ) -> None:
        await bench.transactor()(bench.noting("before"))

        async with silent(bench, from_=b"COMMIT"):
            with pytest.raises(OutcomeUnknown):
                await bench.transactor(deadline_s=0.3)(bench.noting("hello"))

        assert await bench.notes() == ["before", "hello"]

    async def test_is_outlived_by_no_lock_of_a_client_that_is_gone(self, bench: Bench) -> None:
        async with bench.transactor().query() as connection:
            assert await connection.scalar(text("SHOW lock_timeout")) == "5s"


@asynccontextmanager
async def silent(bench: Bench, from_: bytes = b"") -> AsyncIterator[None]:
    """Hold back the server's answers while the block runs, from one that contains this on."""
    over = asyncio.Event()

    async def hold_back(data: bytes) -> bool:
        if from_ in data:
            await over.wait()
            return False
        return True

    bench.proxy.on_answer = hold_back
    try:
        yield
    finally:
        over.set()


@asynccontextmanager
async def holding(bench: Bench, lock: str) -> AsyncIterator[None]:
    """Hold a lock on another connection while the block runs."""
    other = await asyncpg.connect(bench.database)
    try:
        async with other.transaction():
            await other.execute(lock)
            yield
    finally:
        await other.close()


async def nothing_waits(bench: Bench) -> bool:
    return not await rows(bench.database, "SELECT FROM pg_locks WHERE NOT granted")


class TestAFailure:
    async def test_of_the_body_commits_nothing_and_is_not_repeated(self, bench: Bench) -> None:
        async def fail(work: NoteWork) -> None:
            await work.flush()
            raise LookupError("no")

        with pytest.raises(LookupError):
            await bench.transactor()(bench.noting("hello", fail))

        assert await bench.notes() == []
        assert (bench.runs, bench.commits) == (1, 0)

    async def test_of_a_constraint_is_not_repeated(self, bench: Bench) -> None:
        await rows(bench.database, "ALTER TABLE notes ADD UNIQUE (note)")
        transactor = bench.transactor()
        await transactor(bench.noting("hello"))

        with pytest.raises(IntegrityConstraintViolationError):
            await transactor(bench.noting("hello"))

        assert bench.runs == 2

    async def test_by_a_cancellation_returns_a_clean_connection(self, bench: Bench) -> None:
        for pause in (0.0, 0.001, 0.003, 0.005, 0.01, 0.02):

            async def sleep(work: NoteWork) -> None:
                await work.flush()
                await work.connection.execute(text("SELECT pg_sleep(10)"))

            command = asyncio.create_task(bench.transactor()(bench.noting("hello", sleep)))
            await asyncio.wait([command], timeout=pause)
            command.cancel()
            await asyncio.wait([command])
            assert command.cancelled()

        async def no_session_is_in_a_transaction() -> bool:
            left = await rows(
                bench.database,
                "SELECT FROM pg_stat_activity WHERE application_name = 'test' AND state <> 'idle'",
            )
            return not left

        await eventually(no_session_is_in_a_transaction)
        assert bench.engine.in_use == 0
        assert await bench.notes() == []


class TestQuery:
    async def test_reads_outside_of_a_command(self, bench: Bench) -> None:
        async with bench.transactor().query() as connection:
            found = await connection.scalar(text("SELECT count(*) FROM notes"))

        assert found == 0
