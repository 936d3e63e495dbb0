"""How far each subscriber has come in each partition: the row that decides, in its own database."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.subscribers import Start, Subscriber
from chassis.tables import progress


async def lock(
    connection: AsyncConnection, subscribers: Iterable[str], topic: str, partition: int
) -> dict[str, int]:
    """Lock the rows of one partition until the transaction ends; return the next offset of each."""
    rows = await connection.execute(
        select(progress.c.subscriber, progress.c.next_offset)
        .where(
            progress.c.subscriber == func.any(list(subscribers)),
            progress.c.topic == topic,
            progress.c.partition == partition,
        )
        .order_by(progress.c.subscriber)
        .with_for_update()
    )
    return {row.subscriber: row.next_offset for row in rows}


async def advance(
    connection: AsyncConnection,
    subscribers: Iterable[str],
    topic: str,
    partition: int,
    next_offset: int,
    now: datetime,
) -> None:
    """Say that everything before ``next_offset`` is done, in the transaction that did it."""
    await connection.execute(
        update(progress)
        .where(
            progress.c.subscriber == func.any(list(subscribers)),
            progress.c.topic == topic,
            progress.c.partition == partition,
        )
        .values(next_offset=next_offset, updated_at=now)
    )


async def begin(
    connection: AsyncConnection,
    subscribers: Sequence[Subscriber[Any]],
    topic: str,
    bounds: Mapping[int, tuple[int, int]],
    now: Callable[[], datetime],
) -> dict[int, dict[str, int]]:
    """Return the next offset of each partition and subscriber, made where there was none.

    ``bounds`` are the first and the next offset of every partition of the topic, whoever reads it:
    a subscriber that starts now starts so everywhere at once, and reads from its beginning a
    partition that is added later.
    """
    names = [each.name for each in subscribers]
    mine = (progress.c.topic == topic) & (progress.c.subscriber == func.any(names))
    known = await connection.scalars(select(progress.c.subscriber).where(mine).distinct())
    run_before = set(known)
    rows = [
        {
            "subscriber": each.name,
            "topic": topic,
            "partition": partition,
            "next_offset": following
            if each.starts is Start.NOW and each.name not in run_before
            else first,
            "updated_at": now(),
        }
        for each in subscribers
        for partition, (first, following) in sorted(bounds.items())
    ]
    if rows:
        await connection.execute(insert(progress).on_conflict_do_nothing(), rows)
    found = await connection.execute(
        select(progress.c.partition, progress.c.subscriber, progress.c.next_offset).where(mine)
    )
    places: dict[int, dict[str, int]] = defaultdict(dict)
    for partition, subscriber, next_offset in found:
        places[partition][subscriber] = next_offset
    return places
