"""Builds the service from its parts; read it from top to bottom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from audit_service.agents import subscribers
from audit_service.http import routes
from audit_service.numbers import RecordNumbers
from audit_service.queries import Records
from audit_service.records import AuditWork
from audit_service.settings import AuditSettings
from chassis.clock import utc_now
from chassis.consuming.subscribers import Subscriber
from chassis.operations.context import Service
from chassis.persistence.database import Connection
from chassis.process.run import ProcessParts
from chassis.process.service import wire
from chassis.web.health import Health
from contracts.topics import AUDIT_OPERATIONS, TOPICS


def _open_work(connection: Connection) -> AuditWork:
    return AuditWork(connection, utc_now)


def _subscribers(_settings: AuditSettings) -> Sequence[Subscriber[AuditWork]]:
    return subscribers(TOPICS)


SERVICE: Final = Service(
    name="audit",
    description="Every event of every topic, byte for byte, for operators.",
    package="audit_service",
    settings=AuditSettings,
    operations_topic=AUDIT_OPERATIONS,
    subscribers=_subscribers,
    open_work=_open_work,
)


@asynccontextmanager
async def build(settings: AuditSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Open what the service needs, yield its parts, and close everything at the end."""
    async with wire(SERVICE, settings, health) as wiring:
        yield wiring.parts(
            routes(Records(wiring.database), wiring.operator),
            beside_agents=[RecordNumbers(wiring.agents_database)],
        )
