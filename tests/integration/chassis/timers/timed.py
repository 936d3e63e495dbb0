"""A service that schedules notes, on a database of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import insert, text

from chassis.persistence.database import Connection, Database
from chassis.persistence.transactor import Transactor
from chassis.testing import WorkWithTimers
from chassis.timers.due_timers import DueTimers
from chassis.timers.postgres_timers import PostgresTimers
from chassis.timers.timer import DueTimer
from chassis.timers.worker import TimerWorker
from tests.integration.chassis.path import effects, rows, schema, settings_for
from tests.unit.chassis.timers.timers_suite import Note, Notes

T = TypeVar("T")


class TimedWork:
    """A unit of work whose effect is a row for each timer that was handled."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.timers = PostgresTimers(connection)

    async def flush(self) -> None:
        await self.timers.flush()


async def write_effect(work: Any, what: Note, due: DueTimer) -> None:
    """Handle a note: a row that shows which one, and how often."""
    row = {"event_id": due.id, "subscriber": what.text, "subject": str(due.subject), "sequence": 1}
    await work.connection.execute(insert(effects).values(row))


class Timed:
    """The database, its transactor, and as many workers as a test asks for."""

    def __init__(self, database: str, engine: Database) -> None:
        self.database = database
        self.engine = engine
        self.due = DueTimers(engine, TimedWork, lease_s=60)
        self._transactor = Transactor[WorkWithTimers](engine, TimedWork)

    async def transact(self, body: Callable[[WorkWithTimers], Awaitable[T]], /) -> T:
        return await self._transactor(body)

    def worker(
        self, handle: Any = write_effect, *, lease_s: float = 60, **settings: Any
    ) -> TimerWorker[TimedWork]:
        chosen = settings_for(self.database, "none:1", **{"timers_per_s": 10_000} | settings)
        return TimerWorker(chosen, self.engine, TimedWork, {Note: handle}, lease_s=lease_s)

    async def fire(self, notes: Notes) -> None:
        worker = self.worker(notes)
        while (await self.due.waiting()).due:
            await worker.step(0)

    async def handled(self) -> list[str]:
        """Return the text of each effect, in the order of the effects."""
        found = await rows(self.database, "SELECT subscriber FROM effects ORDER BY position")
        return [row["subscriber"] for row in found]

    async def first(self, subject: UUID) -> Any:
        """Return the row of an aggregate's first timer, or None if it has no timers."""
        found = await rows(self.database, "SELECT * FROM next_timers WHERE subject = $1", subject)
        return found[0] if found else None

    async def let_time_pass(self) -> None:
        """End every pause and every lease."""
        await rows(
            self.database,
            "UPDATE next_timers SET next_at = clock_timestamp() - interval '1 s'"
            " WHERE next_at > clock_timestamp()",
        )


async def create_tables(database: str) -> None:
    async with schema(database):
        pass


@asynccontextmanager
async def timed(database: str) -> AsyncIterator[Timed]:
    """Open a database that has the tables, and empty them."""
    engine = Database(database, pool_size=10, application_name="test")
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE timers, next_timers, effects, outbox, operated"))
    try:
        yield Timed(database, engine)
    finally:
        await engine.close()
