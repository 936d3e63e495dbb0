"""Sends a file of requests to a process over kept connections, and says how many it answered."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

import aiohttp

from benchmarks.bench import Bench
from users_service.adapters.access_tokens import SignedAccessTokens
from users_service.adapters.signing_keys import SigningKeys

CONNECTIONS: Final = 16
_READY_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Requests:
    """One kind of request: which file has them, and which status answers them."""

    name: str
    status: int
    file: Path

    @classmethod
    def written(cls, bench: Bench, name: str, status: int, raw: Sequence[str]) -> "Requests":
        """Write raw requests of HTTP/1.1 to a file."""
        file = bench.directory / bench.name(f"{name}.requests")
        file.write_text("".join(f"{json.dumps(each)}\n" for each in raw))
        return cls(name, status, file)


@cache
def keys(bench: Bench) -> SigningKeys:
    """Return the keys of the cluster's users service."""
    return SigningKeys(
        bench.cluster.directory / "keys",
        published_ahead=timedelta(0),
        now=lambda: datetime.now(UTC),
    )


def token(bench: Bench, user_id: UUID) -> str:
    """Return an access token of a user."""
    tokens = SignedAccessTokens(
        keys(bench), issuer="users", audience="onboarding", lifetime=timedelta(hours=12)
    )
    return tokens.issue(user_id, frozenset(), datetime.now(UTC)).text


async def answered(
    bench: Bench, port: int, requests: Requests, *, connections: int = CONNECTIONS
) -> dict[str, float]:
    """Send requests in turn over connections that never pause.

    :return: ``per_s`` and ``p50_ms``, each after the name of the requests
    """
    seconds = 10.0 if bench.full else 1.5
    argv = [port, connections, seconds, requests.status, requests.file]
    load = ["benchmarks.programs.http_load", *map(str, argv)]
    async with bench.program(load) as program:
        answer = json.loads(await program.line())
    return {f"{requests.name}_{name}": value for name, value in answer.items()}


async def until_it_answers(url: str) -> None:
    """Wait until a process answers without an error of its own."""
    async with asyncio.timeout(_READY_WITHIN_S), aiohttp.ClientSession() as session:
        while not await _answers(session, url):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status < 500
    except aiohttp.ClientConnectionError:
        return False
