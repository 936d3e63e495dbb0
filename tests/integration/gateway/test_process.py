import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
from starlette.requests import Request
from starlette.types import Send

from services import FORWARDED

from .toys import AWAY, DEADLINE_S, SECRET, Toy, respond, serving, until

MIB = 1 << 20


@asynccontextmanager
async def gateway_process(**changes: object) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """Run ``python -m gateway``, and yield a client of it once it listens."""
    given = {
        "http_port": 0,
        "operators_port": 0,
        **{f"{service.identifier}_url": AWAY for service in FORWARDED},
        "forward_secret": SECRET,
    }
    environment = {f"GATEWAY_{key.upper()}": str(value) for key, value in (given | changes).items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"), env=os.environ | environment, stderr=PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            listening: dict[str, Any] = {}
            while listening.get("event") != "listening":
                listening = json.loads(await process.stderr.readline())
        reading = asyncio.create_task(process.stderr.read())
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{listening['port']}", timeout=DEADLINE_S
        ) as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert SECRET not in (await reading).decode()


class TestAStop:
    async def test_cuts_off_no_request(self) -> None:
        may_finish = asyncio.Event()

        async def slowly(_request: Request, send: Send) -> None:
            await respond(send, 200, b"first, ", more_body=True)
            await may_finish.wait()
            await send({"type": "http.response.body", "body": b"second"})

        users = Toy(answer=slowly)
        async with serving(users) as url, gateway_process(users_url=url) as (process, client):
            request = asyncio.create_task(client.get("/users/me"))
            await until(lambda: users.in_flight == 1)
            process.send_signal(signal.SIGTERM)
            await until_refused(client)
            may_finish.set()
            response = await request
            async with asyncio.timeout(DEADLINE_S):
                exit_code = await process.wait()

        assert response.content == b"first, second"
        assert exit_code == 0


async def until_refused(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await client.get("/health/live", headers={"Connection": "close"})
            except httpx.TransportError:
                return


class TestATrace:
    async def test_begins_at_the_gateway(self) -> None:
        trace, span = "a" * 32, "b" * 16
        async with (
            serving(Toy()) as url,
            gateway_process(users_url=url) as (_, client),
        ):
            response = await client.get(
                "/users/me", headers={"traceparent": f"00-{trace}-{span}-01"}
            )

        arrived = dict(response.json()["headers"])["traceparent"]
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", arrived)
        assert trace not in arrived
        assert span not in arrived


class TestALargeAnswer:
    async def test_streams_in_little_memory(self) -> None:
        size = 64 * MIB
        chunk = b"x" * MIB

        async def give(_request: Request, send: Send) -> None:
            await respond(send, 200, b"", more_body=True)
            for _ in range(size // MIB):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        async with (
            serving(Toy(answer=give)) as url,
            gateway_process(users_url=url) as (process, client),
        ):
            await client.get("/users/unknown/account")
            measured = psutil.Process(process.pid)
            before, peak, returned = measured.memory_info().rss, 0, 0
            async with client.stream("GET", "/users/me") as response:
                async for piece in response.aiter_raw():
                    returned += len(piece)
                    peak = max(peak, measured.memory_info().rss)

        assert returned == size
        assert peak - before < 16 * MIB
