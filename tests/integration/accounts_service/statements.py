"""Collects the statements that are sent to PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


@contextmanager
def statements_on(engine: AsyncEngine) -> Iterator[list[str]]:
    """Collect the text of each statement that is executed in the block."""
    executed: list[str] = []

    def collect(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        executed.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", collect)
    try:
        yield executed
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", collect)
