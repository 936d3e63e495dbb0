"""A delivery that the other side refused is sent again, because an operator says so."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from chassis.domain import DomainError, Kind
from chassis.operations.acts import Operator
from chassis.operations.context import ServiceRuntime
from contracts.operations import DeliveryRetriedV1
from notification_service.deliveries import State
from notification_service.tables import deliveries


class NoSuchDelivery(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-delivery"


class NotFailed(DomainError):
    kind, code = Kind.CONFLICT, "not-failed"


class RetryDelivery:
    """Has failed deliveries sent again; each act is told, with who and why."""

    def __init__(self, operations: ServiceRuntime[Any, Any]) -> None:
        self._operations = operations

    async def __call__(self, id_: UUID, operator: Operator) -> None:
        """Let a worker take it up at once; where it may have arrived, it is looked for first.

        :raises NoSuchDelivery: there is none
        :raises NotFailed: it is on its way, or has arrived
        """
        now = self._operations.now()
        async with self._operations.act() as connection:
            found = await connection.execute(
                select(deliveries.c.state, deliveries.c.rule)
                .where(deliveries.c.id == id_)
                .with_for_update()
            )
            delivery = found.one_or_none()
            if delivery is None:
                raise NoSuchDelivery(f"there is no delivery {id_}")
            if delivery.state != State.FAILED:
                raise NotFailed(f"the delivery is {delivery.state}, and has not failed")
            await connection.execute(
                update(deliveries)
                .where(deliveries.c.id == id_)
                .values(state=State.PENDING, next_attempt_at=now, updated_at=now)
            )
            act = DeliveryRetriedV1(
                by=operator.by, why=operator.why, delivery_id=id_, rule=delivery.rule
            )
            await self._operations.operator_log.record(connection, {id_: act})
