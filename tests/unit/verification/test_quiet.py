import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from verification import quiet
from verification.addresses import CannotVerify
from verification.quiet import Snapshot, wait_for_rest

REST = Snapshot(
    ends={("users.task", 0): 7},
    progress={("audit.keep", "users.task", 0): 7},
    outboxes={"users": (0, 0)},
    open_deliveries=0,
)
BUSY = replace(REST, outboxes={"users": (3, 12)})
BUSIER = replace(REST, outboxes={"users": (4, 13)})


class Snapshots:
    """Returns one snapshot after the other, and the last one again and again."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self.left = list(snapshots)

    async def __call__(self) -> Snapshot:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(quiet, "STANDS_STILL_AFTER_S", 0.02)


class TestTheBacklog:
    def test_at_rest_it_is_empty(self) -> None:
        assert REST.backlog == ""

    def test_it_names_what_is_to_be_done(self) -> None:
        snapshot = replace(BUSY, ends={("users.task", 0): 1_207}, open_deliveries=2)

        assert snapshot.backlog == "3 to publish, 1,200 to handle, 2 to deliver"
        assert replace(REST, unnumbered_records=5).backlog == "5 audit records to number"

    def test_a_consumer_that_has_not_begun_has_everything_to_do(self) -> None:
        assert replace(REST, progress={}).backlog == "7 to handle"

    def test_a_subscriber_of_a_topic_that_is_not_there_has_nothing_to_do(self) -> None:
        assert replace(REST, ends={}).backlog == ""


class TestWaitingForRest:
    async def test_rest_is_seen_at_once(self) -> None:
        assert await wait_for_rest(Snapshots([REST]), time.monotonic()) == REST

    async def test_what_moves_is_waited_for(self) -> None:
        snapshots = Snapshots([BUSY, BUSIER, BUSY, REST])

        assert await wait_for_rest(snapshots, time.monotonic() + 30) == REST

    async def test_what_stands_still_undone_is_taken_as_it_is_when_time_is_over(self) -> None:
        assert await wait_for_rest(Snapshots([BUSY]), time.monotonic()) == BUSY

    async def test_before_time_is_over_it_may_still_move(self) -> None:
        snapshots = Snapshots([BUSY] * 60 + [REST])

        assert await wait_for_rest(snapshots, time.monotonic() + 30) == REST

    async def test_what_still_moves_when_time_is_over_is_not_quiet(self) -> None:
        with pytest.raises(CannotVerify, match=r"not quiet \(4 to publish\)"):
            await wait_for_rest(Snapshots([BUSY, BUSIER] * 1_000), time.monotonic())
