"""Builds the service from its parts; read it from top to bottom."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from accounts_service.adapters.currencies import CURRENCIES
from accounts_service.adapters.ledger_check import LedgerCheck
from accounts_service.adapters.postgres_accounts import PostgresAccounts, PostgresAccountsWork
from accounts_service.adapters.postgres_views import PostgresAccountViews
from accounts_service.application.change_state import ChangeStateHandler
from accounts_service.application.hold_money import (
    EndHoldHandler,
    HoldExpiry,
    PlaceHoldHandler,
    expire_holds,
)
from accounts_service.application.open_account import OpenAccountHandler
from accounts_service.application.ports import AccountsWork
from accounts_service.application.post_transaction import PostTransactionHandler
from accounts_service.application.queries import ReadAccount, ReadTransactions
from accounts_service.application.transfer import ReverseTransferHandler, TransferHandler
from accounts_service.entrypoints.agents import subscribers
from accounts_service.entrypoints.holds import hold_routes
from accounts_service.entrypoints.http import routes
from accounts_service.entrypoints.money import money_routes
from accounts_service.settings import AccountsSettings
from chassis.clock import utc_now
from chassis.consuming.subscribers import Subscriber
from chassis.correlation import new_id
from chassis.operations.context import Service
from chassis.persistence.database import Connection
from chassis.persistence.idempotency_keys import ExpiredKeys
from chassis.persistence.transactor import Transact
from chassis.process.run import ProcessParts
from chassis.process.service import wire
from chassis.timers.timer import TimerHandlers
from chassis.web.dry_run import once_or_dry_run
from chassis.web.health import Health
from contracts.topics import ACCOUNTS_OPERATIONS


def _open_work(connection: Connection) -> PostgresAccountsWork:
    return PostgresAccountsWork(connection, utc_now)


def _subscribers(settings: AccountsSettings) -> Sequence[Subscriber[AccountsWork]]:
    currency = CURRENCIES[settings.currency]
    return subscribers(OpenAccountHandler(new_id, utc_now, currency=currency))


def _timers(_settings: AccountsSettings) -> TimerHandlers[AccountsWork]:
    return {HoldExpiry: expire_holds}


SERVICE: Final = Service(
    name="accounts",
    description="Accounts and the money in them.",
    package="accounts_service",
    settings=AccountsSettings,
    operations_topic=ACCOUNTS_OPERATIONS,
    aggregates=[PostgresAccounts],
    subscribers=_subscribers,
    timers=_timers,
    open_work=_open_work,
)


@asynccontextmanager
async def build(settings: AccountsSettings, health: Health) -> AsyncIterator[ProcessParts]:
    """Open what the service needs, yield its parts, and close everything at the end."""
    async with wire(SERVICE, settings, health) as wiring:
        secret = settings.idempotency_secret
        transact: Transact[AccountsWork] = wiring.transactor
        by_user = once_or_dry_run(transact, secret=secret, now=utc_now, principal=wiring.signed_in)
        money = money_routes(
            post=PostTransactionHandler(new_id, utc_now),
            transfer=TransferHandler(new_id, utc_now),
            reverse=ReverseTransferHandler(new_id, utc_now),
            change=ChangeStateHandler(utc_now),
            by_owner=by_user,
            by_operator=once_or_dry_run(
                transact, secret=secret, now=utc_now, principal=wiring.operator
            ),
            signed_in=wiring.signed_in,
            operator=wiring.operator,
        )
        holds = hold_routes(
            place=PlaceHoldHandler(new_id),
            end=EndHoldHandler(new_id, utc_now),
            by_user=by_user,
            signed_in=wiring.signed_in,
        )
        views = PostgresAccountViews(wiring.database)
        reading = routes(
            ReadAccount(views), ReadTransactions(views, utc_now), signed_in=wiring.signed_in
        )
        expired_keys = ExpiredKeys(wiring.database, utc_now)
        yield wiring.parts(
            reading,
            money,
            holds,
            components=[expired_keys],
            beside_agents=[LedgerCheck(wiring.agents_database)],
        )
