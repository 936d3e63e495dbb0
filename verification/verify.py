"""Verifies a system: waits until it is at rest, reads everything, checks every invariant."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from verification.addresses import SERVICES, Addresses, CannotVerify
from verification.checking import check_all
from verification.databases import ServiceDatabase, open_database
from verification.evidence import Evidence
from verification.quiet import Snapshot, wait_for_rest
from verification.report import Expected, Report
from verification.slack import read_messages_into
from verification.topics import ReportProgress, Topics, open_topics

WAIT_S: Final = 30.0
NOTHING_EXPECTED: Final = Expected()


async def verify(
    addresses: Addresses,
    expected: Expected = NOTHING_EXPECTED,
    *,
    wait_s: float = WAIT_S,
    progress: ReportProgress = lambda _: None,
) -> Report:
    """Check every invariant, once the system has come to rest.

    :param wait_s: how long to wait for that. Work that stands still unfinished is in the report.
    :param progress: called with how far the verification has come
    :raises CannotVerify: a part does not answer, or the system still moves when the time is over
    """
    began, deadline = time.monotonic(), time.monotonic() + wait_s
    async with _opened(addresses) as sources:
        while True:
            progress("waiting until nothing moves")
            before = await wait_for_rest(sources.snapshot, deadline)
            evidence = Evidence()
            try:
                await sources.read_into(evidence, progress)
                if await sources.snapshot() == before:
                    progress("comparing")
                    checks = await asyncio.to_thread(check_all, evidence, expected)
                    return Report(checks, round(time.monotonic() - began, 1))
            finally:
                evidence.close()
            if time.monotonic() > deadline:
                raise CannotVerify("the system is not quiet: it moved while it was read")


class _Sources:
    """Open connections to everything that is read."""

    def __init__(
        self, databases: Sequence[ServiceDatabase], topics: Topics, stand_in_url: str | None
    ) -> None:
        self._databases = databases
        self._topics = topics
        self._stand_in_url = stand_in_url

    async def snapshot(self) -> Snapshot:
        # In the order of an event's path: an event that has left one part is seen in the next.
        outboxes = {each.service: await each.outbox() for each in self._databases}
        ends = await self._topics.ends()
        progress = {
            key: next_offset
            for each in self._databases
            for key, next_offset in (await each.progress()).items()
        }
        open_deliveries = sum([await each.open_deliveries() for each in self._databases])
        due_timers = sum([await each.due_timers() for each in self._databases])
        unnumbered = sum([await each.unnumbered() for each in self._databases])
        return Snapshot(ends, progress, outboxes, open_deliveries, due_timers, unnumbered)

    async def read_into(self, evidence: Evidence, progress: ReportProgress) -> None:
        for each in self._databases:
            progress(f"reading the database of {each.service}")
            await each.read_into(evidence)
        await self._topics.read_into(evidence, progress)
        if self._stand_in_url is not None:
            evidence.has_messages = True
            await read_messages_into(evidence, self._stand_in_url)


@asynccontextmanager
async def _opened(addresses: Addresses) -> AsyncIterator[_Sources]:
    async with AsyncExitStack() as opened:
        databases = [
            await opened.enter_async_context(open_database(name, addresses.databases[name]))
            for name in SERVICES
        ]
        topics = await opened.enter_async_context(open_topics(addresses))
        yield _Sources(databases, topics, addresses.slack_stand_in_url)
