"""The clock of every process; tests pass their own."""

from datetime import UTC, datetime

from chassis.failpoints import clock_error


def utc_now() -> datetime:
    return datetime.now(UTC) + clock_error()
