"""How often an event was begun: counted before it is handled, so that a death counts too."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.tables import tries


class Tries:
    """The tries of one topic's events that were begun and are not known to have ended."""

    def __init__(self, engine: AsyncEngine, topic: str, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._topic = topic
        self._now = now

    async def begin(self, partition: int, offset: int) -> tuple[int, datetime]:
        """Count one more try, in a transaction of its own; return how many, and since when."""
        now = self._now()
        counted = (
            insert(tries)
            .values(
                topic=self._topic,
                partition=partition,
                offset=offset,
                count=1,
                first_at=now,
                last_at=now,
            )
            .on_conflict_do_update(
                index_elements=[tries.c.topic, tries.c.partition, tries.c.offset],
                set_={"count": tries.c.count + 1, "last_at": now},
            )
            .returning(tries.c.count, tries.c.first_at)
        )
        async with self._engine.begin() as connection:
            count, first_at = (await connection.execute(counted)).one()
        return count, first_at

    async def take_back(self, partition: int, offset: int) -> None:
        """Uncount a try that failed for a reason that lies outside the event."""
        async with self._engine.begin() as connection:
            await connection.execute(
                update(tries)
                .where(
                    tries.c.topic == self._topic,
                    tries.c.partition == partition,
                    tries.c.offset == offset,
                )
                .values(count=tries.c.count - 1)
            )

    async def forget(self, connection: AsyncConnection, partition: int, end: int) -> None:
        """Forget all before ``end``, in the transaction that is done with them."""
        await connection.execute(
            delete(tries).where(
                tries.c.topic == self._topic,
                tries.c.partition == partition,
                tries.c.offset < end,
            )
        )
