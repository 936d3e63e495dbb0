"""How far each subscriber has come in each partition: the row that decides, in its own database."""

from collections.abc import Callable, Iterable, Mapping
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
    subscribers: Iterable[Subscriber[Any]],
    topic: str,
    earliest: Mapping[int, int],
    latest: Mapping[int, int],
    now: Callable[[], datetime],
) -> dict[int, dict[str, int]]:
    """Return the next offset of each partition and subscriber, made where there was none.

    A subscriber that starts now keeps its first place from here on, whatever dies meanwhile.
    """
    chosen = list(subscribers)
    rows = [
        {
            "subscriber": each.name,
            "topic": topic,
            "partition": partition,
            "next_offset": (earliest if each.starts is Start.BEGINNING else latest)[partition],
            "updated_at": now(),
        }
        for each in chosen
        for partition in sorted(earliest)
    ]
    if rows:
        await connection.execute(insert(progress).on_conflict_do_nothing(), rows)
    known = await connection.execute(
        select(progress.c.partition, progress.c.subscriber, progress.c.next_offset).where(
            progress.c.topic == topic,
            progress.c.subscriber == func.any([each.name for each in chosen]),
            progress.c.partition == func.any(list(earliest)),
        )
    )
    places: dict[int, dict[str, int]] = {partition: {} for partition in earliest}
    for partition, subscriber, next_offset in known:
        places[partition][subscriber] = next_offset
    return places
