"""The first hour after cloning the repository: the commands of the README, one after the other."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import psutil
import pytest

from contracts.envelope import decode, event_in
from contracts.topics import EVENTS
from local_cluster.leftovers import find_leftovers
from local_cluster.ports import free_port
from local_cluster.settings import REPOSITORY, Settings
from tests.declared import declared

STEPS = (
    "request answered",
    "outbox",
    "Kafka",
    "account opened",
    "tasks created",
    "audit record",
    *(["Slack message"] if declared("notification") else []),
)


# What people have set for other programs; it changes nothing here.
OF_THE_CALLER = {
    "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "NO_PROXY": "::1/128,*.local",
    "no_proxy": "::1/128,*.local",
    "SSL_CERT_FILE": "/gone/ca.pem",
    "PGSSLMODE": "require",
    "PGOPTIONS": "-c search_path=elsewhere",
    "OTEL_SDK_DISABLED": "true",
    "JAVA_TOOL_OPTIONS": "-Xmx1m",
    "PYTHONIOENCODING": "ascii",
    "LANG": "C",
    "LC_ALL": "C",
}


class Shell:
    """Runs the commands as make does, in a directory and on ports of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ports = [name for name in Settings.model_fields if name.endswith("_port")]
        self._environment = {
            **os.environ,
            **OF_THE_CALLER,
            "LOCAL_DIRECTORY": str(directory),
            **{f"LOCAL_{name.upper()}": str(free_port()) for name in ports},
        }

    def run(self, *arguments: str, within_s: float = 400) -> str:
        completed = subprocess.run(
            [sys.executable, "-m", "local_cluster", *arguments],
            cwd=REPOSITORY,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout

    def processes(self) -> list[psutil.Process]:
        return [each for group in find_leftovers(self.directory).values() for each in group]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "köpie ö,x" / 'it\'s "quoted" \\ 50%')
    yield shell
    for process in shell.processes():
        process.kill()


def kill_everything(shell: Shell) -> None:
    victims = shell.processes()
    for process in victims:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(victims, timeout=60)


@pytest.mark.timeout(900)
def test_the_first_hour(shell: Shell) -> None:
    """One test for all steps, because each depends on the one before."""
    # The demo starts everything and shows the whole journey.
    first = shell.run("demo")
    assert all(step in first for step in STEPS), first
    journey, _, rest = first.partition("every step seen")
    times_ms = [float(each) for each in re.findall(r"(?m)^ *([\d.]+) ms  ", journey)]
    assert times_ms == sorted(times_ms)
    assert len(times_ms) == len(STEPS)
    for place in ("gateway", "API page", "operator-password", "make down"):
        assert place in rest, first
    for moved in ("100.00 USD, the balance is 100.00", "-30.00 USD, the balance is 70.00"):
        assert moved in rest, first
    if declared("notification"):
        told = re.findall(r"browser told .* delta (-?[\d.]+), balance_after ([\d.]+)", rest)
        assert told == [("100.00", "100.00"), ("-30.00", "70.00")], first
    assert_can_sign_in(first)

    # A second one finds the cluster up.
    started = {process.pid for process in shell.processes()}
    again = shell.run("demo")
    assert all(step in again for step in STEPS), again
    assert started <= {process.pid for process in shell.processes()}

    # Everything is killed at once, the supervisor too; the next demo repairs what is left.
    kill_everything(shell)
    after = shell.run("demo")
    assert all(step in after for step in STEPS), after

    # Kafka's own console consumer reads the services' events, and they follow their schemas.
    printed = shell.run(
        "kafka-console-consumer",
        *("--topic", "users.user", "--from-beginning", "--max-messages", "3"),
        *("--timeout-ms", "30000"),
    )
    for line in printed.splitlines():
        assert_well_formed(line)
    assert len(printed.splitlines()) == 3, "all sign-ups are there, also those before the kill"

    # Nothing is lost, although everything was killed.
    output = shell.run("verify")
    assert "nothing is lost" in output
    assert "\x1b" not in output, "colours are for a terminal"
    assert json.loads(shell.run("verify", "--json"))["holds"] is True

    status = json.loads(shell.run("status", "--json"))
    assert {each["state"] for each in status["processes"]} == {"running"}
    assert {each["records"] for each in status["lags"]} == {0}
    assert set(status["outboxes"].values()) == {0}
    assert "running" in shell.run("status")
    assert shell.run("logs", "users")

    shell.run("down")
    assert shell.processes() == []
    assert (shell.directory / "kafka").exists(), "data stays"
    shell.run("clean")
    assert not shell.directory.exists()


def assert_can_sign_in(demo: str) -> None:
    person = re.search(r"sign in as (\S+), password (\S+)\n", demo)
    gateway = re.search(r"(?m)^gateway +(http\S+)$", demo)
    assert person, demo
    assert gateway, demo
    form = {"username": person[1], "password": person[2]}
    answer = httpx.post(f"{gateway[1]}/auth/token", data=form, timeout=60)
    assert answer.status_code == 200, answer.text


def assert_well_formed(line: str) -> None:
    envelope = decode(line.encode())
    schemas = REPOSITORY / "contracts" / "schemas"
    schema = json.loads((schemas / f"{envelope.type}.json").read_text())
    jsonschema.validate(envelope.data, schema)
    event_in(envelope, EVENTS[envelope.type])
