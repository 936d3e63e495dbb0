"""The fake of the timers keeps what PostgreSQL keeps."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import pytest

from chassis.testing import (
    InMemoryTimers,
    InMemoryTransactor,
    StoredTimer,
    WorkWithTimers,
    fire_due,
)
from tests.unit.chassis.timers.timers_suite import Notes, TimersSuite

T = TypeVar("T")


class InMemoryWork:
    def __init__(self, stored: dict[UUID, StoredTimer]) -> None:
        self.timers = InMemoryTimers(stored)

    async def flush(self) -> None: ...


class InMemoryBench:
    def __init__(self) -> None:
        self._transactor: InMemoryTransactor[dict[UUID, StoredTimer], WorkWithTimers] = (
            InMemoryTransactor({}, InMemoryWork)
        )

    async def transact(self, body: Callable[[WorkWithTimers], Awaitable[T]], /) -> T:
        return await self._transactor(body)

    async def fire(self, notes: Notes) -> None:
        await fire_due(
            self._transactor, notes.handlers, lambda: self._transactor.stored, datetime.now(UTC)
        )


@pytest.fixture
def bench() -> InMemoryBench:
    return InMemoryBench()


class TestInMemoryTimers(TimersSuite):
    pass
