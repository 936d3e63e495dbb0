"""Processes are killed at any moment; a sign-up answered with 201 has each effect once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local_cluster.testing import RunningCluster, running_cluster
from tests.declared import declared
from tests.e2e.people import (
    SERVICES,
    Operator,
    Person,
    everyone_is_ready,
    poll,
    slack_messages,
)

VICTIMS = (*SERVICES, "kafka", "postgres")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    """A cluster for this test only, because its processes are killed."""
    with running_cluster(tmp_path / "kills") as running:
        yield running


async def sign_up_until_answered(gateway: httpx.AsyncClient) -> Person:
    """Send the command under one key until it is answered, as a good client does."""
    person = Person(gateway)

    async def status() -> int:
        try:
            return (await person.sign_up(**{"Idempotency-Key": person.username})).status_code
        except httpx.TransportError:
            return 0

    await poll(status, lambda status: status == httpx.codes.CREATED)
    return person


async def assert_whole_and_once(
    cluster: RunningCluster, operator: Operator, person: Person
) -> None:
    """Assert that every effect of someone's sign-up is there once."""
    account = await poll(lambda: operator.account_of(person))
    assert account is not None
    assert len(account["transactions"]) == 1
    headers = await person.sign_in()

    async def tasks() -> int:
        page = await person.gateway.get("/users/me/tasks", headers=headers)
        return len(page.json()["tasks"])

    assert await poll(tasks) == 2
    (record,) = await poll(lambda: operator.audit_records_of(person))
    assert (record["sequence"], record["verdict"]) == (1, "next")
    if declared("notification"):
        assert len(await poll(lambda: slack_messages(cluster, person.username))) == 1


@pytest.mark.timeout(600)
class TestKillingEachProcessInTurn:
    async def test_nothing_is_lost_and_nothing_is_done_twice(self, cluster: RunningCluster) -> None:
        people: list[Person] = []
        async with httpx.AsyncClient(base_url=cluster.gateway_url, timeout=60) as gateway:
            for victim in VICTIMS:
                signing_up = [
                    asyncio.create_task(sign_up_until_answered(gateway)) for _ in range(5)
                ]
                await asyncio.to_thread(cluster.kill, victim)
                people += await asyncio.gather(*signing_up)

            await poll(lambda: everyone_is_ready(cluster))
            operator = await Operator.signed_in(gateway, cluster)
            for person in people:
                await assert_whole_and_once(cluster, operator, person)
        restarts = {name: process.restarts for name, process in cluster.processes().items()}
        assert all(restarts[victim] >= 1 for victim in VICTIMS), restarts
