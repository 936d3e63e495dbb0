"""The clock steps back an hour, and forward again: nothing stalls, and the order is kept."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from chassis.correlation import new_id
from contracts.envelope import encode
from contracts.users import UsersEventWithheldV1
from tests.declared import declared
from tests.e2e.people import Operator, poll
from tests.faults.databases import rows
from tests.faults.harness import System
from tests.faults.watch import PER_SECOND
from verification.addresses import SERVICES as WITH_DATABASE

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("clock")]

AN_HOUR: Final = timedelta(hours=1)
RIGHT: Final = timedelta()
FLOWS_WITHIN_S: Final = 30.0

_IN_A_ROW: Final = 20
_SENT: Final = "SELECT FROM deliveries WHERE state = 'sent'"


def set_clocks(system: System, wrong_by: timedelta) -> None:
    """Set the clocks of all processes wrong by so much."""
    written = system.failpoints.directory / ".clock"
    written.write_text(str(wrong_by.total_seconds()))
    written.rename(system.failpoints.directory / "clock")


async def wait_for_new_effects(system: System) -> None:
    """Wait until people who sign up now have an account, tasks, a record and a message."""
    before = set(system.workload.promised)

    async def some() -> list[UUID]:
        return [each for each in system.workload.promised if each not in before][:5]

    people = await poll(some, lambda found: len(found) == 5, within_s=FLOWS_WITHIN_S)
    texts = [f"{system.workload.promised[each]} signed up" for each in people]
    subjects = [str(each) for each in people]
    for service, query, wanted, count in (
        ("accounts", "SELECT FROM accounts WHERE user_id = ANY($1)", people, 5),
        ("users", "SELECT FROM tasks WHERE assignee_id = ANY($1)", people, 10),
        ("audit", "SELECT FROM records WHERE subject = ANY($1)", subjects, 5),
        ("notification", f"{_SENT} AND text = ANY($1)", texts, 5),
    ):
        if declared(service):
            await until_there_are(count, system, service, query, wanted)


async def until_there_are(
    count: int, system: System, service: str, query: str, wanted: Sequence[object]
) -> None:
    async def found() -> int:
        return len(await rows(system, service, query, wanted))

    await poll(found, lambda number: number == count, within_s=FLOWS_WITHIN_S)


class TestTheClock:
    async def test_steps_back_an_hour_and_forward_again_and_everything_continues_in_order(
        self, system: System
    ) -> None:
        subject = uuid4()
        async with system.workload.at(PER_SECOND):
            await wait_for_new_effects(system)
            await append_events(system, subject, 0, RIGHT)
            sequence = _IN_A_ROW
            for wrong_by in (-AN_HOUR, RIGHT, -AN_HOUR):
                # Deliveries wait for their next try while the clock steps.
                await fail_posts(system, 20)

                set_clocks(system, wrong_by)

                await append_events(system, subject, sequence, wrong_by)
                sequence += _IN_A_ROW
                await wait_for_new_effects(system)
                await assert_operator_may_read(system, subject)
        await system.assert_nothing_is_lost()

        query = "SELECT sequence, verdict FROM records WHERE subject = $1 ORDER BY position"
        found = await rows(system, "audit", query, str(subject))
        assert [row["sequence"] for row in found] == list(range(1, sequence + 1))
        assert {row["verdict"] for row in found} == {"next"}
        for service in WITH_DATABASE:
            assert await rows(system, service, "SELECT FROM inbox_missing") == []
            assert await rows(system, service, "SELECT FROM parked") == []

    async def test_is_an_hour_behind_when_everything_is_restarted(self, system: System) -> None:
        set_clocks(system, RIGHT)
        async with system.workload.at(PER_SECOND):
            await wait_for_new_effects(system)
            set_clocks(system, -AN_HOUR)
            for each in system.services:
                system.cluster.kill(each)
            # Continue only when all consumers have joined again under the wrong clock.
            await poll(lambda: have_joined_again(system))

            await wait_for_new_effects(system)
        await system.assert_nothing_is_lost()


async def append_events(system: System, subject: UUID, after: int, wrong_by: timedelta) -> None:
    """Append events of one subject to an outbox, as a process with a wrong clock does."""
    system.made_up.add(str(subject))
    now = datetime.now(UTC) + wrong_by
    values = []
    for sequence in range(after + 1, after + _IN_A_ROW + 1):
        # The first 48 bits of an id are the time in milliseconds.
        id_ = UUID(int=new_id().int + (wrong_by // timedelta(milliseconds=1) << 80))
        event = encode(
            UsersEventWithheldV1(withheld_id=uuid4(), withheld_type="users.user-signed-up.v1"),
            id=id_,
            source="/users",
            subject=str(subject),
            time=now,
            sequence=sequence,
            correlationid="clock",
        )
        headers = json.dumps({name: value.decode() for name, value in event.headers})
        type_ = UsersEventWithheldV1.event_type
        values.append((id_, str(subject), type_, sequence, event.payload, headers, now))
    connection = await asyncpg.connect(system.cluster.postgres_url("users"))
    try:
        await connection.executemany(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, sequence, payload, headers,"
            " created_at) VALUES ($1, 'users.user', $2, $3, $4, $5, $6, $7)",
            values,
        )
    finally:
        await connection.close()


async def fail_posts(system: System, count: int) -> None:
    if not declared("slack-stand-in"):
        return
    async with httpx.AsyncClient(base_url=system.cluster.url("slack-stand-in")) as client:
        answer = await client.post("/control/faults", json={"kind": "server_error", "count": count})
        answer.raise_for_status()


async def assert_operator_may_read(system: System, subject: UUID) -> None:
    """Sign in under the present clock, and read from audit with the token."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=15) as gateway:
        operator = await Operator.signed_in(gateway, system.cluster)
        page = await operator.get("/audit/events", subject=str(subject))
        assert page["events"]


async def have_joined_again(system: System) -> bool:
    for service in WITH_DATABASE:
        query = "SELECT FROM pg_stat_activity WHERE application_name = $1"
        if not await rows(system, service, query, f"{service}-worker-{service}-1"):
            return False
    return True
