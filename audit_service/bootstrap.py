"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from audit_service.agents import subscribers
from audit_service.http import routes
from audit_service.queries import Records
from audit_service.records import AuditWork
from audit_service.settings import AuditSettings
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
from contracts.topics import AUDIT_OPERATIONS, TOPICS

_SERVICE = "audit"
_DESCRIPTION = "Every event of every topic, as it came, for operators."


def _open_work(connection: AsyncConnection) -> AuditWork:
    return AuditWork(connection, utc_now)


def operable(_settings: AuditSettings) -> Operable[AuditWork]:
    """Return what consumes and what publishes, for those who run it and those who repair it."""
    return Operable(
        service=_SERVICE,
        topic=AUDIT_OPERATIONS,
        subscribers=subscribers(TOPICS),
        open_work=_open_work,
    )


@asynccontextmanager
async def build(settings: AuditSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again."""
    async with (
        pool(settings, f"{_SERVICE}-api") as engine,
        pool(settings, f"{_SERVICE}-agents") as agents_engine,
    ):
        verifier = TokenVerifier.of(settings, utc_now, keys=keys_at(settings.jwks_url))
        relay = Relay(settings, service=_SERVICE, now=utc_now)
        ours = operable(settings)
        operations = Operations(ours, settings, engine, utc_now, on_commit=relay.wake)
        agents = Agents(
            settings,
            service=_SERVICE,
            engine=agents_engine,
            open_work=ours.open_work,
            subscribers=ours.subscribers,
            now=utc_now,
            on_commit=relay.wake,
        )

        components: list[Component] = []
        if settings.serves_routes:
            health.add("database", lambda: trouble_with(engine))
            components.append(verifier)
        if Role.RELAY in settings.roles:
            components.append(relay)
        if Role.AGENTS in settings.roles:
            components.append(agents)
        app = create_app(
            title="Audit",
            description=_DESCRIPTION,
            version="1",
            settings=settings,
            routers=[
                routes(Records(engine), operator(verifier)),
                operations_routes(operations, operator(verifier)),
            ],
            health=health,
        )
        yield Running(app, components)
