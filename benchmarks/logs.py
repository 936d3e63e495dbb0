"""Topics full of records for consumers: filled once in a run, and read by all sides.

The catalogue's topics are created under other names here, so that a service's process can be
measured on them without the system's own events.
"""

import logging
import time
from asyncio import Future
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from benchmarks.bench import PARTITIONS, Bench
from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from contracts.envelope import EncodedEvent, encode
from contracts.events import IntegrationEvent
from contracts.topics import TOPICS, USERS_USER
from contracts.users import UsersEventWithheldV1, UserSignedUpV1

EVENTS_A_SUBJECT: Final = 10
_BATCH_BYTES: Final = 256 * 1024
_partition_of = DefaultPartitioner()
# A new topic has no leader for a moment, and the client logs that for each partition.
logging.getLogger("aiokafka.producer.sender").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Log:
    """A topic, and how many records it has."""

    topic: str
    records: int

    @property
    def prefix(self) -> str:
        """The prefix that this topic and those created with it have before the catalogue's name."""
        return self.topic.removesuffix(USERS_USER.name)


_logs: WeakKeyDictionary[Bench, dict[str, Log]] = WeakKeyDictionary()


async def payloads(bench: Bench, size: int, count: int) -> Log:
    """Return a topic of ``count`` records of ``size`` bytes, without keys or headers."""
    known, name = _logs.setdefault(bench, {}), f"payloads of {size}"
    if name not in known:
        topic = bench.name("payloads")
        await _create(bench, {topic: PARTITIONS})
        # As even as keys would spread them.
        each = EncodedEvent(b"", b"x" * size, [])
        await _fill(bench, topic, ((number % PARTITIONS, each) for number in range(count)))
        known[name] = Log(topic, count)
    return known[name]


async def sign_ups(bench: Bench, count: int) -> Log:
    """Return a topic of ``count`` sign-ups of different users."""
    known, name = _logs.setdefault(bench, {}), f"{count} sign-ups"
    if name not in known:
        known[name] = await new_log(bench, signing_up(count))
    return known[name]


async def long_histories(bench: Bench, count: int) -> Log:
    """Return a topic of ``count`` events, ``EVENTS_A_SUBJECT`` of each subject, far apart.

    Audit keeps events of their type, and no other service has a handler for it.
    """
    known = _logs.setdefault(bench, {})
    if "long histories" not in known:
        known["long histories"] = await new_log(bench, histories(count))
    return known["long histories"]


async def new_log(bench: Bench, events: Iterable[EncodedEvent]) -> Log:
    """Create the catalogue's topics under new names, and fill that of users with events."""
    prefix = f"{bench.name('log')}."
    await _create(bench, {f"{prefix}{topic.name}": topic.partitions for topic in TOPICS})
    topic = f"{prefix}{USERS_USER.name}"
    every = list(range(PARTITIONS))
    placed = ((_partition_of(each.key, every, every), each) for each in events)
    return Log(topic, await _fill(bench, topic, placed))


def histories(count: int) -> Iterator[EncodedEvent]:
    """Make ``count`` events: the first of every subject, then the second of every subject…"""
    subjects = [new_id() for _ in range(count // EVENTS_A_SUBJECT)]
    withheld = UsersEventWithheldV1(withheld_id=new_id(), withheld_type=UserSignedUpV1.event_type)
    for sequence in range(1, EVENTS_A_SUBJECT + 1):
        for subject in subjects:
            yield _encoded(withheld, subject, sequence)


def signing_up(count: int) -> Iterator[EncodedEvent]:
    """Make the events of ``count`` people who sign up."""
    for number in range(count):
        user_id = new_id()
        yield _encoded(UserSignedUpV1(user_id=user_id, username=f"user-{number}"), user_id, 1)


def _encoded(event: IntegrationEvent, subject: UUID, sequence: int) -> EncodedEvent:
    id_ = new_id()
    return encode(
        event,
        id=id_,
        source="/users",
        subject=str(subject),
        time=datetime.now(UTC),
        sequence=sequence,
        correlationid=str(id_),
        causationid=str(id_),
        # Each event has its own trace, as each request has.
        traceparent=f"00-{id_.hex}-{id_.hex[16:]}-01",
    )


async def _create(bench: Bench, partitions_of: dict[str, int]) -> None:
    async with admin_client(bench.cluster.kafka_bootstrap) as client:
        await client.create_topics([NewTopic(name, n, 1) for name, n in partitions_of.items()])


async def _fill(bench: Bench, topic: str, placed: Iterable[tuple[int, EncodedEvent]]) -> int:
    """Write records to their partitions, and return their number."""
    bench.say(f"  filling {topic}")
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.cluster.kafka_bootstrap, acks="all", max_batch_size=_BATCH_BYTES
    )
    await producer.start()
    try:
        open_: dict[int, BatchBuilder] = {}
        sent: list[Future[Any]] = []
        count = 0
        now_ms = int(time.time() * 1000)
        for partition, record in placed:
            count += 1
            while True:
                batch = open_.setdefault(partition, producer.create_batch())
                taken = batch.append(
                    timestamp=now_ms,
                    key=record.key or None,
                    value=record.payload,
                    headers=record.headers,
                )
                if taken is not None:
                    break
                sent.append(
                    await producer.send_batch(open_.pop(partition), topic, partition=partition)
                )
        for partition, batch in open_.items():
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        for each in sent:
            await each
    finally:
        await producer.stop()
    return count
