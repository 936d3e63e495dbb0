"""Named points where a test can kill, fail or delay the process.

They work only where the environment names a directory in ``FAILPOINTS``. Without it ``failpoint``
does nothing at all, and no request, event or setting of a service changes that. A file in the
directory arms a point, for the first process that passes it::

    relay.before-delete          in any process
    users@relay.before-delete    in one of the users service

The file contains the action: ``kill`` (SIGKILL to itself), ``raise`` or ``delay SECONDS``. With a
number at the end it happens at that passing: ``kill 3`` at the third. Then the file is renamed to
``….hit``, so that the next process is not killed; ``always delay SECONDS`` stays armed.

The file ``clock`` has a number of seconds that every process adds to its clock.
"""

import asyncio
import os
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Final

_VARIABLE: Final = "FAILPOINTS"
_NO_ERROR: Final = timedelta()


class FailpointReached(Exception):
    """A point was passed that is armed with ``raise``."""


class _Failpoints:
    """The points of this process; each passing looks for a file that arms the point."""

    def __init__(self, directory: Path) -> None:
        self.service = ""
        self._directory = directory
        self._passed: Counter[str] = Counter()

    async def pass_point(self, name: str) -> None:
        for file in (self._directory / f"{self.service}@{name}", self._directory / name):
            try:
                action = file.read_text()
            except FileNotFoundError:
                continue
            await self._act(action.split(), file)

    async def _act(self, words: list[str], file: Path) -> None:
        stays = words[0] == "always"
        action, *numbers = words[1:] if stays else words
        seconds = float(numbers.pop(0)) if action == "delay" else 0.0
        self._passed[file.name] += 1
        if self._passed[file.name] < int(numbers[0] if numbers else 1):
            return
        if not stays and not _disarm(file):
            return
        match action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise FailpointReached(file.name)
            case "delay":
                await asyncio.sleep(seconds)
            case _:
                raise ValueError(f"{file.name}: a failpoint can't {action}")

    def clock_error(self) -> timedelta:
        try:
            return timedelta(seconds=float((self._directory / "clock").read_text()))
        except FileNotFoundError:
            return _NO_ERROR


def _disarm(file: Path) -> bool:
    """Disarm a point; false when another process was faster."""
    try:
        file.rename(file.with_name(f"{file.name}.hit"))
    except FileNotFoundError:
        return False
    return True


_FAILPOINTS: Final = _Failpoints(Path(os.environ[_VARIABLE])) if os.environ.get(_VARIABLE) else None


def are_switched_on() -> bool:
    """Return whether a test started this process and may kill it."""
    return _FAILPOINTS is not None


def set_service(name: str) -> None:
    """Set the service of this process, for points that are armed in one service only."""
    if _FAILPOINTS is not None:
        _FAILPOINTS.service = name


async def failpoint(name: str) -> None:
    """Do nothing, or what a test has armed this point with."""
    if _FAILPOINTS is not None:
        await _FAILPOINTS.pass_point(name)


def clock_error() -> timedelta:
    """Return the seconds that a test has this process add to its clock, or zero."""
    return _NO_ERROR if _FAILPOINTS is None else _FAILPOINTS.clock_error()
