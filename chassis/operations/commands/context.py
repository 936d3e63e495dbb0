"""What a command runs in: the settings and the database of one service."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

from chassis import failpoints
from chassis.clock import utc_now
from chassis.domain import DomainError
from chassis.operations.context import AnyRuntime, Service, ServiceRuntime
from chassis.persistence.database import is_away, pool
from chassis.settings import read_settings
from chassis.telemetry import configure_logging

T = TypeVar("T")


@dataclass(frozen=True)
class CommandContext:
    """Runs commands directly on the database of one service."""

    service: Service[Any, Any]

    def run(self, work: Callable[[AnyRuntime], Awaitable[T]]) -> T:
        """Do the work, and return its result; a refusal is printed, and exits with code 1."""
        service = self.service
        settings = read_settings(service.settings)
        configure_logging(service.name, settings)
        failpoints.set_service(service.name)

        async def on_database() -> T:
            async with pool(settings, f"{service.name}-operator") as database:
                return await work(ServiceRuntime(service, settings, database, utc_now))

        try:
            return asyncio.run(on_database())
        except DomainError as error:
            _refuse(f"{error.code}: {error}")
        except Exception as error:
            if not is_away(error):
                raise
            _refuse(f"the database is away: {type(error).__name__}")


def _refuse(why: str) -> NoReturn:
    click.echo(why, err=True)
    raise SystemExit(1)
