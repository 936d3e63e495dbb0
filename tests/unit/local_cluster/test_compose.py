"""The containers are found by asking docker, and what it can't do is one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from local_cluster import compose
from local_cluster.errors import ClusterError

Answer = Callable[[str], None]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Sets the shell commands that are run in docker's place."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def answer(commands: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)

    return answer


def test_without_docker_it_is_named(docker: Answer) -> None:
    with pytest.raises(ClusterError, match="docker is missing"):
        compose.up()


def test_what_fails_is_named(docker: Answer) -> None:
    docker("exit 1")

    with pytest.raises(ClusterError, match="docker compose up failed"):
        compose.up()


def test_the_addresses_are_those_that_are_published(docker: Answer) -> None:
    docker('test "$2" = port && echo "127.0.0.1:1$4" || echo secret')

    found = compose.addresses()

    assert found.gateway == "http://127.0.0.1:18000"
    assert found.operators == "http://127.0.0.1:18001"
    assert found.kafka_bootstrap == "127.0.0.1:119092"
    assert found.operator_password == "secret"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_verification_has_its_own_exit_code(docker: Answer, code: int) -> None:
    docker(f"exit {code}")

    with pytest.raises(SystemExit) as exit_:
        compose.verify(["--json"])

    assert exit_.value.code == code
