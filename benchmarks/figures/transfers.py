"""Transfers over HTTP, beside updates of the same server by SQL alone."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from benchmarks.accounts import answering, opened
from benchmarks.asking import CONNECTIONS, Requests, answered, token
from benchmarks.bench import Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.postgres import program_of

_ACCOUNTS: Final = 1_000
_MONEY: Final = 1_000_000_000
_REQUESTS: Final = 5_000
_HOT_CLIENTS: Final = 32
_PGBENCH: Final = "pgbench 18, simple-update"


def _transfer(payer: UUID, payee: UUID, bearer: str) -> str:
    command = {"from_account": str(payer), "to_account": str(payee), "amount": "0.01"}
    body = json.dumps(command | {"description": "A test"})
    head = f"POST /transfers HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {bearer}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"


def _written(bench: Bench, ids: Sequence[UUID]) -> tuple[Requests, Requests, Requests]:
    bearers = {id_: token(bench, id_) for id_ in ids}
    chosen = random.Random(1)  # noqa: S311 - the same accounts in each run
    pairs = [chosen.sample(ids, 2) for _ in range(_REQUESTS)]
    cold = [_transfer(payer, payee, bearers[payer]) for payer, payee in pairs]
    hot, *others = ids
    hot_only = [_transfer(hot, payee, bearers[hot]) for payee in others]
    return (
        Requests.written(bench, "cold", 201, cold),
        Requests.written(bench, "hot", 201, hot_only),
        Requests.written(bench, "alone", 201, hot_only),
    )


async def _ours(bench: Bench) -> Values:
    url = await bench.database("accounts_service")
    ids = await opened(url, _ACCOUNTS, transactions=2, minor_units=_MONEY)
    async with answering(bench, url) as (_program, port):
        cold, hot, alone = await asyncio.to_thread(_written, bench, ids)
        found = await answered(bench, port, cold)
        found |= await answered(bench, port, alone, connections=1)
        return found | await answered(bench, port, hot, connections=_HOT_CLIENTS)


async def _pgbench(bench: Bench) -> Values:
    url = await bench.database()
    program = str(program_of("pgbench"))
    async with bench.command([program, url, "-i", "-s", "10", "-q"], name="pgbench") as filling:
        if await filling.process.wait():
            filling.check()
    seconds = 10 if bench.full else 2
    argv = [program, url, "--builtin=simple-update", "--protocol=prepared", "--no-vacuum"]
    async with bench.command(
        [*argv, f"--client={CONNECTIONS}", f"--time={seconds}"], name="pgbench"
    ) as running:
        while not (line := await running.line()).startswith("tps ="):
            continue
    return {"cold_per_s": float(line.split()[2])}


FIGURES: Final = (
    Figure(
        name="transfers",
        title="Transfers over HTTP",
        work="One process of the accounts service, without relay and consumers, called directly:"
        f" transfers between {_ACCOUNTS:,} accounts over {CONNECTIONS} connections that never"
        f" pause; then out of one account by one client, and by {_HOT_CLIENTS} at once.",
        metrics=[
            Metric("cold_per_s", "1/s", "transfers between any two accounts", more_is_better=True),
            Metric("cold_p50_ms", "ms", "transfers between any two accounts"),
            Metric("alone_per_s", "1/s", "out of one account, by one client", more_is_better=True),
            Metric("alone_p50_ms", "ms", "out of one account, by one client"),
            Metric(
                "hot_per_s",
                "1/s",
                f"out of one account, by {_HOT_CLIENTS} clients",
                more_is_better=True,
            ),
            Metric("hot_p50_ms", "ms", f"out of one account, by {_HOT_CLIENTS} clients"),
        ],
        sides=[
            Side("ours", Kind.OURS, _ours),
            Side(
                _PGBENCH,
                Kind.FLOOR,
                _pgbench,
                does_less="SQL alone from a program in C: one row updated, one read and one"
                " inserted; no HTTP, token, second account, rules, outbox or events",
            ),
        ],
        goals=[
            Goal("cold_per_s", at_least=0.25, against=_PGBENCH),
            Goal("hot_per_s", at_least=1.0, against_metric="alone_per_s"),
        ],
    ),
)
