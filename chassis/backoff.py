"""How long to wait before the next try."""

import random
from dataclasses import dataclass

# 2 to this power is more than any longest pause divided by its first one.
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure in a row, up to a longest one.

    With ``jitter`` it is a random part of that, so that clients which failed together do not try
    again together (AWS Architecture Blog, "Exponential Backoff And Jitter", full jitter).
    """

    first_s: float
    longest_s: float
    jitter: bool = True

    def pause_s(self, failures: int) -> float:
        """Return how many seconds to wait after so many failures in a row; 0: the first pause."""
        longest = min(self.longest_s, self.first_s * 2.0 ** min(failures, _MOST_DOUBLINGS))
        return random.uniform(0, longest) if self.jitter else longest  # noqa: S311 - no secret
