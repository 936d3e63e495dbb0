"""Components that repeat one step until they are stopped."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final

SHORTEST_IDLE_S: Final = 0.02
LONGEST_IDLE_S: Final = 1.0


class Periodic(ABC):
    """Runs a step, waits, and runs it again; a stop ends the wait at once.

    A step that raises ends the component, and so the process. It catches what may fail itself.
    """

    name: str
    gates_readiness = False

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    @abstractmethod
    async def step(self) -> float:
        """Do the work once, and return how many seconds to wait before the next step."""

    async def run(self) -> None:
        while not self._stopped.is_set():
            pause_s = await self.step()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopped.wait()

    async def stop(self) -> None:
        self._stopped.set()

    def trouble(self) -> str | None:
        return None


class Polling(ABC):
    """Looks for work in a table: at once when it is woken, else with growing pauses.

    What it is woken for needs no polls. Only what it finds by itself, which others have left, is a
    reason to look often: while there is some.

    A step that raises ends the component, and so the process. It catches what may fail itself.
    """

    name: str
    gates_readiness = False

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._was_woken = False
        self._stopping = False
        #: What steps have begun, and ``run`` waits for at its end.
        self._begun: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def step(self, idle_s: float) -> float:
        """Look once, and return how many seconds to sleep; ``idle_s``: how many it were before."""

    def wake(self) -> None:
        """Look at once, since there may be work."""
        self._wake.set()

    async def run(self) -> None:
        """Look until stopped, then end what was begun."""
        idle_s = SHORTEST_IDLE_S
        while not self._stopping:
            self._wake.clear()
            idle_s = await self.step(idle_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await self._wake.wait()
            self._was_woken = self._wake.is_set()
        await asyncio.gather(*self._begun)

    async def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def trouble(self) -> str | None:
        return None

    def next_idle_s(self, idle_s: float, *, found: bool) -> float:
        """Return how many seconds to sleep after a look that found something, or nothing."""
        if found and not self._was_woken:
            return SHORTEST_IDLE_S
        return min(LONGEST_IDLE_S, idle_s * 2)
