"""The floor of audit ingest: a topic into the audit's tables, by bare aiokafka and bare asyncpg.

``python -m benchmarks.programs.bare_ingest BOOTSTRAP TOPIC PARTITIONS DATABASE_URL CHUNK``. It
writes the rows that the service would: records with hash and columns, the inbox and progress, in
one transaction per chunk and with one task per partition. It parses JSON and checks no schema. It
can't continue a topic, tries nothing again and parks nothing.
"""

import asyncio
import sys
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

_BEGIN: Final = """
    INSERT INTO progress (subscriber, topic, topic_id, partition, next_offset, updated_at)
    VALUES ('audit.keep', $1, gen_random_uuid(), $2, 0, now())
"""
_LOCK: Final = """
    SELECT next_offset FROM progress
    WHERE subscriber = 'audit.keep' AND topic = $1 AND partition = $2 FOR UPDATE
"""
_SEEN: Final = """
    SELECT subject, last_sequence FROM inbox
    WHERE subscriber = 'audit.keep' AND topic = $1 AND subject = ANY ($2::text[])
    ORDER BY subject FOR UPDATE
"""
_KNOWN: Final = "SELECT event_id, sha256 FROM records WHERE event_id = ANY ($1::uuid[])"
_SEE: Final = """
    INSERT INTO inbox
    SELECT 'audit.keep', $1, * FROM unnest($2::text[], $3::bigint[], $4::uuid[])
    ON CONFLICT (subscriber, topic, subject) DO UPDATE
    SET last_sequence = excluded.last_sequence, greatest_event_id = excluded.greatest_event_id
"""
_ADVANCE: Final = """
    UPDATE progress SET next_offset = $3, updated_at = now()
    WHERE subscriber = 'audit.keep' AND topic = $1 AND partition = $2
"""
_COLUMNS: Final = (
    *("topic", "partition", "offset", "key", "headers", "payload", "sha256", "recorded_at"),
    *("event_id", "source", "type", "subject", "occurred_at", "sequence", "correlation_id"),
    *("causation_id", "traceparent", "verdict", "altered"),
)


async def _ingest_partition(
    consumer: AIOKafkaConsumer, tp: TopicPartition, connection: "asyncpg.Connection", chunk: int
) -> None:
    lock, seen, known, see, advance = [
        await connection.prepare(each) for each in (_LOCK, _SEEN, _KNOWN, _SEE, _ADVANCE)
    ]
    await connection.execute(_BEGIN, tp.topic, tp.partition)
    while True:
        records = (await consumer.getmany(tp, timeout_ms=1_000, max_records=chunk)).get(tp)
        if not records:
            continue
        events = [orjson.loads(each.value) for each in records]
        ids = [UUID(each["id"]) for each in events]
        async with connection.transaction():
            if await lock.fetchval(tp.topic, tp.partition) != records[0].offset:
                raise RuntimeError("not the next records")
            subjects = list({each["subject"] for each in events})
            found = await seen.fetch(tp.topic, subjects)
            last = {row["subject"]: row["last_sequence"] for row in found}
            if await known.fetch(ids):
                raise RuntimeError("a repeat")
            await connection.copy_records_to_table(
                "records", columns=_COLUMNS, records=_rows(records, events, ids, last)
            )
            greatest = {event["subject"]: id_ for event, id_ in zip(events, ids, strict=True)}
            await see.fetch(
                tp.topic, list(greatest), [last[each] for each in greatest], list(greatest.values())
            )
            await advance.fetch(tp.topic, tp.partition, records[-1].offset + 1)


def _rows(
    records: Sequence[ConsumerRecord],
    events: Sequence[dict[str, Any]],
    ids: Sequence[UUID],
    last: dict[str, int],
) -> list[tuple[Any, ...]]:
    """Make the rows of a chunk, and count its events as seen in ``last``."""
    now, rows = datetime.now(UTC), []
    for record, event, id_ in zip(records, events, ids, strict=True):
        sequence, subject = int(event["sequence"]), event["subject"]
        if sequence != last.get(subject, 0) + 1:
            raise RuntimeError("a gap")
        last[subject] = sequence
        headers = [(name, b64encode(value).decode()) for name, value in record.headers]
        rows.append(
            (
                *(record.topic, record.partition, record.offset, record.key),
                *(orjson.dumps(headers).decode(), record.value, sha256(record.value).digest()),
                *(now, id_, event["source"], event["type"], subject),
                *(datetime.fromisoformat(event["time"]), sequence, event["correlationid"]),
                *(event.get("causationid"), event.get("traceparent"), "next", False),
            )
        )
    return rows


async def _run(bootstrap: str, topic: str, partitions: int, url: str, chunk: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    partitions_of_topic = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(partitions_of_topic)
    await consumer.seek_to_beginning()
    async with asyncio.TaskGroup() as tasks:
        for each in partitions_of_topic:
            connection = await asyncpg.connect(url)
            tasks.create_task(_ingest_partition(consumer, each, connection, chunk))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bootstrap, topic, partitions, url, chunk = sys.argv[1:]
        runner.run(_run(bootstrap, topic, int(partitions), url, int(chunk)))
