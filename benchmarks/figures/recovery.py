"""How long sign-ups wait when a worker is killed, in its partitions and in the others."""

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.partitioner import DefaultPartitioner

from benchmarks.bench import PARTITIONS, Bench
from benchmarks.figure import Figure, Goal, Kind, Metric, Side, Values
from benchmarks.signing_up import SignUp, cheap_hash, through_gateway
from chassis.kafka.client import admin_client
from contracts.topics import USERS_USER

_PER_S: Final = 25
_BEFORE_S: Final = 2.0
_AFTER_S: Final = 8.0
_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.005
_OPENED: Final = "SELECT user_id FROM accounts WHERE user_id = ANY ($1::uuid[])"

_partition_of = DefaultPartitioner()
_ALL: Final = list(range(PARTITIONS))


@dataclass(frozen=True, slots=True)
class _Opened:
    """An account, the partition of its sign-up, and how long it took."""

    partition: int
    answered_at_s: float
    waited_s: float

    @property
    def done_at_s(self) -> float:
        return self.answered_at_s + self.waited_s


class _Openings:
    """How long each sign-up waits for its account."""

    def __init__(self) -> None:
        self.done: list[_Opened] = []
        self._waiting: dict[UUID, float] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def sign_up(self, sign_up: SignUp) -> None:
        user_id = await sign_up(f"u.{secrets.token_hex(6)}")
        self._waiting[user_id] = time.monotonic()

    @asynccontextmanager
    async def looked_for(self, url: str) -> AsyncIterator[None]:
        """Look for the missing accounts while the block runs."""
        looking = asyncio.create_task(self._look(url))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        if not looking.cancelled():
            looking.result()

    async def _look(self, url: str) -> None:
        connection = await asyncpg.connect(url)
        try:
            opened = await connection.prepare(_OPENED)
            while True:
                for [user_id] in await opened.fetch(list(self._waiting)):
                    answered_at_s = self._waiting.pop(user_id)
                    key = str(user_id).encode()
                    waited_s = time.monotonic() - answered_at_s
                    partition = _partition_of(key, _ALL, _ALL)
                    self.done.append(_Opened(partition, answered_at_s, waited_s))
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            connection.terminate()


async def _partitions_of(bench: Bench, worker: str) -> set[int]:
    """Return which partitions of the sign-ups are assigned to a worker of the accounts service."""
    async with admin_client(bench.cluster.kafka_bootstrap) as client:
        [answer] = await client.describe_consumer_groups(["accounts"])
    [[_error, _group, state, _type, _protocol, members, *_rights]] = answer.groups
    if state != "Stable":
        return set()
    return {
        number
        for member_id, *_about, assignment in members
        if worker in member_id
        for topic, numbers in ConsumerProtocol.ASSIGNMENT.decode(assignment).assignment
        if topic == USERS_USER.name
        for number in numbers
    }


async def _arriving(openings: _Openings, sign_up: SignUp, for_s: float) -> None:
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(round(for_s * _PER_S)):
            await asyncio.sleep(began_s + number / _PER_S - time.monotonic())
            group.create_task(openings.sign_up(sign_up))


@asynccontextmanager
async def _second_worker(bench: Bench) -> AsyncIterator[str]:
    """Run a second worker of the accounts service, which is stopped by SIGKILL."""
    cluster = bench.cluster
    name = await asyncio.to_thread(cluster.add_worker, "accounts", 2, stop_signal=signal.SIGKILL)
    try:
        yield name
    finally:
        await asyncio.to_thread(cluster.remove_worker, name)


async def _killed(bench: Bench, kill: Callable[[str], None]) -> Values:
    openings = _Openings()
    async with (
        cheap_hash(bench),
        through_gateway(bench) as sign_up,
        openings.looked_for(bench.cluster.postgres_url("accounts")),
        _second_worker(bench) as worker,
    ):
        async with asyncio.timeout(_WITHIN_S):
            while not (its := await _partitions_of(bench, worker)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        await _arriving(openings, sign_up, _BEFORE_S)
        killed_at_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(kill, worker))
            group.create_task(_arriving(openings, sign_up, _AFTER_S))
        async with asyncio.timeout(_WITHIN_S):
            while openings.waiting:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
    before = [each for each in openings.done if each.done_at_s < killed_at_s]
    after = [each for each in openings.done if each.done_at_s >= killed_at_s]
    return {
        "flows_again_s": max(each.waited_s for each in after if each.partition in its),
        "others_paused_s": max(each.waited_s for each in after if each.partition not in its),
        "usual_s": max(each.waited_s for each in before),
    }


async def not_started_again(bench: Bench) -> Values:
    return await _killed(bench, bench.cluster.remove_worker)


async def started_again(bench: Bench) -> Values:
    return await _killed(bench, bench.cluster.kill)


_SIDES: Final = {"not started again": not_started_again, "started again": started_again}

FIGURES: Final = (
    Figure(
        name="recovery",
        title="A worker is killed",
        work="One of two workers of the accounts service is killed (SIGKILL) while 25 people a"
        " second sign up: the longest wait for an account, from the answer to the sign-up.",
        metrics=[
            Metric("flows_again_s", "s", "in the partitions of the killed worker"),
            Metric("others_paused_s", "s", "in all other partitions, after the kill"),
            Metric("usual_s", "s", "in any partition, before the kill"),
        ],
        sides=[Side(name, Kind.OURS, run) for name, run in _SIDES.items()],
        goals=[
            goal
            for name in _SIDES
            for goal in (
                Goal("flows_again_s", at_most=10, side=name),
                Goal("others_paused_s", at_most=1, side=name),
            )
        ],
        needs_services=True,
        repeats=1,
    ),
)
