"""The operators' routes, the same at every service."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter

from chassis.auth import Principal
from chassis.operations.operable import Operations
from chassis.operations.outbox_http import outbox_routes
from chassis.operations.parked_http import parked_routes
from chassis.operations.progress_http import progress_routes
from chassis.operations.sequences_http import sequences_routes


def operations_routes(
    operations: Operations[Any], operator: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    """Make the routes below ``/ops``: each asks for an operator.

    :param operator: a dependency that gives one, or answers 401 or 403
    """
    router = APIRouter(prefix="/ops", tags=["operations"])
    router.include_router(outbox_routes(operations, operator))
    router.include_router(parked_routes(operations, operator))
    router.include_router(progress_routes(operations, operator))
    router.include_router(sequences_routes(operations, operator))
    return router
