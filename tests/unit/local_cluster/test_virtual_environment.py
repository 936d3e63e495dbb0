"""The virtual environment that make makes with the standard library alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local_cluster import virtual_environment
from local_cluster.settings import REPOSITORY


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


class TestMaking:
    def test_without_ensurepip_the_package_is_named_in_one_line(
        self, somewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(virtual_environment, "find_spec", lambda name: None)

        with pytest.raises(SystemExit) as stopped:
            virtual_environment.make(Path(".venv"))

        package = f"python3.{sys.version_info.minor}-venv"
        assert stopped.value.code == (
            f"{package} is missing (Debian, Ubuntu: sudo apt install {package})"
        )
        assert not (somewhere / ".venv").exists()

    def test_below_a_path_with_a_colon_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a:b").mkdir()
        monkeypatch.chdir(tmp_path / "a:b")

        with pytest.raises(SystemExit, match="has a colon in its path"):
            virtual_environment.make(Path(".venv"))

    @pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
    def test_one_that_is_half_made_is_removed(
        self, somewhere: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        def half(folder: Path, **options: object) -> None:
            (folder / "bin").mkdir(parents=True)
            raise error

        monkeypatch.setattr("venv.create", half)

        with pytest.raises((SystemExit, KeyboardInterrupt)):
            virtual_environment.make(Path(".venv"))

        assert not (somewhere / ".venv").exists()

    def test_half_of_one_is_replaced(
        self, somewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (somewhere / ".venv" / "bin").mkdir(parents=True)
        (somewhere / ".venv" / "bin" / "python").touch()
        monkeypatch.setattr("venv.create", lambda folder, **options: folder.mkdir())

        virtual_environment.make(Path(".venv"))

        assert list((somewhere / ".venv").iterdir()) == []


class TestTheMakefile:
    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        # Without what an outer make hands on.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            [shutil.which("make") or "make", *arguments],
            cwd=REPOSITORY,
            env=clean | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @pytest.mark.parametrize("minutes", ["0", "-1", "many"])
    def test_refuses_a_soak_of_no_time_before_anything_is_done(self, minutes: str) -> None:
        soak = self.make("soak", "-n", f"MINUTES={minutes}")

        assert soak.returncode != 0
        assert soak.stdout == ""
        assert f"MINUTES={minutes} must be a number greater than 0" in soak.stderr

    def test_makes_one_goal_after_the_other(self) -> None:
        assert "\n.NOTPARALLEL:\n" in (REPOSITORY / "Makefile").read_text()

    def test_hands_no_variable_of_python_on(self, tmp_path: Path) -> None:
        # A Python that prints its environment, so that nothing of it depends on these variables.
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\nenv\nexit 1\n")
        python.chmod(0o755)

        made = self.make(
            *("demo", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"),
            PYTHONPATH="/elsewhere",
            PYTHONHOME="/nowhere",
        )

        names = {line for line in made.stdout.splitlines() if line.startswith("PYTHON")}
        assert names - {f"PYTHON={python}"} == {"PYTHONUTF8=1"}
