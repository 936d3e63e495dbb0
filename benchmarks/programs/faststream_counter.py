"""A FastStream subscriber that only counts; it runs in FastStream's environment.

``python -m benchmarks.programs.faststream_counter BOOTSTRAP TOPIC COUNT GROUP one|batch``
"""

import asyncio
import sys
from typing import Any

import uvloop
from faststream.kafka import KafkaBroker  # type: ignore[import-not-found]

from benchmarks.programs.counting import Counting


async def _run(bootstrap: str, topic: str, count: int, group_id: str, *, batch: bool) -> None:
    broker = KafkaBroker(bootstrap, logger=None)
    counting, done = Counting(count), asyncio.Event()

    def counted(number: int) -> None:
        if not done.is_set() and counting.add(number):
            done.set()

    group: dict[str, Any] = {"group_id": group_id, "auto_offset_reset": "earliest"}
    if batch:

        @broker.subscriber(topic, batch=True, **group)  # type: ignore[untyped-decorator]
        async def take_batch(bodies: list[bytes]) -> None:
            counted(len(bodies))

    else:

        @broker.subscriber(topic, **group)  # type: ignore[untyped-decorator]
        async def take(_body: bytes) -> None:
            counted(1)

    await broker.start()
    await done.wait()
    await broker.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bootstrap, topic, count, group_id, how = sys.argv[1:]
        runner.run(_run(bootstrap, topic, int(count), group_id, batch=how == "batch"))
