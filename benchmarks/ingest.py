"""How fast workers of a service, or other programs, read a topic into an empty database.

All are timed alike, from outside, by the sum of ``progress``: from when it first moves until all
records are handled, without the records of that first move.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from aiokafka.errors import KafkaError
from asyncpg.prepared_stmt import PreparedStatement

from benchmarks.bench import Bench, Program
from benchmarks.logs import Log
from benchmarks.processors import Usage
from chassis.kafka.client import admin_client

#: Events in a transaction, at most: the default of a service's settings.
CHUNK: Final = 500
_LOOK_EVERY_S: Final = 0.02
_STANDSTILL_S: Final = 60.0
_DONE: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM progress"


@dataclass(frozen=True, slots=True)
class Pace:
    """How many records a second were handled, and how many processors were in use on average."""

    records_per_s: float
    #: Of the whole machine, whichever process used them.
    cores: float
    workers_cores: float
    postgres_cores: float
    kafka_cores: float


@asynccontextmanager
async def empty_database(bench: Bench, service: str) -> AsyncIterator[str]:
    """Make a database with a service's tables for the block, and yield its URL."""
    url = await bench.database(f"{service}_service")
    try:
        yield url
    finally:
        name = urlsplit(url).path.removeprefix("/")
        await asyncio.to_thread(bench.cluster.drop_database, name)


async def ingest(bench: Bench, service: str, log: Log, *, workers: int = 1) -> Pace:
    """Let workers of a service read a whole log into an empty database."""
    async with empty_database(bench, service) as url:
        return await ingest_into(url, bench, service, log, workers=workers)


async def ingest_into(url: str, bench: Bench, service: str, log: Log, *, workers: int = 1) -> Pace:
    """Let workers of a service read a whole log into a database without any of its events."""
    group = bench.name("bench")
    async with AsyncExitStack() as running:
        programs = [
            await running.enter_async_context(
                bench.program(
                    ["benchmarks.programs.service", service, log.prefix, group],
                    bench.environment(
                        service,
                        database_url=url,
                        roles="agents",
                        http_port="0",
                        worker_name=f"{number}",
                    ),
                    name=service,
                )
            )
            for number in range(workers)
        ]
        async with _no_worker_begins(url):
            await _all_have_joined(bench, group, programs)
        return await pace(bench, url, log.records, programs)


@asynccontextmanager
async def _no_worker_begins(url: str) -> AsyncIterator[None]:
    """Keep workers from beginning during the block: the lock holds up their ``progress`` rows."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE progress IN SHARE ROW EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def _all_have_joined(bench: Bench, group: str, programs: Sequence[Program]) -> None:
    """Wait until a consumer group is stable and has as many members as there are workers."""
    async with (
        asyncio.timeout(_STANDSTILL_S),
        admin_client(bench.cluster.kafka_bootstrap) as client,
    ):
        while True:
            with suppress(KafkaError):  # a broker needs a moment for its first group
                [described] = await client.describe_consumer_groups([group])
                [[_error, _group, state, _type, _protocol, members, *_]] = described.groups
                if state == "Stable" and len(members) == len(programs):
                    return
            for program in programs:
                program.check()
            await asyncio.sleep(_LOOK_EVERY_S)


async def pace(bench: Bench, url: str, records: int, programs: Sequence[Program]) -> Pace:
    """Time how fast the sum of ``progress`` grows by so many records."""
    usage = Usage.of(bench.cluster, [program.pid for program in programs])

    def check() -> None:
        for program in programs:
            program.check()

    connection = await asyncpg.connect(url)
    try:
        done = await connection.prepare(_DONE)
        before = await done.fetchval()
        first = last = await _more(done, before, check)
        began_s, used = perf_counter(), usage.now()
        while last < before + records:
            last = await _more(done, last, check)
        took_s, spent = perf_counter() - began_s, usage.now().since(used)
    finally:
        await connection.close()
    return Pace(
        (last - first) / took_s,
        spent.machine_s / took_s,
        spent.workers_s / took_s,
        spent.postgres_s / took_s,
        spent.kafka_s / took_s,
    )


async def _more(
    done: "PreparedStatement[asyncpg.Record]", known: int, check: Callable[[], None]
) -> int:
    """Wait until more than ``known`` records are handled, and return how many.

    :raises TimeoutError: for a minute there were no more
    """
    async with asyncio.timeout(_STANDSTILL_S):
        while (count := int(await done.fetchval())) <= known:
            check()
            await asyncio.sleep(_LOOK_EVERY_S)
    return count
