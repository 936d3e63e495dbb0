"""A component that repeats one step until it is stopped."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress


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
