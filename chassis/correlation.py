"""The correlation of work: the request that it follows from, and the event that caused it."""

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

# What a client may send as its own id: any UUID, ULID or trace id, and nothing harmful in a log.
_ACCEPTABLE: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_id() -> UUID:
    """Return a new UUIDv7 (RFC 9562); its order is that of its time."""
    id_ = uuid_utils.compat.uuid7()
    error_ms = clock_error() // timedelta(milliseconds=1)
    # Its first 48 bits are the time.
    return UUID(int=id_.int + (error_ms << 80)) if error_ms else id_


@dataclass(frozen=True, slots=True)
class CorrelationContext:
    """The first request's id, and the id of the event that caused this work, if one did.

    :ivar client_id: what the client of this request calls it, if it does: a claim of its own
    """

    correlation_id: str
    causation_id: str | None = None
    client_id: str | None = None

    @classmethod
    def from_request(
        cls, correlation_id: str | None, client_id: str | None = None
    ) -> "CorrelationContext":
        """Use the id that was sent if it is acceptable, and a new one otherwise."""
        return cls(acceptable(correlation_id) or str(new_id()), client_id=acceptable(client_id))


def acceptable(correlation_id: str | None) -> str | None:
    """Return an id that a client sent, or None where it would be harmful in a log."""
    if correlation_id is not None and _ACCEPTABLE.fullmatch(correlation_id):
        return correlation_id
    return None


_current: ContextVar[CorrelationContext | None] = ContextVar("correlation", default=None)


def current_correlation() -> CorrelationContext:
    """Return the correlation of this work; work that has none gets a new one, and keeps it."""
    correlation = _current.get()
    if correlation is None:
        correlation = CorrelationContext(str(new_id()))
        _current.set(correlation)
    return correlation


def correlation_or_none() -> CorrelationContext | None:
    """Return the correlation of this work, if it has one."""
    return _current.get()


@contextmanager
def use_correlation(correlation: CorrelationContext) -> Iterator[CorrelationContext]:
    """Give the work of the block this correlation."""
    token = _current.set(correlation)
    try:
        yield correlation
    finally:
        _current.reset(token)
