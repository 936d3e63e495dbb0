"""faststream-outbox: a relay in Python, with its own table."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from benchmarks import deliveries
from benchmarks.bench import Bench
from benchmarks.figure import Values
from benchmarks.outboxes import SUBJECTS, emptied, fill_by, own_database
from benchmarks.peers.debezium import have_logical_log
from benchmarks.peers.environments import environment
from benchmarks.topics import Arrivals, fresh_topic, reader

NAME: Final = "faststream-outbox 0.19.0"
# More would take minutes at its speed.
ROWS: Final = 20_000
DOES_LESS: Final = "keeps no order: 32 workers, each with one row at a time"

_PACKAGES: Final = (
    "faststream-outbox[asyncpg]==0.19.0",
    "faststream[kafka]==0.7.8",
    "aiokafka==0.14.0",
    "asyncpg==0.32.0",
    "sqlalchemy==2.1.9",
    "uvloop==0.23.0",
)
_PROGRAM: Final = "benchmarks.programs.faststream_outbox_relay"
_MAKE: Final = """
    INSERT INTO outbox (queue, payload, headers)
    SELECT
        $1,
        convert_to(rpad(format('{"id":"%s","data":"', id), 498, '0123456789') || '"}', 'UTF8'),
        jsonb_build_object(
            'content-type', 'application/cloudevents+json', 'type', 'bench.event.v1',
            'id', id, 'subject', md5((n % $3::bigint)::text)::uuid, 'sequence', '0000000001',
            'traceparent', format('00-%s-%s-01', md5(id::text), left(md5(id::text), 16))
        )
    FROM (SELECT uuidv7() AS id, n FROM generate_series(1, $2::bigint) AS n OFFSET 0) AS event
"""


async def latency(bench: Bench) -> Values:
    """Measure it as a relay of single rows, in the process that commits them."""
    python = str(await environment("faststream-outbox", _PACKAGES))
    await have_logical_log(bench)
    rows = deliveries.WARM_UP + deliveries.events(bench)
    async with (
        fresh_topic(bench, "latency") as topic,
        own_database(bench) as url,
        reader(bench, topic) as consumer,
    ):
        surroundings = _surroundings(bench, url)
        await _make_tables(bench, python, surroundings)
        writer = bench.program(
            [_PROGRAM, "write", topic, str(rows)],
            surroundings,
            python=python,
            name="faststream-outbox",
        )
        async with writer as program:
            return await deliveries.of_program(program, consumer, rows)


async def backlog(bench: Bench) -> Values:
    """Measure it on a backlog of ``ROWS`` rows."""
    python = str(await environment("faststream-outbox", _PACKAGES))
    await have_logical_log(bench)
    async with (
        fresh_topic(bench, "backlog") as topic,
        own_database(bench) as url,
        reader(bench) as consumer,
    ):
        surroundings = _surroundings(bench, url)
        await _make_tables(bench, python, surroundings)
        await fill_by(bench, url, _MAKE, topic, ROWS, SUBJECTS)
        relay = bench.program(
            [_PROGRAM, "relay", topic, "0"],
            surroundings,
            python=python,
            name="faststream-outbox",
        )
        async with relay as program:
            arrivals = Arrivals(consumer, topic)
            rate = await arrivals.rate(ROWS, program.check, then=partial(emptied, url))
    return {"rows_per_s": rate}


def _surroundings(bench: Bench, url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": url, "KAFKA_BOOTSTRAP": bench.cluster.kafka_bootstrap}


async def _make_tables(bench: Bench, python: str, surroundings: Mapping[str, str]) -> None:
    making = bench.program(
        [_PROGRAM, "tables", "-", "0"], surroundings, python=python, name="faststream-outbox"
    )
    async with making as program:
        await program.line()
