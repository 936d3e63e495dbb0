"""Messages go to the local stand-in for Slack, or with a token to the real one."""

import os
from pathlib import Path

import pytest

from local_cluster.postgres import Postgres
from local_cluster.settings import Settings
from local_cluster.topology import Topology


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("LOCAL_", "NOTIFICATION_")):
            monkeypatch.delenv(name)


def environments(directory: Path) -> dict[str, dict[str, str]]:
    """The environment of each process that is started."""
    settings = Settings(directory=directory, cache_directory=directory)
    postgres = Postgres(directory, settings.postgres_port, directory, {})
    topology = Topology(settings, postgres)
    return {each.name: topology.environment(each) for each in topology.services}


def test_without_a_token_the_stand_in_is_started(tmp_path: Path) -> None:
    wired = environments(tmp_path)

    assert "slack-stand-in" in wired
    assert wired["notification"]["NOTIFICATION_SLACK_BASE_URL"] == "http://127.0.0.1:28105/api/"


def test_with_a_token_the_real_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFICATION_SLACK_TOKEN", "xoxb-1")

    wired = environments(tmp_path)

    assert "slack-stand-in" not in wired
    assert "NOTIFICATION_SLACK_BASE_URL" not in wired["notification"]
    assert wired["notification"]["NOTIFICATION_SLACK_TOKEN"] == "xoxb-1"
