"""What only an operator ends: a batch whose bit was flipped on the disk, a topic that is held."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import httpx
from aiokafka import AIOKafkaProducer

from contracts.topics import USERS_USER
from tests.e2e.people import token_of
from tests.faults.bad_bytes import event, headers_of
from tests.faults.databases import rows
from tests.faults.harness import System
from tests.faults.watch import stopped, watching
from tests.segments import flip_a_bit

READERS: Final = USERS_USER.consumers


async def reported_by_all(system: System, reason: str) -> None:
    async with watching(system) as watch:
        for each in READERS:
            await watch.until_reported(each, "agents", reason)


async def publish(
    system: System, producer: AIOKafkaProducer, partition: int | None = None
) -> tuple[str, int]:
    """Publish a good event of somebody who did not sign up; return its subject and its offset."""
    attributes = event(USERS_USER, uuid4())
    subject = str(attributes["subject"])
    system.made_up.add(subject)
    sent = await producer.send_and_wait(
        USERS_USER.name,
        json.dumps(attributes).encode(),
        subject.encode(),
        partition,
        headers=headers_of(attributes),
    )
    return subject, sent.offset


async def damage_one_batch(system: System, broker: str) -> int:
    """Publish three events, each in a batch of its own; return the offset of the damaged one."""
    producer = AIOKafkaProducer(bootstrap_servers=system.cluster.kafka_bootstrap)
    await producer.start()
    try:
        offsets = [(await publish(system, producer, 0))[1] for _ in range(3)]
    finally:
        await producer.stop()
    if broker == "stopped":
        async with stopped(system, "kafka"):
            flip_a_bit(system.cluster.directory, USERS_USER.name, 0, offsets[1])
    else:
        flip_a_bit(system.cluster.directory, USERS_USER.name, 0, offsets[1])
    return offsets[1]


async def skip(system: System, service: str, offset: int) -> None:
    """Let an operator of a service skip the batch at an offset."""
    async with operating(system) as client:
        answer = await client.post(**skipping(system, service, offset))
    assert answer.is_success, answer.text


@asynccontextmanager
async def operating(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that is signed in as an operator."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=30) as client:
        client.headers.update(
            await token_of(client, system.cluster.operator, system.cluster.operator_password)
        )
        yield client


def skipping(system: System, service: str, offset: int) -> dict[str, Any]:
    """Return the request that skips the batch at an offset."""
    return {
        "url": f"{system.cluster.url(service)}/ops/progress/skip-batch",
        "json": {
            "topic": USERS_USER.name,
            "partition": 0,
            "offset": offset,
            "why": "A bit of it was flipped.",
        },
    }


async def end_holds(system: System, services: Sequence[str]) -> None:
    """Let an operator of each service continue from the beginning wherever it is held."""
    async with operating(system) as client:
        for service in services:
            held = await rows(
                system,
                service,
                "SELECT subscriber, topic, partition FROM progress WHERE held_because IS NOT NULL",
            )
            assert held
            for row in held:
                answer = await client.post(
                    f"{system.cluster.url(service)}/ops/progress/end-hold",
                    json=dict(row) | {"continue_from": "beginning", "why": "It was made again."},
                )
                assert answer.is_success, answer.text
