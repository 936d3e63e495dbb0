"""Watches a service: whether it is ready, and its OpenAPI document."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import structlog

from chassis.periodic import Periodic
from gateway.openapi import ApiDocument
from gateway.upstream import ServiceFailed, Upstream

_DOCUMENT_REFRESH_S: Final = 60.0
_CHECK_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger(__name__)


class ServiceWatch(Periodic):
    """A component that checks one service every ``pause_s`` while the gateway runs.

    A service that is not ready is shown in the gateway's readiness but does not take it away: the
    other services can still be reached.
    """

    def __init__(
        self,
        upstream: Upstream,
        documents: Sequence[ApiDocument],
        *,
        pause_s: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.name = str(upstream.service)
        self._upstream = upstream
        self._documents = documents
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._document_due = monotonic()
        self._trouble: str | None = "not checked yet"

    async def step(self) -> float:
        await self.check()
        return self._pause_s

    def trouble(self) -> str | None:
        return self._trouble

    async def check(self) -> None:
        """Check the service's readiness, and read its document if there may be a new one."""
        was_away = self._trouble is not None
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                status, _ = await self._upstream.get("/health/ready")
            self._trouble = None if status == HTTPStatus.OK else "not ready"
        except ServiceFailed as failed:
            self._trouble = failed.reason
            return
        except TimeoutError:
            self._trouble = "did not answer in time"
            return
        # A service that was away may be back in another version.
        if was_away or self._monotonic() >= self._document_due:
            await self._read_document()

    async def _read_document(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                _, document = await self._upstream.get("/openapi.json")
            for each in self._documents:
                each.learn(self._upstream.service, json.loads(document))
            self._document_due = self._monotonic() + _DOCUMENT_REFRESH_S
        except Exception as error:  # noqa: BLE001 - the last document stays in use
            _log.warning("document not read", of=self.name, error=type(error).__qualname__)
