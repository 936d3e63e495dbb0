"""A service as a process: its command line, its parts side by side, and an orderly end."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, NoReturn, Protocol, TypeVar

import click
import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from chassis.health import Health
from chassis.settings import ServiceSettings, read_settings
from chassis.telemetry import configure_logging, configure_tracing

_log = structlog.get_logger(__name__)

S = TypeVar("S", bound=ServiceSettings)


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
    """

    name: str
    package: str
    settings: type[S]
    build: Callable[[S, Health], AbstractAsyncContextManager[Running]]


def command_line(service: ServiceDefinition[S]) -> click.Group:
    """Make the service's command line: alone it serves; ``migrate`` brings its database up."""

    @click.group(invoke_without_command=True, help=f"The {service.name} service.")
    @click.pass_context
    def group(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            serve(service)

    @group.command(help="Bring the database up to this version.")
    def migrate() -> None:
        from chassis import migrations  # noqa: PLC0415 - Alembic is of no use to a running service

        settings = read_settings(service.settings)
        configure_logging(service.name, settings)
        url = settings.database_url.get_secret_value()
        asyncio.run(migrations.upgrade(service.package, url))

    return group


def serve(service: ServiceDefinition[S]) -> NoReturn:
    """Run the service until SIGTERM or SIGINT, or until a part of it fails, and exit."""
    settings = read_settings(service.settings)
    configure_logging(service.name, settings)
    tracing = configure_tracing(service.name, settings)
    listener = _listen(service.name, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_serve(service, settings, listener))
    tracing.shutdown()
    sys.exit(code)


def _listen(name: str, settings: ServiceSettings) -> socket.socket:
    try:
        return socket.create_server((settings.http_host, settings.http_port))
    except OSError as error:
        prefix = type(settings).model_config.get("env_prefix") or ""
        click.echo(
            f"{name} cannot listen on {settings.http_host}:{settings.http_port}"
            f" ({error.strerror}); {prefix}HTTP_PORT moves it",
            err=True,
        )
        sys.exit(1)


async def _serve(service: ServiceDefinition[S], settings: S, listener: socket.socket) -> int:
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
                # What is still open after half of the time is cut, so that the rest can end well.
                timeout_graceful_shutdown=max(1, int(settings.shutdown_grace_s / 2)),
            )
        )
        failed = await _run_until(
            asked_to_stop, server, listener, running.components, health, settings.shutdown_grace_s
        )
    _log.info("stopped", failed=failed)
    return 1 if failed else 0


async def _run_until(
    asked_to_stop: asyncio.Event,
    server: "_Server",
    listener: socket.socket,
    components: Sequence[Component],
    health: Health,
    grace_s: float,
) -> bool:
    """Run all until asked to stop or one ends, then stop all; return whether one failed."""
    http = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    parts = [asyncio.create_task(each.run(), name=each.name) for each in components]
    asked = asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait([http, *parts, asked], return_when=asyncio.FIRST_COMPLETED)

    ended = [task for task in (http, *parts) if task.done()]
    for task in ended:
        _log.error("a part ended unasked", part=task.get_name(), exc_info=task.exception())
    _end_hard_after(grace_s)
    health.stopping()
    server.should_exit = True
    await asyncio.wait([http])
    stops = [asyncio.create_task(each.stop(), name=f"stop {each.name}") for each in components]
    asked.cancel()
    await asyncio.gather(*stops, *parts, asked, return_exceptions=True)
    return bool(ended)


def _end_hard_after(seconds: float) -> None:
    # A thread of its own: whatever the event loop hangs in, this still ends the process.
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
