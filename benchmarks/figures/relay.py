"""From a committed outbox row to Kafka: how long one row takes, and how many a second arrive.

Latency: by one clock that all processes share, from the return of COMMIT until a bare consumer has
received the record. Backlog: by the topic's high-water marks, from when the first record is seen
until all are, and until the outbox is empty where rows are deleted.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from benchmarks import deliveries
from benchmarks.bench import Bench, Program
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.outboxes import SUBJECTS, emptied, fill, outbox_database
from benchmarks.peers import debezium, faststream_outbox
from benchmarks.topics import Arrivals, fresh_topic, reader

_QUICK_ROWS: Final = 40_000
_FULL_ROWS: Final = 200_000
_MANY_ROWS: Final = 2_000_000


@asynccontextmanager
async def _service(bench: Bench, url: str) -> AsyncIterator[Program]:
    """Run a process of the users service that only publishes its outbox."""
    settings = bench.environment("users", database_url=url, roles="relay", http_port="0")
    async with bench.program(["users_service"], settings, name="users-relay") as program:
        yield program


@asynccontextmanager
async def _ground(bench: Bench, stem: str) -> AsyncIterator[tuple[str, str]]:
    """Make a topic and an outbox for the block; yield the topic and the database's URL."""
    if bench.full:
        # One of the peers needs it, so all sides have it.
        await debezium.have_logical_log(bench)
    async with fresh_topic(bench, stem) as topic, outbox_database(bench) as url:
        yield topic, url


async def _latency(bench: Bench, publishing: str) -> Values:
    async with _ground(bench, "latency") as (topic, url), reader(bench, topic) as consumer:
        return await deliveries.of_outbox(bench, url, topic, consumer, publishing)


async def _latency_of_another_process(bench: Bench) -> Values:
    async with (
        _ground(bench, "latency") as (topic, url),
        reader(bench, topic) as consumer,
        _service(bench, url) as relay,
    ):
        await deliveries.warm_up(url, topic, consumer, relay)
        return await deliveries.of_outbox(bench, url, topic, consumer, "elsewhere")


def _rows(bench: Bench) -> int:
    return _FULL_ROWS if bench.full else _QUICK_ROWS


async def _backlog(bench: Bench, rows: int | None = None) -> Values:
    rows = rows or _rows(bench)
    async with _ground(bench, "backlog") as (topic, url), reader(bench) as consumer:
        await fill(bench, url, topic, rows)
        async with _service(bench, url) as relay:
            rate = await Arrivals(consumer, topic).rate(
                rows, relay.check, then=partial(emptied, url)
            )
    return {"rows_per_s": rate}


async def _backlog_of_debezium(bench: Bench) -> Values:
    return await debezium.backlog(bench, _rows(bench))


async def _from_memory(bench: Bench) -> Values:
    async with _ground(bench, "backlog") as (topic, url), reader(bench) as consumer:
        await fill(bench, url, topic, _rows(bench))
        producer = bench.program(
            ["benchmarks.programs.bare_producer", topic],
            bench.environment("users", database_url=url),
            name="bare-producer",
        )
        async with producer as program:
            rate = await Arrivals(consumer, topic).rate(_rows(bench), program.check)
    return {"rows_per_s": rate}


_OURS: Final = "ours"
_APART: Final = "ours, with the relay in another process, which polls"
_TWICE: Final = "bare asyncpg commit, then bare aiokafka send"
_MEMORY: Final = "bare aiokafka producer, from memory"
_MANY: Final = "ours, 2,000,000 rows"
_FEWER: Final = "ours, 200,000 rows"

_P50: Final = Metric("p50_ms", "ms")
_P95: Final = Metric("p95_ms", "ms")
_RATE: Final = Metric("rows_per_s", "rows/s", more_is_better=True)

FIGURES: Sequence[Figure] = (
    Figure(
        "relay-latency",
        "From the commit of an outbox row to a consumer",
        "A process commits a row of 500 bytes every 15 to 35 ms, 200 times (full: 1,000); a bare "
        "consumer in another process takes the time when it receives the record.",
        (_P50, _P95),
        (
            Side(_OURS, Kind.OURS, partial(_latency, publishing="relay")),
            Side(_APART, Kind.OURS, _latency_of_another_process),
            Side(
                _TWICE,
                Kind.FLOOR,
                partial(_latency, publishing="twice"),
                "two writes without an outbox: a crash between them loses the event",
            ),
            Side(debezium.NAME, Kind.PEER, debezium.latency, debezium.DOES_LESS),
            Side(
                faststream_outbox.NAME,
                Kind.PEER,
                faststream_outbox.latency,
                faststream_outbox.DOES_LESS,
            ),
        ),
        (
            Goal("p50_ms", at_most=0.25, against=debezium.NAME, only_in_full=True),
            Goal("p50_ms", at_most=0.5, against=faststream_outbox.NAME, only_in_full=True),
        ),
    ),
    Figure(
        "relay-backlog",
        "Publishing a backlog of the outbox",
        "40,000 rows (full: 200,000) of 500 bytes and six headers wait in the outbox, of "
        f"{SUBJECTS:,} subjects in turn, for a topic of 8 partitions. The time ends when all of "
        "them are in the topic and the outbox is empty.",
        (_RATE,),
        (
            Side(_OURS, Kind.OURS, _backlog),
            Side(
                _MEMORY,
                Kind.FLOOR,
                _from_memory,
                "has the records in memory: reads and deletes no rows",
            ),
            Side(debezium.NAME, Kind.PEER, _backlog_of_debezium, debezium.DOES_LESS),
            Side(
                faststream_outbox.NAME,
                Kind.PEER,
                faststream_outbox.backlog,
                f"{faststream_outbox.DOES_LESS}; only {faststream_outbox.ROWS:,} rows",
            ),
        ),
        (
            Goal("rows_per_s", at_least=0.5, against=_MEMORY),
            Goal("rows_per_s", at_least=2.0, against=debezium.NAME, only_in_full=True),
        ),
    ),
    Figure(
        "relay-backlog-2m",
        "A backlog ten times as long",
        "As relay-backlog, with 2,000,000 rows and with 200,000.",
        (_RATE,),
        (
            Side(_MANY, Kind.OURS, partial(_backlog, rows=_MANY_ROWS)),
            Side(_FEWER, Kind.OURS, partial(_backlog, rows=_FULL_ROWS)),
        ),
        (Goal("rows_per_s", at_least=0.9, against=_FEWER),),
        only_in_full=True,
    ),
)
