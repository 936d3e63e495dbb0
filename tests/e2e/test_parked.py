"""An event that nobody understands is mended by an operator, everywhere, and has its effects."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from chassis.correlation import new_id
from contracts.envelope import EncodedEvent, encode
from contracts.topics import USERS_USER
from contracts.users import UserSignedUpV1
from local_cluster.testing import RunningCluster
from tests.e2e.people import Operator, Person, a_name, eventually, slack_messages

CONSUMERS = {
    "users": "users.create-onboarding-tasks",
    "accounts": "accounts.open-account",
    "notification": "notification.plan-deliveries",
}
KNOWN, AHEAD = b"users.user-signed-up.v1", b"users.user-signed-up.v2"


def signed_up(subject: UUID, sequence: int, user: UUID, username: str) -> EncodedEvent:
    return encode(
        UserSignedUpV1(user_id=user, username=username),
        id=new_id(),
        source="/users",
        subject=str(subject),
        time=datetime.now(UTC),
        sequence=sequence,
        correlationid="ahead",
    )


def of_the_next_version(event: EncodedEvent) -> EncodedEvent:
    headers = [(name, value.replace(KNOWN, AHEAD)) for name, value in event.headers]
    return EncodedEvent(event.key, event.payload.replace(KNOWN, AHEAD), headers)


async def publish(cluster: RunningCluster, events: Sequence[EncodedEvent]) -> None:
    """Publish as a producer would that is not ours."""
    producer = AIOKafkaProducer(bootstrap_servers=cluster.kafka_bootstrap)
    await producer.start()
    try:
        for each in events:
            await producer.send_and_wait(
                USERS_USER.name, each.payload, key=each.key, headers=each.headers
            )
    finally:
        await producer.stop()


async def parked_at(operator: Operator, service: str, subject: UUID) -> list[dict[str, Any]]:
    page = await operator.get(f"/ops/{service}/parked", subject=str(subject))
    events: list[dict[str, Any]] = page["parked"]
    return events


async def told_of(operator: Operator, parked_id: str) -> list[str]:
    """The types of what audit keeps of an operator's acts, oldest first."""
    page = await operator.get("/audit/events", subject=parked_id)
    return [each["type"] for each in reversed(page["events"])]


async def repair(operator: Operator, service: str, subject: UUID, mended: EncodedEvent) -> str:
    """Do at one service what an operator does, and return what was mended."""
    first, second = await eventually(
        lambda: parked_at(operator, service, subject), lambda parked: len(parked) == 2
    )
    assert (first["reason"], second["reason"]) == ("not-understood", "behind")
    path = f"/ops/{service}/parked"

    async def ask(method: str, where: str, **body: Any) -> httpx.Response:
        answer = await operator.gateway.request(
            method, f"{path}/{where}", headers=operator.headers, json=body
        )
        assert answer.is_success, answer.text
        return answer

    edit = {"why": "published too early", "payload": json.loads(mended.payload)}
    await ask("PUT", f"{first['id']}/payload", **edit)
    tried = (await ask("POST", f"{first['id']}/dry-run")).json()
    assert tried["stays_parked"] is None
    place = {"subscriber": CONSUMERS[service], "topic": USERS_USER.name, "subject": str(subject)}
    released = (await ask("POST", "release", why="mended", **place)).json()
    assert released == {"released": 2, "left": 0, "stopped_at": None}
    return str(first["id"])


# As the first of a run it waits for the whole system.
@pytest.mark.timeout(240)
class TestAnEventOfAVersionThatNobodyKnows:
    async def test_is_mended_and_released_and_audit_knows_who_did_it_and_why(
        self, cluster: RunningCluster, operator: Operator
    ) -> None:
        ada = Person(operator.gateway, id=str(uuid4()))
        bob = Person(operator.gateway, username=a_name(), id=str(uuid4()))
        subject = UUID(ada.id)
        mended = signed_up(subject, 1, subject, ada.username)
        behind = signed_up(subject, 2, UUID(bob.id), bob.username)

        await publish(cluster, [of_the_next_version(mended), behind])
        repaired = [await repair(operator, service, subject, mended) for service in CONSUMERS]

        for person in (ada, bob):
            account = await operator.account_of(person)
            assert account is not None
            assert len(account["transactions"]) == 1
            messages = await eventually(partial(slack_messages, cluster, person.username))
            assert len(messages) == 1
        for parked_id in repaired:
            assert await eventually(
                partial(told_of, operator, parked_id), lambda types: len(types) == 2
            ) == ["operations.parked-event-edited.v1", "operations.parked-event-released.v1"]
