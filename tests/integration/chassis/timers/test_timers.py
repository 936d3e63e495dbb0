"""Timers in PostgreSQL: the promises of the fake, and those that need workers that die."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text

from chassis.backoff import Backoff
from chassis.consuming import retry_policy
from chassis.consuming.dead_letters import not_understood
from chassis.persistence.database import NoConnectionFree
from chassis.persistence.transactor import StaleAggregate
from chassis.testing import eventually
from chassis.timers import due_timers
from chassis.timers.due_timers import ClaimLost
from chassis.timers.timer import DueTimer
from local_cluster.testing import DatabaseServer
from tests.integration.chassis.path import is_waiting_for_a_lock, rows
from tests.integration.chassis.timers.timed import (
    Timed,
    TimedWork,
    create_tables,
    timed,
    write_effect,
)
from tests.integration.explained import plan_of
from tests.integration.statements import statements_on
from tests.unit.chassis.timers.timers_suite import (
    FUTURE,
    PAST,
    Note,
    Refused,
    TimersSuite,
    cancel,
    schedule,
)


@pytest.fixture(scope="module")
def timers_database(postgres_server: DatabaseServer) -> Iterator[str]:
    """The URL of a database with the tables, which the tests empty."""
    name = f"timers_{uuid4().hex}"
    url = postgres_server.create_database(name)
    asyncio.run(create_tables(url))
    yield url
    postgres_server.drop_database(name)


@pytest.fixture
async def bench(timers_database: str) -> AsyncIterator[Timed]:
    async with timed(timers_database) as bench:
        yield bench


def to_handle(what: Note, due: DueTimer) -> Any:
    """Return what handles one timer in a unit of work."""

    async def handle(work: TimedWork) -> None:
        await write_effect(work, what, due)

    return handle


class TestPostgresTimers(TimersSuite):
    pass


class TestAPoll:
    async def test_claims_a_batch_in_one_statement(self, bench: Timed) -> None:
        for number in range(20):
            await schedule(bench, str(number))

        with statements_on(bench.engine) as sent:
            claimed = await bench.due.claim(20)

        assert len(claimed) == 20
        assert len(sent) == 1

    async def test_costs_the_same_whatever_waits(self, bench: Timed) -> None:
        stopped = uuid4()
        await schedule(bench, "parked", subject=stopped)
        (parked,) = await bench.due.claim(1)
        await bench.due.park(parked, not_understood("x"))
        await rows(
            bench.database,
            "INSERT INTO timers SELECT gen_random_uuid(), $1, 'test.note', '{}',"
            " clock_timestamp() - interval '1 h', 'x', NULL, NULL FROM generate_series(1, 20000)",
            stopped,
        )
        await rows(
            bench.database,
            "INSERT INTO next_timers SELECT gen_random_uuid(), gen_random_uuid(),"
            " clock_timestamp() + interval '1 h', 0, false, 0, 0 FROM generate_series(1, 20000)",
        )
        await rows(bench.database, "ANALYZE")
        values = {"most": 20, "lease": timedelta(minutes=1)}
        async with bench.engine.begin() as connection:
            plan = await plan_of(connection, due_timers._CLAIM, values)

        assert not [line for line in plan if "Seq Scan" in line or "Removed by Filter" in line]
        (buffers, *_) = [line for line in plan if "Buffers" in line]
        assert int(buffers.partition("hit=")[2].split()[0]) < 20, plan

    async def test_takes_no_more_than_the_rate_allows(self, bench: Timed) -> None:
        for number in range(15):
            await schedule(bench, str(number))
        worker = bench.worker(timers_per_s=10)

        pause_s = await worker.step(0)

        assert len(await bench.handled()) == 10
        assert pause_s > 0.5

    async def test_is_one_statement_and_each_timer_two_beside_its_handlers(
        self, bench: Timed
    ) -> None:
        worker = bench.worker()
        await worker.step(0)  # which also counts what waits
        for number in range(10):
            await schedule(bench, str(number))

        with statements_on(bench.engine) as idle, statements_on(bench.engine) as sent:
            await worker.step(0)
            idle.clear()
            await worker.step(0)

        assert len(sent) == 1 + 10 * (1 + 2) + 1
        assert len(idle) == 1


class TestSeveralWorkers:
    async def test_handle_each_timer_once(self, bench: Timed) -> None:
        for number in range(60):
            await schedule(bench, str(number))
        workers = [bench.worker() for _ in range(3)]

        while (await bench.due.waiting()).due:
            await asyncio.gather(*(worker.step(0) for worker in workers))

        assert sorted(await bench.handled(), key=int) == [str(n) for n in range(60)]
        assert await rows(bench.database, "SELECT FROM timers, next_timers") == []

    async def test_one_that_wakes_after_its_lease_changes_nothing(self, bench: Timed) -> None:
        await schedule(bench, "once")
        (frozen,) = await bench.due.claim(1)
        await bench.let_time_pass()
        await bench.worker().step(0)

        with pytest.raises(ClaimLost):
            await bench.due.handle(frozen, to_handle(Note(text="twice"), frozen.due))

        assert await bench.handled() == ["once"]

    async def test_that_died_have_their_timers_handled_by_another(self, bench: Timed) -> None:
        subject = uuid4()
        await schedule(bench, "late", subject=subject)
        await bench.due.claim(20)

        await bench.worker().step(0)
        assert await bench.handled() == []
        await bench.let_time_pass()
        await bench.worker().step(0)

        assert await bench.handled() == ["late"]


class Death(BaseException):
    """What a handler raises in place of killing the process: nothing catches it."""


class TestAStop:
    async def test_gives_back_what_was_not_begun_uncounted_and_ends_the_rest(
        self, bench: Timed
    ) -> None:
        subjects = [uuid4() for _ in range(4)]
        for number, subject in enumerate(subjects):
            await schedule(bench, str(number), PAST + timedelta(hours=number), subject=subject)

        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            await worker.stop()
            await write_effect(work, what, due)

        worker = bench.worker(handle, timers_at_once=1)
        await worker.run()

        assert await bench.handled() == ["0"]
        left = [await bench.first(subject) for subject in subjects[1:]]
        assert {(row["tries"], row["begun"]) for row in left} == {(0, False)}


class TestATimerThatKillsItsProcess:
    async def test_is_parked_after_some_deaths_and_what_was_beside_it_is_handled(
        self, bench: Timed
    ) -> None:
        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            if what.text == "deadly":
                raise Death
            await write_effect(work, what, due)

        deadly, deaths = uuid4(), 2
        await schedule(bench, "deadly", PAST - timedelta(hours=1), subject=deadly)
        await schedule(bench, "beside it")
        for _ in range(deaths):
            # Both were claimed by a worker that died.
            await bench.due.claim(20)
            await bench.let_time_pass()
        for _ in range(20):
            if (await bench.first(deadly))["parked_at"] is not None:
                break
            try:
                await bench.worker(handle).step(0)
            except Death:
                deaths += 1
            await bench.let_time_pass()

        assert deaths == 5
        assert (await bench.first(deadly))["error_code"] == "worker-died"
        assert await bench.handled() == ["beside it"]


class TestATimerThatFails:
    async def test_leaves_none_of_its_effects(self, bench: Timed) -> None:
        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            await write_effect(work, what, due)
            work.timers.schedule(PAST, Note(text="never"))
            raise Refused("after all")

        subject = uuid4()
        await schedule(bench, "refused", subject=subject)
        await bench.worker(handle).step(0)

        first = await bench.first(subject)
        assert (first["error_code"], first["error_message"]) == ("refused", "after all")
        assert first["parked_at"] is not None
        assert await bench.handled() == []
        assert len(await rows(bench.database, "SELECT FROM timers")) == 1

    async def test_for_an_unknown_reason_is_tried_some_times_with_pauses(
        self, bench: Timed
    ) -> None:
        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            raise RuntimeError("a secret of someone")

        subject = uuid4()
        await schedule(bench, "unlucky", subject=subject)
        worker = bench.worker(handle)
        for tries in range(1, 5):
            await worker.step(0)
            first = await bench.first(subject)
            assert (first["tries"], first["parked_at"]) == (tries, None)
            assert first["next_at"] > first["last_tried_at"]
            await bench.let_time_pass()

        await worker.step(0)

        first = await bench.first(subject)
        assert (first["tries"], first["error_message"]) == (5, "RuntimeError")
        assert first["parked_at"] is not None

    @pytest.mark.parametrize(
        "error",
        [lambda: StaleAggregate("accounts", {uuid4(): 1}), lambda: NoConnectionFree("no place")],
        ids=["contention", "dependency"],
    )
    async def test_for_a_reason_outside_of_it_is_never_parked(
        self, bench: Timed, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
    ) -> None:
        monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(0, 0))
        left = 12

        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            nonlocal left
            left -= 1
            if left:
                raise error()
            await write_effect(work, what, due)

        await schedule(bench, "in the way")
        worker = bench.worker(handle)
        for _ in range(12):
            await worker.step(0)

        assert await bench.handled() == ["in the way"]

    async def test_because_it_waited_for_a_lock_has_met_a_conflict(self, bench: Timed) -> None:
        lock = select(func.pg_advisory_xact_lock(15))

        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            await work.connection.execute(text("SET LOCAL lock_timeout = '20ms'"))
            await work.connection.execute(lock)

        subject = uuid4()
        await schedule(bench, "behind a lock", subject=subject)
        async with bench.engine.begin() as other:
            await other.execute(lock)
            await bench.worker(handle).step(0)

        first = await bench.first(subject)
        assert (first["error_code"], first["tries"]) == ("contention", 0)

    async def test_of_a_kind_that_no_handler_has_is_parked(self, bench: Timed) -> None:
        subject = uuid4()
        await schedule(bench, "unknown", subject=subject)
        await rows(bench.database, "UPDATE timers SET kind = 'test.gone'")

        await bench.worker().step(0)

        assert (await bench.first(subject))["error_code"] == "not-understood"

    async def test_and_waits_is_not_tried_before_its_pause_though_another_is_scheduled(
        self, bench: Timed
    ) -> None:
        subject = uuid4()
        await schedule(bench, "failing", subject=subject)
        (claimed,) = await bench.due.claim(1)
        await bench.due.put_back(claimed, 60, "x", counts=True)

        await schedule(bench, "earlier", PAST - timedelta(hours=1), subject=subject)

        assert await bench.due.claim(20) == []
        assert (await bench.due.waiting()).overdue_s > 4 * 3_600


class TestCancelling:
    async def test_one_that_is_handled_rolls_its_effects_back(self, bench: Timed) -> None:
        id_ = await schedule(bench, "too late")

        async def handle(work: TimedWork, what: Note, due: DueTimer) -> None:
            await write_effect(work, what, due)
            assert await cancel(bench, id_)

        await bench.worker(handle).step(0)

        assert await bench.handled() == []
        assert await rows(bench.database, "SELECT FROM next_timers") == []

    async def test_one_whose_effects_are_committed_first_answers_no(
        self, bench: Timed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subject = uuid4()
        id_ = await schedule(bench, "first", subject=subject)
        behind = await schedule(bench, "behind", FUTURE, subject=subject)
        at_commit, commit = asyncio.Event(), asyncio.Event()

        async def failpoint(name: str) -> None:
            if name == "timer.before-commit":
                at_commit.set()
                await commit.wait()

        monkeypatch.setattr(due_timers, "failpoint", failpoint)
        handling = asyncio.create_task(bench.worker().step(0))
        async with asyncio.timeout(30):
            await at_commit.wait()
        cancelling = [asyncio.create_task(cancel(bench, each)) for each in (id_, behind)]
        await eventually(lambda: is_waiting_for_a_lock(bench.database))
        commit.set()

        assert await asyncio.gather(*cancelling) == [False, True]
        await handling
        assert await bench.handled() == ["first"]
        assert await bench.first(subject) is None


class TestAnyInterleaving:
    async def test_loses_no_timer_and_handles_none_twice(self, bench: Timed) -> None:
        subjects = [uuid4() for _ in range(3)]
        chance = random.Random(15)  # noqa: S311 - no secret
        scheduled: set[UUID] = set()
        cancelled: set[UUID] = set()
        workers = [bench.worker() for _ in range(2)]
        running = [asyncio.create_task(worker.run()) for worker in workers]

        async def client() -> None:
            for _ in range(15):
                at = PAST if chance.random() < 0.5 else FUTURE
                at += timedelta(minutes=chance.randrange(100))
                id_ = await schedule(bench, "x", at, subject=chance.choice(subjects))
                scheduled.add(id_)
                if chance.random() < 0.5:
                    other = chance.choice(sorted(scheduled))
                    if await cancel(bench, other):
                        cancelled.add(other)

        await asyncio.gather(*(client() for _ in range(4)))
        # The rest is due now, in the order in which it was.
        await rows(bench.database, "UPDATE timers SET due_at = due_at - interval '10 d'")
        await rows(bench.database, "UPDATE next_timers SET next_at = next_at - interval '10 d'")

        async def none_is_left() -> bool:
            return not await rows(bench.database, "SELECT FROM timers")

        await eventually(none_is_left)
        await asyncio.gather(*(worker.stop() for worker in workers), *running)

        found = await rows(bench.database, "SELECT event_id FROM effects")
        assert sorted(row["event_id"] for row in found) == sorted(scheduled - cancelled)
        assert await rows(bench.database, "SELECT FROM next_timers") == []
