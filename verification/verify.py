"""Verifies a system as it stands: waits for quiet, reads everything, checks every invariant."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from verification.addresses import SERVICES, Addresses, CannotVerify
from verification.checking import check_all
from verification.databases import ServiceDatabase, open_database
from verification.evidence import Evidence
from verification.quiet import Look, at_rest
from verification.report import Expected, Report
from verification.slack import read_messages_into
from verification.topics import Say, Topics, open_topics

WAIT_S: Final = 30.0
NOTHING_EXPECTED: Final = Expected()


async def verify(
    addresses: Addresses,
    expected: Expected = NOTHING_EXPECTED,
    *,
    wait_s: float = WAIT_S,
    say: Say = lambda _: None,
) -> Report:
    """Check every invariant, once the system has come to rest.

    :param wait_s: how long to wait for that. What stands still without being done is checked as
        it is then, and shows in the report.
    :param say: told how far it has come
    :raises CannotVerify: a part does not answer, or the system still moves when the time is over
    """
    began, deadline = time.monotonic(), time.monotonic() + wait_s
    async with _opened(addresses) as sources:
        while True:
            say("waiting until nothing moves")
            before = await at_rest(sources.look, deadline)
            evidence = Evidence()
            try:
                await sources.read_into(evidence, say)
                if await sources.look() == before:
                    say("comparing")
                    checks = await asyncio.to_thread(check_all, evidence, expected)
                    return Report(checks, round(time.monotonic() - began, 1))
            finally:
                evidence.close()
            if time.monotonic() > deadline:
                raise CannotVerify("the system is not quiet: it moved while it was read")


class _Sources:
    """Everything that is read, open."""

    def __init__(
        self, databases: Sequence[ServiceDatabase], topics: Topics, stand_in_url: str | None
    ) -> None:
        self._databases = databases
        self._topics = topics
        self._stand_in_url = stand_in_url

    async def look(self) -> Look:
        # In the order of an event's way: what is not yet in one is seen in the next.
        outboxes = {each.service: await each.outbox() for each in self._databases}
        ends = await self._topics.ends()
        progress = {
            key: at for each in self._databases for key, at in (await each.progress()).items()
        }
        open_deliveries = sum([await each.open_deliveries() for each in self._databases])
        return Look(ends, progress, outboxes, open_deliveries)

    async def read_into(self, evidence: Evidence, say: Say) -> None:
        for each in self._databases:
            say(f"reading the database of {each.service}")
            await each.read_into(evidence)
        await self._topics.read_into(evidence, say)
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
