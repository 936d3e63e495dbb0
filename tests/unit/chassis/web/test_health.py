import asyncio

import pytest

from chassis.web import health as module
from chassis.web.health import Health


async def away() -> str | None:
    return "the database is away"


async def test_a_process_without_trouble_is_ready() -> None:
    health = Health()
    health.add("keys", lambda: None)

    verdict = await health.verdict()

    assert verdict.ready
    assert verdict.reasons == {}


async def test_a_failing_check_takes_readiness_away_and_says_why() -> None:
    health = Health()
    health.add("database", away)

    verdict = await health.verdict()

    assert not verdict.ready
    assert verdict.reasons == {"database": "the database is away"}


async def test_trouble_of_consumers_is_shown_and_takes_nothing_away() -> None:
    health = Health()
    health.add("agents", lambda: "no partitions", gates=False)

    verdict = await health.verdict()

    assert verdict.ready
    assert verdict.reasons == {"agents": "no partitions"}


async def test_a_check_that_raises_has_failed() -> None:
    def broken() -> str | None:
        raise ConnectionRefusedError("password=hunter2")

    health = Health()
    health.add("database", broken)

    verdict = await health.verdict()

    assert not verdict.ready
    assert verdict.reasons == {"database": "ConnectionRefusedError"}


async def test_a_check_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> str | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(module, "_CHECK_TIMEOUT_S", 0.01)
    health = Health()
    health.add("database", hang)

    verdict = await health.verdict()

    assert not verdict.ready
    assert verdict.reasons == {"database": "no answer within 0.01 s"}


async def test_a_process_that_stops_is_not_ready() -> None:
    health = Health()

    health.stopping()

    assert not (await health.verdict()).ready
