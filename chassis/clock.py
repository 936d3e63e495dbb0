"""The one clock that processes are put together with; tests bring their own."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
