"""The code of the last release runs on today's schema, as it does while its processes are replaced.

It is taken from the history of this repository, and runs in the environment of today.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from chassis import migrations
from services import WITH_DATABASE
from tests.infrastructure import SHARED_BY_RUNS

from .project import ROOT

#: A tag or a commit: what runs in production when the next release comes. Change it with each one.
LAST_RELEASE: Final = "7a3bcae0a7c940abacc9db3e38633dbfec3799e1"

_WITHIN_S: Final = 120

# Runs its whole system, with its schema, and starts each of its processes again when it is told to.
_SYSTEM: Final = """
import asyncio, json, sys
from pathlib import Path
from local_cluster.testing import running_cluster
from tests.declared import slack_of
from tests.e2e.people import SERVICES, everyone_is_ready, poll
from verification.addresses import SERVICES as WITH_DATABASE

with running_cluster(Path(sys.argv[1])) as cluster:
    addresses = {f"{each}_database_url": cluster.postgres_url(each) for each in WITH_DATABASE}
    addresses |= {"kafka_bootstrap": cluster.kafka_bootstrap}
    addresses |= {"slack_stand_in_url": slack_of(cluster)} if slack_of(cluster) else {}
    print(json.dumps(addresses), flush=True)
    for _ in sys.stdin:
        for each in SERVICES:
            cluster.stop(each)
        for each in SERVICES:
            cluster.resume(each)
        asyncio.run(poll(lambda: everyone_is_ready(cluster)))
        print("again", flush=True)
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files of the last release."""
    git = ("git", "-c", "safe.directory=*", "-C", str(ROOT))
    known = subprocess.run(
        [*git, "cat-file", "-e", f"{LAST_RELEASE}^{{commit}}"], check=False, capture_output=True
    )
    if known.returncode != 0:
        pytest.skip(f"the history here does not have the last release, {LAST_RELEASE}")
    # A zip, since tarfile has its filter only from Python 3.11.4 on.
    archive = subprocess.run(
        [*git, "archive", "--format=zip", LAST_RELEASE], check=True, capture_output=True
    )
    tree = tmp_path_factory.mktemp("release")
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        files.extractall(tree)
    return tree


def _environment(**more: str) -> dict[str, str]:
    # What pytest-xdist gives its workers is not meant for the runs of the release.
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | more


@contextmanager
def _system(release: Path, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", _SYSTEM, str(directory)],
        cwd=release,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as system:
        yield system
        assert system.stdin is not None
        system.stdin.close()
        assert system.wait(_WITHIN_S) == 0


def _answer_of(system: "subprocess.Popen[str]", *, to: str = "") -> str:
    assert system.stdin is not None
    assert system.stdout is not None
    system.stdin.write(to)
    system.stdin.flush()
    line = system.stdout.readline()
    assert line, f"the system of the last release ended with {system.wait(_WITHIN_S)}"
    return line


def _tests(release: Path, file: str, *, shared: Path) -> None:
    """Run tests of the release on its system that runs in the directory ``shared``."""
    options = ("-q", "-p", "no:cacheprovider")
    _run(release, "pytest", *options, f"tests/e2e/{file}", **{SHARED_BY_RUNS: str(shared)})


def _run(release: Path, *module: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *module],
        cwd=release,
        env=_environment(**environment),
        check=False,
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


@pytest.mark.timeout(300)
def test_the_code_of_the_last_release_runs_on_the_schema_of_today(
    release: Path, tmp_path: Path
) -> None:
    with _system(release, tmp_path / "e2e") as system:
        addresses: dict[str, Any] = json.loads(_answer_of(system))

        for service in WITH_DATABASE:
            url = addresses.get(f"{service.identifier}_database_url")
            if url is not None:  # else it is newer than the release
                asyncio.run(migrations.upgrade(service.module, url))

        # First with the connections and the prepared statements that it had before.
        _tests(release, "test_journey.py", shared=tmp_path)
        _answer_of(system, to="start again\n")
        _tests(release, "test_journey.py", shared=tmp_path)
        where = {f"VERIFY_{key.upper()}": value for key, value in addresses.items()}
        _run(release, "verification", **where)
        _tests(release, "test_parked.py", shared=tmp_path)
