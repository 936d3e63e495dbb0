"""The clock steps back an hour, and forward again: nothing stalls, and nothing is reordered."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from chassis.correlation import new_id
from contracts.envelope import encode
from contracts.users import UsersEventWithheldV1
from tests.e2e.people import Operator, eventually
from tests.faults.harness import System, running_system
from tests.faults.watch import PER_SECOND
from tests.integration.chassis.path import rows

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("clock")]

AN_HOUR: Final = timedelta(hours=1)
RIGHT: Final = timedelta()
FLOWS_WITHIN_S: Final = 30.0

_IN_A_ROW: Final = 20
_SENT: Final = "SELECT FROM deliveries WHERE state = 'sent'"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("clock")) as system:
        yield system


def set_clocks(system: System, wrong_by: timedelta) -> None:
    """Have the clocks of all processes wrong by so much, from now on."""
    written = system.failpoints.directory / ".clock"
    written.write_text(str(wrong_by.total_seconds()))
    written.rename(system.failpoints.directory / "clock")


async def ask(system: System, service: str, query: str, *parameters: Any) -> list[Any]:
    return await rows(system.cluster.postgres_url(service), query, *parameters)


async def all_effects_flow(system: System) -> None:
    """Wait until somebody who signs up now has an account, tasks, a record and a message."""
    before = set(system.workload.promised)

    async def some() -> list[UUID]:
        return [each for each in system.workload.promised if each not in before][:5]

    people = await eventually(some, lambda found: len(found) == 5, within_s=FLOWS_WITHIN_S)
    texts = [f"{system.workload.promised[each]} signed up" for each in people]
    subjects = [str(each) for each in people]
    for service, query, wanted, count in (
        ("accounts", "SELECT FROM accounts WHERE user_id = ANY($1)", people, 5),
        ("users", "SELECT FROM tasks WHERE assignee_id = ANY($1)", people, 10),
        ("audit", "SELECT FROM records WHERE subject = ANY($1)", subjects, 5),
        ("notification", f"{_SENT} AND text = ANY($1)", texts, 5),
    ):
        await until_there_are(count, system, service, query, wanted)


async def until_there_are(
    count: int, system: System, service: str, query: str, wanted: Sequence[object]
) -> None:
    async def found() -> int:
        return len(await ask(system, service, query, wanted))

    await eventually(found, lambda number: number == count, within_s=FLOWS_WITHIN_S)


class TestTheClock:
    async def test_steps_back_an_hour_and_forward_again_and_everything_goes_on_in_order(
        self, system: System
    ) -> None:
        subject = uuid4()
        async with system.workload.at(PER_SECOND):
            await all_effects_flow(system)
            await tell_some(system, subject, 0, RIGHT)
            sequence = _IN_A_ROW
            for wrong_by in (-AN_HOUR, RIGHT, -AN_HOUR):
                # Deliveries wait for their next try while the clock steps.
                await fail_posts(system, 20)

                set_clocks(system, wrong_by)

                await tell_some(system, subject, sequence, wrong_by)
                sequence += _IN_A_ROW
                await all_effects_flow(system)
                await operator_sees(system, subject)
        await system.assert_nothing_is_lost()

        query = "SELECT sequence, verdict FROM records WHERE subject = $1 ORDER BY position"
        found = await ask(system, "audit", query, str(subject))
        assert [row["sequence"] for row in found] == list(range(1, sequence + 1))
        assert {row["verdict"] for row in found} == {"next"}
        for service in ("users", "accounts", "audit", "notification"):
            assert await ask(system, service, "SELECT FROM inbox_missing") == []
            assert await ask(system, service, "SELECT FROM parked") == []

    async def test_is_an_hour_behind_when_everything_is_started_anew(self, system: System) -> None:
        set_clocks(system, RIGHT)
        async with system.workload.at(PER_SECOND):
            await all_effects_flow(system)
            set_clocks(system, -AN_HOUR)
            for each in system.services:
                system.cluster.kill(each)
            # Only what is started and joined again can be held against the clock.
            await eventually(lambda: has_come_back(system))

            await all_effects_flow(system)
        await system.assert_nothing_is_lost()


async def tell_some(system: System, subject: UUID, after: int, wrong_by: timedelta) -> None:
    """Put events of one subject into an outbox, as a process whose clock is wrong would."""
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
    async with httpx.AsyncClient(base_url=system.cluster.url("slack-stand-in")) as client:
        answer = await client.post("/control/faults", json={"kind": "server_error", "count": count})
        answer.raise_for_status()


async def operator_sees(system: System, subject: UUID) -> None:
    """Sign in by the clock as it is now, and be let in everywhere."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=15) as gateway:
        cluster = system.cluster
        operator = await Operator.signed_in(gateway, cluster.operator, cluster.operator_password)
        page = await operator.get("/audit/events", subject=str(subject))
        assert page["events"]


async def has_come_back(system: System) -> bool:
    for service in ("users", "accounts", "audit", "notification"):
        query = "SELECT FROM pg_stat_activity WHERE application_name = $1"
        if not await ask(system, service, query, f"{service}-worker-{service}-1"):
            return False
    return True
