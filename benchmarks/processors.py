"""Processor time that the workers, PostgreSQL, Kafka and the whole machine use."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psutil

from local_cluster.testing import RunningCluster


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time, in seconds."""

    machine_s: float
    workers_s: float
    postgres_s: float
    kafka_s: float

    def since(self, earlier: Self) -> "Spent":
        return Spent(
            self.machine_s - earlier.machine_s,
            self.workers_s - earlier.workers_s,
            self.postgres_s - earlier.postgres_s,
            self.kafka_s - earlier.kafka_s,
        )


class Usage:
    """Measures the time that these processes have used, with their children."""

    def __init__(self, workers: Iterable[int], postgres: int, kafka: int) -> None:
        self._workers = list(workers)
        self._postgres = postgres
        self._kafka = kafka

    @classmethod
    def of(cls, cluster: RunningCluster, workers: Iterable[int]) -> Self:
        running = cluster.processes()
        return cls(workers, running["postgres"].pid, running["kafka"].pid)

    def now(self) -> Spent:
        return Spent(
            machine_s(),
            sum(map(used_s, self._workers)),
            used_s(self._postgres),
            used_s(self._kafka),
        )


def machine_s() -> float:
    """Return the time that all processors together were busy, in seconds."""
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - getattr(spent, "iowait", 0.0))


def used_s(pid: int) -> float:
    """Return the time of a process and its children, including those that have ended."""
    process = psutil.Process(pid)
    used = process.cpu_times()
    total = used.user + used.system + used.children_user + used.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            its = child.cpu_times()
            total += its.user + its.system
    return float(total)
