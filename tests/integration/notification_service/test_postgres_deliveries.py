"""The queue in PostgreSQL: the promises of the fake, and some that need two connections."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Update, select, text

from chassis.persistence.database import Database
from notification_service import postgres_deliveries
from notification_service.deliveries import PlannedDelivery, State
from notification_service.postgres_deliveries import (
    PostgresDeliveryQueue,
    PostgresPlannedDeliveries,
)
from notification_service.tables import deliveries
from tests.integration.explained import pages_read, plan_of
from tests.unit.notification_service.delivery_queue_suite import DeliveryQueueSuite, Seen, claim
from tests.unit.notification_service.making import NOW, after, planned


class PostgresBench:
    def __init__(self, engine: Database) -> None:
        self.engine = engine
        self.queue = PostgresDeliveryQueue(engine, "slack")

    async def plan(self, *planned_: PlannedDelivery) -> None:
        async with self.engine.begin() as connection:
            repository = PostgresPlannedDeliveries()
            for each in planned_:
                repository.plan(each)
            await repository.flush(connection)

    async def see(self, id_: UUID) -> Seen:
        async with self.engine.connect() as connection:
            row = (await connection.execute(select(deliveries).filter_by(id=id_))).one()
        return Seen(
            State(row.state),
            row.attempts,
            row.next_attempt_at,
            row.unsure_since,
            row.maybe_repeated,
            row.last_error,
            row.message_id,
            row.sent_at,
        )


@pytest.fixture
def bench(engine: Database) -> PostgresBench:
    return PostgresBench(engine)


class TestPostgresDeliveries(DeliveryQueueSuite):
    async def test_concurrent_workers_claim_different_deliveries(
        self, bench: PostgresBench
    ) -> None:
        await bench.plan(*(planned() for _ in range(60)))

        claims = await asyncio.gather(*(claim(bench, limit=10) for _ in range(8)))

        ids = [each.id for claimed in claims for each in claimed]
        assert len(ids) == len(set(ids)) == 60

    async def test_a_claim_skips_rows_that_another_has_locked(self, bench: PostgresBench) -> None:
        held, free = planned(), planned()
        await bench.plan(held, free)

        async with bench.engine.begin() as connection:
            await connection.execute(select(deliveries).filter_by(id=held.id).with_for_update())
            async with asyncio.timeout(30):
                claimed = await claim(bench)

        assert [each.id for each in claimed] == [free.id]

    async def test_deliveries_of_another_medium_are_not_claimed(self, bench: PostgresBench) -> None:
        await bench.plan(planned(medium="e-mail"))

        assert await claim(bench) == []

    async def test_a_long_error_is_shortened(self, bench: PostgresBench) -> None:
        await bench.plan(planned())
        (claimed,) = await claim(bench)

        await bench.queue.failed(claimed, "x" * 10_000, claimed.created_at)

        seen = await bench.see(claimed.id)
        assert seen.last_error == "x" * 200


async def read_by(bench: PostgresBench, statement: Update, **values: Any) -> int:
    """Execute a statement, and return how many pages it read."""
    given = {"of_medium": "slack", "now": after(1)} | values
    async with bench.engine.begin() as connection:
        return pages_read(await plan_of(connection, statement, given))


class TestAPoll:
    async def test_costs_the_same_whatever_waits_for_a_paused_address(
        self, bench: PostgresBench
    ) -> None:
        async with bench.engine.begin() as connection:
            await connection.execute(text(_BACKLOG), {"number": 20_000, "at": after(-10)})
        await bench.plan(planned(), *(planned(address="other") for _ in range(5)))
        await bench.queue.pause("growth", NOW, until=after(30))
        claimed = [each.address for each in await claim(bench, after(1), limit=2)]

        claiming = await read_by(bench, postgres_deliveries._CLAIM, most=2, reclaim_at=after(40))
        waiting = await read_by(bench, postgres_deliveries._RESTART_WAITS)
        async with bench.engine.begin() as connection:
            await connection.execute(text("ANALYZE deliveries"))
        claiming_later = await read_by(
            bench, postgres_deliveries._CLAIM, most=2, reclaim_at=after(40)
        )

        assert claimed == ["other", "other"]
        assert max(claiming, claiming_later) < 80
        assert waiting < 10


_BACKLOG = """
    INSERT INTO deliveries (
        id, rule, event_id, medium, address, text, correlation_id, state, attempts,
        next_attempt_at, maybe_repeated, created_at, updated_at
    )
    SELECT uuidv7(), 'r', gen_random_uuid(), 'slack', 'growth', 'text', 'c', 'pending', 0,
        :at, false, :at, :at
    FROM generate_series(1, :number)
"""
