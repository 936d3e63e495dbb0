import asyncio

import pytest

from chassis.web import health as module
from chassis.web.health import Health


async def away() -> str | None:
    return "the database is away"


async def test_a_process_is_ready_when_its_checks_pass() -> None:
    health = Health()
    health.add("keys", lambda: None)

    readiness = await health.readiness()

    assert readiness.ready
    assert readiness.reasons == {}


async def test_a_process_with_a_failing_check_is_not_ready_and_gives_the_reason() -> None:
    health = Health()
    health.add("database", away)

    readiness = await health.readiness()

    assert not readiness.ready
    assert readiness.reasons == {"database": "the database is away"}


async def test_a_failing_check_that_does_not_gate_leaves_the_process_ready() -> None:
    health = Health()
    health.add("agents", lambda: "no partitions", gates=False)

    readiness = await health.readiness()

    assert readiness.ready
    assert readiness.reasons == {"agents": "no partitions"}


async def test_a_check_that_raises_fails() -> None:
    def broken() -> str | None:
        raise ConnectionRefusedError("password=hunter2")

    health = Health()
    health.add("database", broken)

    readiness = await health.readiness()

    assert not readiness.ready
    assert readiness.reasons == {"database": "ConnectionRefusedError"}


async def test_a_check_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> str | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(module, "_CHECK_TIMEOUT_S", 0.01)
    health = Health()
    health.add("database", hang)

    readiness = await health.readiness()

    assert not readiness.ready
    assert readiness.reasons == {"database": "no answer within 0.01 s"}


async def test_a_process_that_stops_is_not_ready() -> None:
    health = Health()

    health.set_stopping()

    assert not (await health.readiness()).ready
