"""The operators' routes, the same at every service."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter

from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letter_routes import parked_routes
from chassis.operations.offset_routes import progress_routes
from chassis.operations.outbox_routes import outbox_routes
from chassis.operations.sequence_routes import sequences_routes
from chassis.web.auth import Principal


def operations_routes(
    operations: ServiceRuntime[Any, Any], operator: Callable[..., Awaitable[Principal]]
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
