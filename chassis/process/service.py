"""What every service's process has: pools, relay, consumers, operators' routes, health."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import click
from fastapi import APIRouter
from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError

from chassis.clock import utc_now
from chassis.consuming.worker import Worker
from chassis.operations.commands.group import operations_commands
from chassis.operations.context import Service, ServiceRuntime
from chassis.operations.reads import recorded_reads
from chassis.operations.routes import operations_routes
from chassis.operations.waiting import WaitingForOperator
from chassis.persistence import tables
from chassis.persistence.database import Database, is_conflict, ping, pool
from chassis.persistence.outbox_age import OutboxAge
from chassis.persistence.schema_version import SchemaVersion
from chassis.persistence.transactor import Transact, Transactor, Work
from chassis.process.run import Build, Component, ProcessParts, command_line
from chassis.publishing.relay import Relay
from chassis.settings import (
    BAD_SETTINGS_EXIT_CODE,
    Role,
    ServiceSettings,
    TokenReaderSettings,
    read_settings,
)
from chassis.telemetry import configure_logging
from chassis.timers.worker import TimerWorker
from chassis.web.app import create_app
from chassis.web.auth import (
    FetchKeys,
    Principal,
    TokenVerifier,
    authenticated,
    keys_at,
    operator,
)
from chassis.web.health import Health

S = TypeVar("S", bound=ServiceSettings)
W = TypeVar("W", bound=Work)


def service_command_line(service: Service[S, W], build: Build[S]) -> click.Group:
    """Return a service's command line: it serves, migrates, and has the operators' commands."""
    group = command_line(service.name, service.settings, build)
    group.add_command(_migrate(service))
    for each in operations_commands(service):
        group.add_command(each)
    return group


def _migrate(service: Service[S, W]) -> click.Command:
    @click.command("migrate", help="Migrate the database to the newest schema.")
    def migrate() -> None:
        from chassis import migrations  # noqa: PLC0415 - a serving process does not need Alembic

        settings = read_settings(service.settings)
        configure_logging(service.name, settings)
        url = settings.database_url.get_secret_value()
        try:
            asyncio.run(migrations.upgrade(service.package, url))
        except (migrations.ServerTooOld, migrations.SchemaIsNewer) as error:
            click.echo(str(error), err=True)
            sys.exit(BAD_SETTINGS_EXIT_CODE)
        except DBAPIError as error:
            if error.orig is None or not is_conflict(error.orig):
                raise
            click.echo(
                "A table that the migration changes was not free within"
                f" {migrations.LOCK_TIMEOUT_S} s. Run it again.",
                err=True,
            )
            sys.exit(1)

    return migrate


class Wiring(Generic[S, W]):
    """The parts that every service's process has; the service's bootstrap adds its routes.

    :ivar runtime: the service with the pool of its requests and its operators
    :ivar agents_database: the pool of everything that does not serve requests
    :ivar transactor: runs commands. It refuses those that publish while events have waited in the
        outbox for longer than the settings allow
    :ivar signed_in: a dependency that returns the signed-in user, or answers 401
    :ivar operator: a dependency that returns the operator, or answers 401 or 403
    """

    def __init__(
        self,
        runtime: ServiceRuntime[S, W],
        agents_database: Database,
        verifier: TokenVerifier,
        health: Health,
    ) -> None:
        service, settings = runtime.service, runtime.settings
        self.runtime = runtime
        self.agents_database = agents_database
        self.database = runtime.database
        self._outbox_age = OutboxAge(runtime.database, settings.outbox_age_limit_s)
        self.transactor: Transact[W] = self._outbox_age.limited(
            Transactor(
                runtime.database,
                service.open_work,
                deadline_s=settings.command_deadline_s,
            )
        )
        reads = recorded_reads(runtime)
        self.signed_in = authenticated(verifier, reads)
        self.operator = operator(verifier, reads)
        self._reads = reads
        self._verifier = verifier
        self._health = health
        self._relay = Relay(settings, service=service.name, now=runtime.now)
        self.on_commit(tables.outbox, self._relay.wake)

    def on_commit(self, table: Table, listener: Callable[[], None]) -> None:
        """Call a function after each commit of this process that wrote to a table."""
        for database in (self.database, self.agents_database):
            database.on_commit(table, listener)

    def signed_in_by(self, cookie: str) -> Callable[..., Awaitable[Principal]]:
        """Return a dependency as ``signed_in`` that takes the token from this cookie too."""
        return authenticated(self._verifier, self._reads, cookie=cookie)

    def parts(
        self,
        *routers: APIRouter,
        components: Sequence[Component] = (),
        beside_agents: Sequence[Component] = (),
    ) -> ProcessParts:
        """Return what this process runs, by its roles.

        :param components: run in every process of the service
        :param beside_agents: run in processes with the role ``agents``
        """
        runtime = self.runtime
        service, settings = runtime.service, runtime.settings
        running = list(components)
        self._health.add("schema", SchemaVersion(runtime.database, service.package).trouble)
        waiting = WaitingForOperator(runtime.database)
        self._health.add(waiting.name, waiting.trouble, gates=False)
        if settings.serves_routes:
            self._health.add("database", lambda: ping(runtime.database))
            running += [self._verifier, self._outbox_age]
        if Role.RELAY in settings.roles:
            running.append(self._relay)
            if self._outbox_age not in running:
                running.append(self._outbox_age)
        if Role.AGENTS in settings.roles:
            running += [self._worker(), *self._timer_workers(), *beside_agents]
        app = create_app(
            title=service.name.capitalize(),
            description=service.description,
            version="1",
            settings=settings,
            routers=[*routers, operations_routes(runtime, self.operator)],
            health=self._health,
        )
        return ProcessParts(app, running)

    def _worker(self) -> Worker[W]:
        runtime = self.runtime
        return Worker(
            runtime.settings,
            service=runtime.service.name,
            database=self.agents_database,
            open_work=runtime.service.open_work,
            subscribers=runtime.subscribers,
            now=runtime.now,
        )

    def _timer_workers(self) -> Sequence[TimerWorker[W]]:
        """Return the worker of the service's timers; none if it schedules none."""
        runtime = self.runtime
        if not runtime.timers:
            return ()
        worker = TimerWorker(
            runtime.settings,
            self.agents_database,
            runtime.service.open_work,
            runtime.timers,
        )
        return (worker,)


@asynccontextmanager
async def wire(
    service: Service[S, W], settings: S, health: Health, *, fetch_keys: FetchKeys | None = None
) -> AsyncIterator[Wiring[S, W]]:
    """Open a service's pools, and close them at the end.

    :param fetch_keys: fetches the keys that verify access tokens; by default from ``jwks_url``
    """
    if fetch_keys is None:
        if not isinstance(settings, TokenReaderSettings):
            raise TypeError(f"{service.name} needs the setting jwks_url, or fetch_keys")
        fetch_keys = keys_at(settings)
    async with (
        pool(settings, f"{service.name}-api") as database,
        pool(settings, f"{service.name}-agents") as agents_database,
    ):
        runtime = ServiceRuntime(service, settings, database, utc_now)
        verifier = TokenVerifier.of(settings, utc_now, keys=fetch_keys)
        yield Wiring(runtime, agents_database, verifier, health)
