"""The state of the cluster: its processes, their troubles, the consumers' lag, the outboxes."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from chassis.web.client import direct_client
from local_cluster.cluster import Cluster
from local_cluster.errors import ClusterError
from local_cluster.leftovers import find_leftovers
from local_cluster.logs import last_error
from local_cluster.processes import MARK_NAME, ProcessStatus

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """One process; ``memory_mib`` is its share, with its children, 0 if it does not run.

    ``state`` is one of ``ProcessStatus``, or ``keeps dying``, or ``unsupervised``: it runs, but its
    supervisor does not. ``last_error`` is what one that keeps dying said last.
    """

    name: str
    state: str
    uptime_s: float
    port: int | None
    memory_mib: int
    restarts: int
    last_exit: str | None
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a process reports that does not work, such as its agents, and why."""

    process: str
    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lag:
    """How many records of a topic a consumer group has not handled yet."""

    group: str
    topic: str
    records: int


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """The state of everything. A part that does not answer is None."""

    up: bool
    processes: list[ProcessReport]
    troubles: list[Trouble]
    lags: list[Lag] | None
    outboxes: dict[str, int | None]
    logs: str

    @property
    def well(self) -> bool:
        """Whether all runs, and nothing has trouble or waits for an operator."""
        running = all(process.state == "running" for process in self.processes)
        return self.up and running and not self.troubles


async def read_status(cluster: Cluster) -> ClusterReport:
    """Read everything at once; what does not run is left out, not waited for."""
    processes = _processes(cluster)
    databases = cluster.topology.databases
    lags, troubles, depths = await asyncio.gather(
        _lags(f"127.0.0.1:{cluster.settings.kafka_port}", processes.get("kafka")),
        _troubles(
            {
                name: cluster.topology.operators_url(name)
                for name in cluster.topology.urls
                if (process := processes.get(name)) is not None and process.pid
            }
        ),
        asyncio.gather(
            *(_outbox_depth(cluster, name, processes.get("postgres")) for name in databases)
        ),
    )
    return ClusterReport(
        up=bool(processes),
        processes=[
            _report(process, cluster.settings.directory / "logs" / f"{process.name}.log")
            for process in processes.values()
        ],
        troubles=troubles,
        lags=lags,
        outboxes=dict(zip(databases, depths, strict=True)),
        logs=str(cluster.settings.directory / "logs"),
    )


def _processes(cluster: Cluster) -> dict[str, ProcessStatus]:
    try:
        return cluster.control.status()
    except ClusterError:
        return _unsupervised(cluster.settings.directory)


def _unsupervised(directory: Path) -> dict[str, ProcessStatus]:
    """Return what a killed supervisor left, the first process of each name."""
    found: dict[str, ProcessStatus] = {}
    left = [each for group in find_leftovers(directory).values() for each in group]
    for process in left:
        try:
            name, since = process.environ()[MARK_NAME], process.create_time()
        except (psutil.Error, OSError, KeyError):
            continue  # it ended meanwhile
        if name not in found or since < found[name].since:
            found[name] = ProcessStatus(name, "unsupervised", process.pid, since, 0, None, None)
    return found


def _report(process: ProcessStatus, log: Path) -> ProcessReport:
    return ProcessReport(
        name=process.name,
        state="keeps dying" if process.failing else process.state,
        uptime_s=round(time.time() - process.since, 1) if process.pid else 0.0,
        port=process.port,
        memory_mib=_memory_bytes(process.pid) >> 20 if process.pid else 0,
        restarts=process.restarts,
        last_exit=process.last_exit,
        last_error=last_error(log) if process.failing else None,
    )


def _memory_bytes(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            memory = process.memory_full_info()
            # The proportional share: PostgreSQL's processes would each count what they share.
            total += getattr(memory, "pss", memory.uss)
    except psutil.Error:
        pass  # ended meanwhile, or of another user
    return total


async def _troubles(urls: Mapping[str, str]) -> list[Trouble]:
    async with direct_client(timeout=_TIMEOUT_S) as client:
        found = await asyncio.gather(
            *(_troubles_of(client, name, url) for name, url in urls.items())
        )
    return [trouble for troubles in found for trouble in troubles]


async def _troubles_of(client: httpx.AsyncClient, name: str, url: str) -> list[Trouble]:
    try:
        answer = (await client.get(f"{url}/health/ready")).json()
    except (httpx.HTTPError, ValueError) as error:
        return [Trouble(name, "http", type(error).__name__)]
    reasons = {each["field"]: each["message"] for each in answer.get("errors", [])}
    reasons |= answer.get("troubles", {})
    return [Trouble(name, check, reason) for check, reason in reasons.items()]


async def _lags(bootstrap: str, kafka: ProcessStatus | None) -> list[Lag] | None:
    if kafka is None or not kafka.pid:
        return None
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await admin.start()
            await consumer.start()
            groups = sorted(group for group, *_ in await admin.list_consumer_groups())
            return [lag for group in groups for lag in await _lags_of(group, admin, consumer)]
    except (KafkaError, OSError, TimeoutError):
        return None
    finally:
        await consumer.stop()
        await admin.close()


async def _lags_of(group: str, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> list[Lag]:
    committed = await admin.list_consumer_group_offsets(group)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(list(committed))
    behind: dict[str, int] = {}
    for partition, position in committed.items():
        waiting = max(0, ends[partition] - position.offset)
        behind[partition.topic] = behind.get(partition.topic, 0) + waiting
    return [Lag(group, topic, records) for topic, records in sorted(behind.items())]


async def _outbox_depth(
    cluster: Cluster, database: str, postgres: ProcessStatus | None
) -> int | None:
    if postgres is None or not postgres.pid:
        return None
    try:
        connection = await asyncpg.connect(cluster.postgres.url(database), timeout=_TIMEOUT_S)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM outbox"))
        finally:
            await connection.close()
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return None  # not there yet
