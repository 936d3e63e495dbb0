"""The messages of the stand-in's channels, in memory and optionally in a file."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

_MOST_KEPT: Final = 50_000


@dataclass(frozen=True, slots=True)
class Posted:
    """A posted message. ``ts`` is its id: seconds since 1970, to the microsecond."""

    ts: str
    channel: str
    text: str
    metadata: dict[str, Any] | None


class Messages:
    """The newest 50,000 messages; the file has every message whose post was answered."""

    def __init__(self, file: Path | None, now: Callable[[], datetime]) -> None:
        self._now = now
        self._kept: deque[Posted] = deque(maxlen=_MOST_KEPT)
        self._file: int | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._read(file)

    def _read(self, file: Path) -> None:
        content = file.read_bytes()
        # If the process died while it wrote a line, the post of that message was not answered.
        whole = content[: content.rfind(b"\n") + 1]
        os.truncate(file, len(whole))
        self._kept.extend(Posted(**json.loads(line)) for line in whole.splitlines())

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def add(self, channel: str, text: str, metadata: dict[str, Any] | None) -> Posted:
        """Store a message under a ``ts`` greater than all before."""
        at = Decimal(f"{self._now().timestamp():.6f}")
        if self._kept:
            at = max(at, Decimal(self._kept[-1].ts) + Decimal("0.000001"))
        posted = Posted(f"{at:.6f}", channel, text, metadata)
        if self._file is not None:
            os.write(self._file, json.dumps(asdict(posted)).encode() + b"\n")
        self._kept.append(posted)
        return posted

    def __iter__(self) -> Iterator[Posted]:
        """Yield all messages, oldest first."""
        return iter(self._kept)

    def newest_first(self) -> Iterator[Posted]:
        return reversed(self._kept)
