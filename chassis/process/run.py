"""Runs a service as a process: its command line, its parts beside each other, an orderly stop."""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import click
import structlog
import uvloop
from fastapi import FastAPI

from chassis import failpoints
from chassis.process import memory
from chassis.settings import (
    BAD_SETTINGS_EXIT_CODE,
    ProcessSettings,
    exit_if_in_the_clear,
    read_settings,
    variable_of,
)
from chassis.telemetry import configure_logging, configure_tracing
from chassis.web.health import Health
from chassis.web.server import http_server
from services.healthy import exit_if_asked

_log = structlog.get_logger(__name__)

S = TypeVar("S", bound=ProcessSettings)


class Component(Protocol):
    """A part of a process that works beside HTTP until it is stopped.

    ``run`` waits for what it needs by itself. If it raises, or ends before ``stop``, the process
    ends. ``trouble`` returns why it can't do its work now; with ``gates_readiness`` the process is
    not ready meanwhile.
    """

    @property
    def name(self) -> str: ...

    @property
    def gates_readiness(self) -> bool: ...

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    def trouble(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ProcessParts:
    """What one process runs: its app, and the components beside it.

    ``others`` are the apps of the listeners behind the first (``ProcessSettings.listeners``).
    """

    app: FastAPI
    components: Sequence[Component] = ()
    others: Sequence[FastAPI] = ()


Build = Callable[[S, Health], AbstractAsyncContextManager[ProcessParts]]
"""Opens what a process needs, yields the parts of the process, and closes it at the end."""


def command_line(name: str, settings: type[S], build: Build[S]) -> click.Group:
    """Return the command line of a process: without a command it serves until it is stopped.

    The caller adds commands to the group.
    """

    @click.group(invoke_without_command=True, help=f"The {name} service.")
    @click.pass_context
    def group(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            serve(name, settings, build)

    # Only for --help: ``__main__`` answers it before it imports this.
    @group.command("healthy", help="Exit with 0 if the running process is ready, else with 1.")
    def healthy() -> None:
        exit_if_asked(name)

    return group


def serve(name: str, settings_class: type[S], build: Build[S]) -> NoReturn:
    """Run the service until SIGTERM or SIGINT, or until a part of it fails, and exit.

    :raises SystemExit: 0 after a requested stop, 1 after a failure, 2 for wrong settings
    """
    settings = read_settings(settings_class)
    exit_if_in_the_clear(settings)
    _refuse_failpoints_in_production(settings)
    failpoints.set_service(name)
    configure_logging(name, settings)
    tracing = configure_tracing(name, settings)
    sockets = [_listen(name, settings, each) for each in settings.listeners]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failed = runner.run(_serve(build, settings, sockets))
    tracing.shutdown()
    sys.exit(1 if failed else 0)


def _refuse_failpoints_in_production(settings: ProcessSettings) -> None:
    if failpoints.are_switched_on() and settings.environment == "production":
        click.echo("FAILPOINTS is for tests, and this is production: unset it.", err=True)
        sys.exit(BAD_SETTINGS_EXIT_CODE)


def _listen(name: str, settings: ProcessSettings, listener: str) -> socket.socket:
    host, port = getattr(settings, f"{listener}_host"), getattr(settings, f"{listener}_port")
    try:
        return socket.create_server((host, port))
    except OSError as error:
        click.echo(
            f"{name} cannot listen on {host}:{port}: {error.strerror}."
            f" {variable_of(type(settings), f'{listener}_port')} moves it.",
            err=True,
        )
        sys.exit(1)


async def _serve(build: Build[S], settings: S, sockets: Sequence[socket.socket]) -> bool:
    """Run the service until it is stopped or a part fails; return whether it failed."""
    memory.tune()
    stop_requested = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop_requested.set)
    health = Health()
    async with build(settings, health) as running:
        for component in running.components:
            health.add(component.name, component.trouble, gates=component.gates_readiness)
        servers = []
        for listener, app, bound in zip(
            settings.listeners, (running.app, *running.others), sockets, strict=True
        ):
            server = http_server(app, settings)
            servers.append(_Part(listener, server.serve([bound]), server.stop))
            host, port = bound.getsockname()[:2]
            _log.info("listening", listener=listener, host=host, port=port)
        components = [_Part(each.name, each.run(), each.stop) for each in running.components]
        parts = [*servers, *components]
        requested = asyncio.create_task(stop_requested.wait())
        await asyncio.wait(
            [requested, *(part.task for part in parts)], return_when=asyncio.FIRST_COMPLETED
        )
        requested.cancel()
        exit_after(settings.shutdown_grace_s)
        health.set_stopping()
        ended_unasked = sum(part.ended_unasked() for part in parts)
        # Open requests first: they may need the components.
        stopped_badly = await asyncio.gather(*(part.stop() for part in servers))
        stopped_badly += await asyncio.gather(*(part.stop() for part in components))
    failed = ended_unasked > 0 or any(stopped_badly)
    _log.info("stopped", failed=failed)
    return failed


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
        """Return whether it ended before it was stopped; if so, log it."""
        if not self.task.done():
            return False
        error = None if self.task.cancelled() else self.task.exception()
        _log.error("part ended unasked", part=self.task.get_name(), exc_info=error)
        return True

    async def stop(self) -> bool:
        """Stop it and wait for its end; return whether that failed."""
        if self.task.done():
            return False
        try:
            await self._stop()
            await self.task
        except Exception:  # noqa: BLE001 - the other parts are still to be stopped
            _log.exception("part stopped badly", part=self.task.get_name())
            return True
        return False


def exit_after(seconds: float) -> None:
    """Have the process exit after so many seconds, even if it hangs; return at once."""

    # In a thread of its own: an event loop that hangs would exit nothing.
    def end() -> None:
        os.write(2, b"the time for an orderly stop is over; the process exits\n")
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
