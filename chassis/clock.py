"""The one clock that processes are put together with; tests bring their own."""

from datetime import UTC, datetime

from chassis.failpoints import clock_error


def utc_now() -> datetime:
    return datetime.now(UTC) + clock_error()
