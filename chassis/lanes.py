"""Decides how much a process handles at once, and lets small chunks share a transaction.

A transaction costs nearly the same for one event as for a hundred, so small chunks that would only
be in one another's way go together. Nothing waits for others to come: a chunk that finds the lane
free goes at once, and alone. Large ones have nothing to gain from company; two at a time keep this
process and the database at work, and more would only take memory.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from chassis.handling import Handling

_LARGE_AT_ONCE: Final = 2


class LeftAlone(Exception):
    """It did not go well for a chunk and those it went with: it is to be handled by itself."""


class Waiting:
    """A small chunk that waits for the lane: to lead others on it, or to be led."""

    def __init__(self, group: object, handling: Handling) -> None:
        """Make one; chunks of one group can go together."""
        self.group = group
        self.handling = handling
        #: True: it has the lane, and is to lead; false: it went with another, and is done.
        self.leads: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    @property
    def events(self) -> int:
        return len(self.handling.chunk.records)

    def went(self) -> None:
        """Say that the leader's transaction is committed, and this chunk was in it."""
        if not self.leads.done():
            self.leads.set_result(False)

    def leave_alone(self) -> None:
        """Say that it was not handled."""
        if not self.leads.done():
            self.leads.set_exception(LeftAlone())

    def has_the_lane(self) -> bool:
        """Tell whether it was given the lane; an error that nobody waits for any more is a no."""
        said = self.leads
        return said.done() and not said.cancelled() and said.exception() is None and said.result()


class Lanes:
    """What one process handles at once: a lane for small chunks, and room for some large ones."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[Waiting] = deque()
        #: Held by whoever handles a large chunk.
        self.large = asyncio.Semaphore(_LARGE_AT_ONCE)
        #: Held by whoever tries an event that a worker may have died of: then a death says which.
        self.suspect = asyncio.Lock()

    async def turn(self, waiting: Waiting) -> bool:
        """Wait for the lane; or until another chunk's leader is done with this one: then false.

        :raises LeftAlone: it went with others, and they failed
        """
        if not self._taken:
            self._taken = True
            return True
        self._waiting.append(waiting)
        try:
            return await waiting.leads
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.has_the_lane():
                self.free()
            raise

    def company(self, leader: Waiting, most_events: int) -> Sequence[Waiting]:
        """Take along those of the leader's group that wait, in their order, as far as they fit."""
        taken: list[Waiting] = []
        room = most_events - leader.events
        for each in list(self._waiting):
            if each.group is leader.group and each.events <= room:
                room -= each.events
                self._waiting.remove(each)
                taken.append(each)
        return taken

    def free(self) -> None:
        """Give the lane to the next that waits."""
        while self._waiting:
            leads = self._waiting.popleft().leads
            # One that was cancelled may not have been woken yet to leave by itself.
            if not leads.done():
                leads.set_result(True)
                return
        self._taken = False
