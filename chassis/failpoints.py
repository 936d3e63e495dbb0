"""Named points where a test can kill, fail or delay the process.

They are there only where the environment names a directory in ``FAILPOINTS``. Without it
``failpoint`` does nothing at all, and no request, event or setting of a service changes that.
A file in the directory arms a point, for the first process that comes by::

    relay.before-delete          in any process
    users@relay.before-delete    in one of the users service

It says what happens: ``kill`` (SIGKILL to itself), ``raise`` or ``delay SECONDS``; with a number
behind, at the how-manieth time (``kill 3``). Then the file is renamed to ``….hit``, so that the
next process lives; ``always delay SECONDS`` stays armed.

The file ``clock`` sets every process's clock wrong by so many seconds.
"""

import asyncio
import os
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Final

_VARIABLE: Final = "FAILPOINTS"
_RIGHT: Final = timedelta()


class FailpointReached(Exception):
    """What a point raises that is armed with ``raise``."""


class _Armed:
    """The points of this process, armed in a directory that is looked at as each is passed."""

    def __init__(self, directory: Path) -> None:
        self.service = ""
        self._directory = directory
        self._passed: Counter[str] = Counter()

    async def passing(self, name: str) -> None:
        for file in (self._directory / f"{self.service}@{name}", self._directory / name):
            try:
                said = file.read_text()
            except FileNotFoundError:
                continue
            await self._obey(said.split(), file)

    async def _obey(self, words: list[str], file: Path) -> None:
        stays = words[0] == "always"
        action, *numbers = words[1:] if stays else words
        seconds = float(numbers.pop(0)) if action == "delay" else 0.0
        self._passed[file.name] += 1
        if self._passed[file.name] < int(numbers[0] if numbers else 1):
            return
        if not stays and not _take(file):
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
            return _RIGHT


def _take(file: Path) -> bool:
    """Disarm a point; false where another process was first."""
    try:
        file.rename(file.with_name(f"{file.name}.hit"))
    except FileNotFoundError:
        return False
    return True


_ARMED: Final = _Armed(Path(os.environ[_VARIABLE])) if os.environ.get(_VARIABLE) else None


def are_switched_on() -> bool:
    """Tell whether this process was started by a test that may kill it."""
    return _ARMED is not None


def belong_to(service: str) -> None:
    """Say whose process this is, for what is armed in one service only."""
    if _ARMED is not None:
        _ARMED.service = service


async def failpoint(name: str) -> None:
    """Do nothing; or what a test has armed this point with."""
    if _ARMED is not None:
        await _ARMED.passing(name)


def clock_error() -> timedelta:
    """Return zero; or how wrong a test has set the clock."""
    return _RIGHT if _ARMED is None else _ARMED.clock_error()
