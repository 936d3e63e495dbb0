"""What each process needs: memory, idle and after many events, and time until it is ready."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
from aiohttp import web

from benchmarks.bench import Bench, Program
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.ingest import empty_database
from benchmarks.logs import Log, sign_ups
from local_cluster.ports import free_port
from users_service.adapters.signing_keys import SigningKeys

_CONSUMERS: Final = ("users", "accounts", "audit", "notification")
_READY_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.02
_SETTLE_S: Final = 1.0
_STANDSTILL_S: Final = 60.0
# Of the events: by then what is filled once, such as caches, is full.
_WARM_UP: Final = 0.1
_DONE: Final = "SELECT coalesce(sum(next_offset), 0)::bigint FROM progress"


def _count(bench: Bench) -> int:
    return 1_000_000 if bench.full else 20_000


@asynccontextmanager
async def _answering(bench: Bench) -> AsyncIterator[str]:
    """Answer in place of the other processes: with the keys that verify tokens, and as Slack.

    So each process is alone on the machine. Yields the URL.
    """
    published = await SigningKeys(
        bench.cluster.directory / "keys",
        published_ahead=timedelta(0),
        now=lambda: datetime.now(UTC),
    ).published()

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(published | {"ok": True, "ts": "1.000001"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def _ready_s(program: Program, port: int) -> float:
    """Return how long it takes from now until the process is ready."""
    began_s = time.monotonic()
    async with asyncio.timeout(_READY_WITHIN_S), aiohttp.ClientSession() as session:
        while not await _is_ready(session, f"http://127.0.0.1:{port}/health/ready"):
            program.check()
            await asyncio.sleep(_LOOK_EVERY_S)
    return time.monotonic() - began_s


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def _consumer(bench: Bench, name: str, log: Log, others_url: str) -> Values:
    """Let a service, alone on the machine, handle all sign-ups of a log."""
    port = free_port()
    others = {"jwks_url": f"{others_url}/jwks.json", "slack_base_url": f"{others_url}/api/"}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(empty_database(bench, name))
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        environment = bench.environment(name, database_url=url, http_port=str(port), **others)
        argv = ["benchmarks.programs.service", name, log.prefix, bench.name("bench")]
        # The service can't begin before the block ends: the lock holds up its `progress` rows.
        async with connection.transaction():
            await connection.execute("LOCK TABLE progress IN SHARE ROW EXCLUSIVE MODE")
            program = await stack.enter_async_context(bench.program(argv, environment, name=name))
            start_s = await _ready_s(program, port)
            await asyncio.sleep(_SETTLE_S)
            idle_mb = program.resident_mb
        warm_mb = await _most_mb(program, connection, round(log.records * _WARM_UP))
        most_mb = await _most_mb(program, connection, log.records)
        await asyncio.sleep(_SETTLE_S)
        after_mb = program.resident_mb
    return {
        "start_s": start_s,
        "idle_mb": idle_mb,
        "after_mb": after_mb,
        "most_mb": most_mb,
        "growth": most_mb / warm_mb,
    }


async def _most_mb(program: Program, connection: "asyncpg.Connection", records: int) -> float:
    """Wait until so many records are handled, and return the most memory held until then."""
    most_mb, done, moved_s = program.resident_mb, -1, time.monotonic()
    while done < records:
        now_done = int(await connection.fetchval(_DONE))
        if now_done > done:
            done, moved_s = now_done, time.monotonic()
        if time.monotonic() - moved_s > _STANDSTILL_S:
            raise TimeoutError(f"{done} of {records} events were handled, and then no more")
        program.check()
        await asyncio.sleep(_LOOK_EVERY_S)
        most_mb = max(most_mb, program.resident_mb)
    return most_mb


async def _gateway(bench: Bench, others_url: str) -> Values:
    """Let the gateway, alone on the machine, forward requests."""
    port = free_port()
    backends = {f"{each}_url": others_url for each in _CONSUMERS}
    requests = bench.directory / bench.name("gateway.requests")
    requests.write_text(json.dumps("GET /.well-known/jwks.json HTTP/1.1\r\nHost: bench\r\n\r\n"))
    environment = bench.environment("gateway", http_port=str(port), **backends)
    async with bench.program(["gateway"], environment) as program:
        start_s = await _ready_s(program, port)
        await asyncio.sleep(_SETTLE_S)
        idle_mb = program.resident_mb
        seconds = 120 if bench.full else 2
        warm_mb = await _after_requests(bench, program, port, requests, seconds * _WARM_UP)
        after_mb = await _after_requests(bench, program, port, requests, seconds)
    return {
        "start_s": start_s,
        "idle_mb": idle_mb,
        "after_mb": after_mb,
        "most_mb": max(warm_mb, after_mb),
        "growth": after_mb / warm_mb,
    }


async def _after_requests(
    bench: Bench, program: Program, port: int, requests: Path, seconds: float
) -> float:
    argv = ["benchmarks.programs.http_load", str(port), "16", str(seconds), "200", str(requests)]
    async with bench.program(argv) as load:
        await load.line()
    return program.resident_mb


async def _run(name: str, bench: Bench) -> Values:
    async with _answering(bench) as others_url:
        if name == "gateway":
            return await _gateway(bench, others_url)
        return await _consumer(bench, name, await sign_ups(bench, _count(bench)), others_url)


_ALL: Final = (*_CONSUMERS, "gateway")

FIGURES: Final = (
    Figure(
        name="size",
        title="What each process needs",
        work="Each process alone on the machine: the time from its start until it is ready; its"
        " resident memory then, and during and after 20,000 sign-ups (a million in full runs)."
        " The gateway gets requests over 16 connections instead, for 2 s (120 s).",
        metrics=[
            Metric("start_s", "s", "from its start until it is ready"),
            Metric("idle_mb", "MB", "ready, before any work"),
            Metric("after_mb", "MB", "after all the work"),
            Metric("most_mb", "MB", "the most at any time"),
            Metric("growth", "x", "the most, divided by the most during the first tenth"),
        ],
        sides=[Side(name, Kind.OURS, partial(_run, name)) for name in _ALL],
        goals=[
            goal
            for name in _ALL
            for goal in (
                Goal("start_s", at_most=3, side=name),
                Goal("idle_mb", at_most=150, side=name),
                Goal("after_mb", at_most=150, side=name),
                Goal("growth", at_most=1.1, side=name),
            )
        ],
        repeats=1,
        # A million events each: a process that does not grow with those needs no second round.
        full_repeats=1,
    ),
)
