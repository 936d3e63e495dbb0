"""How long reads of random rows take, one after the other: the median, in milliseconds.

``python -m benchmarks.programs.reads accounts|audit DATABASE_URL COUNT`` prints a line per kind of
read; ``COUNT`` is how many rows ``fill_….sql`` made. It runs the services' own queries, without
HTTP.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import md5
from random import Random
from statistics import median
from time import perf_counter
from typing import Final
from uuid import UUID

import uvloop

from accounts_service.adapters.postgres_views import PostgresAccountViews
from audit_service.queries import Records, RecordSearch
from benchmarks.logs import EVENTS_A_SUBJECT
from chassis.persistence.database import Database

_WARM_UP, _READS = 200, 2_000
_PAGE: Final = 50
_LATEST: Final = 20
_BEGAN: Final = datetime(2025, 1, 1, tzinfo=UTC)

Read = Callable[[int], Awaitable[object]]


def _accounts(engine: Database, _count: int) -> Mapping[str, Read]:
    views = PostgresAccountViews(engine)

    async def read(number: int) -> None:
        head = await views.head_of_user(UUID(_md5(f"user {number}")))
        assert head is not None
        assert await views.by_id(head.id, latest=_LATEST) is not None

    return {"account": read}


def _audit(engine: Database, count: int) -> Mapping[str, Read]:
    records = Records(engine)

    async def page(search: RecordSearch) -> None:
        assert (await records.page(search)).items

    async def by_subject(number: int) -> None:
        subject = UUID(_md5(f"subject {number % (count // EVENTS_A_SUBJECT)}"))
        await page(RecordSearch(subject=str(subject), limit=_PAGE))

    async def by_correlation(number: int) -> None:
        await page(RecordSearch(correlation_id=_md5(f"correlation {number}"), limit=_PAGE))

    async def by_type(number: int) -> None:
        until = _BEGAN + timedelta(seconds=max(number, 1_000))
        of_type = {"type": f"old.{number % 20}", "to": until, "limit": _PAGE}
        await page(RecordSearch.model_validate(of_type))

    return {"subject": by_subject, "correlation": by_correlation, "type": by_type}


def _md5(text: str) -> str:
    return md5(text.encode(), usedforsecurity=False).hexdigest()


async def _median_ms(read: Read, count: int) -> float:
    random, took_ms = Random(0), []  # noqa: S311 - nothing to guess
    for _ in range(_WARM_UP + _READS):
        number = random.randint(1, count)
        began = perf_counter()
        await read(number)
        took_ms.append((perf_counter() - began) * 1_000)
    return median(took_ms[_WARM_UP:])


async def _run(service: str, url: str, count: int) -> None:
    engine = Database(url, pool_size=1, application_name="benchmark")
    reads = {"accounts": _accounts, "audit": _audit}[service](engine, count)
    for name, read in reads.items():
        print(name, await _median_ms(read, count), flush=True)
    await engine.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
