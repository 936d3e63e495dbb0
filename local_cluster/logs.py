"""Reads the processes' logs: merged by time, for people or as JSON, and followed."""

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any

from local_cluster.errors import ClusterError

_POLL_EVERY_S = 0.2
# How much of the end is read: more than any sensible number of lines.
_TAIL_BYTES = 1 << 20
# Kafka's lines begin with 2026-11-30T02:27:15.123Z, PostgreSQL's with 2026-11-30 02:27:15.123 UTC.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d\.\d{3})(?:Z| UTC) ?")
_NO_TIME = ""
_ERRORS = ("error", "critical")
# Of a line of JSON these are shown elsewhere or not at all.
_NOT_IN_THE_REST = {"timestamp", "level", "event", "service", "logger", "exception", "trace_id"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a process's log; ``at`` is its time as text (UTC, sortable), or that before it."""

    at: str
    process: str
    text: str

    def for_people(self, width: int) -> str:
        """Return time, process, level, event and the rest; the name takes ``width`` characters."""
        fields = _fields(self.text)
        if fields is None:
            shown = _TIME.sub("", self.text, count=1)
        else:
            rest = " ".join(
                f"{name}={_value(value)}"
                for name, value in fields.items()
                if name not in _NOT_IN_THE_REST and value is not None
            )
            level = fields.get("level", "info")
            shown = f"{level:<7} {fields.get('event', '')}  {rest}".rstrip()
            if exception := fields.get("exception"):
                shown += f"\n{exception}"
        clock = self.at[11:23] or " " * 12
        return f"{clock} {self.process:<{width}} {shown}"

    def as_json(self) -> str:
        """Return the line as an object, with its process; what is not JSON is its ``event``."""
        fields = _fields(self.text)
        if fields is None:
            fields = {"timestamp": self.at or None, "event": _TIME.sub("", self.text, count=1)}
        return json.dumps({"process": self.process, **fields}, ensure_ascii=False)


def find_logs(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the logs of these processes and steps, or all.

    :raises ClusterError: one has no log; the message names those that have
    """
    found = {log.stem: log for log in sorted(folder.glob("*.log"))}
    if missing := [name for name in names if name not in found]:
        raise ClusterError(
            f"no log of {', '.join(missing)}; there are: {', '.join(found) or 'none yet'}"
        )
    if not found:
        raise ClusterError("no log of any process; make up starts them")
    return [found[name] for name in names or found]


def show_logs(logs: Sequence[Path], lines: int, *, follow: bool) -> Iterator[Line]:
    """Yield the last lines of these logs together, in the order of time; then new ones.

    :param lines: how many of all together
    """
    opened = [_Followed(log) for log in logs]
    try:
        merged = sorted((line for each in opened for line in each.end()), key=_time_of)
        yield from merged[max(0, len(merged) - lines) :]
        while follow:
            time.sleep(_POLL_EVERY_S)
            # What was written within one look is in order, which is all that a person notices.
            yield from sorted((line for each in opened for line in each.new()), key=_time_of)
    finally:
        for each in opened:
            each.close()


def last_error(log: Path) -> str:
    """Return what a process said last that is an error, or just its last line."""
    try:
        with log.open("rb") as file:
            lines = _tail(file).decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    lines = [line.strip() for line in lines if line.strip()] or ["it wrote nothing"]
    for line in reversed(lines):
        fields = _fields(line)
        if fields is None:
            break  # such as the end of a traceback
        if fields.get("level") in _ERRORS:
            reason = str(fields.get("exception") or fields.get("error") or "").strip()
            return ": ".join(filter(None, [fields.get("event"), reason.rpartition("\n")[2]]))
    return lines[-1]


class _Followed:
    """A log that is read to its end, and on, also after it was emptied or replaced."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file: BufferedReader = log.open("rb")
        self._at = _NO_TIME
        self._half = b""

    def end(self) -> list[Line]:
        """Return the lines of the last megabyte, also of what was there before it was emptied."""
        text = _tail(self._file)
        former = self._log.with_suffix(".log.1")
        if len(text) < _TAIL_BYTES and former.exists():
            with former.open("rb") as file:
                text = _tail(file) + text
        found = self._lines(text)
        if self._half:
            found.append(self._line(self._half.decode(errors="replace")))
            self._half = b""
        return found

    def new(self) -> list[Line]:
        size = os.fstat(self._file.fileno()).st_size
        if size < self._file.tell():
            self._file.seek(0)  # it was emptied
        elif self._log.exists() and self._log.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            self._file.close()
            self._file = self._log.open("rb")
        return self._lines(self._file.read())

    def close(self) -> None:
        self._file.close()

    def _lines(self, read: bytes) -> list[Line]:
        *complete, self._half = (self._half + read).split(b"\n")
        return [self._line(each.decode(errors="replace")) for each in complete]

    def _line(self, text: str) -> Line:
        # Without a time of its own, as the lines of a traceback, it belongs to the one before.
        self._at = _time_in(text) or self._at
        return Line(self._at, self._log.stem, text)


def _tail(file: BufferedReader) -> bytes:
    size = os.fstat(file.fileno()).st_size
    if size <= _TAIL_BYTES:
        return file.read()
    file.seek(size - _TAIL_BYTES)
    return file.read().partition(b"\n")[2]  # without what is left of a line


def _time_of(line: Line) -> str:
    return line.at


def _time_in(text: str) -> str | None:
    fields = _fields(text)
    if fields is not None:
        try:
            at = datetime.fromisoformat(str(fields.get("timestamp")))
        except ValueError:
            return None
        return at.astimezone(UTC).isoformat(" ", "milliseconds")[:23]
    found = _TIME.match(text)
    return f"{found[1]} {found[2]}" if found else None


def _fields(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _value(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, default=str)
