"""One sign-up from the request to its last effect: on an idle cluster, and under load."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median, quantiles
from typing import Final
from uuid import UUID

import aiohttp

from benchmarks.bench import Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.following import EFFECTS, Following, Journey, following
from benchmarks.topics import fresh_topic

# The least that Argon2 does; everything else is as it is shipped.
CHEAP_HASH: Final = {"argon2_memory_kib": "8", "argon2_passes": "1"}

_WITHIN_S: Final = 30.0
_WARM_UP: Final = 8
_FLOOR: Final = "benchmarks.programs.bare_journey"

SignUp = Callable[[str], Awaitable[UUID]]
"""Signs somebody of this name up, and returns their id when that is answered."""


@asynccontextmanager
async def through_gateway(bench: Bench) -> AsyncIterator[SignUp]:
    """Sign up as people do, over HTTP."""
    url = f"{bench.cluster.gateway_url}/users"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def sign_up(name: str) -> UUID:
            mail = f"{name}@example.com"
            body = {"username": name, "email": mail, "password": "correct horse battery"}
            async with session.post(url, json=body) as answer:
                answer.raise_for_status()
                return UUID((await answer.json())["id"])

        yield sign_up


@asynccontextmanager
async def cheap_hash(bench: Bench) -> AsyncIterator[None]:
    """Have the users service hash passwords at next to no cost while the block runs."""
    cluster = bench.cluster
    await asyncio.to_thread(cluster.stop, "users")
    try:
        environment = bench.environment("users", **CHEAP_HASH)
        async with bench.program(["users_service"], environment):
            await untroubled(bench)
            yield
    finally:
        await asyncio.to_thread(cluster.resume, "users")
        await untroubled(bench)


async def untroubled(bench: Bench) -> None:
    """Wait until every service answers, and works."""
    names = ("users", "accounts", "audit", "notification", "gateway")
    async with asyncio.timeout(_WITHIN_S), aiohttp.ClientSession() as session:
        for name in names:
            while not await _is_untroubled(session, bench.cluster.url(name)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _is_untroubled(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health/ready") as answer:
            return answer.status == 200 and not (await answer.json()).get("troubles")
    except aiohttp.ClientConnectionError:
        return False


@asynccontextmanager
async def followed(bench: Bench, *, every_s: float = 0.001) -> AsyncIterator[Following]:
    """Follow sign-ups on the running system."""
    urls = {name: bench.cluster.postgres_url(name) for name in ("users", "accounts", "audit")}
    slack = bench.cluster.directory / "slack" / "messages.jsonl"
    async with following(urls, slack, every_s=every_s) as it:
        yield it


async def travel(sign_up: SignUp, follow: Following) -> Journey:
    """Sign someone up, and return when all of it has been seen."""
    journey = Journey(f"u.{secrets.token_hex(6)}", time.monotonic())
    follow.began(journey)
    follow.answered(journey, await sign_up(journey.username))
    async with asyncio.timeout(_WITHIN_S):
        await journey.whole.wait()
    return journey


async def one_by_one(sign_up: SignUp, follow: Following, count: int) -> list[Journey]:
    """Return so many journeys, one at a time, after some that do not count."""
    journeys = []
    for _ in range(_WARM_UP + count):
        journeys.append(await travel(sign_up, follow))
        # People do not come in step with anybody's timers.
        await asyncio.sleep(random.uniform(0.03, 0.08))  # noqa: S311
    return journeys[_WARM_UP:]


def percentile(values: Sequence[float], hundredths: int) -> float:
    return quantiles(values, n=100, method="inclusive")[hundredths - 1]


def figures_of(journeys: Sequence[Journey]) -> dict[str, float]:
    whole = [each.took_ms() for each in journeys]
    parts = {
        f"{effect}_p50_ms": median(each.took_ms(effect) for each in journeys) for effect in EFFECTS
    }
    answered = median(each.answered_at_s - each.began_at_s for each in journeys) * 1_000
    return {
        **{f"p{each}_ms": percentile(whole, each) for each in (50, 95, 99)},
        "answered_p50_ms": answered,
        "after_answer_p50_ms": median(
            each.took_ms() - (each.answered_at_s - each.began_at_s) * 1_000 for each in journeys
        ),
        **parts,
    }


def _count(bench: Bench) -> int:
    return 200 if bench.full else 30


async def ours(bench: Bench) -> Values:
    await untroubled(bench)
    async with through_gateway(bench) as sign_up, followed(bench) as follow:
        return figures_of(await one_by_one(sign_up, follow, _count(bench)))


async def ours_without_hash(bench: Bench) -> Values:
    async with cheap_hash(bench):
        return await ours(bench)


async def floor(bench: Bench) -> Values:
    async with AsyncExitStack() as stack:
        topics = [
            await stack.enter_async_context(fresh_topic(bench, stem))
            for stem in ("user", "task", "account")
        ]
        urls: dict[str, str] = {}
        lines: dict[str, str] = {}
        for name in ("users", "accounts", "audit", "notification"):
            urls[name] = await bench.database(f"{name}_service")
            environment = {
                "DATABASE_URL": urls[name],
                "KAFKA_BOOTSTRAP": bench.cluster.kafka_bootstrap,
                "SLACK_URL": bench.cluster.url("slack-stand-in"),
                "TOPICS": ",".join(topics),
            }
            program = await stack.enter_async_context(bench.program([_FLOOR, name], environment))
            lines[name] = await program.line()
            if name == "users":
                await program.line()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(lines["users"]))

        async def sign_up(name: str) -> UUID:
            writer.write(f"{name}\n".encode())
            return UUID((await reader.readline()).decode().strip())

        stack.callback(writer.close)
        slack = bench.cluster.directory / "slack" / "messages.jsonl"
        follow = await stack.enter_async_context(following(urls, slack))
        return figures_of(await one_by_one(sign_up, follow, _count(bench)))


WITHOUT_HASH: Final = "ours, password hash left out"
FLOOR: Final = "bare asyncpg and aiokafka, no hash, no HTTP"

JOURNEY: Final = Figure(
    name="journey",
    title="The journey of one sign-up",
    work="One sign-up at a time on an idle cluster: from sending it to the gateway until account,"
    " both tasks, the audit record and the Slack message are there. 30 of them, 200 in full runs.",
    metrics=[
        Metric("p50_ms", "ms", "from sending to the last effect"),
        Metric("p95_ms", "ms", "from sending to the last effect"),
        Metric("p99_ms", "ms", "from sending to the last effect"),
        Metric("after_answer_p50_ms", "ms", "from the answer to the last effect"),
        Metric("answered_p50_ms", "ms", "from sending to the answer"),
        *(Metric(f"{each}_p50_ms", "ms", f"from sending to: {each}") for each in EFFECTS),
    ],
    sides=[
        Side("ours", Kind.OURS, ours),
        Side(WITHOUT_HASH, Kind.OURS, ours_without_hash),
        Side(
            FLOOR,
            Kind.FLOOR,
            floor,
            does_less="the same commits and hops, in four processes on the same tables; no gateway"
            " and no HTTP but Slack's, no validation, no consumer groups, no outbox that is read",
        ),
    ],
    goals=[
        Goal("p50_ms", at_most=1.5, against=FLOOR, side=WITHOUT_HASH),
        Goal("p50_ms", at_most=60, side=WITHOUT_HASH),
    ],
    needs_services=True,
)

FIGURES: Final = (JOURNEY,)
