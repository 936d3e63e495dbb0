"""All aggregates that one error stopped are released together."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from chassis.operations import release_together
from chassis.operations.dead_letter_rows import NoSuchSubscriber
from chassis.operations.one_record import discard_record, release_record
from chassis.operations.release_together import (
    OfError,
    OfErrorBefore,
    ReleasedBody,
    discard_all,
    preview,
    release_all,
)
from chassis.operations.stopped_consumers import OneRecord
from tests.integration.chassis.path import rows, schema
from tests.integration.chassis.service import TOPIC

from .operating import BY_ADA, acts_of
from .parking import NAME, Shop, without_label


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with schema(database) as engine:
        yield Shop(database, engine)


async def release(shop: Shop, code: str = "test", subscriber: str = NAME) -> ReleasedBody:
    of = OfErrorBefore(subscriber=subscriber, topic=TOPIC.name, error_code=code)
    return await release_all(shop.runtime, of, BY_ADA)


async def error_codes(shop: Shop) -> set[str]:
    found = await rows(shop.service.database, "SELECT DISTINCT error_code FROM parked")
    return {row["error_code"] for row in found}


async def test_each_aggregate_is_handled_in_order_with_what_waits_behind(shop: Shop) -> None:
    for subject in (uuid4(), uuid4(), uuid4()):
        await shop.parks(subject, 1, 2)
    code = next(iter(await error_codes(shop) - {"behind"}))

    done = await release(shop, code)

    assert done.model_dump(exclude={"first_stopped_at", "before"}) == {
        "tried": 3,
        "released": 6,
        "stopped": 0,
        "more": False,
    }
    assert await shop.handled() == [1, 2, 1, 2, 1, 2]
    assert await shop.ids() == {}


async def test_aggregates_that_another_error_stopped_are_left(shop: Shop) -> None:
    ada = uuid4()
    await shop.parks(ada, 1)
    await shop.comes(without_label(uuid4(), 1))
    before = await error_codes(shop)
    assert len(before) == 2
    [code] = await rows(
        shop.service.database, "SELECT error_code FROM parked WHERE subject = $1", str(ada)
    )

    done = await release(shop, code["error_code"])

    assert (done.tried, done.released) == (1, 1)
    assert await error_codes(shop) == before - {code["error_code"]}


async def test_an_aggregate_that_fails_again_is_tried_once_and_stops_no_other(shop: Shop) -> None:
    await shop.parks(uuid4(), 1)
    await shop.parks(uuid4(), 7)
    await shop.parks(uuid4(), 2)
    [code] = await error_codes(shop)
    shop.faults.on = {7}

    done = await release(shop, code)

    assert (done.tried, done.released, done.stopped) == (3, 2, 1)
    assert done.first_stopped_at is not None
    assert done.first_stopped_at.error_code == code
    assert await shop.handled() == [1, 2]


async def test_more_than_one_query_finds_are_released(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_together, "_FOUND_AT_ONCE", 2)
    for _ in range(5):
        await shop.parks(uuid4(), 1)
    [code] = await error_codes(shop)

    assert (await release(shop, code)).released == 5


async def test_tells_that_more_is_left_when_its_time_is_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.parks(uuid4(), 1)
    [code] = await error_codes(shop)
    monkeypatch.setattr(release_together, "_RELEASE_FOR_S", 0.0)

    done = await release(shop, code)

    assert (done.tried, done.more) == (0, True)


async def test_goes_on_without_those_that_have_failed_again(shop: Shop) -> None:
    await shop.parks(uuid4(), 1)
    [code] = await error_codes(shop)
    shop.faults.on = {1}
    first = await release(shop, code)

    of = OfErrorBefore(subscriber=NAME, topic=TOPIC.name, error_code=code, before=first.before)
    then = await release_all(shop.runtime, of, BY_ADA)

    assert (first.tried, first.stopped, then.tried) == (1, 1, 0)


async def test_a_preview_counts_and_tries_and_changes_nothing(shop: Shop) -> None:
    await shop.parks(uuid4(), 1, 2)
    await shop.parks(uuid4(), 7)
    [code] = await error_codes(shop) - {"behind-parked"}
    before = await rows(shop.service.database, "SELECT * FROM parked ORDER BY id")
    shop.faults.on = {7}

    found = await preview(shop.runtime, OfError(subscriber=NAME, topic=TOPIC.name, error_code=code))

    assert found.model_dump() == {
        "aggregates": 2,
        "events": 3,
        "tried": 2,
        "would_be_handled": 1,
        "would_stay": [{"error_code": code, "aggregates": 1}],
    }
    assert await rows(shop.service.database, "SELECT * FROM parked ORDER BY id") == before
    assert await acts_of(shop.service.database) == []


async def test_all_of_an_error_are_discarded_by_an_act_each_and_those_behind_are_released(
    shop: Shop,
) -> None:
    await shop.parks(uuid4(), 1, 2)
    await shop.parks(uuid4(), 1)
    [code] = await error_codes(shop) - {"behind-parked"}
    of = OfError(subscriber=NAME, topic=TOPIC.name, error_code=code)

    done = await discard_all(shop.runtime, of, BY_ADA)
    behind = await release(shop, "behind-parked")

    assert (done.discarded, done.more) == (2, False)
    acts = [type_ for type_, _, _ in await acts_of(shop.service.database)]
    assert acts.count("operations.parked-event-discarded.v1") == 2
    assert behind.released == 1
    assert await shop.handled() == [2]


async def test_one_record_is_released_with_its_subject_for_each_subscriber_that_parked_it(
    shop: Shop,
) -> None:
    await shop.parks(uuid4(), 1, 2)
    await shop.parks(uuid4(), 7)

    released = await release_record(shop.runtime, place_of(0), BY_ADA)
    again = await release_record(shop.runtime, place_of(0), BY_ADA)

    assert (released.subscribers, released.released, released.stopped_at) == ([NAME], 2, [])
    assert (again.subscribers, again.released) == ([], 0)
    assert list(await shop.ids()) == [2]


async def test_one_record_is_discarded_and_those_behind_it_stay(shop: Shop) -> None:
    await shop.parks(uuid4(), 1, 2)

    discarded = await discard_record(shop.runtime, place_of(0), BY_ADA)
    again = await discard_record(shop.runtime, place_of(0), BY_ADA)

    assert (discarded.subscribers, again.subscribers) == ([NAME], [])
    assert list(await shop.ids()) == [1]


def place_of(offset: int) -> OneRecord:
    return OneRecord(topic=TOPIC.name, partition=0, offset=offset)


async def test_of_an_unknown_subscriber_is_refused(shop: Shop) -> None:
    with pytest.raises(NoSuchSubscriber):
        await release(shop, subscriber="test.other")
