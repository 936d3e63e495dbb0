"""Commits rows to the users service's outbox, one at a time, and prints when each was committed.

``outbox_writer TOPIC ROWS PUBLISHING`` prints, at its end, a line for each row: its subject and
``time.perf_counter()``, which all processes of a machine share.

- ``relay``: the service's relay runs in this process, and is woken after each commit
- ``elsewhere``: another process publishes
- ``twice``: this process also sends the row to Kafka, without the outbox: the floor
"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

import asyncpg
import uvloop
from aiokafka import AIOKafkaProducer

from benchmarks.outboxes import write_one
from chassis.clock import utc_now
from chassis.publishing.relay import Relay
from chassis.settings import read_settings
from users_service.settings import UsersSettings

# Between two rows; random, so that a poller is never in step with it.
_PAUSE_S: Final = (0.015, 0.035)
_LOOK_EVERY_S: Final = 0.01
_PUBLISHES_WITHIN_S: Final = 30.0
_PAYLOAD: Final = b"0" * 500
_HEADERS: Final = [("type", b"bench.event.v1"), ("sequence", b"0000000001")]

Publish = Callable[[str], Awaitable[None]]
"""Publishes a row of this subject after its commit."""


async def main() -> None:
    topic, rows, publishing = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    settings = read_settings(UsersSettings)
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    committed: list[tuple[str, float]] = []
    async with _PUBLISHING[publishing](settings, topic) as publish:
        for number in range(rows):
            subject = await write_one(connection, topic, number)
            committed.append((subject, perf_counter()))
            await publish(subject)
            await asyncio.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - nothing secret
        sys.stdout.writelines(f"{subject} {at_s!r}\n" for subject, at_s in committed)
        sys.stdout.flush()
    await connection.close()


@asynccontextmanager
async def _by_relay(settings: UsersSettings, _topic: str) -> AsyncIterator[Publish]:
    relay = Relay(settings, service="users", now=utc_now)
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(_PUBLISHES_WITHIN_S):
        while relay.trouble() is not None:  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(_LOOK_EVERY_S)

    async def wake(_subject: str) -> None:
        relay.wake()

    yield wake
    await relay.stop()
    await running


@asynccontextmanager
async def _elsewhere(_settings: UsersSettings, _topic: str) -> AsyncIterator[Publish]:
    async def nothing(_subject: str) -> None: ...

    yield nothing


@asynccontextmanager
async def _twice(settings: UsersSettings, topic: str) -> AsyncIterator[Publish]:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, enable_idempotence=True, acks="all"
    )
    await producer.start()

    async def send(subject: str) -> None:
        await producer.send_and_wait(topic, _PAYLOAD, key=subject.encode(), headers=_HEADERS)

    yield send
    await producer.stop()


_PUBLISHING: Final = {"relay": _by_relay, "elsewhere": _elsewhere, "twice": _twice}


if __name__ == "__main__":
    uvloop.run(main())
