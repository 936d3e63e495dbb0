"""Counts events, and prints how many a second there were when all have been counted."""

from time import perf_counter
from typing import Final

_NOT_YET: Final = -1.0


class Counting:
    """Counts events from the end of the first piece of work on.

    The events of that piece are not counted, because it is not known when its work began. This
    module needs the standard library only, so it runs in a peer's environment too.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._began_s = _NOT_YET
        self._counted = 0

    def add(self, count: int) -> bool:
        """Count a piece of work; true when everything has been counted."""
        self._left -= count
        if self._began_s == _NOT_YET:
            self._began_s = perf_counter()
        else:
            self._counted += count
        if self._left > 0:
            return False
        print(self._counted / (perf_counter() - self._began_s), flush=True)
        return True
