"""Work, and failures of work, that bring processes to their failpoints."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx

from chassis.correlation import new_id
from tests.declared import declared
from tests.e2e.events import publish, signed_up, with_invalid_data
from tests.e2e.people import poll, token_of
from tests.faults.bank import Bank
from tests.faults.harness import System
from tests.faults.timer_process import fire_timers
from verification.addresses import SERVICES as WITH_DATABASE


@dataclass(frozen=True, slots=True)
class Stimulus:
    """An action on a system; ``do`` returns when it is done, and its effects come later."""

    name: str
    do: Callable[[System], Awaitable[None]]


async def _sign_up(system: System) -> None:
    await system.workload.sign_up(20)


async def _fail_chunks(system: System) -> None:
    """Let a chunk of every consumer fail, so that it is handled event by event."""
    for each in WITH_DATABASE:
        system.failpoints.arm("chunk.before-commit", "raise", service=each)
    await _sign_up(system)


async def _publish_invalid_event(system: System) -> None:
    """Publish an event that every subscriber parks."""
    subject = uuid4()
    system.made_up.add(str(subject))
    event = signed_up(subject, 1, subject, "ahead")
    await publish(system.cluster, [with_invalid_data(event)])


async def _add_what_kafka_refuses(system: System) -> None:
    """Append a row that is larger than its topic allows, among others."""
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
    """Let an operator do every act once, at every service."""
    await _publish_invalid_event(system)
    operator = await poll(lambda: _sign_in(system))
    async with httpx.AsyncClient(timeout=10, headers=operator) as client:
        await asyncio.gather(*(_act(client, f"{system.cluster.url(s)}/ops") for s in WITH_DATABASE))


async def _sign_in(system: System) -> dict[str, str]:
    try:
        async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=10) as gateway:
            return await token_of(
                gateway, system.cluster.operator, system.cluster.operator_password
            )
    except (httpx.TransportError, AssertionError):
        return {}


async def _act(client: httpx.AsyncClient, ops: str) -> None:
    """Pause and resume one subscriber, let it park; release each parked event, else discard it."""
    first = (await answered(client.get, f"{ops}/progress"))["subscribers"][0]
    subscriber = {
        "subscriber": first["subscriber"],
        "topic": first["topic"],
        "why": "to see it crash",
    }
    await answered(client.post, f"{ops}/progress/pause", json=subscriber)
    await answered(client.post, f"{ops}/progress/resume", json=subscriber)
    topic = {"topic": first["topic"], "why": subscriber["why"]}
    await answered(client.post, f"{ops}/progress/park-all", json=topic)
    for parked in (await answered(client.get, f"{ops}/parked"))["parked"]:
        for act in ("release", "discard"):
            why = {"why": subscriber["why"]}
            await answered(client.post, f"{ops}/parked/{parked['id']}/{act}", json=why)


async def _hold(system: System) -> None:
    """Let topics look as if they were made again; then an operator ends each hold."""
    made_up = uuid4()
    for service in WITH_DATABASE:
        await _query(
            system,
            service,
            "UPDATE progress SET topic_id = $1 WHERE topic IN ('users.user', 'accounts.account')",
            made_up,
        )
    await _sign_up(system)
    operator = await poll(lambda: _sign_in(system))
    async with httpx.AsyncClient(timeout=10, headers=operator) as client:
        await asyncio.gather(*(_end_holds(system, client, s, made_up) for s in WITH_DATABASE))


async def _end_holds(
    system: System, client: httpx.AsyncClient, service: str, made_up: UUID
) -> None:
    """Have every subscriber continue where it was, until none is at the topic that never was."""

    async def are_ended() -> bool:
        rows = await _query(
            system,
            service,
            "SELECT subscriber, topic, partition, next_offset AS offset, held_because"
            " FROM progress WHERE topic_id = $1",
            made_up,
        )
        for row in rows:
            held = dict(row)
            if held.pop("held_because") is not None:
                more = {"continue_from": "offset", "why": "it is the same topic"}
                await answered(
                    client.post,
                    f"{system.cluster.url(service)}/ops/progress/end-hold",
                    json=held | more,
                )
        return not rows

    await poll(are_ended)


async def _query(system: System, service: str, query: str, *values: object) -> Sequence[Any]:
    connection = await asyncpg.connect(system.cluster.postgres_url(service))
    try:
        return await connection.fetch(query, *values)
    finally:
        await connection.close()


async def answered(
    request: Callable[..., Awaitable[httpx.Response]], *args: Any, **more: Any
) -> Any:
    """Repeat a request until it is answered; an act that was done already is refused."""

    async def answer() -> httpx.Response | None:
        try:
            answer = await request(*args, **more)
        except httpx.TransportError:
            return None
        return None if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR else answer

    answered = await poll(answer)
    assert answered is not None
    return answered.json() if answered.content else {}


async def _fire_timers(system: System) -> None:
    await fire_timers(system.cluster.postgres_url("users"))


async def _move_money(system: System) -> None:
    """Have two people move money, and a hold expire."""
    bank = Bank(system, random.Random(0))  # noqa: S311 - it must be repeatable, not secret
    async with httpx.AsyncClient() as client:
        await bank.open(client, 2)
        for _ in range(5):
            await bank.move(client)
        assert not bank.wrong, bank.wrong
        payer = await bank.hold_that_expires(client)

    async def is_expired() -> bool:
        held = "SELECT FROM accounts WHERE id = $1 AND held > 0"
        return not await _query(system, "accounts", held, payer)

    await poll(is_expired)


async def _purge(system: System) -> None:
    """Let the retention of some finished deliveries end, and wait until they are purged."""
    old = await _query(
        system,
        "notification",
        "UPDATE deliveries SET updated_at = now() - interval '1000 d' WHERE id IN"
        " (SELECT id FROM deliveries WHERE next_attempt_at IS NULL ORDER BY id LIMIT 10)"
        " RETURNING id",
    )

    async def are_purged() -> bool:
        left = "SELECT FROM deliveries WHERE id = ANY($1)"
        return not await _query(system, "notification", left, [row["id"] for row in old])

    await poll(are_purged)


STIMULI: Final = (
    Stimulus("sign-ups", _sign_up),
    Stimulus("a chunk that fails", _fail_chunks),
    Stimulus("an event with invalid data", _publish_invalid_event),
    Stimulus("a row that Kafka refuses", _add_what_kafka_refuses),
    Stimulus("an operator's acts", _operate),
    Stimulus("topics that were made again", _hold),
    Stimulus("timers that are due", _fire_timers),
    Stimulus("money that moves", _move_money),
    *(
        Stimulus("deliveries whose retention has ended", _purge)
        for _notification in declared("notification")
    ),
)


Reached = Mapping[str, Mapping[str, Sequence[Stimulus]]]
"""For each failpoint: the services that pass it, and the stimuli that bring them there."""
