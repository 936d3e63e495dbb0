"""Watches the readiness of every service during a fault, and which processes restart."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from tests.e2e.people import poll
from tests.faults.harness import System

PER_SECOND: Final = 4.0
_SOME_ANSWERS: Final = 10
_POLL_EVERY_S: Final = 0.25
# A reason of a busy machine, and not of a fault.
_SLOW: Final = "no answer within"


@dataclass(frozen=True, slots=True)
class Readiness:
    """One answer of ``/health/ready``: status 0 is no answer; ``reasons`` are by check."""

    status: int
    reasons: Mapping[str, str]

    @property
    def is_unready(self) -> bool:
        """Whether it is not ready, for another reason than a busy machine."""
        is_slow = {_SLOW in reason for reason in self.reasons.values()} == {True}
        return self.status != httpx.codes.OK and not is_slow


class Watch:
    """Every service's readiness while it is watched, and the restarts of processes."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._answers: defaultdict[str, list[Readiness]] = defaultdict(list)
        self._restarts = self._count_restarts()
        self._rounds = 0

    @property
    def not_ready(self) -> dict[str, Readiness]:
        """The services that were not ready at some time, each with its first such answer."""
        return {
            name: next(each for each in answers if each.is_unready)
            for name, answers in self._answers.items()
            if any(each.is_unready for each in answers)
        }

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was started again; without those that were not."""
        return {
            name: count - self._restarts.get(name, 0)
            for name, count in self._count_restarts().items()
            if count > self._restarts.get(name, 0)
        }

    async def until_reported(self, service: str, check: str, reason: str) -> None:
        """Wait until a check of a service reports a reason that contains this one."""

        async def last() -> Readiness:
            return self._answers[service][-1]

        # An answer from before may be of an earlier fault.
        await self._next_round()
        await poll(last, lambda answer: reason in answer.reasons.get(check, ""), within_s=60)

    async def until_well(self) -> None:
        """Wait until every service is ready and reports no reasons."""

        async def last() -> dict[str, Readiness]:
            return {name: answers[-1] for name, answers in self._answers.items()}

        well = dict.fromkeys(self._system.services, Readiness(httpx.codes.OK, {}))
        await poll(last, lambda answers: answers == well, within_s=90)

    async def _next_round(self) -> None:
        before = self._rounds

        async def is_over() -> bool:
            # The present round may have begun too early.
            return self._rounds > before + 1

        await poll(is_over)

    async def check(self, client: httpx.AsyncClient) -> None:
        """Request the readiness of every service once."""
        for name, answer in zip(
            self._system.services,
            await asyncio.gather(*(self._request(client, each) for each in self._system.services)),
            strict=True,
        ):
            self._answers[name].append(answer)
        self._rounds += 1

    async def _request(self, client: httpx.AsyncClient, name: str) -> Readiness:
        try:
            answer = await client.get(f"{self._system.cluster.health_url(name)}/health/ready")
        except httpx.TimeoutException:
            return Readiness(0, {"process": f"{_SLOW} 5 s"})
        except httpx.TransportError as error:
            return Readiness(0, {"process": type(error).__name__})
        body = answer.json()
        if answer.status_code == httpx.codes.OK:
            return Readiness(answer.status_code, body["troubles"])
        return Readiness(
            answer.status_code, {each["field"]: each["message"] for each in body["errors"]}
        )

    def _count_restarts(self) -> dict[str, int]:
        return {name: each.restarts for name, each in self._system.cluster.processes().items()}


@asynccontextmanager
async def watching(system: System) -> AsyncIterator[Watch]:
    """Watch every service while the block runs."""
    watch = Watch(system)
    async with httpx.AsyncClient(timeout=5) as client:

        async def check_again_and_again() -> None:
            while True:
                await watch.check(client)
                await asyncio.sleep(_POLL_EVERY_S)

        checking = asyncio.create_task(check_again_and_again())
        try:
            yield watch
        finally:
            checking.cancel()
            await asyncio.wait([checking])


@asynccontextmanager
async def under_load(system: System) -> AsyncIterator[Watch]:
    """Send commands before, during and after the block, and assert that nothing is lost.

    :raises AssertionError: an invariant is broken
    """
    async with watching(system) as watch:
        async with system.workload.at(PER_SECOND):
            await wait_for_answers(system)
            yield watch
            await wait_for_answers(system)
        await watch.until_well()
    await system.assert_nothing_is_lost()


async def wait_for_answers(system: System, count: int = _SOME_ANSWERS) -> None:
    """Wait until so many more commands have been answered with success."""
    wanted = len(system.workload.promised) + count

    async def number() -> int:
        return len(system.workload.promised)

    await poll(number, lambda number: number >= wanted)


@asynccontextmanager
async def stopped(system: System, name: str) -> AsyncIterator[None]:
    """Stop a process while the block runs, and start it again also after a failure."""
    await asyncio.to_thread(system.cluster.stop, name)
    try:
        yield
    finally:
        await asyncio.to_thread(system.cluster.resume, name)
