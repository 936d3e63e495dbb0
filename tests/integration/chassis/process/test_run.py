"""A service as a process: it runs its parts, stops them in order, and exits in time."""

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.certificates import Authority

DEADLINE_S = 60


class Toys:
    """The toy service as a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []
        self.stderr = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode()
            if text.startswith("{"):
                self.lines.append(json.loads(text))
            else:
                self.stderr += text

    async def port(self) -> int:
        await until(lambda: "listening" in self.events())
        return int(next(line["port"] for line in self.lines if line["event"] == "listening"))

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            await self._reading
            return await self._process.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def toys(directory: Path | None, *arguments: str, **settings: object) -> AsyncIterator[Toys]:
    environment = {f"TOYS_{name.upper()}": str(value) for name, value in settings.items()}
    if directory is not None:
        environment["TOYS_DIRECTORY"] = str(directory)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.chassis.toys", *arguments),
        env=os.environ | environment,
        stdout=PIPE,
        stderr=PIPE,
    )
    running = Toys(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.exit_code()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        yield client


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class TestRunning:
    async def test_a_process_is_live_at_once_and_ready_when_its_parts_are(
        self, tmp_path: Path, client: httpx.AsyncClient
    ) -> None:
        async with toys(tmp_path) as process:
            health = f"http://127.0.0.1:{await process.port()}/health"

            assert (await client.get(f"{health}/live")).status_code == 200
            before = await client.get(f"{health}/ready")
            (tmp_path / "charged").touch()
            after = await client.get(f"{health}/ready")

        assert (before.status_code, after.status_code) == (503, 200)
        assert before.json()["errors"][0]["message"] == "not charged yet"

    @pytest.mark.parametrize(
        ("trusted", "expected"), [("127.0.0.1", "203.0.113.7"), ("10.0.0.1", "127.0.0.1")]
    )
    async def test_only_trusted_proxies_may_forward_an_address(
        self, tmp_path: Path, client: httpx.AsyncClient, trusted: str, expected: str
    ) -> None:
        async with toys(tmp_path, trusted_proxies=trusted) as process:
            url = f"http://127.0.0.1:{await process.port()}/who"
            answer = await client.get(url, headers={"X-Forwarded-For": "203.0.113.7"})

        assert answer.json() == expected

    async def test_with_a_certificate_it_serves_https(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "authority")
        own = authority.sign("toys", "127.0.0.1")
        trusting = ssl.create_default_context(cafile=authority.ca_file)

        async with (
            toys(tmp_path, http_certificate_file=own.certificate, http_key_file=own.key) as process,
            httpx.AsyncClient(verify=trusting) as client,
        ):
            address = f"127.0.0.1:{await process.port()}/health/live"
            encrypted = await client.get(f"https://{address}")
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://{address}")

        assert encrypted.status_code == 200

    async def test_in_production_it_does_not_serve_a_network_without_one(
        self, tmp_path: Path
    ) -> None:
        everywhere = "0.0.0.0"  # noqa: S104 - it does not start
        async with toys(tmp_path, http_host=everywhere, robot="ends") as process:
            assert await process.exit_code() == 2

        *_, line = process.stderr.splitlines()
        assert line.startswith("TOYS_HTTP_CERTIFICATE_FILE: is not set")

    async def test_a_part_that_fails_ends_the_process_and_its_error_is_logged(
        self, tmp_path: Path
    ) -> None:
        async with toys(tmp_path, robot="fails") as process:
            assert await process.exit_code() == 1

        (line,) = (line for line in process.lines if line["event"] == "part ended unasked")
        assert line["part"] == "robot"
        assert "RuntimeError: out of batteries" in line["exception"]
        assert (tmp_path / "closed").exists()

    async def test_a_part_that_ends_by_itself_ends_the_process(self, tmp_path: Path) -> None:
        async with toys(tmp_path, robot="ends") as process:
            assert await process.exit_code() == 1

        assert "part ended unasked" in process.events()


class TestStopping:
    async def test_an_open_request_is_answered_completely(
        self, tmp_path: Path, client: httpx.AsyncClient
    ) -> None:
        async with toys(tmp_path) as process:
            port = await process.port()
            request = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/slow"))
            await until((tmp_path / "started").exists)
            process.send(signal.SIGTERM)
            await until(lambda: not accepts(port))
            assert not (tmp_path / "robot-ended").exists()
            (tmp_path / "release").touch()

            answer = await request
            assert await process.exit_code() == 0

        assert (answer.status_code, answer.json()) == (200, "whole " * 100)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_the_parts_stop_before_what_they_need_is_closed(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        async with toys(tmp_path) as process:
            await process.port()
            process.send(number)
            assert await process.exit_code() == 0

        assert (tmp_path / "closed").read_text() == "after the robot"

    async def test_a_request_that_never_ends_is_cut_in_time(
        self, tmp_path: Path, client: httpx.AsyncClient
    ) -> None:
        async with toys(tmp_path, shutdown_grace_s=2) as process:
            port = await process.port()
            request = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/slow"))
            await until((tmp_path / "started").exists)
            process.send(signal.SIGTERM)

            assert await process.exit_code() == 0
            assert (await request).status_code == 500

    async def test_a_part_that_fails_to_stop_makes_the_exit_code_1(self, tmp_path: Path) -> None:
        async with toys(tmp_path, robot="stops-badly") as process:
            await process.port()
            process.send(signal.SIGTERM)
            assert await process.exit_code() == 1

        (line,) = (line for line in process.lines if line["event"] == "part stopped badly")
        assert "does not like to stop" in line["exception"]

    async def test_a_missing_collector_of_spans_is_no_failure(
        self, tmp_path: Path, client: httpx.AsyncClient
    ) -> None:
        async with toys(tmp_path, otlp_endpoint="http://127.0.0.1:1") as process:
            (tmp_path / "release").touch()
            await client.get(f"http://127.0.0.1:{await process.port()}/slow")
            process.send(signal.SIGTERM)

            assert await process.exit_code() == 0

    @pytest.mark.parametrize("robot", ["hangs", "blocks"])
    async def test_a_part_that_hangs_does_not_keep_the_process_from_exiting(
        self, tmp_path: Path, robot: str
    ) -> None:
        async with toys(tmp_path, robot=robot, shutdown_grace_s=1) as process:
            await process.port()
            process.send(signal.SIGTERM)
            assert await process.exit_code() == 1

        assert "the time for an orderly stop is over" in process.stderr

    async def test_is_not_delayed_by_clients_that_ask_for_nothing(self, tmp_path: Path) -> None:
        async with toys(tmp_path, http_head_timeout_s=600) as process:
            with connected(await process.port(), 2) as (_, begun):
                begun.sendall(b"GET /slow HTTP/1.1\r\nHost:")
                process.send(signal.SIGTERM)
                assert await process.exit_code() == 0

        assert "the time for an orderly stop is over" not in process.stderr


class TestManyConnections:
    async def test_without_a_head_keep_no_other_network_out_and_are_closed(
        self, tmp_path: Path
    ) -> None:
        limits = {"http_max_connections": 200, "http_max_connections_per_network": 100}
        async with toys(tmp_path, http_head_timeout_s=2, **limits) as process:
            port = await process.port()
            with connected(port, 100) as silent:
                # Without a request: bytes that the server has not read would reset the connection.
                refused = await answer_to(b"", port)
                # Another network: Linux has all of 127.0.0.0/8 on loopback.
                other = await answer_to(LIVE, port, source="127.0.0.2")
                await until(lambda: all(map(is_ended, silent)))
            afterwards = await answer_to(LIVE, port)

        answers = [each.partition(b"\r\n")[0] for each in (refused, other, afterwards)]
        assert answers == [
            b"HTTP/1.1 503 Service Unavailable",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 200 OK",
        ]
        assert process.events().count("connections closed") == 1


LIVE = b"GET /health/live HTTP/1.1\r\nHost: toys\r\nConnection: close\r\n\r\n"


@contextmanager
def connected(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Open so many connections that ask for nothing."""
    with ExitStack() as closing:
        yield [
            closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            for _ in range(number)
        ]


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


async def answer_to(request: bytes, port: int, *, source: str = "127.0.0.1") -> bytes:
    """Send a request over a new connection from this address, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(request)
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    finally:
        writer.close()


class TestCommandLine:
    async def test_help_lists_only_the_commands_that_exist(self, tmp_path: Path) -> None:
        async with toys(tmp_path, "--help") as process:
            assert process._process.stdout is not None
            output = (await process._process.stdout.read()).decode()
            assert await process.exit_code() == 0

        assert "The toys service." in output
        # It owns no database.
        assert "migrate" not in output

    async def test_each_wrong_setting_is_named_in_one_line(self) -> None:
        async with toys(None, robot="flies") as process:
            assert await process.exit_code() == 2

        lines = sorted(process.stderr.splitlines())
        assert [line.split(":")[0] for line in lines] == ["TOYS_DIRECTORY", "TOYS_ROBOT"]

    async def test_a_port_in_use_is_named_with_the_setting_that_moves_it(
        self, tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with toys(tmp_path, http_port=port) as process:
                assert await process.exit_code() == 1

        *_, line = process.stderr.splitlines()
        assert line.startswith(f"toys cannot listen on 127.0.0.1:{port}: Address already in use")
        assert line.endswith("TOYS_HTTP_PORT moves it.")
