"""Processes that freeze and wake: others take over, and a late effect changes nothing."""

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import httpx
import pytest

from chassis.testing import eventually
from tests.declared import needs
from tests.e2e.people import WITHIN_S, Json, Person, poll
from tests.faults.databases import rows
from tests.faults.harness import System
from tests.faults.measured import print_measured
from tests.faults.watch import PER_SECOND

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("frozen")]

# The session time-out is 6 s; PostgreSQL ends an idle transaction, with its locks, sooner.
ELSEWHERE_WITHIN_S: Final = 10.0
TAKEN_OVER_WITHIN_S: Final = 10.0

_POLL_EVERY_S: Final = 0.25


@pytest.fixture
def second_of(system: System) -> Iterator[Callable[[str], str]]:
    """Start a second worker of a service; it is removed after the test."""
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
    """Freeze a process while the block runs, and wake it afterwards."""
    system.cluster.kill(name, signal.SIGSTOP)
    try:
        yield
    finally:
        system.cluster.kill(name, signal.SIGCONT)


async def sessions(system: System, service: str, name: str) -> int:
    """Return how many sessions have this name: a worker's, or of all relays."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND application_name = $2"
    return len(await rows(system, service, query, service, name))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; check seldom, so that the machine is not busy with it."""
    await eventually(holds, within_s=WITHIN_S, every_s=_POLL_EVERY_S)


async def next_offsets(system: System, service: str) -> dict[int, int]:
    """Return the next offset of a service in each partition of the sign-ups."""
    found = await rows(system, service, "SELECT * FROM progress WHERE topic = 'users.user'")
    return {row["partition"]: row["next_offset"] for row in found}


def all_have_moved(
    system: System, service: str, since: dict[int, int]
) -> Callable[[], Awaitable[bool]]:
    async def have() -> bool:
        now = await next_offsets(system, service)
        return all(now[partition] > since[partition] for partition in since)

    return have


class TestAFrozenWorker:
    async def test_inside_its_chunks_is_replaced_and_changes_nothing_when_it_wakes(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        second = second_of("accounts")

        async def both_are_up() -> bool:
            named = [await sessions(system, "accounts", f"accounts-worker-{n}") for n in
                     ("accounts-1", second)]  # fmt: skip
            return all(named)

        await until(both_are_up)
        async with system.workload.at(PER_SECOND):
            # Every chunk takes long enough to freeze the worker in it.
            system.failpoints.arm("chunk.before-commit", "always delay 3", service="accounts")

            async def are_all_in_chunks() -> bool:
                query = (
                    "SELECT pid FROM pg_stat_activity WHERE datname = 'accounts'"
                    " AND state = 'idle in transaction'"
                )
                return len(await rows(system, "accounts", query)) >= 6

            await until(are_all_in_chunks)
            async with frozen(system, second):
                began = time.monotonic()
                system.failpoints.disarm()
                before = await next_offsets(system, "accounts")
                await until(all_have_moved(system, "accounts", before))
                took_s = time.monotonic() - began
                # After its session time-out it is out of the group, and its partitions advance.
                await until(
                    all_have_moved(system, "accounts", await next_offsets(system, "accounts"))
                )

            # Awake, it joins again.
            await until(both_are_up)
        await system.assert_nothing_is_lost()
        print_measured("advanced elsewhere after", [took_s], bound=ELSEWHERE_WITHIN_S)
        assert took_s < ELSEWHERE_WITHIN_S + usual_delay_s(system)


class TestAFrozenRelay:
    async def test_that_holds_the_lock_is_replaced_and_sends_only_repeats_when_it_wakes(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        second = second_of("users")

        async def both_are_up() -> bool:
            return await sessions(system, "users", "users-relay") == 2

        await until(both_are_up)
        # The process that answers requests gives the lock to the other one, which is frozen then.
        system.cluster.kill("users")
        await until(both_are_up)
        async with system.workload.at(PER_SECOND):
            # The relay has read rows, and is frozen before it sends them.
            system.failpoints.arm("relay.before-send", "delay 1", service="users")

            async def is_about_to_send() -> bool:
                return system.failpoints.was_hit("relay.before-send", service="users")

            await until(is_about_to_send)
            async with frozen(system, second):
                began = time.monotonic()
                before = await next_offsets(system, "audit")
                await until(all_have_moved(system, "audit", before))
                took_s = time.monotonic() - began
            await until(all_have_moved(system, "audit", await next_offsets(system, "audit")))
        found = await system.assert_nothing_is_lost()
        print_measured("published again after", [took_s], bound=TAKEN_OVER_WITHIN_S)
        assert took_s < TAKEN_OVER_WITHIN_S + usual_delay_s(system)
        assert found.holds


@needs("notification")
class TestAFrozenDeliveryWorker:
    async def test_between_its_claim_and_its_call_posts_nothing_when_it_wakes(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        delivery = await self.freeze_at(system, second_of, "delivery.after-claim")

        # Further deliveries show that it is awake, and past this one.
        await system.workload.sign_up(20)
        await system.assert_nothing_is_lost()
        assert await self.messages_of(system, delivery) == 1

    async def test_at_its_call_posts_at_most_one_more_and_that_is_marked(
        self, system: System, second_of: Callable[[str], str]
    ) -> None:
        delivery = await self.freeze_at(system, second_of, "delivery.before-post")

        # A call that is about to be made cannot be stopped.
        async def messages() -> int:
            return await self.messages_of(system, delivery)

        await poll(messages, lambda count: count == 2)
        [row] = await rows(
            system, "notification", "SELECT * FROM deliveries WHERE id = $1", delivery
        )
        assert (row["state"], row["maybe_repeated"]) == ("sent", True)
        await system.assert_nothing_is_lost()

    async def freeze_at(self, system: System, second_of: Callable[[str], str], point: str) -> UUID:
        """Freeze the worker at a point until another has sent its delivery; return its id."""
        system.failpoints.arm(point, "delay 1", service="notification")
        await sign_up_one(system)

        async def is_at_the_point() -> bool:
            return system.failpoints.was_hit(point, service="notification")

        await until(is_at_the_point)
        async with frozen(system, "notification"):
            query = "SELECT id FROM deliveries WHERE state = 'sending'"
            [row] = await rows(system, "notification", query)
            second_of("notification")

            async def is_sent() -> bool:
                query = "SELECT id FROM deliveries WHERE id = $1 AND state = 'sent'"
                return bool(await rows(system, "notification", query, row["id"]))

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
    """Sign up a person who waits for the answer."""
    async with httpx.AsyncClient(base_url=system.cluster.gateway_url, timeout=15) as gateway:
        person = Person(gateway)
        await poll(
            lambda: person.sign_up(**{"Idempotency-Key": person.username}),
            lambda answer: answer.status_code == httpx.codes.CREATED,
        )
    system.workload.promised[UUID(person.id)] = person.username


def usual_delay_s(system: System) -> float:
    """Return how long this machine takes for an answer: everything else may be as late."""
    return max(system.workload.latencies_s[-200:], default=0.0)
