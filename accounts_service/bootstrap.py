"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.queries import ReadAccount
from accounts_service.entrypoints.agents import subscribers
from accounts_service.entrypoints.http import routes
from accounts_service.settings import AccountsSettings
from chassis.agents import Agents
from chassis.auth import TokenVerifier, authenticated, keys_at
from chassis.database import create_engine
from chassis.health import Health
from chassis.http import create_app
from chassis.process import Component, Running
from chassis.relay import Relay
from chassis.settings import Role
from chassis.trail import new_id

_SERVICE = "accounts"
_DESCRIPTION = "Accounts and the money in them."


def _now() -> datetime:
    return datetime.now(UTC)


def _open_work(connection: AsyncConnection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, _now)


def _engine(settings: AccountsSettings, part: str) -> AsyncEngine:
    return create_engine(
        settings.database_url.get_secret_value(),
        pool_size=settings.database_pool_size,
        application_name=f"{_SERVICE}-{part}",
    )


@asynccontextmanager
async def build(settings: AccountsSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again."""
    engine, agents_engine = _engine(settings, "api"), _engine(settings, "agents")
    verifier = TokenVerifier(
        keys_at(settings.jwks_url),
        issuer=settings.access_token_issuer,
        audience=settings.access_token_audience,
        now=_now,
    )
    router = routes(ReadAccount(PostgresAccountViews(engine)), signed_in=authenticated(verifier))
    relay = Relay(settings, service=_SERVICE, now=_now)
    agents = Agents(
        settings,
        service=_SERVICE,
        engine=agents_engine,
        open_work=_open_work,
        subscribers=subscribers(OpenAccountHandler(new_id, _now, currency=settings.currency)),
        now=_now,
        on_commit=relay.wake,
    )

    components: list[Component] = []
    if settings.serves_routes:
        health.add("database", lambda: _trouble_with(engine))
        components.append(verifier)
    if Role.RELAY in settings.roles:
        components.append(relay)
    if Role.AGENTS in settings.roles:
        components.append(agents)
    app = create_app(
        title="Accounts",
        description=_DESCRIPTION,
        version="1",
        settings=settings,
        routers=[router],
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
