"""The HTTP server of every process: uvicorn with bounds on what one client can hold."""

import asyncio
import contextlib
import math
import resource
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from chassis.settings import ProcessSettings
from chassis.web.connections import ClientConnection, ConnectionLimits, Connections

# More is never needed here, and "unlimited" would be a number to reckon with.
_MOST_FILES: Final = 65_536

_log = structlog.get_logger(__name__)


def http_server(app: ASGIApp, settings: ProcessSettings) -> "HttpServer":
    """Return a server of this app, with the bounds and times of the settings.

    A quarter of the files that the process may open are for this server's clients, so that what the
    process opens itself always finds one.
    """
    limits = ConnectionLimits.of(settings)
    most = _raised_file_limit() // 4
    if limits.total > most:
        _log.warning("fewer connections than set, for lack of files", set=limits.total, most=most)
        part = None if limits.per_network is None else limits.per_network * most // limits.total
        limits = replace(limits, total=most, per_network=part)
    connections = Connections(limits)
    protocol: Any = partial(ClientConnection, connections=connections)
    return HttpServer(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            ssl_certfile=settings.http_certificate_file,
            ssl_keyfile=settings.http_key_file,
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=settings.trusted_proxies,
            # Half of the grace for open requests; then they are cut, and the rest can stop.
            timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s / 2),
        ),
        connections,
    )


def _raised_file_limit() -> int:
    """Raise the soft limit of open files as far as it goes, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handling: the process stops its other parts as well."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._client_connections = connections

    @property
    def limits(self) -> ConnectionLimits:
        """The bounds and times of its connections."""
        return self._client_connections.limits

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Check every connection; uvicorn calls this ten times a second until it stops."""
        now = asyncio.get_running_loop().time()
        for each in list(self.server_state.connections):
            if isinstance(each, ClientConnection):
                each.check(now)
        self._client_connections.report(now)
        return await super().on_tick(counter)

    async def stop(self) -> None:
        self.should_exit = True
