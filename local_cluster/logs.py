"""Reads the processes' logs, and follows them."""

import os
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

_POLL_EVERY_S = 0.2
# How much of the end is read: more than any sensible number of lines.
_TAIL_BYTES = 1 << 20


def show_logs(logs: list[Path], lines: int, *, follow: bool) -> Iterator[tuple[str, str]]:
    """Yield (process, line): the last ``lines`` of each log, then, with ``follow``, new lines."""
    opened: dict[Path, BufferedReader] = {}
    try:
        for log in logs:
            file = opened[log] = log.open("rb")
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            for line in file.read().splitlines()[-lines:]:
                yield log.stem, line.decode(errors="replace")
        while follow:
            time.sleep(_POLL_EVERY_S)
            for log in logs:
                opened[log] = _current(log, opened[log])
                for line in opened[log].read().splitlines():
                    yield log.stem, line.decode(errors="replace")
    finally:
        for file in opened.values():
            file.close()


def _current(log: Path, file: BufferedReader) -> BufferedReader:
    """Return the file that has the log's name now; a full one is renamed at a restart."""
    if not log.exists() or log.stat().st_ino == os.fstat(file.fileno()).st_ino:
        return file
    file.close()
    return log.open("rb")
