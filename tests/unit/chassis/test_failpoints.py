"""A failpoint kills, fails or delays a process when a test armed it, and else does nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chassis import failpoints

PASS_THREE_TIMES = """
import asyncio
from chassis.failpoints import clock_error, failpoint, set_service

async def main():
    set_service("users")
    for number in (1, 2, 3):
        await failpoint("relay.before-delete")
        print(number)
    print(clock_error().total_seconds())

asyncio.run(main())
"""


def run(directory: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FAILPOINTS"}
    if directory is not None:
        environment["FAILPOINTS"] = str(directory)
    return subprocess.run(
        [sys.executable, "-u", "-c", PASS_THREE_TIMES],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("file", ["relay.before-delete", "users@relay.before-delete"])
class TestAnArmedPoint:
    def test_kills_the_process_once(self, tmp_path: Path, file: str) -> None:
        (tmp_path / file).write_text("kill 2")

        first, second = run(tmp_path), run(tmp_path)

        assert (first.returncode, first.stdout) == (-signal.SIGKILL, "1\n")
        assert second.returncode == 0
        assert [each.name for each in tmp_path.iterdir()] == [f"{file}.hit"]

    def test_raises(self, tmp_path: Path, file: str) -> None:
        (tmp_path / file).write_text("raise 2")

        ended = run(tmp_path)

        assert ended.stdout == "1\n"
        assert "FailpointReached" in ended.stderr

    def test_delays_as_often_as_it_is_passed(self, tmp_path: Path, file: str) -> None:
        (tmp_path / file).write_text("always delay 0.01")

        ended = run(tmp_path)

        assert (ended.returncode, ended.stderr) == (0, "")
        assert (tmp_path / file).exists()

    def test_that_is_armed_with_an_unknown_action_raises(self, tmp_path: Path, file: str) -> None:
        (tmp_path / file).write_text("explode")

        assert "can't explode" in run(tmp_path).stderr


class TestAPoint:
    def test_armed_in_another_service_does_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "accounts@relay.before-delete").write_text("kill")

        assert run(tmp_path).returncode == 0

    def test_does_nothing_without_the_environment_variable(self, tmp_path: Path) -> None:
        (tmp_path / "relay.before-delete").write_text("kill")

        assert run(None).stdout == "1\n2\n3\n0.0\n"

    def test_is_switched_off_in_this_process(self) -> None:
        assert not failpoints.are_switched_on()


def test_a_file_changes_the_clock(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("-3600")

    assert run(tmp_path).stdout.endswith("-3600.0\n")


def test_a_service_in_production_does_not_start_with_failpoints(tmp_path: Path) -> None:
    settings = {
        "AUDIT_DATABASE_URL": "postgresql://audit@127.0.0.1:1/audit",
        "AUDIT_JWKS_URL": "http://127.0.0.1:1/",
        "AUDIT_IDEMPOTENCY_SECRET": "s" * 32,
        "AUDIT_ENVIRONMENT": "production",
        "FAILPOINTS": str(tmp_path),
    }

    ended = subprocess.run(
        [sys.executable, "-m", "audit_service"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ended.returncode == 2
    assert "FAILPOINTS is for tests, and this is production: unset it.\n" in ended.stderr
