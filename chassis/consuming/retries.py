"""What is tried again at the moment, and why: waited for, and shown to operators."""

import time
from dataclasses import dataclass
from typing import Final

from chassis import telemetry
from chassis.consuming import retry_policy
from chassis.consuming.chunk import ChunkInProgress
from chassis.consuming.retry_policy import Failures

_SHOW_CONTENTION_AFTER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Retry:
    """What went wrong last, and since when other transactions are the only cause."""

    error: str
    contention_since: float | None

    def is_shown(self) -> bool:
        since = self.contention_since
        return since is None or time.monotonic() - since >= _SHOW_CONTENTION_AFTER_S


class Retries:
    """The retries of one topic, by partition and subscriber; the empty name: all of them."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._retries: dict[tuple[int, str], _Retry] = {}

    def __bool__(self) -> bool:
        return bool(self._retries)

    async def wait(
        self, in_progress: ChunkInProgress, failures: Failures, subscriber: str = ""
    ) -> None:
        """Wait before the next try, no longer than the chunk is ours."""
        telemetry.consumer_retries.labels(self._topic).inc()
        retry = _Retry(failures.error, failures.contention_since)
        self._retries[in_progress.chunk.partition, subscriber] = retry
        await in_progress.pause(retry_policy.BACKOFF.pause_s(failures.count))

    def end(self, partition: int, subscriber: str | None = None) -> None:
        """Note that a subscriber, or without one all of a partition, needs no more tries."""
        for key in list(self._retries):
            if key[0] == partition and subscriber in (None, key[1]):
                del self._retries[key]

    def trouble(self) -> str | None:
        """Return what is tried again; contention is shown once it lasts for a minute."""
        shown = [
            f"[{partition}] {retry.error}"
            for (partition, _), retry in sorted(self._retries.items(), key=lambda each: each[0])
            if retry.is_shown()
        ]
        return f"{self._topic} is tried again: {', '.join(shown)}" if shown else None
