"""Debezium's outbox event router: reads a service's outbox from PostgreSQL's log, into Kafka."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks import deliveries
from benchmarks.bench import Bench
from benchmarks.figure import Values
from benchmarks.outboxes import fill, outbox_database
from benchmarks.peers.connect import Connector, connector
from benchmarks.postgres import ask, run_with
from benchmarks.topics import Arrivals, fresh_topic, reader

# A Java program reaches its speed only after a while.
_WARM_UP_ROWS: Final = 20_000
NAME: Final = "Debezium outbox event router 3.6.0 in Kafka Connect 4.3.0"
DOES_LESS: Final = (
    "never deletes a row; one of its headers holds all of ours; "
    f"{_WARM_UP_ROWS:,} rows are published to warm it up, before it is measured"
)
_LOCK: Final = Path(__file__).with_name("debezium.lock")
_UP_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.1
_IS_READ: Final = "SELECT active FROM pg_replication_slots WHERE slot_name = $1"
_DROP: Final = (
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"
)


async def latency(bench: Bench) -> Values:
    """Measure it as a relay of single rows."""
    async with (
        fresh_topic(bench, "latency") as topic,
        outbox_database(bench) as url,
        _router(bench, url, linger_ms=0) as router,
        reader(bench) as counter,
    ):
        await _warm_up(bench, url, topic, Arrivals(counter, topic), router)
        async with reader(bench, topic) as consumer:
            return await deliveries.of_outbox(bench, url, topic, consumer, "elsewhere")


async def backlog(bench: Bench, rows: int) -> Values:
    """Measure it on rows that were committed while it was paused."""
    async with (
        fresh_topic(bench, "backlog") as topic,
        outbox_database(bench) as url,
        _router(bench, url, linger_ms=5) as router,
        reader(bench) as counter,
    ):
        arrivals = Arrivals(counter, topic)
        await _warm_up(bench, url, topic, arrivals, router)
        await router.stop()
        await fill(bench, url, topic, rows)
        await router.resume()
        rate = await arrivals.rate(rows, router.program.check, before=_WARM_UP_ROWS)
    return {"rows_per_s": rate}


async def _warm_up(
    bench: Bench, url: str, topic: str, arrivals: Arrivals, router: Connector
) -> None:
    await fill(bench, url, topic, _WARM_UP_ROWS)
    await arrivals.rate(_WARM_UP_ROWS, router.program.check)


@asynccontextmanager
async def _router(bench: Bench, url: str, *, linger_ms: int) -> AsyncIterator[Connector]:
    await have_logical_log(bench)
    slot = bench.name("bench-debezium").replace("-", "_")
    login = urlsplit(bench.cluster.superuser_url)
    producer = {
        "enable.idempotence": "true",
        "acks": "all",
        "max.in.flight.requests.per.connection": "5",
        "linger.ms": str(linger_ms),
        "batch.size": "131072",
    }
    worker = {
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        **{f"producer.{name}": value for name, value in producer.items()},
    }
    settings = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": str(login.hostname),
        "database.port": str(login.port),
        "database.user": str(login.username),
        "database.password": str(login.password),
        "database.dbname": urlsplit(url).path[1:],
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "slot.name": slot,
        "publication.name": slot,
        "publication.autocreate.mode": "filtered",
        "snapshot.mode": "no_data",
        "table.include.list": "public.outbox",
        "skipped.operations": "u,d,t",
        "tombstones.on.delete": "false",
        "poll.interval.ms": "10",
        "max.batch.size": "4096",
        "max.queue.size": "16384",
        # Publishes the bytes as they are, as Debezium's page on the outbox pattern shows it.
        "value.converter": "io.debezium.converters.BinaryDataConverter",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.by.field": "aggregatetype",
        "transforms.outbox.route.topic.replacement": "${routedByValue}",
        "transforms.outbox.table.field.event.key": "aggregateid",
        "transforms.outbox.table.fields.additional.placement": (
            "type:header:type,sequence:header:sequence,headers:header:headers"
        ),
    }
    try:
        async with connector(bench, _LOCK, worker, settings) as router:
            yield router
    finally:
        await _forget(bench, slot)


async def have_logical_log(bench: Bench) -> None:
    """Make PostgreSQL write the log that Debezium reads; restarts it if it does not yet."""
    await run_with(bench, "wal_level", "logical")


async def _forget(bench: Bench, slot: str) -> None:
    """Drop its slot, for which PostgreSQL would keep its log; the publication needs no drop."""
    async with asyncio.timeout(_UP_WITHIN_S):
        while await ask(bench, _IS_READ, slot):  # noqa: ASYNC110 - the server would not tell
            await asyncio.sleep(_LOOK_EVERY_S)
    await ask(bench, _DROP, slot)
