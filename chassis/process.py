"""A service as a process: its command line, its parts side by side, and an orderly end."""

import asyncio
import contextlib
import ctypes
import gc
import math
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import click
import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from chassis import failpoints
from chassis.health import Health
from chassis.operations.command_line import operations_commands
from chassis.operations.operable import Operable
from chassis.settings import (
    BAD_SETTINGS_EXIT_CODE,
    ProcessSettings,
    ServiceSettings,
    read_settings,
    variable_of,
)
from chassis.telemetry import configure_logging, configure_tracing

_log = structlog.get_logger(__name__)

# New objects, then collections of the younger before one of the next older.
_COLLECT_AFTER = (5_000, 10, 10)
# An option of mallopt(3): from this size on a buffer is given back as soon as it is free.
_M_MMAP_THRESHOLD = -3
_GIVEN_BACK_FROM_BYTES = 64 * 1024

S = TypeVar("S", bound=ProcessSettings)


class Component(Protocol):
    """A part of a process that works beside HTTP until it is stopped.

    ``run`` waits for what it needs by itself; if it ends unasked or raises, the process ends.
    ``trouble`` says why it can't do its work now; that takes readiness away if it gates.
    """

    @property
    def name(self) -> str: ...

    @property
    def gates_readiness(self) -> bool: ...

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    def trouble(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Running:
    """What a service's bootstrap has put together."""

    app: FastAPI
    components: Sequence[Component]


@dataclass(frozen=True, slots=True)
class ServiceDefinition(Generic[S]):
    """A service as its process knows it.

    ``build`` opens what the service needs, yields its parts, and closes it again at the end.
    ``package`` has the service's ``migrations``, if it owns a database. ``operable`` tells what
    its operators get commands for.
    """

    name: str
    package: str
    settings: type[S]
    build: Callable[[S, Health], AbstractAsyncContextManager[Running]]
    operable: Callable[[S], Operable[Any]] | None = None


def command_line(service: ServiceDefinition[S]) -> click.Group:
    """Make the service's command line: alone it serves; ``migrate`` brings its database up.

    The service adds commands of its own to the group.
    """

    @click.group(invoke_without_command=True, help=f"The {service.name} service.")
    @click.pass_context
    def group(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            serve(service)

    if issubclass(service.settings, ServiceSettings):
        group.add_command(_migrate(service.name, service.package, service.settings))
        if service.operable is not None:
            for each in operations_commands(service.settings, service.operable):
                group.add_command(each)
    return group


def _migrate(name: str, package: str, settings_class: type[ServiceSettings]) -> click.Command:
    @click.command("migrate", help="Bring the database to the newest schema.")
    def migrate() -> None:
        from chassis import migrations  # noqa: PLC0415 - a running service has no use for Alembic

        settings = read_settings(settings_class)
        configure_logging(name, settings)
        try:
            asyncio.run(migrations.upgrade(package, settings.database_url.get_secret_value()))
        except migrations.ServerTooOld as error:
            click.echo(str(error), err=True)
            sys.exit(BAD_SETTINGS_EXIT_CODE)

    return migrate


def serve(service: ServiceDefinition[S]) -> NoReturn:
    """Run the service until SIGTERM or SIGINT, or until a part of it fails, and exit.

    :raises SystemExit: 0 after a stop that was asked for, 1 after a failure, 2 on bad settings
    """
    settings = read_settings(service.settings)
    _refuse_failpoints_in_production(settings)
    failpoints.belong_to(service.name)
    configure_logging(service.name, settings)
    tracing = configure_tracing(service.name, settings)
    listener = _listen(service.name, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failed = runner.run(_serve(service, settings, listener))
    tracing.shutdown()
    sys.exit(1 if failed else 0)


def _refuse_failpoints_in_production(settings: ProcessSettings) -> None:
    if failpoints.are_switched_on() and getattr(settings, "environment", "") == "production":
        click.echo("FAILPOINTS is for tests, and this is production: unset it.", err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)


def _listen(name: str, settings: ProcessSettings) -> socket.socket:
    try:
        return socket.create_server((settings.http_host, settings.http_port))
    except OSError as error:
        click.echo(
            f"{name} cannot listen on {settings.http_host}:{settings.http_port}: {error.strerror}."
            f" {variable_of(type(settings), 'http_port')} moves it.",
            err=True,
        )
        sys.exit(1)


async def _serve(service: ServiceDefinition[S], settings: S, listener: socket.socket) -> bool:
    """Run the service until its end; return whether it failed."""
    _collect_garbage_less()
    _give_large_buffers_back()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    health = Health()
    async with service.build(settings, health) as running:
        for component in running.components:
            health.add(component.name, component.trouble, gates=component.gates_readiness)
        server = _Server(
            uvicorn.Config(
                running.app,
                log_config=None,
                access_log=False,
                server_header=False,
                forwarded_allow_ips=settings.trusted_proxies,
                # Cut after half of the time what is still open, so that the rest can end well.
                timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s / 2),
            )
        )
        parts = [_Part("http", server.serve([listener]), server.stop)]
        parts += [_Part(each.name, each.run(), each.stop) for each in running.components]
        host, port = listener.getsockname()[:2]
        _log.info("listening", host=host, port=port)
        asked = asyncio.create_task(asked_to_stop.wait())
        await asyncio.wait(
            [asked, *(part.task for part in parts)], return_when=asyncio.FIRST_COMPLETED
        )
        asked.cancel()
        end_hard_after(settings.shutdown_grace_s)
        health.stopping()
        http, *components = parts
        ended_unasked = sum(part.ended_unasked() for part in parts)
        # Requests in flight first: they may need the components.
        stopped_badly = [await http.stop()]
        stopped_badly += await asyncio.gather(*(part.stop() for part in components))
    failed = ended_unasked > 0 or any(stopped_badly)
    _log.info("stopped", failed=failed)
    return failed


def _collect_garbage_less() -> None:
    """Leave what was imported out of every collection, and collect when there is more to find.

    A request or a chunk makes thousands of objects, and hardly a cycle; Python's own thresholds
    have it look at them again and again, for a seventh of a command's processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def _give_large_buffers_back() -> None:
    """Have glibc keep no freed buffer of a fetch or a batch: an eighth of a consumer's size.

    Left alone it raises its threshold with each large buffer that is freed.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK_FROM_BYTES)


class _Part:
    """A part of the process that runs as a task until it is stopped."""

    def __init__(
        self,
        name: str,
        run: Coroutine[Any, Any, None],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.task = asyncio.create_task(run, name=name)
        self._stop = stop

    def ended_unasked(self) -> bool:
        """Tell, and log, whether it ended before it was stopped."""
        if not self.task.done():
            return False
        error = None if self.task.cancelled() else self.task.exception()
        _log.error("part ended unasked", part=self.task.get_name(), exc_info=error)
        return True

    async def stop(self) -> bool:
        """Stop it and wait for its end; return whether that went wrong."""
        if self.task.done():
            return False
        try:
            await self._stop()
            await self.task
        except Exception:  # noqa: BLE001 - the other parts are still to be stopped
            _log.exception("part stopped badly", part=self.task.get_name())
            return True
        return False


def end_hard_after(seconds: float) -> None:
    """End the process after so long, whatever it hangs in then; return at once."""

    # A thread of its own, for an event loop that hangs can end nothing.
    def end() -> None:
        os.write(2, b"the time to stop is over; ending at once\n")
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the process has other parts to stop as well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def stop(self) -> None:
        self.should_exit = True
