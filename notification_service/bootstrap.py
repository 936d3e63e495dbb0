"""Puts the notification service together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.agents import Agents
from chassis.auth import TokenVerifier, keys_at, operator
from chassis.database import create_engine
from chassis.health import Health
from chassis.http import create_app
from chassis.process import Component, Running
from chassis.settings import Role
from chassis.trail import new_id
from notification_service.agents import subscribers
from notification_service.http import routes
from notification_service.postgres_deliveries import (
    PostgresDeliveryQueue,
    PostgresPlannedDeliveries,
)
from notification_service.queries import ListDeliveries
from notification_service.rules import SLACK, PlanDeliveries, rules
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


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def build(settings: NotificationSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        application_name="notification",
    )
    verifier = TokenVerifier(
        keys_at(settings.jwks_url),
        issuer=settings.access_token_issuer,
        audience=settings.access_token_audience,
        now=now,
    )
    components: list[Component] = []
    if Role.API in settings.roles:
        components.append(verifier)
    if Role.AGENTS in settings.roles:
        token, base_url = settings.slack
        worker = DeliveryWorker(
            PostgresDeliveryQueue(engine, SLACK),
            SlackChat(token, base_url, timeout_s=settings.delivery_timeout_s),
            now,
            Patience(
                call=settings.delivery_timeout_s,
                lease=settings.delivery_lease_s,
                settle=settings.delivery_settle_s,
                longest_retry=settings.delivery_longest_retry_s,
            ),
            concurrency=settings.delivery_concurrency,
        )
        plan = PlanDeliveries(rules(slack_channel=settings.slack_channel), new_id, now)
        agents = Agents(
            settings,
            service="notification",
            engine=engine,
            open_work=PostgresWork,
            subscribers=subscribers(plan),
            now=now,
            on_commit=worker.wake,
        )
        components += [agents, worker]
    app = create_app(
        title="Notification",
        description="Tells people, outside of the product, what happened in it.",
        version="1.0",
        settings=settings,
        routers=[routes(ListDeliveries(engine), operator(verifier))],
        health=health,
    )
    try:
        yield Running(app, components)
    finally:
        await engine.dispose()
