"""On which servers the tests run is chosen by CLUSTER."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Any small one: where the tests run at all it passes.
A_TEST = "tests/unit/chassis/test_domain.py"


def outcome_of_a_run(**variables: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", A_TEST]
    environment = os.environ | variables
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return f"exit code {run.returncode}: {run.stdout}{run.stderr}"


def test_where_no_engine_answers_the_tests_on_containers_are_skipped_with_a_word() -> None:
    outcome = outcome_of_a_run(CLUSTER="testcontainers", DOCKER_HOST="tcp://127.0.0.1:1")

    assert outcome.startswith("exit code 0:")
    assert "no container engine answers" in outcome
    assert "passed" not in outcome


def test_a_word_that_chooses_nothing_is_an_error() -> None:
    outcome = outcome_of_a_run(CLUSTER="testcontainer")

    assert outcome.startswith("exit code 4:")
    assert "CLUSTER=testcontainer must be testcontainers or local for tests" in outcome
