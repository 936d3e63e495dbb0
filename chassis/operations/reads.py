"""What operators read of other people: an integration event, written before they are answered."""

from collections.abc import Sequence
from uuid import UUID

from chassis.operations.context import AnyRuntime
from chassis.web.auth import RecordRead
from contracts.operations import DataReadV1


def recorded_reads(runtime: AnyRuntime) -> RecordRead:
    """Return what publishes that an operator asks for data of other people.

    It is committed by itself. What it raises, the database being away for example, is the answer:
    what can't be recorded is not read.
    """

    async def record(operator: UUID, route: str, ids: Sequence[str]) -> None:
        async with runtime.act() as connection:
            read = DataReadV1(by=operator, route=route, ids=tuple(ids))
            await runtime.operator_log.record(connection, {operator: read})

    return record
