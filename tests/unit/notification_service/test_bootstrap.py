"""Who is woken by what a commit of the service wrote."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Table

from chassis.persistence.database import Database
from chassis.settings import read_settings
from chassis.web.health import Health
from notification_service.bootstrap import build
from notification_service.settings import NotificationSettings
from tests.unit.notification_service.test_settings import ENVIRONMENT


async def test_the_relay_the_delivery_worker_and_the_streams_are_woken_by_commits_of_either_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (ENVIRONMENT | {"NOTIFICATION_ENVIRONMENT": "development"}).items():
        monkeypatch.setenv(name, value)
    woken: list[tuple[str, str]] = []

    def on_commit(_database: Database, table: Table, listener: Callable[[], None]) -> None:
        component: Any = listener
        woken.append((table.name, component.__self__.name))

    monkeypatch.setattr(Database, "on_commit", on_commit)

    async with build(read_settings(NotificationSettings), Health()):
        assert Counter(woken) == {
            ("outbox", "relay"): 2,
            ("deliveries", "delivery-worker"): 2,
            ("stream_events", "streams"): 2,
        }
