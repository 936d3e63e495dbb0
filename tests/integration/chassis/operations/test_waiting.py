"""What waits for an operator is a reason of readiness, and is logged when it comes."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import structlog

from chassis.operations.waiting import COUNT_AT_MOST, WaitingForOperator
from tests.integration.chassis.path import rows, schema
from tests.integration.chassis.service import TOPIC

from .parking import NAME, Shop

SET_ASIDE = """
    INSERT INTO outbox_set_aside
    SELECT n, gen_random_uuid(), 'users.user', 's', 't', n, '', '{}', now(), 'too-large', 'm', now()
    FROM generate_series(1, 1200) AS n
"""
PARKED_TIMERS = """
    INSERT INTO next_timers (subject, timer_id, claims, begun, tries, failures, parked_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 0, false, 1, 1, now() FROM generate_series(1, 2)
"""


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with schema(database) as engine:
        yield Shop(database, engine)


class TestReadiness:
    async def test_names_what_is_parked_and_set_aside_by_whom_and_why(
        self, database: str, shop: Shop
    ) -> None:
        check = WaitingForOperator(shop.runtime.database)
        nothing = await check.trouble()

        await shop.parks(uuid4(), 1, 2, 3)
        await rows(database, SET_ASIDE)
        await rows(database, PARKED_TIMERS)

        assert nothing is None
        assert await check.trouble() == (
            f"parked events of {NAME}: 2 behind-parked, 1 name-is-taken;"
            f" rows set aside of users.user: {COUNT_AT_MOST:,} or more; parked timers: 2"
        )


class TestTheLog:
    async def test_has_one_line_for_each_parked_event_and_none_for_what_is_rolled_back(
        self, shop: Shop
    ) -> None:
        with structlog.testing.capture_logs() as logged:
            await shop.parks(uuid4(), 1, 2)
        lines = [line for line in logged if line["event"] == "event-parked"]

        where = {"subscriber": NAME, "topic": TOPIC.name, "partition": 0, "event": "event-parked"}
        assert lines == [
            where
            | {"reason": "failed", "error_code": "name-is-taken", "offset": 0}
            | {"log_level": "warning"},
            where
            | {"reason": "behind", "error_code": "behind-parked", "offset": 1}
            | {"log_level": "info"},
        ]
