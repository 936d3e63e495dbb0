"""What processes say of themselves while something is wrong, and which were started anew."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from tests.e2e.people import eventually
from tests.faults.harness import System

PER_SECOND: Final = 4.0
_SOME: Final = 10
_LOOK_EVERY_S: Final = 0.25
# Of a busy machine: true, and of no fault.
_SLOW: Final = "no answer within"


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of ``/health/ready``; status 0 is none, and ``reasons`` are by their checks."""

    status: int
    reasons: Mapping[str, str]

    @property
    def is_unready(self) -> bool:
        """Whether it can't do its work for another reason than that the machine is busy."""
        is_slow = {_SLOW in reason for reason in self.reasons.values()} == {True}
        return self.status != httpx.codes.OK and not is_slow


class Watch:
    """What every service said as long as one looked, and who died meanwhile."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._said: defaultdict[str, list[Said]] = defaultdict(list)
        self._restarts = self._count_restarts()
        self._looks = 0

    @property
    def not_ready(self) -> dict[str, Said]:
        """The services that were not ready at some time, each with what it said first then."""
        return {
            name: next(each for each in said if each.is_unready)
            for name, said in self._said.items()
            if any(each.is_unready for each in said)
        }

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was started again, those left out that were not."""
        return {
            name: count - self._restarts.get(name, 0)
            for name, count in self._count_restarts().items()
            if count > self._restarts.get(name, 0)
        }

    def troubles(self, service: str, check: str) -> set[str]:
        """Return the reasons that a check gave."""
        return {each.reasons[check] for each in self._said[service] if check in each.reasons}

    async def until_said(self, service: str, check: str, reason: str) -> None:
        """Wait until a check gives a reason with these words in it."""

        async def said() -> Said:
            return self._said[service][-1]

        # Not what was said before, which may be of an earlier fault.
        await self._next_look()
        await eventually(said, lambda said: reason in said.reasons.get(check, ""), within_s=60)

    async def until_well(self) -> None:
        """Wait until every service is ready and has nothing to complain of."""

        async def all_said() -> dict[str, Said]:
            return {name: said[-1] for name, said in self._said.items()}

        well = dict.fromkeys(self._system.services, Said(httpx.codes.OK, {}))
        await eventually(all_said, lambda said: said == well, within_s=90)

    async def _next_look(self) -> None:
        before = self._looks

        async def is_over() -> bool:
            # The one that was under way may have begun too early.
            return self._looks > before + 1

        await eventually(is_over)

    async def look(self, client: httpx.AsyncClient) -> None:
        """Ask every service once."""
        for name, said in zip(
            self._system.services,
            await asyncio.gather(*(self._ask(client, each) for each in self._system.services)),
            strict=True,
        ):
            self._said[name].append(said)
        self._looks += 1

    async def _ask(self, client: httpx.AsyncClient, name: str) -> Said:
        try:
            answer = await client.get(f"{self._system.cluster.url(name)}/health/ready")
        except httpx.TimeoutException:
            return Said(0, {"process": f"{_SLOW} 5 s"})
        except httpx.TransportError as error:
            return Said(0, {"process": type(error).__name__})
        body = answer.json()
        if answer.status_code == httpx.codes.OK:
            return Said(answer.status_code, body["troubles"])
        return Said(answer.status_code, {each["field"]: each["message"] for each in body["errors"]})

    def _count_restarts(self) -> dict[str, int]:
        return {name: each.restarts for name, each in self._system.cluster.processes().items()}


@asynccontextmanager
async def watching(system: System) -> AsyncIterator[Watch]:
    """Look at every service all the time while the block runs."""
    watch = Watch(system)
    async with httpx.AsyncClient(timeout=5) as client:

        async def go_on() -> None:
            while True:
                await watch.look(client)
                await asyncio.sleep(_LOOK_EVERY_S)

        looking = asyncio.create_task(go_on())
        try:
            yield watch
        finally:
            looking.cancel()
            await asyncio.wait([looking])


@asynccontextmanager
async def under_load(system: System) -> AsyncIterator[Watch]:
    """Have clients at work from before the block's fault until all is well; nothing is lost then.

    :raises AssertionError: an invariant is broken
    """
    async with watching(system) as watch:
        async with system.workload.at(PER_SECOND):
            await answered(system)
            yield watch
            await answered(system)
        await watch.until_well()
    await system.assert_nothing_is_lost()


async def answered(system: System, count: int = _SOME) -> None:
    """Wait until so many more commands were answered with success."""
    wanted = len(system.workload.promised) + count

    async def number() -> int:
        return len(system.workload.promised)

    await eventually(number, lambda number: number >= wanted)


@asynccontextmanager
async def away(system: System, name: str) -> AsyncIterator[None]:
    """Have a process stopped while the block runs, and started again whatever comes of it."""
    await asyncio.to_thread(system.cluster.stop, name)
    try:
        yield
    finally:
        await asyncio.to_thread(system.cluster.resume, name)
