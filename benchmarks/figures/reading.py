"""Reading an account over HTTP: unchanged since the last time, and all of its history as CSV."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import aiohttp

from benchmarks.accounts import answering, opened
from benchmarks.asking import Requests, answered, token
from benchmarks.bench import Bench, Program
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values

_ACCOUNTS: Final = 1_000
_ENTRIES: Final = 10
_LOOK_EVERY_S: Final = 0.02


async def _ours(bench: Bench) -> Values:
    url = await bench.database("accounts_service")
    ids = await opened(url, _ACCOUNTS, transactions=_ENTRIES)
    lines = 1_000_000 if bench.full else 50_000
    bench.say(f"  one account with {lines:,} transactions")
    [large] = await opened(url, 1, transactions=lines)
    found: dict[str, float] = {}
    async with (
        answering(bench, url) as (program, port),
        aiohttp.ClientSession(bench.cluster.url("accounts")) as client,
    ):
        for each in await _written(bench, client, ids):
            found |= await answered(bench, port, each)
        found |= await _as_csv(program, client, large, token(bench, large), lines)
    return found


async def _written(
    bench: Bench, client: aiohttp.ClientSession, ids: Sequence[UUID]
) -> Sequence[Requests]:
    read, unchanged = [], []
    for id_ in ids:
        path = f"/accounts/{id_}"
        authorization = f"Bearer {token(bench, id_)}"
        async with client.get(path, headers={"Authorization": authorization}) as answer:
            answer.raise_for_status()
            tag = answer.headers["ETag"]
        head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {authorization}\r\n"
        read.append(f"{head}\r\n")
        unchanged.append(f"{head}If-None-Match: {tag}\r\n\r\n")
    return (
        Requests.written(bench, "read", 200, read),
        Requests.written(bench, "unchanged", 304, unchanged),
    )


async def _as_csv(
    program: Program, client: aiohttp.ClientSession, account: UUID, bearer: str, lines: int
) -> dict[str, float]:
    """Read all transactions of an account, and watch the memory of the process that sends them."""
    before_mb = most_mb = program.resident_mb
    received, looked_s = 0, 0.0
    began_s = time.monotonic()
    async with client.get(
        f"/accounts/{account}/transactions.csv",
        headers={"Authorization": f"Bearer {bearer}"},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as answer:
        answer.raise_for_status()
        async for part in answer.content.iter_any():
            received += part.count(b"\n")
            if time.monotonic() - looked_s > _LOOK_EVERY_S:
                looked_s = time.monotonic()
                most_mb = max(most_mb, await asyncio.to_thread(lambda: program.resident_mb))
    took_s = time.monotonic() - began_s
    if received != lines + 1:
        raise AssertionError(f"{received} lines were received of {lines} and the head")
    return {"csv_lines_per_s": lines / took_s, "csv_growth_mb": most_mb - before_mb}


FIGURES: Final = (
    Figure(
        name="reading",
        title="Reading an account",
        work=f"One process of the accounts service, called directly: {_ACCOUNTS:,} accounts of"
        f" {_ENTRIES} transactions over 16 connections that never pause, without and with"
        " `If-None-Match`; then one account of 50,000 transactions (a million in full runs) as"
        " CSV.",
        metrics=[
            Metric("read_per_s", "1/s", "accounts with ten transactions", more_is_better=True),
            Metric("read_p50_ms", "ms", "accounts with ten transactions"),
            Metric("unchanged_per_s", "1/s", "answers 304", more_is_better=True),
            Metric("unchanged_p50_ms", "ms", "answers 304"),
            Metric("csv_lines_per_s", "1/s", "transactions as CSV", more_is_better=True),
            Metric("csv_growth_mb", "MB", "memory that the process took meanwhile, at most"),
        ],
        sides=[Side("ours", Kind.OURS, _ours)],
        goals=[
            Goal("unchanged_per_s", at_least=1.0, against_metric="read_per_s"),
            Goal("csv_growth_mb", at_most=30),
        ],
        full_repeats=2,
    ),
)
