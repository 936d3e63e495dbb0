"""What operators read of other people is published, on PostgreSQL."""

import asyncio
from uuid import UUID

import orjson
import pytest

from chassis.operations.context import ServiceRuntime
from chassis.operations.reads import recorded_reads
from chassis.persistence.database import Database
from chassis.settings import ServiceSettings
from contracts.operations import DataReadV1
from tests.integration.chassis.path import PathWork, rows, settings_for

from .operating import acts_of, runtime_of, service_of, topic_with_withheld

ADA, BOB, KATE = UUID(int=1), UUID(int=2), UUID(int=3)
ROUTE = "/users/{user_id}"


@pytest.fixture
def runtime(database: str, engine: Database) -> ServiceRuntime[ServiceSettings, PathWork]:
    settings = settings_for(database, "127.0.0.1:1")
    return runtime_of(service_of(topic_with_withheld()), settings, engine)


class TestARead:
    async def test_is_published_about_the_operator_with_what_was_asked_for(
        self, database: str, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        await recorded_reads(runtime)(ADA, ROUTE, [str(KATE)])

        [row] = await rows(database, "SELECT aggregatetype, aggregateid, payload FROM outbox")
        assert row["aggregatetype"] == runtime.service.operations_topic.name
        assert row["aggregateid"] == str(ADA)
        assert orjson.loads(row["payload"])["data"] == {
            "by": str(ADA),
            "route": ROUTE,
            "ids": [str(KATE)],
        }

    async def test_is_counted_for_each_operator_however_many_are_read_at_once(
        self, database: str, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        record = recorded_reads(runtime)

        await asyncio.gather(*(record(by, ROUTE, []) for by in (ADA, BOB) * 5))

        read = DataReadV1.event_type
        assert sorted(await acts_of(database)) == [
            (read, str(by), sequence) for by in (ADA, BOB) for sequence in range(1, 6)
        ]
