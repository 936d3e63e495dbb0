"""The directory of one cluster: its owner's alone, changed by one at a time."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cluster.errors import ClusterError

# What we made we may remove; a directory that somebody merely pointed us to we may not.
_MADE_BY_US = "made-by-local-cluster"


def make_cluster_directory(path: Path) -> None:
    """Make the directory, open to its owner alone, if there is none."""
    if not path.exists() or not any(path.iterdir()):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / _MADE_BY_US).touch()


def remove_cluster_directory(path: Path) -> None:
    """Remove the directory with all that is in it.

    :raises ClusterError: it held something before the cluster did
    """
    if not path.exists():
        return
    if not (path / _MADE_BY_US).exists():
        raise ClusterError(f"{path} was there before the cluster: remove it yourself")
    shutil.rmtree(path)


def private_folder(folder: Path) -> None:
    """Make a folder that its owner alone can enter.

    :raises ClusterError: somebody else could; where everybody may make folders, a stranger's
        would let him listen in our stead
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ClusterError(f"{folder} is not ours alone: remove it")


@contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Wait until nobody else starts or stops this cluster, and keep others waiting meanwhile."""
    make_cluster_directory(directory)
    with (directory / "turn.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
