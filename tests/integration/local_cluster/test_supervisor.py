"""Real processes are kept running, and stopped in order."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chassis.backoff import Backoff
from local_cluster import leftovers, supervisor
from local_cluster.control import Control
from local_cluster.directories import make_cluster_directory
from local_cluster.errors import ClusterError
from local_cluster.leftovers import reap
from local_cluster.processes import ProcessSpec, ProcessStatus
from tests.integration.local_cluster.leftovers import (
    kill_supervisor,
    processes_of,
    supervisor_of,
)
from tests.integration.local_cluster.waiting import until

SLEEP = "import time; time.sleep(600)"
# Ignores its stop signal.
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    f" print('ignores', flush=1); {SLEEP}"
)

# Writes its name to a file when it is stopped, and ends.
POLITE = f"""
import os, signal
def end(*_):
    with open('order', 'a') as order: print(os.environ['LOCAL_CLUSTER_PROCESS'], file=order)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print('ready', flush=True)
{SLEEP}
"""


class Cluster:
    """A supervisor without processes, with short methods to use it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.control = Control(directory)

    def start(self, name: str, code: str = SLEEP, stage: int = 0, grace_s: float = 5) -> None:
        self.control.start([self.spec(name, code, stage, grace_s)])

    def spec(self, name: str, code: str, stage: int = 0, grace_s: float = 5) -> ProcessSpec:
        argv = (sys.executable, "-c", code)
        return ProcessSpec(name, argv, str(self.directory), stage, stop_grace_s=grace_s)

    def status(self, name: str) -> ProcessStatus:
        return self.control.status()[name]

    def log(self, name: str) -> str:
        file = self.directory / "logs" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.directory)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    directory = tmp_path / "cluster"
    make_cluster_directory(directory)
    cluster = Cluster(directory)
    cluster.control.launch()
    yield cluster
    reap(directory, lambda *_: None)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class TestRestarting:
    def test_what_is_killed_comes_back(self, cluster: Cluster) -> None:
        cluster.start("one")
        first = cluster.status("one").pid

        os.kill(first, signal.SIGKILL)

        until(lambda: cluster.status("one").pid not in (0, first))
        status = cluster.status("one")
        assert (status.state, status.restarts) == ("running", 1)
        assert status.last_exit == "killed by SIGKILL"
        assert not status.failing

    def test_what_keeps_dying_waits_longer_and_is_never_given_up(self, cluster: Cluster) -> None:
        began = time.monotonic()
        cluster.start("one", "raise SystemExit(3)")

        until(lambda: cluster.status("one").restarts >= 4)

        assert time.monotonic() - began > 0.5 + 1 + 2
        assert cluster.status("one").last_exit == "exit code 3"
        assert cluster.status("one").failing

    def test_what_waits_for_its_next_start_is_reported_as_waiting(self, cluster: Cluster) -> None:
        cluster.start("one", "raise SystemExit(3)")

        until(lambda: cluster.status("one").state == "waiting")

        assert cluster.status("one").pid == 0

    def test_what_cannot_be_started_is_tried_again(self, cluster: Cluster) -> None:
        cluster.control.start([ProcessSpec("one", ("/nonexistent",), "/", 0)])

        until(lambda: cluster.status("one").restarts >= 1)

        assert "could not be started" in (cluster.status("one").last_exit or "")

    def test_its_output_is_in_its_log(self, cluster: Cluster) -> None:
        cluster.start("one", "import sys; print('out'); print('err', file=sys.stderr)")

        until(lambda: {"out", "err"} <= set(cluster.log("one").split()))

    async def test_after_a_healthy_life_the_early_deaths_are_forgotten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisor, "HEALTHY_AFTER_S", 0.05)
        monkeypatch.setattr(
            supervisor, "BACKOFF", Backoff(first_s=600, longest_s=600, jitter=False)
        )
        spec = ProcessSpec("one", ("sleep", "0.1"), str(tmp_path), 0)

        one = supervisor.Supervised(spec, tmp_path, {})

        await asyncio.to_thread(until, lambda: one.status.restarts >= 3)
        await one.stop()


class TestStarting:
    def test_what_runs_as_described_stays_as_it_is(self, cluster: Cluster) -> None:
        cluster.start("one")
        first = cluster.status("one").pid

        cluster.start("one")

        assert cluster.status("one").pid == first
        assert cluster.control.unlike([cluster.spec("one", SLEEP)]) == []

    def test_what_is_described_otherwise_is_restarted(self, cluster: Cluster) -> None:
        cluster.start("one")
        first = cluster.status("one").pid
        assert cluster.control.unlike([cluster.spec("one", STUBBORN)]) == ["one"]

        cluster.start("one", STUBBORN, grace_s=0.2)

        until(lambda: "ignores" in cluster.log("one"))
        assert not alive(first)

    def test_what_keeps_dying_is_started_again_in_the_present_environment(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = f"import os\nif 'FAILPOINTS' not in os.environ: raise SystemExit(3)\n{SLEEP}"
        monkeypatch.delenv("FAILPOINTS", raising=False)
        cluster.start("one", code)
        until(lambda: cluster.status("one").failing)

        monkeypatch.setenv("FAILPOINTS", "one of the variables that are handed on")
        cluster.start("one", code)

        until(lambda: cluster.status("one").pid)
        status = cluster.status("one")
        assert (status.restarts, status.failing) == (0, False)

    def test_what_was_stopped_stays_so_until_it_is_resumed(self, cluster: Cluster) -> None:
        cluster.start("one")
        first = cluster.status("one").pid

        cluster.control.stop("one")
        stopped = cluster.status("one")
        cluster.control.resume("one")

        assert (stopped.state, stopped.pid) == ("stopped", 0)
        until(lambda: cluster.status("one").pid not in (0, first))


class TestStopping:
    def test_the_highest_stage_goes_first(self, cluster: Cluster) -> None:
        for stage in (1, 0, 2):
            cluster.start(f"stage{stage}", POLITE, stage)
        until(lambda: all("ready" in cluster.log(f"stage{stage}") for stage in range(3)))

        cluster.control.end()

        assert (cluster.directory / "order").read_text().split() == ["stage2", "stage1", "stage0"]
        assert cluster.processes() == []
        assert not cluster.control.is_up()

    def test_what_ignores_its_signal_is_killed_after_its_grace(self, cluster: Cluster) -> None:
        cluster.start("one", STUBBORN, grace_s=0.3)
        until(lambda: "ignores" in cluster.log("one"))

        cluster.control.stop("one")

        assert cluster.status("one").last_exit == "killed by SIGKILL"

    def test_a_frozen_process_is_woken_to_stop(self, cluster: Cluster) -> None:
        cluster.start("one", POLITE, grace_s=60)
        until(lambda: "ready" in cluster.log("one"))
        os.kill(cluster.status("one").pid, signal.SIGSTOP)
        began = time.monotonic()

        cluster.control.stop("one")

        assert time.monotonic() - began < 60

    def test_what_a_process_started_goes_with_it(self, cluster: Cluster) -> None:
        start_child = f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}])"
        cluster.start(
            "one", f"import subprocess, sys; {start_child}; print(child.pid, flush=True); {SLEEP}"
        )
        until(lambda: cluster.log("one"))
        child = int(cluster.log("one"))

        cluster.control.stop("one")

        until(lambda: not alive(child))

    def test_sigterm_stops_everything(self, cluster: Cluster) -> None:
        cluster.start("one")

        supervisor_of(cluster.directory).terminate()

        until(lambda: not cluster.processes())


class TestItsOwnEnd:
    def test_processes_of_a_killed_supervisor_are_found_and_ended_in_order(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leftovers, "_GRACE_S", 0.5)
        cluster.start("one")
        cluster.start("kafka", STUBBORN)
        child = cluster.status("one").pid
        kill_supervisor(cluster.directory)
        assert alive(child)
        assert not cluster.control.is_up()
        groups: list[str] = []

        reap(cluster.directory, lambda group, _: groups.append(group))

        assert cluster.processes() == []
        assert groups == ["services", "kafka"]

    def test_processes_of_another_cluster_are_not_touched(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        cluster.start("one")

        reap(tmp_path / "other", lambda *_: None)

        assert cluster.status("one").restarts == 0

    def test_the_next_one_takes_the_directory_over(self, cluster: Cluster) -> None:
        kill_supervisor(cluster.directory)

        cluster.control.launch()

        assert cluster.control.status() == {}

    def test_a_second_one_is_refused(self, cluster: Cluster) -> None:
        cluster.start("one")

        other = subprocess.run(
            [sys.executable, "-m", "local_cluster.supervisor", str(cluster.directory)],
            capture_output=True,
            text=True,
            check=False,
        )

        assert "another supervisor has this directory" in other.stderr
        assert cluster.status("one").restarts == 0

    def test_it_lives_as_long_as_a_process_holds_its_lifeline(self, tmp_path: Path) -> None:
        directory = tmp_path / "cluster"
        make_cluster_directory(directory)
        os.mkfifo(tmp_path / "lifeline")
        lifeline = os.open(tmp_path / "lifeline", os.O_RDWR)
        another = os.open(tmp_path / "lifeline", os.O_WRONLY)
        cluster = Cluster(directory)
        cluster.control.launch(tmp_path / "lifeline")
        cluster.start("one")

        os.close(lifeline)
        assert cluster.status("one").state == "running"
        os.close(another)

        until(lambda: not cluster.processes())

    def test_a_request_without_a_supervisor_raises_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="the supervisor does not answer"):
            Control(tmp_path).status()
