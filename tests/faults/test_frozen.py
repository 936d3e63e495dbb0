"""Processes that freeze and wake: others go on in their place, and what they wake to is over."""

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import httpx
import pytest

from chassis import testing
from tests.e2e.people import WITHIN_S, Json, Person, eventually
from tests.faults.harness import System, running_system
from tests.faults.measured import report
from tests.faults.watch import PER_SECOND
from tests.integration.chassis.path import rows

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("frozen")]

# The session time-out is 6 s; a lock of a connection that is idle for as long is taken away.
ELSEWHERE_WITHIN_S: Final = 10.0
TAKEN_OVER_WITHIN_S: Final = 10.0

_LOOK_EVERY_S: Final = 0.25


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("frozen")) as system:
        yield system


@pytest.fixture
def second_of(system: System) -> Iterator[Callable[[str], str]]:
    """Start a second worker of a service; it is gone after the test."""
    started: list[str] = []

    def start(service: str) -> str:
        started.append(system.cluster.add_worker(service, 2))
        return started[-1]

    yield start
    system.failpoints.disarm()
    for name in started:
        system.cluster.remove_worker(name)


@asynccontextmanager
async def frozen(system: System, name: str) -> AsyncIterator[None]:
    """Have a process frozen while the block runs, and awake after it."""
    system.cluster.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        system.cluster.kill(name, signal.SIGCONT)


async def ask(system: System, service: str, query: str, *parameters: Any) -> list[Any]:
    return await rows(system.cluster.postgres_url(service), query, *parameters)


async def sessions(system: System, service: str, name: str) -> int:
    """Return how many sessions bear a name: a worker's, or a relay's that works or stands by."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name = $2"
    return len(await ask(system, service, query, service, name))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds, and look no oftener than the machine bears."""
    await testing.eventually(holds, within_s=WITHIN_S, every_s=_LOOK_EVERY_S)


async def places(system: System, service: str) -> dict[int, int]:
    """Return how far a service is in each partition of the sign-ups."""
    found = await ask(system, service, "SELECT * FROM progress WHERE topic = 'users.user'")
    return {row["partition"]: row["next_offset"] for row in found}


def all_have_moved(
    system: System, service: str, since: dict[int, int]
) -> Callable[[], Awaitable[bool]]:
    async def have() -> bool:
        now = await places(system, service)
        return all(now[partition] > since[partition] for partition in since)

    return have


class TestAFrozenWorker:
    async def test_inside_its_chunks_is_replaced_and_changes_nothing_when_it_wakes(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        second = second_of("accounts")

        async def both_are_there() -> bool:
            named = [await sessions(system, "accounts", f"accounts-worker-{n}") for n in
                     ("accounts-1", second)]  # fmt: skip
            return all(named)

        await until(both_are_there)
        async with system.workload.at(PER_SECOND):
            # Every chunk lasts long enough to be frozen in.
            system.failpoints.arm("chunk.before-commit", "always delay 3", service="accounts")

            async def are_all_in_their_chunks() -> bool:
                query = (
                    "SELECT pid FROM pg_stat_activity WHERE datname = 'accounts'"
                    " AND state = 'idle in transaction'"
                )
                return len(await ask(system, "accounts", query)) >= 6

            await until(are_all_in_their_chunks)
            async with frozen(system, second):
                began = time.monotonic()
                system.failpoints.disarm()
                before = await places(system, "accounts")
                await until(all_have_moved(system, "accounts", before))
                took_s = time.monotonic() - began
                # Past its session time-out it is out of the group, and its partitions flow on.
                await until(all_have_moved(system, "accounts", await places(system, "accounts")))

            # Awake, it joins again.
            await until(both_are_there)
        await system.assert_nothing_is_lost()
        report("flowed elsewhere after", [took_s], bound=ELSEWHERE_WITHIN_S)
        assert took_s < ELSEWHERE_WITHIN_S + usual_delay_s(system)


class TestAFrozenRelay:
    async def test_that_holds_the_lock_is_replaced_and_what_it_sends_when_it_wakes_is_no_news(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        second = second_of("users")

        async def both_are_there() -> bool:
            return await sessions(system, "users", "users-relay") == 2

        await until(both_are_there)
        # The one that answers requests gives the lock to the other, and is to stay awake.
        system.cluster.kill("users")
        await until(both_are_there)
        async with system.workload.at(PER_SECOND):
            # It has read rows, and freezes before it sends them.
            system.failpoints.arm("relay.before-send", "delay 1", service="users")

            async def is_about_to_send() -> bool:
                return system.failpoints.was_hit("relay.before-send", service="users")

            await until(is_about_to_send)
            async with frozen(system, second):
                began = time.monotonic()
                before = await places(system, "audit")
                await until(all_have_moved(system, "audit", before))
                took_s = time.monotonic() - began
            await until(all_have_moved(system, "audit", await places(system, "audit")))
        found = await system.assert_nothing_is_lost()
        report("published again after", [took_s], bound=TAKEN_OVER_WITHIN_S)
        assert took_s < TAKEN_OVER_WITHIN_S + usual_delay_s(system)
        assert found.holds


class TestAFrozenDeliveryWorker:
    async def test_between_its_claim_and_its_call_posts_nothing_when_it_wakes(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        delivery = await self.freeze_at(system, second_of, "delivery.after-claim")

        # What it does with the next shows that it is awake, and past this one.
        await system.workload.sign_up(20)
        await system.assert_nothing_is_lost()
        assert await self.messages_of(system, delivery) == 1

    async def test_at_its_call_posts_one_more_at_most_and_that_is_marked(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        delivery = await self.freeze_at(system, second_of, "delivery.before-post")

        # Nothing can hold back a call that was about to be made.
        async def messages() -> int:
            return await self.messages_of(system, delivery)

        await eventually(messages, lambda count: count == 2)
        [row] = await ask(
            system, "notification", "SELECT * FROM deliveries WHERE id = $1", delivery
        )
        assert (row["state"], row["maybe_repeated"]) == ("sent", True)
        await system.assert_nothing_is_lost()

    async def freeze_at(self, system: System, second_of: Callable[[str], str], point: str) -> UUID:
        """Freeze the worker there with a delivery until another has sent that; return its id."""
        system.failpoints.arm(point, "delay 1", service="notification")
        await sign_up_one(system)

        async def is_there() -> bool:
            return system.failpoints.was_hit(point, service="notification")

        await until(is_there)
        async with frozen(system, "notification"):
            query = "SELECT id FROM deliveries WHERE state = 'sending'"
            [row] = await ask(system, "notification", query)
            second_of("notification")

            async def is_sent() -> bool:
                query = "SELECT id FROM deliveries WHERE id = $1 AND state = 'sent'"
                return bool(await ask(system, "notification", query, row["id"]))

            await until(is_sent)
        delivery: UUID = row["id"]
        return delivery

    async def messages_of(self, system: System, delivery: UUID) -> int:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{system.cluster.url('slack-stand-in')}/messages")
        messages: list[Json] = answer.json()["messages"]
        ids = [each["metadata"]["event_payload"]["delivery_id"] for each in messages]
        return ids.count(str(delivery))


async def sign_up_one(system: System) -> None:
    """Sign up somebody who waits for the answer."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=15) as gateway:
        person = Person(gateway)
        await eventually(
            lambda: person.sign_up(**{"Idempotency-Key": person.username}),
            lambda answer: answer.status_code == httpx.codes.CREATED,
        )
    system.workload.promised[UUID(person.id)] = person.username


def usual_delay_s(system: System) -> float:
    """Return how long this machine takes for an answer: it is as late with all else."""
    return max(system.workload.latencies_s[-200:], default=0.0)
