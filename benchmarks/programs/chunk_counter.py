"""The chassis' Faust app, with its own transport and settings, and agents that only count.

``python -m benchmarks.programs.chunk_counter BOOTSTRAP TOPIC COUNT GROUP``. It uses no
database: every partition is read from its beginning.
"""

import asyncio
import sys
from collections.abc import Mapping

import uvloop
from aiokafka import TopicPartition
from pydantic import SecretStr

from benchmarks.programs.counting import Counting
from chassis.consuming.chunk import Chunk, ChunkSource
from chassis.consuming.faust_app import consumer_of, make_app
from chassis.consuming.positions import StartPosition
from chassis.settings import ServiceSettings


class _Counter:
    """Takes the place of a topic's ``ChunkProcessor``, and counts each chunk as processed."""

    def __init__(self, count: int) -> None:
        self._counting = Counting(count)
        self.done = asyncio.Event()

    async def process(self, chunk: Chunk, source: ChunkSource) -> None:
        source.begin(chunk)
        if self._counting.add(len(chunk.records)):
            self.done.set()
        source.end(chunk, chunk.end)


async def _from_beginning(
    partitions: frozenset[TopicPartition],
) -> Mapping[TopicPartition, StartPosition]:
    return dict.fromkeys(partitions, StartPosition(0))


async def _run(bootstrap: str, topic: str, count: int, group: str) -> None:
    settings = ServiceSettings(
        http_port=0,
        kafka_bootstrap=bootstrap,
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"),
        idempotency_secret=SecretStr("x" * 32),
    )
    counter = _Counter(count)
    # The app that a service consumes with.
    app = make_app(group, settings, {topic: counter})
    consumer_of(app).positions = _from_beginning
    await app.start()
    await counter.done.wait()
    await app.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bootstrap, topic, count, group = sys.argv[1:]
        runner.run(_run(bootstrap, topic, int(count), group))
