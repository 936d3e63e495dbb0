"""Directories and secrets are private, and only what we made is removed."""

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from local_cluster.directories import (
    cluster_lock,
    make_cluster_directory,
    private_folder,
    remove_cluster_directory,
)
from local_cluster.errors import ClusterError
from local_cluster.processes import socket_path
from services.secret_file import secret


class TestTheDirectory:
    def test_it_is_closed_to_others(self, tmp_path: Path) -> None:
        make_cluster_directory(tmp_path / "cluster")

        assert stat.S_IMODE((tmp_path / "cluster").stat().st_mode) == 0o700

    def test_it_is_removed_with_all_that_is_in_it(self, tmp_path: Path) -> None:
        make_cluster_directory(tmp_path / "cluster")
        (tmp_path / "cluster" / "data").mkdir()

        remove_cluster_directory(tmp_path / "cluster")

        assert not (tmp_path / "cluster").exists()

    def test_one_that_had_content_before_is_never_removed(self, tmp_path: Path) -> None:
        precious = tmp_path / "home" / "precious"
        precious.parent.mkdir()
        precious.touch()
        make_cluster_directory(tmp_path / "home")

        with pytest.raises(ClusterError, match="was there before the cluster"):
            remove_cluster_directory(tmp_path / "home")

        assert precious.exists()

    def test_one_that_is_made_while_it_is_removed_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_cluster_directory(tmp_path / "cluster")

        def remove(path: Path) -> None:
            make_cluster_directory(tmp_path / "cluster")  # another process begins
            rmtree(path)

        rmtree = shutil.rmtree
        monkeypatch.setattr(shutil, "rmtree", remove)
        remove_cluster_directory(tmp_path / "cluster")

        assert [each.name for each in tmp_path.iterdir()] == ["cluster"]

    def test_removing_none_is_no_error(self, tmp_path: Path) -> None:
        remove_cluster_directory(tmp_path / "cluster")


class TestTheClusterLock:
    def test_is_held_by_one_at_a_time(self, tmp_path: Path) -> None:
        order: list[str] = []

        def second() -> None:
            with cluster_lock(tmp_path):
                order.append("second")

        other = threading.Thread(target=second)
        with cluster_lock(tmp_path):
            other.start()
            other.join(timeout=0.2)
            order.append("first")
        other.join()

        assert order == ["first", "second"]

    def test_that_was_removed_with_its_directory_is_held_by_nobody(self, tmp_path: Path) -> None:
        directory = tmp_path / "cluster"
        waited = threading.Event()

        def waits() -> None:
            with cluster_lock(directory):
                waited.set()
                assert (directory / "cluster.lock").exists(), "others lock the same file"

        other = threading.Thread(target=waits)
        with cluster_lock(directory):
            other.start()
            other.join(timeout=0.2)
            remove_cluster_directory(directory)
        other.join()

        assert waited.is_set()
        assert (directory / "cluster.lock").exists()


class TestSecrets:
    def test_a_secret_stays_what_it_is(self, tmp_path: Path) -> None:
        assert secret(tmp_path / "secrets" / "one") == secret(tmp_path / "secrets" / "one")

    def test_no_two_are_the_same(self, tmp_path: Path) -> None:
        assert secret(tmp_path / "secrets" / "one") != secret(tmp_path / "secrets" / "two")

    def test_only_its_owner_can_read_it(self, tmp_path: Path) -> None:
        secret(tmp_path / "secrets" / "one")

        assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "secrets" / "one").stat().st_mode) == 0o600

    def test_it_is_long_enough_for_every_use(self, tmp_path: Path) -> None:
        assert len(secret(tmp_path / "secrets" / "one")) >= 32


class TestTheSocket:
    def test_its_folder_is_refused_if_others_can_enter_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)

        with pytest.raises(ClusterError, match="can be entered by other users"):
            private_folder(folder)

    def test_its_folder_is_refused_if_it_is_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / "run").symlink_to(tmp_path / "elsewhere")

        with pytest.raises(ClusterError, match="can be entered by other users"):
            private_folder(tmp_path / "run")

    def test_its_path_is_short_however_long_the_directory_is(self) -> None:
        long = Path("/home", *["somewhere"] * 20)

        assert len(os.fsencode(socket_path(long))) <= 100
        assert socket_path(long) != socket_path(long / "else")
