"""faststream-outbox: its table, its relay to Kafka, and rows; it runs in its own environment.

``python -m benchmarks.programs.faststream_outbox_relay tables|relay|write TOPIC ROWS``, with
``DATABASE_URL`` and ``KAFKA_BOOTSTRAP`` in the environment. ``write`` relays and commits rows one
at a time, and at its end prints a line for each: its subject, and ``time.perf_counter()`` after the
commit.
"""

import asyncio
import os
import random
import sys
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import uvloop
from faststream.kafka import KafkaBroker, KafkaResponse  # type: ignore[import-not-found]
from faststream_outbox import (  # type: ignore[import-not-found]
    OutboxBroker,
    make_outbox_table,
    outbox_autovacuum_ddl,
)
from faststream_outbox.annotations import OutboxMessage  # type: ignore[import-not-found]
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

_WORKERS: Final = 32
# As in benchmarks.programs.outbox_writer, which can't be imported here.
_PAUSE_S: Final = (0.015, 0.035)
_PAYLOAD: Final = b"0" * 500

_metadata = MetaData()
_outbox = make_outbox_table(_metadata)


async def _make_tables(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(_metadata.create_all)
        await connection.execute(text(outbox_autovacuum_ddl("outbox")))
    print("made")


async def _relay(engine: AsyncEngine, topic: str) -> OutboxBroker:
    """Start the relay that publishes the queue of the topic's name to Kafka."""
    kafka = KafkaBroker(
        os.environ["KAFKA_BOOTSTRAP"],
        acks="all",
        enable_idempotence=True,
        max_batch_size=65_536,
        logger=None,
    )
    outbox = OutboxBroker(engine, outbox_table=_outbox, logger=None, serializer=None)

    @kafka.publisher(topic)  # type: ignore[untyped-decorator]
    @outbox.subscriber(  # type: ignore[untyped-decorator]
        topic,
        max_workers=_WORKERS,
        fetch_batch_size=500,
        min_fetch_interval=0.01,
        max_fetch_interval=1.0,
        terminal_flush_batch_size=100,
    )
    async def relay(body: bytes, msg: OutboxMessage) -> Any:
        return KafkaResponse(body, headers=msg.headers, key=msg.headers["subject"].encode())

    await kafka.connect()
    await outbox.start()
    return outbox


async def _write(engine: AsyncEngine, outbox: OutboxBroker, topic: str, rows: int) -> None:
    open_session = async_sessionmaker(engine, expire_on_commit=False)
    committed: list[tuple[str, float]] = []
    for _ in range(rows):
        id_, subject = str(uuid4()), str(uuid4())
        headers = {
            "content-type": "application/cloudevents+json",
            "type": "bench.event.v1",
            "id": id_,
            "subject": subject,
            "sequence": "0000000001",
        }
        async with open_session() as session, session.begin():
            await outbox.publish(_PAYLOAD, queue=topic, session=session, headers=headers)
        committed.append((subject, perf_counter()))
        await asyncio.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - nothing secret
    sys.stdout.writelines(f"{subject} {at_s!r}\n" for subject, at_s in committed)
    sys.stdout.flush()


async def main() -> None:
    what, topic, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=_WORKERS + 5)
    if what == "tables":
        await _make_tables(engine)
        return
    outbox = await _relay(engine, topic)
    if what == "write":
        await _write(engine, outbox, topic, rows)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
