"""The command line, as a person uses it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local_cluster.leftovers import reap
from local_cluster.ports import free_port
from local_cluster.settings import REPOSITORY, Settings
from tests.integration.local_cluster.leftovers import kill_supervisor, processes_of


class Person:
    """A person at a shell, with a cluster directory and ports of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ports = {name: free_port() for name in Settings.model_fields if name.endswith("_port")}
        self.settings = Settings.model_validate({"directory": directory} | ports)

    @property
    def environment(self) -> dict[str, str]:
        given = {name: value for name, value in self.settings if value is not None}
        return os.environ | {f"LOCAL_{name.upper()}": str(value) for name, value in given.items()}

    def runs(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "local_cluster", *arguments],
            cwd=REPOSITORY,
            env=self.environment | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    def begins(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "local_cluster", *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[psutil.Process]:
        return processes_of(self.directory)


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    person = Person(tmp_path / "cluster")
    yield person
    reap(person.directory, lambda *_: None)


class TestUpAndDown:
    def test_infrastructure_from_up_to_clean(self, person: Person) -> None:
        up = person.runs("up", "--only-infrastructure")
        assert up.returncode == 0, up.stderr
        assert f"Kafka           127.0.0.1:{person.settings.kafka_port}" in up.stdout
        before = {each.pid for each in person.processes()}

        assert person.runs("up", "--only-infrastructure").returncode == 0
        assert {each.pid for each in person.processes()} == before, "what is up stays as it is"

        status = person.runs("status", "--json")
        assert status.returncode == 0, status.stdout
        report = json.loads(status.stdout)
        assert {each["name"]: each["state"] for each in report["processes"]} == {
            "kafka": "running",
            "postgres": "running",
        }
        assert all(each["memory_mib"] > 0 for each in report["processes"])
        assert report["lags"] == []
        assert report["outboxes"]["users"] is None

        shown = person.runs("status")
        assert "postgres  running" in shown.stdout
        assert "Kafka Server started" in person.runs("logs", "kafka").stdout
        self.assert_another_is_told_whose_ports_these_are(person)

        assert person.runs("down").returncode == 0
        assert person.processes() == []
        assert (person.directory / "postgres" / "data").exists(), "data stays"
        assert person.runs("status").returncode == 3

        assert person.runs("clean").returncode == 0
        assert not person.directory.exists()

    def assert_another_is_told_whose_ports_these_are(self, person: Person) -> None:
        other = Person(person.directory.with_name("other"))
        other.settings = person.settings.model_copy(update={"directory": other.directory})

        up = other.runs("up", "--only-infrastructure")
        consumer = other.runs("kafka-console-consumer", "--", "--topic", "users.user")

        assert up.returncode == 2
        owner = f"in use by postgres of the cluster in {person.directory}"
        assert owner in up.stderr
        assert "LOCAL_PORT_OFFSET" in up.stderr
        assert consumer.returncode == 1, "it would have read the other cluster's topics"
        assert other.processes() == []

    def test_an_interrupted_up_says_what_is_still_up(self, person: Person) -> None:
        with person.begins("up", "--only-infrastructure") as up:
            assert up.stdout
            assert up.stderr
            for line in up.stdout:
                if "postgres" in line:
                    break
            os.killpg(up.pid, signal.SIGINT)
            said = up.stderr.read()

        assert up.returncode == 130
        # Kafka starts beside PostgreSQL, and may have been faster or slower.
        still_up = re.search(r"interrupted; still up: ([a-z, ]+)\.", said)
        assert still_up, said
        assert {"postgres"} <= set(still_up[1].split(", ")) <= {"postgres", "kafka"}
        assert "make down" in said

    def test_processes_of_a_killed_supervisor_are_replaced_by_up_and_ended_by_down(
        self, person: Person
    ) -> None:
        assert person.runs("up", "--only-infrastructure").returncode == 0
        before = person.processes()
        kill_supervisor(person.directory)

        status = person.runs("status")
        assert status.returncode == 1
        assert status.stdout.count("unsupervised") == 2
        assert "the supervisor is gone" in status.stdout

        up = person.runs("up", "--only-infrastructure")

        assert up.returncode == 0, up.stderr
        assert "left without a supervisor" in up.stdout
        assert not any(process.is_running() for process in before)

        kill_supervisor(person.directory)
        assert person.runs("down").returncode == 0
        assert person.processes() == []

    def test_up_works_after_everything_was_killed(self, person: Person) -> None:
        assert person.runs("up", "--only-infrastructure").returncode == 0
        for process in person.processes():
            process.kill()

        up = person.runs("up", "--only-infrastructure")

        assert up.returncode == 0, up.stderr

    def test_a_taken_port_is_named_with_its_owner_and_the_setting_that_moves_it(
        self, person: Person
    ) -> None:
        port = person.settings.postgres_port
        with socket.create_server(("127.0.0.1", port)):
            up = person.runs("up")

        assert up.returncode == 2
        *_, line = up.stderr.splitlines()
        assert f"port {port} is in use" in line
        assert f"(process {os.getpid()})" in line
        assert "PostgreSQL" in line
        assert "LOCAL_POSTGRES_PORT" in line
        assert person.processes() == []

    def test_a_tampered_jar_is_refused_in_one_line(self, person: Person, tmp_path: Path) -> None:
        jar = tmp_path / "cache" / "kafka" / "at.yawk.lz4.lz4-java-1.10.2.jar"
        jar.parent.mkdir(parents=True)
        jar.write_bytes(b"tampered")
        for artifact in Path(person.settings.cache_directory, "kafka").glob("*.jar"):
            if artifact.name != jar.name:
                (jar.parent / artifact.name).symlink_to(artifact)

        up = person.runs(
            "up", "--only-infrastructure", LOCAL_CACHE_DIRECTORY=str(tmp_path / "cache")
        )

        assert up.returncode == 1
        assert str(jar) in up.stderr.splitlines()[-1]
        assert "is not lz4-java 1.10.2 as pinned" in up.stderr
        assert "kafka" not in {each["name"] for each in self.reported_processes(person)}

    def reported_processes(self, person: Person) -> list[dict[str, object]]:
        report: dict[str, list[dict[str, object]]] = json.loads(
            person.runs("status", "--json").stdout
        )
        return report["processes"]

    def test_down_where_nothing_is_up_is_no_error(self, person: Person) -> None:
        assert person.runs("down").returncode == 0


class TestMistakes:
    def test_a_setting_that_is_no_port_is_named(self, person: Person) -> None:
        up = person.runs("up", LOCAL_KAFKA_PORT="many")

        assert up.returncode == 2
        assert up.stderr.startswith("LOCAL_KAFKA_PORT: ")

    def test_clean_removes_nothing_that_it_did_not_make(
        self, person: Person, tmp_path: Path
    ) -> None:
        (tmp_path / "precious").touch()

        clean = person.runs("clean", LOCAL_DIRECTORY=str(tmp_path))

        assert clean.returncode == 1
        assert (tmp_path / "precious").exists()

    def test_the_console_consumer_fails_at_once_if_kafka_is_down(self, person: Person) -> None:
        consumer = person.runs("kafka-console-consumer", "--", "--topic", "users.user")

        assert consumer.returncode == 1
        assert "Kafka is not up" in consumer.stderr

    def test_for_a_missing_log_the_existing_ones_are_named(self, person: Person) -> None:
        logs = person.runs("logs", "unknown")

        assert logs.returncode == 1
        assert "no log of unknown" in logs.stderr
