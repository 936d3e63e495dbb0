"""Signs people up on the running system and follows them, one by one or at a rate."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from math import inf
from typing import Final
from uuid import UUID

import aiohttp
import asyncpg

from benchmarks.bench import Bench, Program
from benchmarks.following import Following, Journey, following
from benchmarks.processors import used_s

OURS: Final = ("users", "accounts", "audit", "notification", "gateway")
# The cheapest parameters of Argon2; everything else has its defaults.
CHEAP_HASH: Final = {"argon2_memory_kib": "8", "argon2_passes": "1"}

_WITHIN_S: Final = 30.0
_RETRY_AFTER_S: Final = 0.2
_WARM_UP: Final = 8
_WARM_UP_ROUNDS_AT_MOST: Final = 8
_AS_FLAT_AS: Final = 0.95
_SENDERS: Final = 16
_DRAINED_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.02
# The sign-up itself, an account opened, two tasks created.
_EVENTS_OF_A_SIGN_UP: Final = 4
# Not the records themselves: to count them is work for the database that is measured.
_KEPT: Final = """
    SELECT coalesce(sum(next_offset), 0)::bigint FROM progress WHERE topic NOT LIKE '%.operations'
"""
_UNSENT: Final = "SELECT EXISTS (SELECT FROM deliveries WHERE state <> 'sent')"

SignUp = Callable[[str], Awaitable[UUID]]
"""Signs up a user of this name, and returns the user's id with the answer."""


@asynccontextmanager
async def through_gateway(bench: Bench) -> AsyncIterator[SignUp]:
    """Sign up over HTTP; a request that is answered 503 is repeated, and that takes time."""
    url = f"{bench.cluster.gateway_url}/users"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def sign_up(name: str) -> UUID:
            mail = f"{name}@example.com"
            body = {"username": name, "email": mail, "password": "correct horse battery"}
            while True:
                async with session.post(url, json=body) as answer:
                    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                        answer.raise_for_status()
                        return UUID((await answer.json())["id"])
                await asyncio.sleep(_RETRY_AFTER_S)

        yield sign_up


@asynccontextmanager
async def cheap_hash(bench: Bench) -> AsyncIterator[Program]:
    """Run the users service with the cheapest password hash during the block."""
    cluster = bench.cluster
    await asyncio.to_thread(cluster.stop, "users")
    try:
        environment = bench.environment("users", **CHEAP_HASH)
        async with bench.program(["users_service"], environment) as program:
            await untroubled(bench)
            yield program
    finally:
        await asyncio.to_thread(cluster.resume, "users")
        await untroubled(bench)


async def untroubled(bench: Bench) -> None:
    """Wait until every service is ready and reports no trouble."""
    async with asyncio.timeout(_WITHIN_S), aiohttp.ClientSession() as session:
        for name in OURS:
            url = bench.cluster.health_url(name)
            while not await _is_untroubled(session, url):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _is_untroubled(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health/ready") as answer:
            return answer.status == 200 and not (await answer.json()).get("troubles")
    except aiohttp.ClientConnectionError:
        return False


@asynccontextmanager
async def followed(
    bench: Bench, urls: Mapping[str, str] | None = None, *, every_s: float = 0.001
) -> AsyncIterator[Following]:
    """Follow sign-ups to the stand-in for Slack, and through databases.

    :param urls: of users, accounts and audit; by default those of the running system
    """
    names = ("users", "accounts", "audit")
    urls = urls or {name: bench.cluster.postgres_url(name) for name in names}
    slack = bench.cluster.directory / "slack" / "messages.jsonl"
    async with following(urls, slack, every_s=every_s) as it:
        yield it


async def _travel(journey: Journey, sign_up: SignUp, follow: Following) -> Journey:
    follow.began(journey)
    follow.answered(journey, await sign_up(journey.username))
    async with asyncio.timeout(_WITHIN_S):
        await journey.whole.wait()
    return journey


def _a_name() -> str:
    return f"u.{secrets.token_hex(6)}"


async def one_by_one(sign_up: SignUp, follow: Following, count: int) -> list[Journey]:
    """Return so many journeys, one at a time, after some that only warm up."""
    journeys = []
    for _ in range(_WARM_UP + count):
        journeys.append(await _travel(Journey(_a_name(), time.monotonic()), sign_up, follow))
        # Random pauses, so that sign-ups are not in step with any timer.
        await asyncio.sleep(random.uniform(0.03, 0.08))  # noqa: S311
    return journeys[_WARM_UP:]


async def arriving(
    sign_up: SignUp, follow: Following, *, per_s: float, for_s: float, followed_per_s: float = 20
) -> list[Journey]:
    """Send sign-ups evenly, however long each takes; follow some of them, and the last.

    A journey begins when its sign-up was due, so that the delay of a late sender counts too.
    """
    count = max(1, round(per_s * for_s))
    every = max(1, round(per_s / followed_per_s))
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        travelling = []
        for number in range(count):
            due_s = began_s + number / per_s
            await asyncio.sleep(due_s - time.monotonic())
            if number % every == 0 or number == count - 1:
                journey = Journey(_a_name(), due_s)
                travelling.append(group.create_task(_travel(journey, sign_up, follow)))
            else:
                group.create_task(_send(sign_up))
    return [each.result() for each in travelling]


async def many_at_once(
    sign_up: SignUp, follow: Following, *, under_way: int, for_s: float
) -> float:
    """Return how many journeys a second are complete while so many are always under way."""
    began_s = time.monotonic()

    async def one_after_the_other() -> int:
        complete = 0
        while time.monotonic() < began_s + for_s:
            await _travel(Journey(_a_name(), time.monotonic()), sign_up, follow)
            complete += 1
        return complete

    complete = sum(await asyncio.gather(*(one_after_the_other() for _ in range(under_way))))
    return complete / (time.monotonic() - began_s)


async def as_fast_as_possible(
    sign_up: SignUp, follow: Following, *, senders: int, for_s: float
) -> float:
    """Return how many sign-ups a second have all their effects when so many senders never pause."""
    began_s = time.monotonic()
    sent = await _never_pausing(sign_up, senders, for_s)
    # When the last one has all its effects, those before it have too.
    last = await _travel(Journey(_a_name(), time.monotonic()), sign_up, follow)
    return (sent + 1) / (max(last.seen_at_s.values()) - began_s)


async def _never_pausing(sign_up: SignUp, senders: int, for_s: float) -> int:
    ends_s = time.monotonic() + for_s

    async def send() -> int:
        sent = 0
        while time.monotonic() < ends_s:
            await _send(sign_up)
            sent += 1
        return sent

    return sum(await asyncio.gather(*(send() for _ in range(senders))))


async def _send(sign_up: SignUp) -> None:
    await sign_up(_a_name())


async def warm_up(bench: Bench) -> None:
    """Run sign-ups until Kafka's JVM needs no less processor time for one than before.

    No figure is about warming up a JVM or a cache.
    """
    kafka = bench.cluster.processes()["kafka"].pid
    async with cheap_hash(bench), through_gateway(bench) as sign_up:
        least_s = inf
        for _ in range(_WARM_UP_ROUNDS_AT_MOST):
            before_s = used_s(kafka)
            sent = await _never_pausing(sign_up, _SENDERS, 15 if bench.full else 8)
            each_s = (used_s(kafka) - before_s) / sent
            if each_s > _AS_FLAT_AS * least_s:
                break
            least_s = min(least_s, each_s)
        await drained(bench)


async def drained(bench: Bench) -> None:
    """Wait until every sign-up has all its effects, down to the last audit record."""
    urls = [bench.cluster.postgres_url(each) for each in ("users", "audit", "notification")]
    users, audit, notification = [await asyncpg.connect(each) for each in urls]
    try:
        async with asyncio.timeout(_DRAINED_WITHIN_S):
            signed_up = await users.fetchval("SELECT count(*) FROM users WHERE sequence = 1")
            while await audit.fetchval(_KEPT) < _EVENTS_OF_A_SIGN_UP * signed_up:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
            while await notification.fetchval(_UNSENT):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        for each in (users, audit, notification):
            each.terminate()
