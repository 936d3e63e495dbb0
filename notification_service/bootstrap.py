"""Builds the service from its parts; read it from top to bottom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from chassis.clock import utc_now
from chassis.consuming.subscribers import Subscriber
from chassis.correlation import new_id
from chassis.operations.context import Service
from chassis.operations.routes import routes_of
from chassis.persistence.database import Database
from chassis.process.run import ProcessParts
from chassis.process.service import wire
from chassis.web.event_stream import StreamBounds, StreamPlaces
from chassis.web.health import Health
from contracts.topics import NOTIFICATION_OPERATIONS
from notification_service import tables
from notification_service.agents import stream_subscriber, subscribers
from notification_service.operations import OPERATIONS
from notification_service.postgres_deliveries import (
    PostgresDeliveryQueue,
    PostgresNotificationWork,
)
from notification_service.queries import why_failed
from notification_service.retention import FinishedDeliveries, OldStreamEvents
from notification_service.rules import SLACK, PlanDeliveries, rules
from notification_service.settings import NotificationSettings
from notification_service.slack import SlackChat
from notification_service.stream_events import LogForStreams
from notification_service.stream_log import StreamLog
from notification_service.stream_routes import cookie_name, stream_routes
from notification_service.streams import Streams
from notification_service.worker import DeliveryWorker, Timeouts


def _subscribers(settings: NotificationSettings) -> Sequence[Subscriber[PostgresNotificationWork]]:
    plan = PlanDeliveries(rules(slack_channel=settings.slack_channel), new_id, utc_now)
    return [*subscribers(plan), stream_subscriber(LogForStreams(utc_now))]


SERVICE: Final = Service(
    name="notification",
    description="Sends messages about events to people outside the product.",
    package="notification_service",
    settings=NotificationSettings,
    operations_topic=NOTIFICATION_OPERATIONS,
    subscribers=_subscribers,
    open_work=PostgresNotificationWork,
)


@asynccontextmanager
async def build(settings: NotificationSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Open what the service needs, yield its parts, and close everything at the end."""
    async with (
        wire(SERVICE, settings, health) as wiring,
        aclosing(_chat(settings)) as chat,
    ):
        health.add("failed-deliveries", partial(why_failed, wiring.database), gates=False)
        worker = _worker(settings, wiring.agents_database, chat)
        wiring.on_commit(tables.deliveries, worker.wake)
        streams = _streams(settings, wiring.database)
        secure = settings.environment == "production"
        wiring.on_commit(tables.stream_events, streams.wake)
        yield wiring.parts(
            routes_of(OPERATIONS, wiring.runtime, wiring.operator),
            stream_routes(
                streams,
                StreamBounds(settings.stream_heartbeat_s, settings.stream_send_timeout_s),
                utc_now,
                signed_in=wiring.signed_in,
                signed_in_by_cookie=wiring.signed_in_by(cookie_name(secure=secure)),
                stopping=health.stopping,
                secure=secure,
            ),
            components=[streams] if settings.serves_routes else [],
            beside_agents=[
                worker,
                FinishedDeliveries(
                    wiring.agents_database,
                    utc_now,
                    retention=timedelta(days=settings.delivery_retention_days),
                ),
                OldStreamEvents(
                    wiring.agents_database,
                    utc_now,
                    retention=timedelta(hours=settings.stream_retention_h),
                ),
            ],
        )


def _streams(settings: NotificationSettings, database: Database) -> Streams:
    places = StreamPlaces(total=settings.streams, per_user=settings.streams_per_user)
    return Streams(StreamLog(database, utc_now), places)


def _chat(settings: NotificationSettings) -> SlackChat:
    token, base_url = settings.slack
    return SlackChat(
        token, base_url, timeout_s=settings.delivery_timeout_s, proxy=settings.slack_proxy
    )


def _worker(settings: NotificationSettings, database: Database, chat: SlackChat) -> DeliveryWorker:
    return DeliveryWorker(
        PostgresDeliveryQueue(database, SLACK),
        chat,
        utc_now,
        Timeouts(
            call_s=settings.delivery_timeout_s,
            lease_s=settings.delivery_lease_s,
            settle_s=settings.delivery_settle_s,
            longest_retry_s=settings.delivery_longest_retry_s,
        ),
        concurrency=settings.delivery_concurrency,
    )
