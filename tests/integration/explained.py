"""What a statement reads, as EXPLAIN (ANALYZE, BUFFERS) tells it: counts, never the clock."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Executable

from chassis.persistence.database import Connection
from chassis.persistence.statements import compiled


async def plan_of(
    connection: Connection,
    clause: Executable,
    values: Mapping[str, Any],
    *,
    how: str = "ANALYZE, BUFFERS",
) -> list[str]:
    """Explain a statement with these values, and return the lines of its plan."""
    statement = compiled(clause, list(values))
    found = await connection._driver.fetch(  # no clause is an EXPLAIN of another
        f"EXPLAIN ({how}) {statement.sql}", *statement.arguments(values)
    )
    return [row[0] for row in found]


def pages_read(plan: Sequence[str]) -> int:
    """Return how many pages a statement reads, in shared buffers or not, by its plan's lines."""
    of_all = next(line for line in plan if line.lstrip().startswith("Buffers:"))
    numbers = dict(each.split("=") for each in of_all.split() if "=" in each)
    return int(numbers.get("hit", 0)) + int(numbers.get("read", 0))
