"""Commands over HTTP: how many a second one process answers, beside bare routes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from benchmarks.accounts import opened
from benchmarks.asking import Requests, answered, keys, token, until_it_answers
from benchmarks.bench import Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.signing_up import CHEAP_HASH
from chassis.correlation import new_id
from local_cluster.ports import free_port

_ACCOUNTS: Final = 1_000
_ENTRIES: Final = 10


def _get(path: str, token: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"


def _sign_up() -> str:
    body = '{"username":"u.{n}","email":"u.{n}@example.com","password":"correct horse battery"}'
    # A number of {n} has 12 digits.
    length = len(body) + 2 * (12 - len("{n}"))
    head = f"POST /users HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n{body}"


def _written(bench: Bench, users: Sequence[UUID]) -> Sequence[Requests]:
    someone = token(bench, new_id())
    kinds = {
        ("sign_up", 201): [_sign_up()],
        # By its owner: an operator's read is an event too.
        ("account_read", 200): [
            _get(f"/users/{each}/account", token(bench, each)) for each in users
        ],
        # Another user's profile is answered 404 without a query: only the token is checked.
        ("token_check", 404): [_get(f"/users/{new_id()}", someone)],
    }
    return [
        Requests.written(bench, name, status, requests)
        for (name, status), requests in kinds.items()
    ]


async def _measured(bench: Bench, ports: Mapping[str, int], users: Sequence[UUID]) -> Values:
    found: dict[str, float] = {}
    for each in await asyncio.to_thread(_written, bench, users):
        found |= await answered(bench, ports[each.name], each)
    return found


@asynccontextmanager
async def _databases(bench: Bench) -> AsyncIterator[tuple[str, str, Sequence[UUID]]]:
    users, accounts = [await bench.database(f"{each}_service") for each in ("users", "accounts")]
    yield users, accounts, await opened(accounts, _ACCOUNTS, transactions=_ENTRIES)


async def ours(bench: Bench) -> Values:
    async with _databases(bench) as (users_url, accounts_url, opened):
        users = bench.environment("users", database_url=users_url, roles="api", **CHEAP_HASH)
        accounts = bench.environment("accounts", database_url=accounts_url, roles="api")
        async with bench.program(["users_service"], users):
            await until_it_answers(f"{bench.cluster.url('users')}/health/ready")
            async with bench.program(["accounts_service"], accounts):
                await until_it_answers(f"{bench.cluster.url('accounts')}/health/ready")
                port, other = int(users["USERS_HTTP_PORT"]), int(accounts["ACCOUNTS_HTTP_PORT"])
                ports = {"sign_up": port, "token_check": port, "account_read": other}
                return await _measured(bench, ports, opened)


async def floor(bench: Bench) -> Values:
    async with _databases(bench) as (users_url, accounts_url, opened):
        port = free_port()
        environment = {
            "USERS_URL": users_url,
            "ACCOUNTS_URL": accounts_url,
            "KEYS": json.dumps(await keys(bench).published()),
        }
        argv = ["benchmarks.programs.bare_api", str(port)]
        async with bench.program(argv, environment):
            await until_it_answers(f"http://127.0.0.1:{port}/nothing")
            ports = dict.fromkeys(("sign_up", "account_read", "token_check"), port)
            return await _measured(bench, ports, opened)


_FLOOR: Final = "bare FastAPI and asyncpg"
_KINDS: Final = {
    "sign_up": "sign-ups, without the password hash",
    "account_read": "accounts read, each with ten transactions",
    "token_check": "requests that are refused after their token was verified",
}
_AT_LEAST: Final = {"sign_up": 0.4, "account_read": 0.6, "token_check": 0.5}

FIGURES: Final = (
    Figure(
        name="http",
        title="Commands over HTTP",
        work="One service process without relay and consumers, called directly over 16 connections"
        " that never pause: 1.5 s for each kind of request, 10 s in full runs.",
        metrics=[
            metric
            for name, what in _KINDS.items()
            for metric in (
                Metric(f"{name}_per_s", "1/s", what, more_is_better=True),
                Metric(f"{name}_p50_ms", "ms", what),
            )
        ],
        sides=[
            Side("ours", Kind.OURS, ours),
            Side(
                _FLOOR,
                Kind.FLOOR,
                floor,
                does_less="the same statements and isolation, the same token library and server;"
                " no password hash, idempotency keys, problems, correlation ids, metrics or traces",
            ),
        ],
        goals=[
            Goal(f"{name}_per_s", at_least=share, against=_FLOOR)
            for name, share in _AT_LEAST.items()
        ],
    ),
)
