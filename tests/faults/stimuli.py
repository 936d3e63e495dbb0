"""What brings processes to their failpoints: plain work, and what goes wrong with it."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from chassis.trail import new_id
from contracts.envelope import encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from tests.faults.harness import System

CONSUMERS: Final = ("users", "accounts", "audit", "notification")


@dataclass(frozen=True, slots=True)
class Stimulus:
    """Something to do to a system; ``do`` returns when it is done, its effects come later."""

    name: str
    do: Callable[[System], Awaitable[None]]


async def _sign_up(system: System) -> None:
    await system.workload.sign_up(20)


async def _fail_together(system: System) -> None:
    """Let every consumer fail with a chunk, so that it goes on event by event."""
    for each in CONSUMERS:
        system.failpoints.arm("chunk.before-commit", "raise", service=each)
    await _sign_up(system)


async def _publish_what_nobody_understands(system: System) -> None:
    """Publish the next version of an event, as a producer that runs ahead would."""
    subject = uuid4()
    system.made_up.add(str(subject))
    event = encode(
        UserSignedUpV1(user_id=subject, username="ahead"),
        id=new_id(),
        source="/users",
        subject=str(subject),
        time=datetime.now(UTC),
        sequence=1,
        correlationid="ahead",
    )
    known, ahead = b"users.user-signed-up.v1", b"users.user-signed-up.v2"
    producer = AIOKafkaProducer(bootstrap_servers=system.cluster.kafka_bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(
            USERS_USER.name,
            event.payload.replace(known, ahead),
            key=event.key,
            headers=[(name, value.replace(known, ahead)) for name, value in event.headers],
        )
    finally:
        await producer.stop()


async def _add_what_kafka_refuses(system: System) -> None:
    """Put a row that is larger than its topic takes amid others."""
    for service, topic in (("users", "users.user"), ("accounts", "accounts.account")):
        subject = str(uuid4())
        system.made_up.add(subject)
        connection = await asyncpg.connect(system.cluster.postgres_url(service))
        try:
            await connection.execute(
                "INSERT INTO outbox (id, aggregatetype, aggregateid, type, sequence, payload,"
                " headers, created_at) VALUES ($1, $2, $3, 'too.large.v1', 1, $4, $5, now())",
                new_id(),
                topic,
                subject,
                bytes(2 * 1_048_576),
                json.dumps({"type": "too.large.v1"}),
            )
        finally:
            await connection.close()
    await _sign_up(system)


STIMULI: Final = (
    Stimulus("sign-ups", _sign_up),
    Stimulus("a chunk that fails", _fail_together),
    Stimulus("an event that nobody understands", _publish_what_nobody_understands),
    Stimulus("a row that Kafka refuses", _add_what_kafka_refuses),
)


Reached = Mapping[str, Mapping[str, Sequence[Stimulus]]]
"""For each failpoint, the services that pass it, and upon what."""
