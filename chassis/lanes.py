"""Lets chunks share a transaction when more of them wait than a process should handle at once.

A transaction costs the same for one event as for many, so those that would only be in one
another's way go together. Nothing waits for others to come: a chunk that finds a lane free goes at
once, and alone.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from chassis.handling import Handling

# One at work in this process while another waits for the database.
_LANES: Final = 2


class LeftAlone(Exception):
    """It did not go well for a chunk and those it went with: it is to be handled by itself."""


class Waiting:
    """A chunk that waits for a lane: to lead others on it, or to be led."""

    def __init__(self, group: object, handling: Handling) -> None:
        self.group = group
        self.handling = handling
        #: True: it has a lane, and is to lead; false: it went with another, and is done.
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


class Lanes:
    """What a process may handle at once."""

    def __init__(self, lanes: int = _LANES) -> None:
        self._free = lanes
        self._waiting: deque[Waiting] = deque()

    async def turn(self, waiting: Waiting) -> bool:
        """Wait for a lane; or for another chunk's leader to be done with this one: then false.

        :raises LeftAlone: it went with others, and they failed
        """
        if self._free:
            self._free -= 1
            return True
        self._waiting.append(waiting)
        try:
            return await waiting.leads
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif _was_given_one(waiting):
                self.free()  # it was just given one
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
        """Give a lane back, to the next that waits."""
        if self._waiting:
            self._waiting.popleft().leads.set_result(True)
        else:
            self._free += 1


def _was_given_one(waiting: Waiting) -> bool:
    said = waiting.leads
    return said.done() and not said.cancelled() and said.exception() is None and said.result()
