"""How a worker consumes, by whom it consumes for."""

from collections.abc import Sequence

import pytest

from chassis.consuming.subscribers import EventSubscriber, RecordSubscriber, Subscriber
from chassis.consuming.worker import pace_s
from contracts.topics import USERS_USER


async def keep(_work: object, _records: Sequence[object]) -> None: ...


RECORDS: RecordSubscriber[object] = RecordSubscriber("test.records", USERS_USER, keep)
EVENTS: EventSubscriber[object] = EventSubscriber("test.events", USERS_USER, {})


@pytest.mark.parametrize(
    ("subscribers", "rests"),
    [([RECORDS], True), ([EVENTS], False), ([RECORDS, EVENTS], False)],
    ids=["records", "events", "both"],
)
def test_a_consumer_rests_only_where_nobody_waits_for_effects(
    subscribers: Sequence[Subscriber[object]], *, rests: bool
) -> None:
    assert (pace_s(subscribers) > 0) is rests
