"""Processes die at any moment; what was answered with 201 has all its effects, each once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local_cluster.testing import RunningCluster, running_cluster
from tests.e2e.people import (
    SERVICES,
    Operator,
    Person,
    eventually,
    everyone_is_ready,
    slack_messages,
)

VICTIMS = (*SERVICES, "kafka", "postgres")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RunningCluster]:
    """A cluster of this test alone: nobody else should have to bear it."""
    with running_cluster(tmp_path / "kills") as running:
        yield running


async def sign_up_until_answered(gateway: httpx.AsyncClient) -> Person:
    """Do as a good client does: send the command with one key until it is answered."""
    person = Person(gateway)

    async def answer() -> int:
        try:
            return (await person.sign_up(**{"Idempotency-Key": person.username})).status_code
        except httpx.TransportError:
            return 0

    await eventually(answer, lambda status: status == httpx.codes.CREATED)
    return person


async def assert_whole_and_once(
    cluster: RunningCluster, operator: Operator, person: Person
) -> None:
    """Every effect of someone's sign-up is there, and there is one of each."""
    account = await eventually(lambda: operator.account_of(person))
    assert account is not None
    assert len(account["transactions"]) == 1
    mine = await person.sign_in()

    async def tasks() -> int:
        page = await person.gateway.get("/users/me/tasks", headers=mine)
        return len(page.json()["tasks"])

    assert await eventually(tasks) == 2
    (record,) = await eventually(lambda: operator.audit_records_of(person))
    assert (record["sequence"], record["verdict"]) == (1, "next")
    assert len(await eventually(lambda: slack_messages(cluster, person.username))) == 1


@pytest.mark.timeout(240)
class TestKillingEachProcessInTurn:
    async def test_nothing_is_lost_and_nothing_is_done_twice(self, cluster: RunningCluster) -> None:
        people: list[Person] = []
        async with httpx.AsyncClient(base_url=cluster.gateway_url, timeout=15) as gateway:
            for victim in VICTIMS:
                signing_up = [
                    asyncio.create_task(sign_up_until_answered(gateway)) for _ in range(5)
                ]
                await asyncio.to_thread(cluster.kill, victim)
                people += await asyncio.gather(*signing_up)

            await eventually(lambda: everyone_is_ready(cluster))
            operator = await Operator.signed_in(
                gateway, cluster.operator, cluster.operator_password
            )
            for person in people:
                await assert_whole_and_once(cluster, operator, person)
        restarts = {name: process.restarts for name, process in cluster.processes().items()}
        assert all(restarts[victim] >= 1 for victim in VICTIMS), restarts
