"""What a unit of work writes to the outbox."""

from uuid import uuid4

from chassis.persistence import tables
from chassis.persistence.database import Database
from chassis.persistence.outbox import Outbox
from tests.integration.chassis.path import topic_of_its_own
from tests.integration.chassis.publishing.test_relay import YESTERDAY, write_events


async def test_calls_those_who_wait_for_events_once_it_is_committed(engine: Database) -> None:
    called: list[str] = []
    engine.on_commit(tables.outbox, lambda: called.append("once"))

    async with engine.begin() as connection:
        await write_events(connection, topic_of_its_own(), (uuid4(), 1), (uuid4(), 1))
        assert called == []

    assert called == ["once"]


async def test_that_has_no_events_calls_nobody(engine: Database) -> None:
    called: list[str] = []
    engine.on_commit(tables.outbox, lambda: called.append("once"))

    async with engine.begin() as connection:
        await Outbox("/test", lambda: YESTERDAY).flush(connection)

    assert called == []
