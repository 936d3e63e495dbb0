"""The users service as a process of its own, and its commands."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
from pydantic import SecretStr

from users_service.settings import UsersSettings

DEADLINE_S = 60


def environment_of(settings: UsersSettings) -> dict[str, str]:
    """Return the environment of a process with these settings."""
    variables = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        variables[f"USERS_{name.upper()}"] = str(
            value.get_secret_value() if isinstance(value, SecretStr) else value
        )
    return os.environ | variables


async def run(settings: UsersSettings, *arguments: str) -> tuple[int, str, str]:
    """Run a command to its end; return its exit code, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "users_service", *arguments),
        env=environment_of(settings),
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


class Service:
    """The running service: a client for it, and its log."""

    def __init__(self) -> None:
        self.client = httpx.AsyncClient()
        self.log = ""
        self.exit_code: int | None = None

    async def token(self, name: str, password: str) -> dict[str, str]:
        answer = await self.client.post(
            "/auth/token", data={"username": name, "password": password}
        )
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@asynccontextmanager
async def serving(settings: UsersSettings) -> AsyncIterator[Service]:
    """Run the service, ready, during the block; then stop it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "users_service"), env=environment_of(settings), stderr=PIPE
    )
    service = Service()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def read_log() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            service.log += line.decode()
            if b'"event": "listening"' in line:
                listening.set_result(json.loads(line)["port"])
        if not listening.done():
            listening.set_exception(AssertionError(service.log))

    reading = asyncio.create_task(read_log())
    try:
        async with asyncio.timeout(DEADLINE_S):
            base_url = f"http://127.0.0.1:{await listening}"
            async with httpx.AsyncClient(base_url=base_url) as service.client:
                await until(lambda: _is_ready(service.client))
                yield service
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            await reading
            service.exit_code = await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).status_code == 200


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - another process brings it about
            await asyncio.sleep(0.05)
