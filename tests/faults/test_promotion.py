"""The server that takes writes dies, and its standby is promoted: nothing answered is missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from chassis import migrations
from chassis.correlation import new_id
from chassis.kafka.client import admin_client
from chassis.kafka.topics import create_topics
from chassis.persistence.connecting import NoServerTakesWrites, connect
from chassis.testing import eventually
from tests.faults.postgres_pair import PostgresPair
from tests.faults.workload import Workload
from tests.integration.users_service.processes import serving
from users_service.adapters.signing_keys import add_key
from users_service.settings import UsersSettings

_PER_SECOND = 20


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[PostgresPair]:
    pair = PostgresPair(tmp_path / "pair")
    try:
        await pair.start("users")
        yield pair
    finally:
        pair.kill()


class TestAPromotedStandby:
    async def test_is_found_by_every_part_and_has_all_that_was_answered(
        self, pair: PostgresPair, kafka: str, tmp_path: Path
    ) -> None:
        async with admin_client(kafka) as client:
            await create_topics(client, brokers=1)
        add_key(tmp_path / "keys", new_id())
        settings = UsersSettings(
            http_port=0,
            database_url=SecretStr(pair.url("users")),
            kafka_bootstrap=kafka,
            environment="development",
            idempotency_secret=SecretStr("s" * 32),
            gateway_secret=SecretStr("g" * 32),
            sign_in_secret=SecretStr("i" * 32),
            keys_dir=tmp_path / "keys",
            argon2_memory_kib=64,
            argon2_passes=1,
        )
        connection = await connect(pair.url("users"), application_name="test", settings={})
        # The standby is named first, and takes no writes.
        assert not await connection.fetchval("SELECT pg_is_in_recovery()")
        await connection.close()
        await migrations.upgrade("users_service", pair.url("users"))

        async with serving(settings) as service:
            workload = Workload(str(service.client.base_url))
            async with workload.at(per_second=_PER_SECOND):
                await _until_promised(workload, _PER_SECOND)
                pair.first.kill()
                answered_before = dict(workload.promised)
                with pytest.raises(NoServerTakesWrites):
                    await connect(pair.url("users"), application_name="test", settings={})
                await pair.promote()
                # Its migrations find it too.
                await migrations.upgrade("users_service", pair.url("users"))
                await _until_promised(workload, len(answered_before) + 2 * _PER_SECOND)

            async def is_published_and_read() -> bool:
                connection = await pair.second.connect_to("users")
                try:
                    waiting = await connection.fetchval("SELECT count(*) FROM outbox")
                    tasks = await connection.fetchval(
                        "SELECT count(DISTINCT assignee_id) FROM tasks"
                    )
                finally:
                    await connection.close()
                ready = (await service.client.get("/health/ready")).json()
                return waiting == 0 and tasks >= len(workload.promised) and not ready["troubles"]

            await eventually(is_published_and_read, within_s=60)

        connection = await pair.second.connect_to("users")
        users = {UUID(str(id_)) for (id_,) in await connection.fetch("SELECT id FROM users")}
        await connection.close()
        assert workload.wrong == []
        assert answered_before
        assert [each for each in workload.promised if each not in users] == []


async def _until_promised(workload: Workload, count: int) -> None:
    async def are_promised() -> bool:
        await asyncio.sleep(0)
        return len(workload.promised) >= count

    await eventually(are_promised, within_s=60)
