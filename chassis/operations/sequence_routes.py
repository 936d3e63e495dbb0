"""The operators' route to the sequences."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from chassis.operations.context import ServiceRuntime
from chassis.operations.sequences import Sequences, SequencesBody, SequencesSearch
from chassis.web.auth import Principal


def sequences_routes(
    operations: ServiceRuntime[Any, Any], operator: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    router = APIRouter(dependencies=[Depends(operator)])
    sequences = Sequences(operations)

    @router.get("/sequences", summary="The last sequence of each aggregate")
    async def get_sequences(search: Annotated[SequencesSearch, Query()]) -> SequencesBody:
        """Return how many events each aggregate has, whether or not they are published yet."""
        return await sequences.page(search)

    return router
