"""Several steps side by side, with one failure to tell."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Report = Callable[[str, str], None]
"""Called with who and what, for each step that is worth a line."""


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Do these side by side; the first that fails ends the others and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
