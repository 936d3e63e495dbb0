"""Reads an outbox into memory and sends it as fast as a bare client can: ``bare_producer TOPIC``.

The database is the users service's. Idempotent and ``acks=all``, like all other sides. Complete
batches cost a seventh of ``send()``, and 256 KiB is the best size for them.
"""

import asyncio
import gc
import sys
from typing import Final

import asyncpg
import orjson
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from chassis.settings import read_settings
from users_service.settings import UsersSettings

_BATCH_BYTES: Final = 256 * 1_024
_ROWS: Final = "SELECT aggregateid, payload, headers, created_at FROM outbox ORDER BY position"


async def main() -> None:
    topic = sys.argv[1]
    settings = read_settings(UsersSettings)
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    records = [
        (
            row["aggregateid"].encode(),
            row["payload"],
            [(name, value.encode()) for name, value in orjson.loads(row["headers"]).items()],
            int(row["created_at"].timestamp() * 1_000),
        )
        for row in await connection.fetch(_ROWS)
    ]
    await connection.close()
    gc.freeze()  # else it would look at all of them again and again

    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_idempotence=True,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        max_request_size=16 * 1_048_576,
    )
    await producer.start()
    partitions = sorted(await producer.partitions_for(topic))
    partition_of = DefaultPartitioner()
    place_of: dict[bytes, int] = {}
    batches = {place: producer.create_batch() for place in partitions}
    sent = []
    for key, value, headers, timestamp in records:
        place = place_of.get(key)
        if place is None:
            place = place_of[key] = partition_of(key, partitions, partitions)
        batch = batches[place]
        if batch.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
            sent.append(await producer.send_batch(batch, topic, partition=place))
            await asyncio.sleep(0)  # the sender is in this loop too
            batch = batches[place] = producer.create_batch()
            batch.append(timestamp=timestamp, key=key, value=value, headers=headers)
    for place, batch in batches.items():
        sent.append(await producer.send_batch(batch, topic, partition=place))
    await asyncio.gather(*sent)
    await producer.stop()


if __name__ == "__main__":
    uvloop.run(main())
