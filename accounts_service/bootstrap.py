"""Builds the service from its parts; read it from top to bottom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from accounts_service.adapters.postgres_accounts import PostgresAccounts, PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.ports import AccountsWork
from accounts_service.application.queries import ReadAccount
from accounts_service.entrypoints.agents import subscribers
from accounts_service.entrypoints.http import routes
from accounts_service.settings import AccountsSettings
from chassis.clock import utc_now
from chassis.consuming.subscribers import Subscriber
from chassis.correlation import new_id
from chassis.operations.context import Service
from chassis.persistence.database import Connection
from chassis.process.run import ProcessParts
from chassis.process.service import wire
from chassis.web.health import Health
from contracts.topics import ACCOUNTS_OPERATIONS


def _open_work(connection: Connection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, utc_now)


def _subscribers(settings: AccountsSettings) -> Sequence[Subscriber[AccountsWork]]:
    return subscribers(OpenAccountHandler(new_id, utc_now, currency=settings.currency))


SERVICE: Final = Service(
    name="accounts",
    description="Accounts and the money in them.",
    package="accounts_service",
    settings=AccountsSettings,
    operations_topic=ACCOUNTS_OPERATIONS,
    aggregates=[PostgresAccounts],
    subscribers=_subscribers,
    open_work=_open_work,
)


@asynccontextmanager
async def build(settings: AccountsSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Open what the service needs, yield its parts, and close everything at the end."""
    async with wire(SERVICE, settings, health) as wiring:
        read_account = ReadAccount(PostgresAccountViews(wiring.database))
        yield wiring.parts(routes(read_account, signed_in=wiring.signed_in))
