"""Opens connections to PostgreSQL: encrypted as the URL says, and to the server that takes writes.

Every place that connects comes here, so a URL means the same everywhere. It is a URL of libpq
(PostgreSQL manual, "Connection URIs"): ``sslmode=verify-full`` with ``sslrootcert`` verifies the
server, ``sslcert`` and ``sslkey`` are the client's certificate, and it may name several servers.
"""

import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import structlog
from asyncpg.connect_utils import SessionAttribute

from chassis.in_the_clear import around_servers

log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT_S: Final = 5.0
# One of several servers may be a machine that is gone: the others have to be tried soon.
_CONNECT_TIMEOUT_OF_SEVERAL_S: Final = 1.5
# As the server has it (database.SESSION_SETTINGS): a machine that is gone is noticed by the client.
_TCP_OPTIONS: Final = {
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,
}


class NoServerTakesWrites(ConnectionError):
    """Of those that answered each is a standby, as it is until one is promoted."""


# Where the server that takes writes was found last, by URL: it is tried first.
_found_at: dict[str, str] = {}


def servers_of(url: str) -> list[str]:
    """Return a URL for each server that this URL names, in its order."""
    before, servers, after = around_servers(url)
    return [f"{before}{each}{after}" for each in servers.split(",")]


async def connect(
    url: str,
    *,
    application_name: str,
    settings: Mapping[str, str],
    command_timeout_s: float | None = None,
    only_reads: bool = False,
    record_class: type[asyncpg.Record] = asyncpg.Record,
) -> "asyncpg.Connection":
    """Open a connection to the server that takes writes.

    :param settings: of the session
    :param command_timeout_s: longest wait for an answer; None: no limit
    :param only_reads: a single server may then be a standby; of several the one that is none
    :param record_class: of the rows that it returns
    :raises Exception: no server takes writes, or the first that answers refuses the login. With
        ``database.is_away`` it may be tried again
    """
    servers = servers_of(url)
    several = len(servers) > 1
    wanted = SessionAttribute.read_write
    if only_reads:
        wanted = SessionAttribute.primary if several else SessionAttribute.any
    failure: Exception | None = None
    for server in sorted(servers, key=lambda each: each != _found_at.get(url)):
        try:
            connection: asyncpg.Connection = await asyncpg.connect(
                server,
                timeout=_CONNECT_TIMEOUT_OF_SEVERAL_S if several else _CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                server_settings={**settings, "application_name": application_name},
                target_session_attrs=wanted,
                record_class=record_class,
            )
        except (
            OSError,
            asyncpg.CannotConnectNowError,
            asyncpg.TargetServerAttributeNotMatched,
        ) as error:
            failure = error
            continue
        if several and _found_at.get(url) != server:
            _found_at[url] = server
            log.info("database-found", server=urlsplit(server).netloc.rpartition("@")[2])
        _notice_lost_machines(connection)
        return connection
    assert failure is not None  # noqa: S101 - there is at least one server
    if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
        raise NoServerTakesWrites(str(failure)) from failure
    raise failure


def _notice_lost_machines(connection: "asyncpg.Connection") -> None:
    internal: Any = connection
    connected = internal._transport.get_extra_info("socket")  # noqa: SLF001 - no other way
    if connected.family in (socket.AF_INET, socket.AF_INET6):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP_OPTIONS.items():
            option = getattr(socket, name, None)  # not every system has all of them
            if option is not None:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
