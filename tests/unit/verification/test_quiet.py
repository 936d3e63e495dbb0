import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from verification import quiet
from verification.addresses import CannotVerify
from verification.quiet import Look, at_rest

REST = Look(
    ends={("accounts.account", 0): 7},
    progress={("audit.keep", "accounts.account", 0): 7},
    outboxes={"users": (0, 0)},
    open_deliveries=0,
)
BUSY = replace(REST, outboxes={"users": (3, 12)})
BUSIER = replace(REST, outboxes={"users": (4, 13)})


class Looks:
    """Gives one look after the other, the last one again and again."""

    def __init__(self, looks: Sequence[Look]) -> None:
        self.left = list(looks)

    async def __call__(self) -> Look:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(quiet, "STANDS_STILL_AFTER_S", 0.02)


class TestWhatIsUndone:
    def test_at_rest_it_is_nothing(self) -> None:
        assert REST.undone == ""

    def test_it_is_said_in_words(self) -> None:
        look = replace(BUSY, ends={("accounts.account", 0): 1_207}, open_deliveries=2)

        assert look.undone == "3 to publish, 1,200 to handle, 2 to deliver"

    def test_a_consumer_that_has_not_begun_has_everything_to_do(self) -> None:
        assert replace(REST, progress={}).undone == "7 to handle"

    def test_a_subscriber_of_a_topic_that_is_not_there_has_nothing_to_do(self) -> None:
        assert replace(REST, ends={}).undone == ""


class TestWaitingForRest:
    async def test_rest_is_seen_at_once(self) -> None:
        assert await at_rest(Looks([REST]), time.monotonic()) == REST

    async def test_what_moves_is_waited_for(self) -> None:
        looks = Looks([BUSY, BUSIER, BUSY, REST])

        assert await at_rest(looks, time.monotonic() + 30) == REST

    async def test_what_stands_still_undone_is_taken_as_it_is_when_time_is_over(self) -> None:
        assert await at_rest(Looks([BUSY]), time.monotonic()) == BUSY

    async def test_before_time_is_over_it_may_still_move(self) -> None:
        looks = Looks([BUSY] * 60 + [REST])

        assert await at_rest(looks, time.monotonic() + 30) == REST

    async def test_what_still_moves_when_time_is_over_is_not_quiet(self) -> None:
        with pytest.raises(CannotVerify, match=r"not quiet \(4 to publish\)"):
            await at_rest(Looks([BUSY, BUSIER] * 1_000), time.monotonic())
