"""Plain Faust, as in its manual: an agent that takes one event after the other.

``python -m benchmarks.programs.plain_faust BOOTSTRAP TOPIC COUNT GROUP``
"""

import asyncio
import sys
import tempfile

import faust
import uvloop
from faust.contrib.asgi import bind_to_running_loop

from benchmarks.programs.counting import Counting


async def _run(bootstrap: str, topic: str, count: int, group: str) -> None:
    app = faust.App(
        group,
        broker=f"kafka://{bootstrap}",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=tempfile.gettempdir(),
        loghandlers=[],
    )
    counting, done = Counting(count), asyncio.Event()

    @app.agent(app.topic(topic))
    async def take(stream: faust.StreamT[bytes]) -> None:
        async for _event in stream:
            if counting.add(1):
                done.set()
                return

    bind_to_running_loop(app)
    app.finalize()
    await app.start()
    await done.wait()
    await app.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bootstrap, topic, count, group = sys.argv[1:]
        runner.run(_run(bootstrap, topic, int(count), group))
