"""The chassis' Faust app, with its own transport and settings, and agents that only count.

``python -m benchmarks.programs.chunk_counter BOOTSTRAP TOPIC COUNT GROUP``. No database is in it:
every partition is read from its beginning.
"""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import uvloop
from aiokafka import TopicPartition
from pydantic import SecretStr

from benchmarks.programs.counting import Counting
from chassis.agents import Agents
from chassis.chunks import ChunkConsumer
from chassis.clock import utc_now
from chassis.database import create_engine
from chassis.handling import Chunk, Feed
from chassis.settings import ServiceSettings

# Nobody listens there, and nobody asks.
_NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"


class _Counter:
    """Stands where a topic's ``Consumer`` does, and says of each chunk that it is done."""

    def __init__(self, count: int) -> None:
        self._counting = Counting(count)
        self.done = asyncio.Event()

    async def handle(self, chunk: Chunk, feed: Feed) -> None:
        feed.begin(chunk)
        if self._counting.add(len(chunk.records)):
            self.done.set()
        feed.end(chunk, chunk.end)


async def _from_beginning(
    partitions: frozenset[TopicPartition],
) -> Mapping[TopicPartition, int]:
    return dict.fromkeys(partitions, 0)


async def _run(bootstrap: str, topic: str, count: int, group: str) -> None:
    agents: Agents[Any] = Agents(
        ServiceSettings(
            http_port=0,
            kafka_bootstrap=bootstrap,
            database_url=SecretStr(_NO_DATABASE),
            idempotency_secret=SecretStr("x" * 32),
        ),
        service=group,
        engine=create_engine(_NO_DATABASE, pool_size=1, application_name="nobody"),
        open_work=lambda _connection: None,
        subscribers=[],
        now=utc_now,
    )
    counter = _Counter(count)
    agents._consumers = {topic: counter}  # type: ignore[dict-item]  # noqa: SLF001
    app = agents._make_app()  # noqa: SLF001 - the very app that a service consumes with
    feed = app.consumer
    assert isinstance(feed, ChunkConsumer)
    feed.positions = _from_beginning
    await app.start()
    await counter.done.wait()
    await app.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bootstrap, topic, count, group = sys.argv[1:]
        runner.run(_run(bootstrap, topic, int(count), group))
