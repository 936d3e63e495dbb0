"""Runs several steps at once, and raises the first failure."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

ReportStep = Callable[[str, str], None]
"""Called with a name and a text for each step that is printed."""


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run these at once; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
