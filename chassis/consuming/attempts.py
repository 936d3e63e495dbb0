"""How often an event was begun: counted before it is handled, so that a crash counts too."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.dialects.postgresql import insert

from chassis.failpoints import failpoint
from chassis.persistence.database import Database
from chassis.persistence.tables import tries

log = structlog.get_logger(__name__)

_UNDO_WITHIN_S: Final = 2.0
#: Stands for the subscriber where the attempt is at a chunk, which all of them handle.
CHUNK: Final = ""

_begun = insert(tries)
_COUNT: Final = _begun.on_conflict_do_update(
    index_elements=list(tries.primary_key),
    set_={"count": tries.c.count + 1, "last_at": _begun.excluded.last_at},
).returning(tries.c.count, tries.c.first_at)
_IS_ANY_LEFT: Final = select(
    exists().where(
        tries.c.subscriber != CHUNK,
        tries.c.topic == bindparam("of_topic"),
        tries.c.topic_id == bindparam("of_topic_id"),
        tries.c.partition == bindparam("of_partition"),
        tries.c.offset >= bindparam("begin"),
        tries.c.offset < bindparam("end"),
        tries.c.count > 0,
    )
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted: it is the ``count``-th, and the first was at ``first_at``."""

    subscriber: str
    topic_id: UUID
    partition: int
    offset: int
    count: int
    first_at: datetime


class Attempts:
    """The attempts at one topic's events that were begun and are not known to have ended."""

    def __init__(self, database: Database, topic: str, now: Callable[[], datetime]) -> None:
        self._database = database
        self._topic = topic
        self._now = now

    async def begin(
        self, topic_id: UUID, partition: int, offset: int, subscriber: str = CHUNK
    ) -> Attempt:
        """Count one more attempt, in a transaction of its own: by one subscriber, or at a chunk."""
        now = self._now()
        attempt = {
            "subscriber": subscriber,
            "topic": self._topic,
            "topic_id": topic_id,
            "partition": partition,
            "offset": offset,
            "count": 1,
            "first_at": now,
            "last_at": now,
        }
        async with self._database.begin() as connection:
            count, first_at = (await connection.execute(_COUNT, attempt)).one()
        await failpoint("tries.after-count")
        return Attempt(subscriber, topic_id, partition, offset, count, first_at)

    async def is_any_left(self, topic_id: UUID, partition: int, begin: int, end: int) -> bool:
        """Tell whether an attempt at one of these events was begun and not ended: a worker died."""
        values = {
            "of_topic": self._topic,
            "of_topic_id": topic_id,
            "of_partition": partition,
            "begin": begin,
            "end": end,
        }
        async with self._database.connect() as connection:
            return bool(await connection.scalar(_IS_ANY_LEFT, values))

    async def undo(self, attempt: Attempt) -> None:
        """Uncount an attempt that ended for a reason that lies outside the event."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(tries)
                .where(
                    tries.c.subscriber == attempt.subscriber,
                    tries.c.topic == self._topic,
                    tries.c.topic_id == attempt.topic_id,
                    tries.c.partition == attempt.partition,
                    tries.c.offset == attempt.offset,
                )
                .values(count=tries.c.count - 1)
            )

    async def undo_all(self, attempts: Sequence[Attempt]) -> None:
        """Uncount these, as far as the database lets; else the counts err on the careful side."""
        for attempt in attempts:
            try:
                async with asyncio.timeout(_UNDO_WITHIN_S):
                    await self.undo(attempt)
            except Exception as error:  # noqa: BLE001 - see above
                log.info("try-not-taken-back", error=type(error).__name__)
