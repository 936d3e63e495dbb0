"""What brings processes to their failpoints: plain work, and what goes wrong with it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx
from aiokafka import AIOKafkaProducer

from chassis.correlation import new_id
from contracts.envelope import encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from tests.e2e.people import eventually, token_of
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


async def _operate(system: System) -> None:
    """Let an operator act on everything that can be acted on, at every service."""
    await _publish_what_nobody_understands(system)
    operator = await eventually(lambda: _sign_in(system))
    async with httpx.AsyncClient(timeout=10, headers=operator) as client:
        await asyncio.gather(*(_act(client, f"{system.cluster.url(s)}/ops") for s in CONSUMERS))


async def _sign_in(system: System) -> dict[str, str]:
    try:
        async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=10) as gateway:
            return await token_of(
                gateway, system.cluster.operator, system.cluster.operator_password
            )
    except (httpx.TransportError, AssertionError):
        return {}


async def _act(client: httpx.AsyncClient, ops: str) -> None:
    """Pause and resume one subscriber; release all that is parked, and discard what stays so."""
    first = (await _answered(client.get, f"{ops}/progress"))["subscribers"][0]
    it = {"subscriber": first["subscriber"], "topic": first["topic"], "why": "to see it crash"}
    await _answered(client.post, f"{ops}/progress/pause", json=it)
    await _answered(client.post, f"{ops}/progress/resume", json=it)
    for parked in (await _answered(client.get, f"{ops}/parked"))["parked"]:
        for act in ("release", "discard"):
            why = {"why": it["why"]}
            await _answered(client.post, f"{ops}/parked/{parked['id']}/{act}", json=why)


async def _answered(ask: Callable[..., Awaitable[httpx.Response]], *args: Any, **more: Any) -> Any:
    """Ask until there is an answer, as an operator would; what was done already is refused."""

    async def answer() -> httpx.Response | None:
        try:
            answer = await ask(*args, **more)
        except httpx.TransportError:
            return None
        return None if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else answer

    answered = await eventually(answer)
    assert answered is not None
    return answered.json() if answered.content else {}


STIMULI: Final = (
    Stimulus("sign-ups", _sign_up),
    Stimulus("a chunk that fails", _fail_together),
    Stimulus("an event that nobody understands", _publish_what_nobody_understands),
    Stimulus("a row that Kafka refuses", _add_what_kafka_refuses),
    Stimulus("an operator's acts", _operate),
)


Reached = Mapping[str, Mapping[str, Sequence[Stimulus]]]
"""For each failpoint, the services that pass it, and upon what."""
