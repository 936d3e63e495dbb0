"""How long committed rows take until a bare consumer receives them."""

import asyncio
from collections.abc import Mapping
from statistics import quantiles
from time import perf_counter
from typing import Final

import asyncpg
from aiokafka import AIOKafkaConsumer

from benchmarks.bench import Bench, Program
from benchmarks.figure import Values
from benchmarks.outboxes import write_one

WARM_UP: Final = 20
_LAST_WITHIN_S: Final = 30.0
_FIRST_WITHIN_S: Final = 60.0


def events(bench: Bench) -> int:
    """Return how many events are measured."""
    return 1_000 if bench.full else 200


async def of_outbox(
    bench: Bench, url: str, topic: str, consumer: AIOKafkaConsumer, publishing: str
) -> Values:
    """Let a program commit rows one at a time to the outbox at ``url``; time when each arrives.

    :param publishing: the mode of ``benchmarks.programs.outbox_writer``
    """
    rows = WARM_UP + events(bench)
    writer = bench.program(
        ["benchmarks.programs.outbox_writer", topic, str(rows), publishing],
        bench.environment("users", database_url=url),
        name="outbox-writer",
    )
    async with writer as program:
        return await of_program(program, consumer, rows)


async def of_program(program: Program, consumer: AIOKafkaConsumer, rows: int) -> Values:
    """Time when each row that a program commits arrives.

    The first rows, which warm it up, are not counted. At its end the program prints a line for each
    row: the record's key, and the value of ``time.perf_counter()`` after COMMIT.
    """
    arriving = asyncio.create_task(_arrivals(consumer, rows))
    try:
        committed_at_s = dict([(await program.line()).split() for _ in range(rows)])
        async with asyncio.timeout(_LAST_WITHIN_S):
            arrived_at_s = await arriving
    finally:
        arriving.cancel()
    took_ms = [
        (arrived_at_s[key] - float(at_s)) * 1_000
        for key, at_s in list(committed_at_s.items())[WARM_UP:]
    ]
    percentiles = quantiles(took_ms, n=100, method="inclusive")
    return {"p50_ms": percentiles[49], "p95_ms": percentiles[94]}


async def warm_up(url: str, topic: str, consumer: AIOKafkaConsumer, publisher: Program) -> None:
    """Commit a row, and wait until the publisher has brought it to the consumer."""
    connection = await asyncpg.connect(url)
    try:
        await write_one(connection, topic, -1)
    finally:
        await connection.close()
    async with asyncio.timeout(_FIRST_WITHIN_S):
        while not await consumer.getmany(timeout_ms=100):
            publisher.check()


async def _arrivals(consumer: AIOKafkaConsumer, count: int) -> Mapping[str, float]:
    """Return when each of so many keys was first seen."""
    arrived_at_s: dict[str, float] = {}
    while len(arrived_at_s) < count:
        record = await consumer.getone()
        arrived_at_s.setdefault(record.key.decode(), perf_counter())
    return arrived_at_s
