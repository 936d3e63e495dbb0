"""The floor of reading a topic in Python: aiokafka's ``getmany``, and a count.

``python -m benchmarks.programs.bare_counter BOOTSTRAP TOPIC PARTITIONS COUNT``
"""

import asyncio
import sys

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.programs.counting import Counting


async def _run(bootstrap: str, topic: str, partitions: int, count: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        max_partition_fetch_bytes=1024 * 1024,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        await consumer.seek_to_beginning()
        counting, done = Counting(count), False
        while not done:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                done = counting.add(len(records))
    finally:
        await consumer.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
