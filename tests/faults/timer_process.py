"""A process whose timers are handled while it is killed, on the users service's database.

That service schedules none, so no other worker takes these; this process has the chassis's worker,
and nothing else.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import ClassVar, Final
from uuid import UUID, uuid4

import asyncpg
from pydantic import SecretStr
from sqlalchemy import text

from chassis import failpoints
from chassis.domain import DomainError, Kind
from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Transactor
from chassis.settings import ServiceSettings
from chassis.telemetry import configure_logging
from chassis.timers.postgres_timers import PostgresTimers
from chassis.timers.timer import DueTimer, Timer
from chassis.timers.worker import TimerWorker
from tests.e2e.people import poll

#: The name by which its failpoints are armed.
TIMERS: Final = "timers"

_TABLE: Final = "CREATE TABLE IF NOT EXISTS timer_effects (id uuid NOT NULL)"
_AS_EXPECTED: Final = ("handled",) * 6 + ("fails at first",) * 2
# A timer is claimed again a second after its worker died, and may take ten seconds.
_LEASE_S: Final = 11.0


class Refused(DomainError):
    kind, code = Kind.CONFLICT, "refused"


class Wish(Timer):
    kind: ClassVar[str] = "test.wish"

    outcome: str


class TimedWork:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.timers = PostgresTimers(connection)

    async def flush(self) -> None:
        await self.timers.flush()


class Grant:
    """Handles a wish: with one effect, or not at all, or not when it is first tried here."""

    def __init__(self) -> None:
        self._tried: set[UUID] = set()

    async def __call__(self, work: TimedWork, wish: Wish, due: DueTimer) -> None:
        if wish.outcome == "refused":
            raise Refused
        if wish.outcome == "fails at first" and due.id not in self._tried:
            self._tried.add(due.id)
            raise RuntimeError
        await work.connection.execute(
            text("INSERT INTO timer_effects VALUES (:id)"), {"id": due.id}
        )


async def fire_timers(database: str) -> None:
    """Have processes handle timers of every outcome, killed or not: each is handled once."""
    subjects = [uuid4() for _ in range(3)]
    engine = Database(database, pool_size=1, application_name="test")
    transact = Transactor[TimedWork](engine, TimedWork)

    async def schedule(work: TimedWork) -> list[UUID]:
        now = datetime.now(UTC)
        return [
            work.timers.schedule(now, Wish(outcome=outcome), subject=subjects[n % 3])
            for n, outcome in enumerate(_AS_EXPECTED)
        ]

    async def schedule_refused(work: TimedWork) -> UUID:
        return work.timers.schedule(datetime.now(UTC), Wish(outcome="refused"))

    try:
        async with engine.begin() as connection:
            await connection.execute(text(_TABLE))
        expected, refused = await transact(schedule), await transact(schedule_refused)
        async with _kept_running(database):
            await poll(lambda: _are_done(database, expected, refused), within_s=60)
        assert await transact(lambda work: work.timers.cancel(refused))
    finally:
        await engine.close()
    effects = await _query(database, "SELECT id FROM timer_effects WHERE id = ANY ($1)", expected)
    assert sorted(row["id"] for row in effects) == sorted(expected)


async def _are_done(database: str, expected: Sequence[UUID], refused: UUID) -> bool:
    left = await _query(database, "SELECT FROM timers WHERE id = ANY ($1)", expected)
    parked = await _query(
        database,
        "SELECT FROM next_timers WHERE timer_id = $1 AND parked_at IS NOT NULL",
        refused,
    )
    return not left and bool(parked)


async def _query(database: str, query: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


@asynccontextmanager
async def _kept_running(database: str) -> AsyncIterator[None]:
    """Run such a process while the block runs, and start it again whenever it was killed."""
    running: list[asyncio.subprocess.Process] = []

    async def keep() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.timer_process", database
            )
            running[:] = [process]
            await process.wait()

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        for each in running:
            if each.returncode is None:
                each.kill()
            await each.wait()


async def _work(database: str) -> None:
    settings = ServiceSettings(
        http_port=0,
        database_url=SecretStr(database),
        idempotency_secret=SecretStr("x" * 32),
        environment="development",
    )
    configure_logging(TIMERS, settings)
    engine = Database(database, pool_size=5, application_name=TIMERS)
    worker = TimerWorker(settings, engine, TimedWork, {Wish: Grant()}, lease_s=_LEASE_S)
    await worker.run()


if __name__ == "__main__":
    failpoints.set_service(TIMERS)
    asyncio.run(_work(sys.argv[1]))
