"""A worker of the path service as a process: it consumes until it is stopped or killed."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from chassis.testing import eventually
from contracts.topics import Topic
from tests.integration.chassis.path import (
    RunningWorker,
    consuming,
    schema,
    settings_for,
    subscriber,
)


async def work(
    database: str,
    kafka: str,
    topic: str,
    partitions: int,
    name: str,
    subscribers: Sequence[str],
    changes: Mapping[str, Any],
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    consumed = Topic(name=topic, key="x", owner="x", consumers=(), events=(), partitions=partitions)
    settings = settings_for(database, kafka, worker_name=name, **changes)
    those = [subscriber(each, consumed) for each in subscribers]
    async with (
        schema(database) as engine,
        consuming(settings, engine, those, service=topic) as worker,
    ):
        await eventually(lambda: _is_well(worker))
        print("works", flush=True)  # noqa: T201 - for until_it_works
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, worker.task], return_when=asyncio.FIRST_COMPLETED)
        if worker.task.done():
            worker.task.result()


async def _is_well(worker: RunningWorker) -> bool:
    return worker.worker.trouble() is None


@asynccontextmanager
async def worker_process(
    database: str,
    kafka: str,
    topic: Topic,
    name: str,
    subscribers: Sequence[str] = ("test.one",),
    **changes: Any,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run such a process while the block runs; afterwards it is killed if it still runs.

    :param changes: of its settings
    """
    changes = {"chunk_max_events": 50} | changes
    about = [database, kafka, topic.name, topic.partitions, name]
    arguments: list[Any] = [*about, list(subscribers), changes]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.chassis.worker",
        json.dumps(arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_it_works(process: asyncio.subprocess.Process) -> None:
    """Wait until it has joined the group."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"works\n"


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(work(*json.loads(sys.argv[1])))
