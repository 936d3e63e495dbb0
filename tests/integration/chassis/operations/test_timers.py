"""An operator reads, releases and discards timers that could not be handled."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.operations import timers
from chassis.operations.context import ServiceRuntime
from chassis.operations.timers import NoSuchParkedTimer, OneTimer, TimerSearch
from chassis.settings import ServiceSettings
from tests.integration.chassis.path import PathWork, settings_for
from tests.integration.chassis.timers.timed import Timed, create_tables, timed
from tests.unit.chassis.timers.timers_suite import FUTURE, PAST, Notes, schedule

from .operating import BY_ADA, acts_of, asking, runtime_of, service_of, topic_with_withheld


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Timed]:
    await create_tables(database)
    async with timed(database) as bench:
        yield bench


@pytest.fixture
def runtime(bench: Timed) -> ServiceRuntime[ServiceSettings, PathWork]:
    service = service_of(topic_with_withheld())
    return runtime_of(service, settings_for(bench.database, "127.0.0.1:1"), bench.engine)


async def park_one(bench: Timed, notes: Notes, subject: UUID) -> UUID:
    """Have a timer parked, and another of its aggregate wait behind it; return the first's id."""
    id_ = await schedule(bench, "parked", subject=subject)
    await schedule(bench, "behind", PAST + timedelta(hours=1), subject=subject)
    notes.refused = {"parked"}
    await bench.fire(notes)
    return id_


class TestParkedTimers:
    async def test_are_listed_page_by_page_and_shown_whole_and_no_others_are(
        self, bench: Timed, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        ids = [await park_one(bench, Notes(), uuid4()) for _ in range(3)]
        await schedule(bench, "waits", FUTURE)

        async with asking(runtime) as client:
            first = (await client.get("/ops/timers", params={"limit": 2})).json()
            last = (await client.get("/ops/timers", params={"after": first["next"]})).json()
            shown = (await client.get(f"/ops/timers/{ids[0]}")).json()
            forbidden = await client.get("/ops/timers", headers={"role": "user"})

        listed: list[dict[str, Any]] = first["timers"] + last["timers"]
        assert [each["id"] for each in listed] == [str(id_) for id_ in ids]
        assert {each["error_code"] for each in listed} == {"refused"}
        assert shown["data"] == {"text": "parked"}
        assert forbidden.status_code == 403
        assert (await timers.page(runtime, TimerSearch(error_code="other"))).timers == []
        assert (await bench.due.waiting()).parked == 3

    async def test_are_released_in_their_order_and_the_act_is_published(
        self, bench: Timed, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        notes, subject = Notes(), uuid4()
        id_ = await park_one(bench, notes, subject)
        notes.refused = set()

        await timers.release(runtime, OneTimer(timer_id=id_), BY_ADA)
        await bench.fire(notes)

        assert notes.texts == ["parked", "behind"]
        assert await acts_of(bench.database) == [("operations.timer-released.v1", str(id_), 1)]
        with pytest.raises(NoSuchParkedTimer):
            await timers.release(runtime, OneTimer(timer_id=id_), BY_ADA)

    async def test_that_one_error_stopped_are_released_together(
        self, bench: Timed, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        ids = [await park_one(bench, Notes(), uuid4()) for _ in range(3)]
        body = {"kind": "test.note", "error_code": "refused", "why": "the deploy is corrected"}

        async with asking(runtime) as client:
            released = await client.post("/ops/timers/release-all", json=body)
            again = await client.post("/ops/timers/release-all", json=body)

        assert released.json() == {"released": 3, "more_are_left": False}
        assert again.json() == {"released": 0, "more_are_left": False}
        assert (await bench.due.waiting()).parked == 0
        assert len(await acts_of(bench.database)) == len(ids)

    async def test_that_are_discarded_let_the_next_of_their_aggregate_be_handled(
        self, bench: Timed, runtime: ServiceRuntime[ServiceSettings, PathWork]
    ) -> None:
        notes, subject = Notes(), uuid4()
        id_ = await park_one(bench, notes, subject)

        async with asking(runtime) as client:
            done = await client.post(f"/ops/timers/{id_}/discard", json={"why": "by hand"})
            again = await client.post(f"/ops/timers/{id_}/discard", json={"why": "by hand"})
        await bench.fire(notes)

        assert (done.status_code, again.json()["code"]) == (204, "no-such-parked-timer")
        assert notes.texts == ["behind"]
        assert await acts_of(bench.database) == [("operations.timer-discarded.v1", str(id_), 1)]
