"""Retry a delivery that has failed: an operator's act."""

from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import select, update

from chassis.domain import DomainError, Kind
from chassis.operations.context import AnyRuntime
from chassis.operations.operator_log import Operator
from contracts.operations import DeliveryRetriedV1
from notification_service.deliveries import State
from notification_service.tables import deliveries


class NoSuchDelivery(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-delivery"


class NotFailed(DomainError):
    kind, code = Kind.CONFLICT, "not-failed"


class OneDelivery(BaseModel):
    """A delivery, by its id."""

    delivery_id: UUID


async def retry(runtime: AnyRuntime, one: OneDelivery, operator: Operator) -> None:
    """Let a worker claim it at once; if it may have arrived, the worker searches for it first.

    :raises NoSuchDelivery: there is none
    :raises NotFailed: it is pending, being sent, or sent
    """
    now, id_ = runtime.now(), one.delivery_id
    async with runtime.act() as connection:
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
        connection.wrote(deliveries)
        act = DeliveryRetriedV1(
            by=operator.by, why=operator.why, delivery_id=id_, rule=delivery.rule
        )
        await runtime.operator_log.record(connection, {id_: act})
