"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.clock import utc_now
from chassis.consuming.subscribers import Subscriber
from chassis.correlation import new_id
from chassis.operations.context import Service
from chassis.process.run import ProcessParts
from chassis.process.service import wire
from chassis.web.health import Health
from contracts.topics import NOTIFICATION_OPERATIONS
from notification_service.agents import subscribers
from notification_service.http import routes
from notification_service.postgres_deliveries import (
    PostgresDeliveryQueue,
    PostgresPlannedDeliveries,
)
from notification_service.queries import ListDeliveries
from notification_service.retry import RetryDelivery
from notification_service.rules import SLACK, NotificationWork, PlanDeliveries, rules
from notification_service.settings import NotificationSettings
from notification_service.slack import SlackChat
from notification_service.worker import DeliveryWorker, Patience


class PostgresWork:
    """An open transaction of an agent: the deliveries that it plans."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.deliveries = PostgresPlannedDeliveries()

    async def flush(self) -> None:
        await self.deliveries.flush(self._connection)


def _subscribers(settings: NotificationSettings) -> Sequence[Subscriber[NotificationWork]]:
    plan = PlanDeliveries(rules(slack_channel=settings.slack_channel), new_id, utc_now)
    return subscribers(plan)


SERVICE: Final = Service(
    name="notification",
    description="Tells people, outside of the product, what happened in it.",
    package="notification_service",
    settings=NotificationSettings,
    operations_topic=NOTIFICATION_OPERATIONS,
    subscribers=_subscribers,
    open_work=PostgresWork,
)


@asynccontextmanager
async def build(settings: NotificationSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Open what the service needs, yield its parts, and close it again."""
    async with (
        wire(SERVICE, settings, health) as wiring,
        aclosing(_chat(settings)) as chat,
    ):
        worker = _worker(settings, wiring.agents_engine, chat)
        wiring.runtime.on_commit(worker.wake)
        deliveries = ListDeliveries(wiring.engine)
        yield wiring.parts(
            routes(deliveries, RetryDelivery(wiring.runtime), wiring.operator),
            beside_agents=[worker],
        )


def _chat(settings: NotificationSettings) -> SlackChat:
    token, base_url = settings.slack
    return SlackChat(token, base_url, timeout_s=settings.delivery_timeout_s)


def _worker(settings: NotificationSettings, engine: AsyncEngine, chat: SlackChat) -> DeliveryWorker:
    return DeliveryWorker(
        PostgresDeliveryQueue(engine, SLACK),
        chat,
        utc_now,
        Patience(
            call=settings.delivery_timeout_s,
            lease=settings.delivery_lease_s,
            settle=settings.delivery_settle_s,
            longest_retry=settings.delivery_longest_retry_s,
        ),
        concurrency=settings.delivery_concurrency,
    )
