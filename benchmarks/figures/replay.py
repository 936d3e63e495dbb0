"""How long a new event waits for one subscriber while another replays the history of its topic."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from statistics import median, quantiles
from typing import Final

import asyncpg
from aiokafka import AIOKafkaProducer

from benchmarks.bench import Bench, Program
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.ingest import empty_database
from benchmarks.logs import new_log, signing_up
from benchmarks.programs.replaying import SIBLING

_EVENTS: Final = 300
_EVERY_S: Final = 0.05
_LOOK_EVERY_S: Final = 0.002
_WITHIN_S: Final = 60.0
_WARM_UP: Final = 20

_HANDLED: Final = "SELECT FROM inbox WHERE subscriber = $1 AND subject = $2"
_BEGUN: Final = "SELECT count(*) FROM progress WHERE subscriber = $1"
# Of all others: two replays work at a time, and which begin is not said.
_REPLAYED: Final = """
    SELECT coalesce(sum(next_offset), 0)::bigint FROM progress WHERE subscriber <> $1
"""

_BESIDE: Final = "beside a replay"


def _history(bench: Bench) -> int:
    return 1_000_000 if bench.full else 100_000


async def _beside_a_history(bench: Bench, *, has_one: bool) -> Values:
    log = await new_log(bench, signing_up(_history(bench) if has_one else 0))
    async with empty_database(bench, "accounts") as url:
        settings = bench.environment("accounts", database_url=url, roles="agents", http_port="0")
        argv = ["benchmarks.programs.replaying", log.prefix, bench.name("bench")]
        connection = await asyncpg.connect(url)
        producer = AIOKafkaProducer(bootstrap_servers=bench.cluster.kafka_bootstrap)
        await producer.start()
        try:
            async with bench.program(argv, settings) as program:
                await _until_begun(connection, program, 1 if has_one else 0)
                await _waits(producer, connection, log.topic, program, _WARM_UP)
                before, began_s = await connection.fetchval(_REPLAYED, SIBLING), time.perf_counter()
                waits = await _waits(producer, connection, log.topic, program, _EVENTS)
                after = await connection.fetchval(_REPLAYED, SIBLING)
                took_s = time.perf_counter() - began_s
        finally:
            await producer.stop()
            await connection.close()
    return {
        "wait_p50_ms": median(waits) * 1_000,
        "wait_p99_ms": quantiles(waits, n=100)[98] * 1_000,
        "replayed_per_s": (after - before) / took_s,
    }


async def _until_begun(connection: "asyncpg.Connection", program: Program, replayed: int) -> None:
    """Wait until the sibling has begun, and so many events are replayed."""
    async with asyncio.timeout(_WITHIN_S):
        while not (
            await connection.fetchval(_BEGUN, SIBLING)
            and await connection.fetchval(_REPLAYED, SIBLING) >= replayed
        ):
            program.check()
            await asyncio.sleep(_LOOK_EVERY_S)


async def _waits(
    producer: AIOKafkaProducer,
    connection: "asyncpg.Connection",
    topic: str,
    program: Program,
    events: int,
) -> Sequence[float]:
    """Publish events one after the other; return how many seconds each waited for the sibling."""
    waits: list[float] = []
    handled = await connection.prepare(_HANDLED)
    for event in signing_up(events):
        began_s = time.perf_counter()
        await producer.send_and_wait(topic, event.payload, event.key, headers=list(event.headers))
        async with asyncio.timeout(_WITHIN_S):
            while await handled.fetchrow(SIBLING, event.key.decode()) is None:
                program.check()
                await asyncio.sleep(_LOOK_EVERY_S)
        waits.append(time.perf_counter() - began_s)
        await asyncio.sleep(began_s + _EVERY_S - time.perf_counter())
    return waits


FIGURES: Sequence[Figure] = (
    Figure(
        name="replay",
        title="New events beside a replay",
        work=(
            "The accounts service handles a topic from its beginning on, with 100,000 sign-ups (a"
            " million in full runs), at the rate that its settings allow. Another subscriber of"
            f" the same process, which does nothing, is given {_EVENTS} new events,"
            " one every 50 ms or later: from publishing one until it is committed."
        ),
        metrics=(
            Metric("wait_p50_ms", "ms", "of half of the new events, at most"),
            Metric("wait_p99_ms", "ms", "of 99 in 100 of them, at most"),
            Metric("replayed_per_s", "1/s", "by the service's subscribers", more_is_better=True),
        ),
        sides=(
            Side(_BESIDE, Kind.OURS, partial(_beside_a_history, has_one=True)),
            Side(
                "with nothing to replay",
                Kind.FLOOR,
                partial(_beside_a_history, has_one=False),
                "the topic is empty at first",
            ),
        ),
        goals=(Goal("wait_p99_ms", at_most=1_000, side=_BESIDE),),
    ),
)
