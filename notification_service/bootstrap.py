"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.agents import Agents
from chassis.auth import TokenVerifier, keys_at, operator
from chassis.clock import utc_now
from chassis.database import pool, trouble_with
from chassis.health import Health
from chassis.http import create_app
from chassis.operations.http import operations_routes
from chassis.operations.operable import Operable, Operations
from chassis.process import Component, Running
from chassis.relay import Relay
from chassis.settings import Role
from chassis.trail import new_id
from contracts.topics import NOTIFICATION_OPERATIONS
from notification_service.agents import subscribers
from notification_service.http import routes
from notification_service.postgres_deliveries import (
    PostgresDeliveryQueue,
    PostgresPlannedDeliveries,
)
from notification_service.queries import ListDeliveries
from notification_service.retry import RetryDelivery
from notification_service.rules import SLACK, PlanDeliveries, rules
from notification_service.settings import NotificationSettings
from notification_service.slack import SlackChat
from notification_service.worker import DeliveryWorker, Patience

_SERVICE = "notification"
_DESCRIPTION = "Tells people, outside of the product, what happened in it."


class PostgresWork:
    """An open transaction of an agent: the deliveries that it plans."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.deliveries = PostgresPlannedDeliveries()

    async def flush(self) -> None:
        await self.deliveries.flush(self._connection)


def operable(settings: NotificationSettings) -> Operable[PostgresWork]:
    """Return what consumes and what publishes, for those who run it and those who repair it."""
    plan = PlanDeliveries(rules(slack_channel=settings.slack_channel), new_id, utc_now)
    return Operable(
        service=_SERVICE,
        topic=NOTIFICATION_OPERATIONS,
        subscribers=subscribers(plan),
        open_work=PostgresWork,
    )


@asynccontextmanager
async def build(settings: NotificationSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again."""
    async with (
        pool(settings, f"{_SERVICE}-api") as engine,
        pool(settings, f"{_SERVICE}-agents") as agents_engine,
        aclosing(_chat(settings)) as chat,
    ):
        verifier = TokenVerifier.of(settings, utc_now, keys=keys_at(settings.jwks_url))
        worker = _worker(settings, agents_engine, chat)
        relay = Relay(settings, service=_SERVICE, now=utc_now)
        ours = operable(settings)

        def wake() -> None:
            relay.wake()
            worker.wake()

        operations = Operations(ours, settings, engine, utc_now, on_commit=wake)
        agents = Agents(
            settings,
            service=_SERVICE,
            engine=agents_engine,
            open_work=ours.open_work,
            subscribers=ours.subscribers,
            now=utc_now,
            on_commit=worker.wake,
        )

        components: list[Component] = []
        if settings.serves_routes:
            health.add("database", lambda: trouble_with(engine))
            components.append(verifier)
        if Role.RELAY in settings.roles:
            components.append(relay)
        if Role.AGENTS in settings.roles:
            components += [agents, worker]
        app = create_app(
            title="Notification",
            description=_DESCRIPTION,
            version="1",
            settings=settings,
            routers=[
                routes(ListDeliveries(engine), RetryDelivery(operations), operator(verifier)),
                operations_routes(operations, operator(verifier)),
            ],
            health=health,
        )
        yield Running(app, components)


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
