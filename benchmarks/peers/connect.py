"""Kafka Connect, standalone: one process of it with one connector."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import orjson

from benchmarks.bench import Bench, Program
from benchmarks.figure import Unavailable
from local_cluster.errors import ClusterError
from local_cluster.java import find_java
from local_cluster.kafka_artifacts import jars, read_lock
from local_cluster.ports import free_port
from local_cluster.settings import Settings

_HEAP: Final = "1g"
_LOOK_EVERY_S: Final = 0.1
_RUNNING_WITHIN_S: Final = 180.0


class Connector:
    """A running connector in its own Kafka Connect process."""

    def __init__(self, program: Program, client: httpx.AsyncClient, name: str) -> None:
        self.program = program
        self._client = client
        self._path = f"/connectors/{name}"

    async def stop(self) -> None:
        """Stop it until ``resume``; the process keeps running, and stays warm."""
        (await self._client.put(f"{self._path}/stop")).raise_for_status()
        await self.wait_until("STOPPED")

    async def resume(self) -> None:
        """Let it continue, without waiting until it does."""
        (await self._client.put(f"{self._path}/resume")).raise_for_status()

    async def wait_until(self, state: str) -> None:
        """Wait until the connector is in this state, and its task too if it has one then.

        :raises TimeoutError: it did not reach it
        """
        async with asyncio.timeout(_RUNNING_WITHIN_S):
            while not await self._is(state):
                self.program.check()
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _is(self, state: str) -> bool:
        try:
            answer = await self._client.get(f"{self._path}/status")
        except httpx.HTTPError:
            return False
        if answer.status_code != httpx.codes.OK:
            return False
        status = answer.json()
        tasks = {task["state"] for task in status["tasks"]}
        wanted = {state} if state == "RUNNING" else set()
        return bool(status["connector"]["state"] == state and tasks == wanted)


@asynccontextmanager
async def connector(
    bench: Bench, lock: Path, worker: Mapping[str, str], settings: Mapping[str, str]
) -> AsyncIterator[Connector]:
    """Run a connector during the block, on jars that a lock file pins.

    :raises Unavailable: the jars can't be downloaded
    """
    name = bench.name(lock.stem.replace("_", "-"))
    home = bench.directory / name
    home.mkdir()
    port = free_port()
    worker_file, connector_file = home / "worker.properties", home / "connector.json"
    _write(
        worker_file,
        {
            "bootstrap.servers": bench.cluster.kafka_bootstrap,
            "listeners": f"http://127.0.0.1:{port}",
            "offset.storage.file.filename": str(home / "offsets"),
            **worker,
        },
    )
    # The settings hold the database's password.
    connector_file.touch(mode=0o600)
    connector_file.write_bytes(
        orjson.dumps({"name": name, "config": {"name": name, "tasks.max": "1", **settings}})
    )
    argv = [
        str(find_java()),
        f"-Xmx{_HEAP}",
        "-cp",
        ":".join(map(str, await asyncio.to_thread(_jars, bench, lock))),
        "org.apache.kafka.connect.cli.ConnectStandalone",
        str(worker_file),
        str(connector_file),
    ]
    async with (
        bench.command(argv, name=name) as program,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        running = Connector(program, client, name)
        await running.wait_until("RUNNING")
        yield running


def _jars(bench: Bench, lock: Path) -> tuple[Path, ...]:
    folder = Settings().cache_directory / "peers" / "jars"
    try:
        return jars(folder, bench.say, read_lock(lock))
    except ClusterError as error:
        raise Unavailable(str(error)) from error


def _write(file: Path, properties: Mapping[str, str]) -> None:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
