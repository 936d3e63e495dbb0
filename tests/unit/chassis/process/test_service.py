"""What a service's process runs, by what its code declares."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from chassis.operations.context import Service
from chassis.persistence import tables
from chassis.persistence.database import Connection
from chassis.process.service import Wiring, wire
from chassis.settings import ServiceSettings
from chassis.timers.timer import TimerHandlers
from chassis.web.health import Health
from contracts.topics import ACCOUNTS_OPERATIONS
from tests.unit.chassis.timers.timers_suite import Note, Notes


class EmptyWork:
    def __init__(self, _connection: object) -> None: ...

    async def flush(self) -> None: ...


SERVICE: Service[ServiceSettings, EmptyWork] = Service(
    name="test",
    description="For tests.",
    package="test",
    settings=ServiceSettings,
    operations_topic=ACCOUNTS_OPERATIONS,
    subscribers=lambda _settings: (),
    open_work=EmptyWork,
)


def some_timers(_settings: ServiceSettings) -> TimerHandlers[Any]:
    return {Note: Notes()}


@asynccontextmanager
async def wired(
    service: Service[ServiceSettings, EmptyWork], roles: str = "api,agents,relay"
) -> AsyncIterator[Wiring[ServiceSettings, EmptyWork]]:
    settings = ServiceSettings(
        http_port=0,
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        idempotency_secret=SecretStr("x" * 32),
        roles=roles,  # type: ignore[arg-type]
    )

    async def no_keys() -> list[Any]:
        return []

    async with wire(service, settings, Health(), fetch_keys=no_keys) as wiring:  # type: ignore[arg-type]
        yield wiring


async def components(service: Service[ServiceSettings, EmptyWork], roles: str) -> list[str]:
    async with wired(service, roles) as wiring:
        return [each.name for each in wiring.parts().components]


@pytest.mark.parametrize(("roles", "runs"), [("agents", True), ("api,relay", False)])
async def test_a_service_with_timers_has_their_worker_beside_its_agents(
    roles: str, *, runs: bool
) -> None:
    service = replace(SERVICE, timers=some_timers)

    assert ("timer-worker" in await components(service, roles)) is runs


async def test_a_service_without_timers_has_no_worker_for_them() -> None:
    assert "timer-worker" not in await components(SERVICE, "agents")


async def test_the_relay_is_woken_by_events_that_either_pool_commits() -> None:
    async with wired(SERVICE) as wiring:
        woken = []
        for database in (wiring.database, wiring.agents_database):
            connection = Connection(None)
            connection.wrote(tables.outbox)
            database.committed(connection)
            woken.append(wiring._relay._wake.is_set())
            wiring._relay._wake.clear()

    assert woken == [True, True]
