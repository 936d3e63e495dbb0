"""SIGTERM ends a process that is still starting, also as process 1 of a container.

The kernel gives process 1 no default action: without a handler of its own it does not notice a
SIGTERM, and a container that is stopped while its imports run is killed after its whole time to
stop. So ``__main__`` calls this before its own imports; who serves sets its own handler later.
"""

import os
import signal
from types import FrameType
from typing import Final

# As a shell reports an end by this signal.
_EXIT_CODE: Final = 128 + signal.SIGTERM


def exit_at_sigterm() -> None:
    """Let SIGTERM end this process at once, until another handler is set."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(_number: int, _frame: FrameType | None) -> None:
    # Nothing is raised: an import, or a command in a transaction, might catch it and go on.
    os._exit(_EXIT_CODE)
