"""The directory of one cluster: private to its owner, changed by one process at a time."""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from local_cluster.errors import ClusterError

# Only a directory that we made may be removed.
_MADE_BY_US = "made-by-local-cluster"


def make_cluster_directory(path: Path) -> None:
    """Make the directory, private to its owner, if there is none."""
    if not path.exists() or not any(path.iterdir()):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / _MADE_BY_US).touch()


def remove_cluster_directory(path: Path) -> None:
    """Remove the directory with all that is in it.

    :raises ClusterError: it had content before the cluster used it
    """
    if not path.exists():
        return
    if not (path / _MADE_BY_US).exists():
        raise ClusterError(f"{path} was there before the cluster: remove it yourself")
    # Under another name, so that what begins meanwhile makes a directory of its own.
    removed = path.with_name(f"{path.name}.removed-{os.getpid()}")
    try:
        path.rename(removed)
    except OSError:
        removed = path  # a place where something is mounted
    shutil.rmtree(removed)


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter.

    :raises ClusterError: another user can enter it. In a place such as /tmp another user can make
        the folder first, and listen on the socket instead of us
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ClusterError(f"{folder} can be entered by other users: remove it")


@contextmanager
def cluster_lock(directory: Path) -> Iterator[None]:
    """Hold the lock under which one process at a time starts or stops this cluster."""
    with _locked(directory):
        yield


def _locked(directory: Path) -> TextIO:
    file = directory / "cluster.lock"
    while True:
        with suppress(FileNotFoundError):
            make_cluster_directory(directory)
            lock = file.open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                # Else `clean` removed the directory while we waited, and others lock another file.
                if os.path.samestat(os.fstat(lock.fileno()), file.stat()):
                    return lock
            lock.close()
