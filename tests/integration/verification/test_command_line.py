"""The command line, as an operator uses it."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from local_cluster.ports import free_port
from local_cluster.settings import REPOSITORY

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
