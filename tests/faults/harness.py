"""The whole system for fault tests: started, with failpoints, and verified afterwards."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg

from local_cluster.testing import RunningCluster, running_cluster
from tests.declared import slack_of
from tests.e2e.people import SERVICES, everyone_is_ready, poll
from tests.faults.workload import Workload
from verification.addresses import SERVICES as WITH_DATABASE
from verification.addresses import Addresses, CannotVerify
from verification.report import Expected, Report
from verification.verify import verify

OUTAGE_VARIABLE: Final = "FAULTS_OUTAGE_S"
SHORT_OUTAGE_S: Final = 20.0

# Cheap password hashing, and a delivery whose worker died is claimed again after 6 s.
_SETTINGS: Final = {
    "USERS_ARGON2_MEMORY_KIB": "8",
    "USERS_ARGON2_PASSES": "1",
    "NOTIFICATION_DELIVERY_TIMEOUT_S": "2",
    "NOTIFICATION_DELIVERY_LEASE_S": "5",
    "NOTIFICATION_DELIVERY_SETTLE_S": "1",
    "NOTIFICATION_DELIVERY_LONGEST_RETRY_S": "3",
}


class Failpoints:
    """The failpoints of a system's processes; see ``chassis/failpoints.py``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True)

    def arm(self, name: str, action: str, *, service: str = "") -> None:
        """Arm a point in all processes, or in those of one service; it counts as not hit."""
        file = self._file(name, service)
        self._hit(file).unlink(missing_ok=True)
        # Renamed, so that a process reads all of it or nothing.
        written = self.directory / ".arming"
        written.write_text(action)
        written.rename(file)

    def was_hit(self, name: str, *, service: str = "") -> bool:
        return self._hit(self._file(name, service)).exists()

    def disarm(self) -> None:
        """Disarm every point, and forget which were hit."""
        for file in self.directory.iterdir():
            file.unlink(missing_ok=True)

    def _file(self, name: str, service: str) -> Path:
        return self.directory / (f"{service}@{name}" if service else name)

    def _hit(self, file: Path) -> Path:
        return file.with_name(f"{file.name}.hit")


class System:
    """All processes, their failpoints, and the clients with the answers that they got."""

    services: Final = SERVICES

    def __init__(self, cluster: RunningCluster, failpoints: Failpoints, workload: Workload) -> None:
        self.cluster = cluster
        self.failpoints = failpoints
        self.workload = workload
        #: Subjects of events that a test published itself.
        self.made_up: set[str] = set()

    @property
    def addresses(self) -> Addresses:
        """The addresses that the verification reads."""
        return Addresses(
            databases={each: self.cluster.postgres_url(each) for each in WITH_DATABASE},
            kafka_bootstrap=self.cluster.kafka_bootstrap,
            slack_stand_in_url=slack_of(self.cluster),
        )

    @property
    def logs(self) -> Path:
        """The directory of all processes' logs."""
        return self.cluster.directory / "logs"

    async def verified(self, *, within_s: float = 120.0) -> Report:
        """Wait until every service is ready and the system is at rest, and verify it.

        :raises CannotVerify: it does not come to rest
        """
        deadline = time.monotonic() + within_s
        await poll(lambda: everyone_is_ready(self.cluster), within_s=within_s)
        expected = Expected(
            users=frozenset(self.workload.promised), made_up=frozenset(self.made_up)
        )
        while True:
            try:
                left_s = max(0.0, deadline - time.monotonic())
                return await verify(self.addresses, expected, wait_s=left_s)
            except CannotVerify:
                if time.monotonic() > deadline:
                    raise

    async def wrong_answers(self) -> list[str]:
        """Return the answers to clients that do not agree with the database."""
        connection = await asyncpg.connect(self.cluster.postgres_url("users"))
        try:
            rows = await connection.fetch("SELECT id, username FROM users WHERE roles = ''")
        finally:
            await connection.close()
        return self.workload.wrong + self.workload.compared(
            {row["id"]: row["username"] for row in rows}
        )

    async def assert_nothing_is_lost(self, *, within_s: float = 120.0) -> Report:
        """Wait until the system is at rest, and assert that every invariant holds."""
        report = await self.verified(within_s=within_s)
        assert report.holds, f"{report.broken()}\nlogs: {self.logs}"
        wrong = await self.wrong_answers()
        assert not wrong, f"{wrong}\nlogs: {self.logs}"
        return report


@contextmanager
def running_system(directory: Path, *, seed: int = 0) -> Iterator[System]:
    """Run the whole system in ``directory``, with failpoints."""
    failpoints = Failpoints(directory / "failpoints")
    with (
        _environment(_SETTINGS | {"FAILPOINTS": str(failpoints.directory)}),
        running_cluster(directory / "cluster") as cluster,
    ):
        yield System(cluster, failpoints, Workload(cluster.gateway_url, seed=seed))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
