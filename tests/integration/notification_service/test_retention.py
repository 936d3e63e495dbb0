"""Finished deliveries are deleted in time, and none is planned again."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, text, update

from chassis.persistence.database import Connection, Database
from chassis.testing import eventually
from notification_service import retention
from notification_service.deliveries import PlannedDelivery, State
from notification_service.postgres_deliveries import PostgresPlannedDeliveries
from notification_service.retention import FinishedDeliveries
from notification_service.tables import deliveries, purged_deliveries
from tests.integration.explained import pages_read, plan_of
from tests.unit.notification_service.making import NOW, after, planned

DAY = 86_400
RULE = planned().rule


def purging(engine: Database, *, now: datetime = NOW) -> FinishedDeliveries:
    return FinishedDeliveries(engine, lambda: now, retention=timedelta(days=90))


async def plan(connection: Connection, *planned_: PlannedDelivery) -> None:
    repository = PostgresPlannedDeliveries()
    for each in planned_:
        repository.plan(each)
    await repository.flush(connection)


async def finished(
    engine: Database, number: int = 1, *, days_ago: float = 91, state: State = State.SENT
) -> Sequence[PlannedDelivery]:
    them = [planned() for _ in range(number)]
    async with engine.begin() as connection:
        await plan(connection, *them)
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.id.in_([each.id for each in them]))
            .values(state=state, next_attempt_at=None, updated_at=after(-days_ago * DAY))
        )
    return them


async def stored(engine: Database) -> set[Any]:
    async with engine.connect() as connection:
        return set(await connection.scalars(select(deliveries.c.id)))


async def a_lock_is_awaited(engine: Database) -> bool:
    async with engine.connect() as connection:
        waits = text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        return bool(await connection.scalar(waits))


def counted(state: State) -> float:
    labels = {"rule": RULE, "state": state}
    return REGISTRY.get_sample_value("notification_deliveries_purged_total", labels) or 0


class TestAPurge:
    async def test_deletes_what_was_sent_or_has_failed_before_the_retention_and_counts_it(
        self, engine: Database
    ) -> None:
        before = [counted(state) for state in (State.SENT, State.FAILED)]
        await finished(engine, 2)
        await finished(engine, state=State.FAILED)
        (recent,) = await finished(engine, days_ago=89)
        still_open = planned(created_at=after(-200 * DAY))
        async with engine.begin() as connection:
            await plan(connection, still_open)

        gone = await purging(engine).purge()

        assert gone == 3
        assert await stored(engine) == {recent.id, still_open.id}
        now = [counted(state) for state in (State.SENT, State.FAILED)]
        assert [n - b for n, b in zip(now, before, strict=True)] == [2, 1]

    async def test_leaves_what_keeps_its_event_from_being_planned_again(
        self, engine: Database
    ) -> None:
        (gone,) = await finished(engine)
        await purging(engine).purge()

        other = planned(event_id=gone.event_id, rule="another")
        async with engine.begin() as connection:
            await plan(connection, planned(event_id=gone.event_id), other)

        assert await stored(engine) == {other.id}
        async with engine.connect() as connection:
            kept = (await connection.execute(select(purged_deliveries))).all()
        assert [tuple(row) for row in kept] == [(gone.event_id, gone.rule, gone.id)]

    async def test_that_commits_while_its_event_is_handled_again_lets_nothing_be_planned(
        self, engine: Database
    ) -> None:
        (gone,) = await finished(engine)

        async def plan_again() -> None:
            async with engine.begin() as connection:
                await plan(connection, planned(event_id=gone.event_id))

        async def it_waits() -> bool:
            return await a_lock_is_awaited(engine)

        async with engine.begin() as purge:
            values = {"most": 10, "by": NOW}
            await purge.execute(retention._PURGE, values)
            handled_again = asyncio.create_task(plan_again())
            await eventually(it_waits)
        await handled_again

        assert await stored(engine) == set()

    async def test_leaves_one_that_an_operator_retries_meanwhile(self, engine: Database) -> None:
        (retried,) = await finished(engine, state=State.FAILED)

        async with engine.begin() as operator:
            pending = {"state": State.PENDING, "next_attempt_at": NOW, "updated_at": NOW}
            await operator.execute(update(deliveries).values(pending))
            purge = asyncio.create_task(purging(engine).purge())

            async def it_ended_or_waits() -> bool:
                return purge.done() or await a_lock_is_awaited(engine)

            await eventually(it_ended_or_waits)
        await purge

        assert await stored(engine) == {retried.id}

    async def test_deletes_the_longest_finished_first_so_many_at_a_time(
        self, engine: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "_MOST_BATCHES", 2)
        monkeypatch.setattr(retention, "_BATCH", 2)
        (last,) = await finished(engine, days_ago=91)
        await finished(engine, 4, days_ago=92)

        await purging(engine).step()

        assert await stored(engine) == {last.id}

    async def test_costs_the_same_however_many_are_open_or_not_to_be_deleted_yet(
        self, engine: Database
    ) -> None:
        for columns in ("'sent', NULL, now()", "'pending', now(), now() - interval '200 d'"):
            async with engine.begin() as connection:
                await connection.execute(text(_MANY.format(columns=columns)))
        values = {"most": 1_000, "by": after(-90 * DAY)}

        async with engine.begin() as connection:
            lines = await plan_of(connection, retention._PURGE, values)

        assert pages_read(lines) < 10, lines


_MANY = """
    INSERT INTO deliveries (
        id, rule, event_id, medium, address, text, correlation_id, attempts, maybe_repeated,
        created_at, state, next_attempt_at, updated_at
    )
    SELECT uuidv7(), 'r', gen_random_uuid(), 'slack', 'growth', 'text', 'c', 1, false,
        now(), {columns}
    FROM generate_series(1, 10000)
"""
