"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from audit_service.agents import subscribers
from audit_service.http import routes
from audit_service.queries import Records
from audit_service.records import AuditWork
from audit_service.settings import AuditSettings
from chassis.agents import Agents
from chassis.auth import TokenVerifier, keys_at, operator
from chassis.database import create_engine
from chassis.health import Health
from chassis.http import create_app
from chassis.process import Component, Running
from chassis.settings import Role
from contracts.topics import TOPICS

_SERVICE = "audit"
_DESCRIPTION = "Every event of every topic, as it came, for operators."


def _now() -> datetime:
    return datetime.now(UTC)


def _open_work(connection: AsyncConnection) -> AuditWork:
    return AuditWork(connection, _now)


def _engine(settings: AuditSettings, part: str) -> AsyncEngine:
    return create_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        application_name=f"{_SERVICE}-{part}",
    )


@asynccontextmanager
async def build(settings: AuditSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again.

    It publishes nothing, so the role ``relay`` runs nothing.
    """
    engine, agents_engine = _engine(settings, "api"), _engine(settings, "agents")
    verifier = TokenVerifier(
        keys_at(settings.jwks_url),
        issuer=settings.access_token_issuer,
        audience=settings.access_token_audience,
        now=_now,
    )
    agents = Agents(
        settings,
        service=_SERVICE,
        engine=agents_engine,
        open_work=_open_work,
        subscribers=subscribers(TOPICS),
        now=_now,
    )

    components: list[Component] = []
    if settings.serves_routes:
        health.add("database", lambda: _trouble_with(engine))
        components.append(verifier)
    if Role.AGENTS in settings.roles:
        components.append(agents)
    app = create_app(
        title="Audit",
        description=_DESCRIPTION,
        version="1",
        settings=settings,
        routers=[routes(Records(engine), operator(verifier))],
        health=health,
    )
    try:
        yield Running(app, components)
    finally:
        await engine.dispose()
        await agents_engine.dispose()


async def _trouble_with(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    return None
