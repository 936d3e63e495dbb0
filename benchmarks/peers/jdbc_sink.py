"""Debezium's JDBC sink: a topic into a table, a row upserted for each record."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer

from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figure import Values
from benchmarks.outboxes import own_database
from benchmarks.peers.connect import connector
from benchmarks.topics import fresh_topic

NAME: Final = "Debezium JDBC sink 3.3.1"
RECORDS: Final = 100_000
# A Java program reaches its speed only after a while.
_WARM_UP: Final = RECORDS // 5
DOES_LESS: Final = (
    "upserts rows only: no hash, no dedupe by inbox, no gap check; its records carry a schema; "
    f"the first {_WARM_UP:,} of {RECORDS:,} are not counted"
)

_LOCK: Final = Path(__file__).with_name("jdbc_sink.lock")
_BYTES: Final = 500
_TEXTS: Final = ("id", "source", "type", "subject", "payload")
_SCHEMA: Final = {
    "type": "struct",
    "name": "record",
    "fields": [
        *({"field": name, "type": "string", "optional": False} for name in _TEXTS),
        {"field": "sequence", "type": "int64", "optional": False},
    ],
}
# The sequence of `position` shows how far it is, at no cost to it.
_TABLE: Final = """
    CREATE TABLE records (
        position bigint GENERATED ALWAYS AS IDENTITY,
        id text PRIMARY KEY,
        source text NOT NULL,
        type text NOT NULL,
        subject text NOT NULL,
        sequence bigint NOT NULL,
        payload text NOT NULL
    )
"""
_BEGUN: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM records_position_seq"
_DONE: Final = "SELECT count(*) FROM records"
_WORKER: Final = {
    "key.converter": "org.apache.kafka.connect.storage.StringConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter.schemas.enable": "true",
}
# Four times its default, and two tasks in its process: both are faster on two cores.
_BATCH: Final = "2000"
_TASKS: Final = "2"
_LOOK_EVERY_S: Final = 0.01
_STANDSTILL_S: Final = 120.0


async def jdbc_sink(bench: Bench) -> Values:
    """Fill a topic with ``RECORDS`` records of 500 bytes, and let the sink write them to a table.

    A side as it is: ``Side(NAME, Kind.PEER, jdbc_sink, DOES_LESS)``.

    :returns: ``{"records_per_s": …}``, by the rows, once it has warmed up
    :raises Unavailable: it can't be downloaded here
    """
    async with fresh_topic(bench, "sink") as topic, own_database(bench) as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(_TABLE)
            await _load(bench, topic)
            async with connector(bench, _LOCK, _WORKER, _settings(url, topic)) as sink:
                return {"records_per_s": await _rate(connection, sink.program.check)}
        finally:
            await connection.close()


def _settings(url: str, topic: str) -> Mapping[str, str]:
    login = urlsplit(url)
    place = f"{login.hostname}:{login.port}{login.path}"
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": _TASKS,
        "topics": topic,
        "connection.url": f"jdbc:postgresql://{place}?reWriteBatchedInserts=true",
        "connection.username": str(login.username),
        "connection.password": str(login.password),
        "collection.name.format": "records",
        "insert.mode": "upsert",
        "primary.key.mode": "record_value",
        "primary.key.fields": "id",
        "schema.evolution": "none",
        "batch.size": _BATCH,
        "consumer.override.max.poll.records": _BATCH,
    }


async def _rate(connection: "asyncpg.Connection", check: Callable[[], None]) -> float:
    """Return how many rows a second arrive, once it has warmed up."""
    first = await _more_than(connection, _WARM_UP, check)
    began = perf_counter()
    begun = first
    while begun < RECORDS:
        begun = await _more_than(connection, begun, check)
    async with asyncio.timeout(_STANDSTILL_S):
        while await connection.fetchval(_DONE) < RECORDS:  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(_LOOK_EVERY_S)
    return (RECORDS - first) / (perf_counter() - began)


async def _more_than(
    connection: "asyncpg.Connection", known: int, check: Callable[[], None]
) -> int:
    async with asyncio.timeout(_STANDSTILL_S):
        while (begun := int(await connection.fetchval(_BEGUN))) <= known:
            check()
            await asyncio.sleep(_LOOK_EVERY_S)
    return begun


async def _load(bench: Bench, topic: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.cluster.kafka_bootstrap, acks="all", max_batch_size=256 * 1_024
    )
    await producer.start()
    try:
        batches = {number: producer.create_batch() for number in range(PARTITIONS)}
        for number in range(RECORDS):
            key, value = _record(number)
            partition = number % PARTITIONS
            batch = batches[partition]
            if batch.append(timestamp=None, key=key, value=value) is None:
                await producer.send_batch(batch, topic, partition=partition)
                batch = batches[partition] = producer.create_batch()
                batch.append(timestamp=None, key=key, value=value)
        for partition, batch in batches.items():
            await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()


def _record(number: int) -> tuple[bytes, bytes]:
    subject = str(uuid4())
    row = {
        "id": str(uuid4()),
        "source": "/bench",
        "type": "bench.event.v1",
        "subject": subject,
        "sequence": number,
        "payload": "0" * _BYTES,
    }
    return subject.encode(), orjson.dumps({"schema": _SCHEMA, "payload": row})
