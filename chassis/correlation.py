"""The trail of a command: which request or event this work answers to."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import uuid_utils.compat

from chassis.failpoints import clock_error

# What a client may send as its own id: enough for any UUID, ULID or trace id, harmless in a log.
_ACCEPTABLE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_id() -> UUID:
    """Make a UUIDv7 (RFC 9562): ordered by the time it was made."""
    made = uuid_utils.compat.uuid7()
    error_ms = clock_error() // timedelta(milliseconds=1)
    # Its first 48 bits are the time.
    return UUID(int=made.int + (error_ms << 80)) if error_ms else made


@dataclass(frozen=True, slots=True)
class CorrelationContext:
    """Where work came from: the first request's id, and the event that caused it, if one did."""

    correlation_id: str
    causation_id: str | None = None

    @classmethod
    def from_request(cls, correlation_id: str | None) -> "CorrelationContext":
        """Go on with the client's id where it sent a usable one, else with a new one."""
        if correlation_id is not None and _ACCEPTABLE.fullmatch(correlation_id):
            return cls(correlation_id)
        return cls(str(new_id()))


_current: ContextVar[CorrelationContext | None] = ContextVar("trail", default=None)


def current_correlation() -> CorrelationContext:
    """Return the trail this work is on; work that nobody asked for begins one, and stays on it."""
    trail = _current.get()
    if trail is None:
        trail = CorrelationContext(str(new_id()))
        _current.set(trail)
    return trail


def correlation_or_none() -> CorrelationContext | None:
    """Return the trail this work is on, without beginning one."""
    return _current.get()


@contextmanager
def use_correlation(trail: CorrelationContext) -> Iterator[CorrelationContext]:
    """Do what follows on this trail."""
    token = _current.set(trail)
    try:
        yield trail
    finally:
        _current.reset(token)
