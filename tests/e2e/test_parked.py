"""An operator corrects and releases a parked event at every service; it then has its effects."""

import json
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from contracts.envelope import EncodedEvent
from contracts.topics import USERS_USER
from local_cluster.testing import RunningCluster
from tests.declared import declared
from tests.e2e.events import publish, signed_up, with_invalid_data
from tests.e2e.people import Operator, Person, a_name, poll, slack_messages

pytestmark = pytest.mark.xdist_group("e2e")

SUBSCRIBERS = (
    ("users", "users.create-onboarding-tasks"),
    ("accounts", "accounts.open-account"),
    ("accounts", "accounts.know-owners"),
    *(("notification", "notification.plan-deliveries") for _ in declared("notification")),
)


async def parked_at(
    operator: Operator, service: str, subscriber: str, subject: UUID
) -> list[dict[str, Any]]:
    page = await operator.get(f"/ops/{service}/parked", subject=str(subject), subscriber=subscriber)
    events: list[dict[str, Any]] = page["parked"]
    return events


async def audited_acts(operator: Operator, parked_id: str) -> list[str]:
    """The types of the operator's acts that audit has recorded, oldest first."""
    page = await operator.get("/audit/events", subject=parked_id)
    return [each["type"] for each in reversed(page["events"])]


async def waits_at(cluster: RunningCluster, service: str) -> str:
    """What readiness of a service says that waits for an operator."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{cluster.url(service)}/health/ready")
    reason: str = answer.json()["troubles"].get("waits-for-operator", "")
    return reason


def logged_as_parked(
    cluster: RunningCluster, service: str, subscriber: str
) -> dict[int, dict[str, Any]]:
    """The lines about a subscriber's parked events, by offset."""
    lines = [
        json.loads(line)
        for line in cluster.log(service).read_text().splitlines()
        if '"event-parked"' in line and f'"{subscriber}"' in line
    ]
    return {line["offset"]: line for line in lines}


async def repair(
    cluster: RunningCluster,
    operator: Operator,
    service: str,
    subscriber: str,
    subject: UUID,
    corrected: EncodedEvent,
) -> str:
    """Edit and release the subject's events of a subscriber; return the id of the edited one."""
    first, second = await poll(
        lambda: parked_at(operator, service, subscriber, subject),
        lambda parked: len(parked) == 2,
    )
    assert (first["reason"], second["reason"]) == ("not-understood", "behind")
    reported = await poll(partial(waits_at, cluster, service))
    assert f"parked events of {subscriber}: " in reported
    line = {name: first[name] for name in ("reason", "error_code", "partition", "offset")}
    assert line.items() <= logged_as_parked(cluster, service, subscriber)[first["offset"]].items()
    path = f"/ops/{service}/parked"

    async def act(method: str, where: str, **body: Any) -> httpx.Response:
        answer = await operator.request(method, f"{path}/{where}", json=body)
        assert answer.is_success, answer.text
        return answer

    edit = {"why": "a typing error", "payload": json.loads(corrected.payload)}
    await act("PUT", f"{first['id']}/payload", **edit)
    outcome = (await act("POST", f"{first['id']}/dry-run")).json()
    assert outcome["stays_parked"] is None
    place = {"subscriber": subscriber, "topic": USERS_USER.name, "subject": str(subject)}
    released = (await act("POST", "release", why="corrected", **place)).json()
    assert released == {"released": 2, "left": 0, "stopped_at": None}
    return str(first["id"])


# If it is the first of a run, it waits for the system to start.
@pytest.mark.timeout(600)
class TestAnEventWithInvalidData:
    async def test_is_edited_and_released_and_audit_has_both_acts(
        self, cluster: RunningCluster, operator: Operator
    ) -> None:
        ada = Person(operator.gateway, id=str(uuid4()))
        bob = Person(operator.gateway, username=a_name(), id=str(uuid4()))
        subject = UUID(ada.id)
        corrected = signed_up(subject, 1, subject, ada.username)
        behind = signed_up(subject, 2, UUID(bob.id), bob.username)

        await publish(cluster, [with_invalid_data(corrected), behind])
        repaired = [
            await repair(cluster, operator, service, subscriber, subject, corrected)
            for service, subscriber in SUBSCRIBERS
        ]

        for person in (ada, bob):
            account = await operator.account_of(person)
            assert account is not None
            assert len(account["transactions"]) == 1
            if declared("notification"):
                messages = await poll(partial(slack_messages, cluster, person.username))
                assert len(messages) == 1
        for parked_id in repaired:
            assert await poll(
                partial(audited_acts, operator, parked_id), lambda types: len(types) == 2
            ) == ["operations.parked-event-edited.v1", "operations.parked-event-released.v1"]
