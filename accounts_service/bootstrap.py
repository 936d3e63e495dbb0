"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from accounts_service.adapters.postgres_accounts import PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.queries import ReadAccount
from accounts_service.entrypoints.agents import subscribers
from accounts_service.entrypoints.http import routes
from accounts_service.settings import AccountsSettings
from chassis.agents import Agents
from chassis.auth import TokenVerifier, authenticated, keys_at
from chassis.clock import utc_now
from chassis.database import pool, trouble_with
from chassis.health import Health
from chassis.http import create_app
from chassis.process import Component, Running
from chassis.relay import Relay
from chassis.settings import Role
from chassis.trail import new_id

_SERVICE = "accounts"
_DESCRIPTION = "Accounts and the money in them."


def _open_work(connection: AsyncConnection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, utc_now)


@asynccontextmanager
async def build(settings: AccountsSettings, health: Health) -> AsyncIterator[Running]:
    """Open what the service needs, yield its parts, and close it again."""
    async with (
        pool(settings, f"{_SERVICE}-api") as engine,
        pool(settings, f"{_SERVICE}-agents") as agents_engine,
    ):
        verifier = TokenVerifier.of(settings, utc_now, keys=keys_at(settings.jwks_url))
        router = routes(
            ReadAccount(PostgresAccountViews(engine)), signed_in=authenticated(verifier)
        )
        relay = Relay(settings, service=_SERVICE, now=utc_now)
        open_account = OpenAccountHandler(new_id, utc_now, currency=settings.currency)
        agents = Agents(
            settings,
            service=_SERVICE,
            engine=agents_engine,
            open_work=_open_work,
            subscribers=subscribers(open_account),
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
            title="Accounts",
            description=_DESCRIPTION,
            version="1",
            settings=settings,
            routers=[router],
            health=health,
        )
        yield Running(app, components)
