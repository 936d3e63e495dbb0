"""Puts the service together, read from top to bottom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from accounts_service.adapters.postgres_accounts import PostgresAccounts, PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.queries import ReadAccount
from accounts_service.entrypoints.agents import subscribers
from accounts_service.entrypoints.http import routes
from accounts_service.settings import AccountsSettings
from chassis.agents import Agents
from chassis.auth import TokenVerifier, authenticated, keys_at, operator
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
from contracts.topics import ACCOUNTS_OPERATIONS

_SERVICE = "accounts"
_DESCRIPTION = "Accounts and the money in them."


def _open_work(connection: AsyncConnection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, utc_now)


def operable(settings: AccountsSettings) -> Operable[PostgresAccountsWork]:
    """Return what consumes and what publishes, for those who run it and those who repair it."""
    open_account = OpenAccountHandler(new_id, utc_now, currency=settings.currency)
    return Operable(
        service=_SERVICE,
        topic=ACCOUNTS_OPERATIONS,
        aggregates=[PostgresAccounts],
        subscribers=subscribers(open_account),
        open_work=_open_work,
    )


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
            title="Accounts",
            description=_DESCRIPTION,
            version="1",
            settings=settings,
            routers=[router, operations_routes(operations, operator(verifier))],
            health=health,
        )
        yield Running(app, components)
