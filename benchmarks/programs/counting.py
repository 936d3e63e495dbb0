"""How fast something counts, told on standard output when all is there."""

from time import perf_counter
from typing import Final

_NOT_YET: Final = -1.0


class Counting:
    """Counts what is done, from the end of the first piece of it.

    What that piece held is not counted: nobody knows when its work began. It depends on the
    standard library only, and so runs in a peer's environment too.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._began_s = _NOT_YET
        self._counted = 0

    def add(self, count: int) -> bool:
        """Count what was done, and tell whether that was all."""
        self._left -= count
        if self._began_s == _NOT_YET:
            self._began_s = perf_counter()
        else:
            self._counted += count
        if self._left > 0:
            return False
        print(self._counted / (perf_counter() - self._began_s), flush=True)
        return True
