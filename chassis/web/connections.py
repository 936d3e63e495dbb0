"""A client's connection: bounded in number, and with a time for each thing that it waits for."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import h11
import structlog
from uvicorn import Config
from uvicorn.middleware.proxy_headers import _TrustedHosts
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from chassis.correlation import CorrelationContext, use_correlation
from chassis.settings import ProcessSettings
from chassis.telemetry import http_connections_closed, http_connections_open
from chassis.web.client_networks import UNKNOWN, network_of
from chassis.web.problems import UNAVAILABLE_RETRY_AFTER_S, problem
from chassis.web.request_parser import RequestParser
from chassis.web.security_headers import add_security_headers

_MAX_HEAD_BYTES: Final = 16_384
_REPORT_EVERY_S: Final = 10.0

_log = structlog.get_logger(__name__)


class Closed(StrEnum):
    """Why the server closed a connection that its client had not finished with."""

    TOO_MANY = "too-many-connections"
    TOO_MANY_OF_NETWORK = "too-many-connections-of-network"
    HEAD_TOO_SLOW = "head-too-slow"
    BODY_TOO_SLOW = "body-too-slow"
    ANSWER_NOT_READ = "answer-not-read"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be at once, and how long each may wait for its client.

    :ivar per_network: None for no bound; those of ``trusted`` have none either
    :ivar head_s: from connecting, or from the first byte of a later request, to the end of a head
    :ivar body_s: from there to the end of the body
    :ivar reading_s: until the client has received what waits to be sent
    """

    total: int
    per_network: int | None
    head_s: float
    body_s: float
    reading_s: float
    trusted: str = ""

    @classmethod
    def of(cls, settings: ProcessSettings) -> "ConnectionLimits":
        return cls(
            total=settings.http_max_connections,
            per_network=settings.http_max_connections_per_network,
            head_s=settings.http_head_timeout_s,
            body_s=settings.http_body_timeout_s,
            reading_s=settings.http_reading_timeout_s,
            trusted=settings.trusted_proxies,
        )


class Connections:
    """The open connections of one server, and how many it closed for which reason."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        # Those that the server's own middleware believes.
        self._trusted = _TrustedHosts(limits.trusted)
        self._open: Counter[str] = Counter()
        self._closed: Counter[Closed] = Counter()
        self._reported_at = float("-inf")

    def admit(self, address: str | None) -> str:
        """Count a connection, and return the name to ``leave`` under.

        :raises Refused: there are as many as there may be
        """
        network = UNKNOWN if address in self._trusted else network_of(address)
        if self._open.total() >= self.limits.total:
            raise Refused(Closed.TOO_MANY)
        most = None if network == UNKNOWN else self.limits.per_network
        if most is not None and self._open[network] >= most:
            raise Refused(Closed.TOO_MANY_OF_NETWORK)
        self._open[network] += 1
        http_connections_open.inc()
        return network

    def leave(self, network: str) -> None:
        http_connections_open.dec()
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]

    def count(self, reason: Closed) -> None:
        http_connections_closed.labels(reason).inc()
        self._closed[reason] += 1

    def report(self, now: float) -> None:
        """Log what was counted since the last line, at most once in 10 s."""
        if self._closed and now - self._reported_at >= _REPORT_EVERY_S:
            _log.warning(
                "connections closed",
                open=self._open.total(),
                reasons={str(reason): number for reason, number in self._closed.items()},
            )
            self._closed.clear()
            self._reported_at = now


class Refused(Exception):
    """A connection is one too many; ``reason`` says of which."""

    def __init__(self, reason: Closed) -> None:
        super().__init__(reason)
        self.reason = reason


class ClientConnection(H11Protocol):
    """uvicorn's connection with bounds, times, and problems as the answers to malformed requests.

    The server calls ``check`` several times a second. What a client does in between does not
    lengthen its time: a wait ends when the head is complete, not when its next byte is there.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: RequestParser = RequestParser(_MAX_HEAD_BYTES)
        self._connections = connections
        self._network: str | None = None
        self._drained = 0
        #: What is waited for, of which request, and since when.
        self._since: dict[tuple[Closed, int], float] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        try:
            self._network = self._connections.admit(self.client[0] if self.client else None)
        except Refused as refused:
            self._refuse(refused.reason, 503, {"Retry-After": str(UNAVAILABLE_RETRY_AFTER_S)})

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._network is not None:
            self._connections.leave(self._network)
            self._network = None

    def handle_events(self) -> None:
        super().handle_events()
        malformed = self.conn.malformed
        if malformed is not None and not self.transport.is_closing():
            self._refuse(Closed.MALFORMED, malformed.status, code=malformed.code)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drained += 1

    def check(self, now: float) -> None:
        """Close the connection if its client has let it wait for too long."""
        self._since = {wait: self._since.get(wait, now) for wait in self._waits()}
        limits = self._connections.limits
        longest_s = {
            Closed.HEAD_TOO_SLOW: limits.head_s,
            Closed.BODY_TOO_SLOW: limits.body_s,
            Closed.ANSWER_NOT_READ: limits.reading_s,
        }
        for (reason, _), since in self._since.items():
            if now - since >= longest_s[reason]:
                self._give_up(reason)
                return

    def _waits(self) -> list[tuple[Closed, int]]:
        waits = []
        if self.transport.get_write_buffer_size():
            waits.append((Closed.ANSWER_NOT_READ, self._drained))
        if self.transport.is_closing():
            return waits
        if self.conn.their_state is h11.SEND_BODY:
            waits.append((Closed.BODY_TOO_SLOW, self.conn.heads))
        elif self.conn.their_state is h11.IDLE and (
            # uvicorn's own timer is for a connection that is kept after an answer; it stops it at
            # the next byte, which may be the last one of a body that came too late.
            self.timeout_keep_alive_task is None or self.conn.has_unparsed
        ):
            waits.append((Closed.HEAD_TOO_SLOW, self.conn.heads))
        return waits

    def _give_up(self, reason: Closed) -> None:
        if reason is Closed.ANSWER_NOT_READ:
            self._connections.count(reason)
            self.transport.abort()
        elif reason is Closed.HEAD_TOO_SLOW and not self.conn.has_unparsed:
            # It has asked for nothing, so there is nothing to answer.
            self._connections.count(reason)
            self.transport.close()
        else:
            self._refuse(reason, 408)

    def _refuse(
        self,
        reason: Closed,
        status: int,
        headers: dict[str, str] | None = None,
        *,
        code: str | None = None,
    ) -> None:
        """Answer with a problem, unless an answer has begun, and close the connection."""
        self._connections.count(reason)
        if self.conn.heads and not self.cycle.response_complete:
            # Its task then reads that the client has disconnected.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(status, code or str(reason), headers or {})
        self.transport.close()

    def _answer(self, status: int, code: str, headers: dict[str, str]) -> None:
        with use_correlation(CorrelationContext.from_request(None)) as correlation:
            response = problem(
                status,
                code,
                headers={
                    **headers,
                    "Connection": "close",
                    "X-Request-ID": correlation.correlation_id,
                    "X-Correlation-ID": correlation.correlation_id,
                },
            )
        add_security_headers(response.headers)
        for event in (
            h11.Response(
                status_code=status,
                headers=[*self.server_state.default_headers, *response.raw_headers],
                reason=STATUS_PHRASES[status],
            ),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")

    def _should_upgrade(self) -> bool:
        # An upgrade may be ignored (RFC 9110, 7.8); uvicorn would log a warning for each.
        return False
