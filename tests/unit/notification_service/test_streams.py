"""The open streams of a process, over a log that a test writes."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest

from chassis.domain import DomainError
from chassis.testing import eventually
from chassis.web.event_stream import StreamPlaces
from notification_service.stream_events import Position
from notification_service.stream_log import MOST_AT_ONCE, Read
from notification_service.streams import Streams

ADA, BOB = UUID(int=1), UUID(int=2)


class Log:
    """A log in memory, and what was asked of it."""

    def __init__(self) -> None:
        self.epoch = 7
        self.events: dict[UUID, list[str]] = {ADA: [], BOB: []}
        self.deleted = 0
        self.is_away = False
        self.asked: list[list[UUID]] = []

    async def was_asked(self) -> bool:
        return bool(self.asked)

    async def last_of(self, user_id: UUID) -> Position:
        return Position(self.epoch, len(self.events[user_id]))

    async def after(self, positions: Sequence[tuple[UUID, Position]]) -> Mapping[int, Read]:
        self.asked.append([user_id for user_id, _ in positions])
        if self.is_away:
            raise ConnectionRefusedError
        found = {}
        for place, (user_id, at) in enumerate(positions):
            last = await self.last_of(user_id)
            if at != last:
                readable = at.epoch == self.epoch and at.number >= self.deleted
                events = self.events[user_id][at.number :][:MOST_AT_ONCE] if readable else []
                numbered = enumerate(events, at.number + 1)
                found[place] = Read(last, [(Position(self.epoch, n), text) for n, text in numbered])
        return found


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def streams(log: Log) -> Streams:
    return Streams(log, StreamPlaces(total=2, per_user=1))


def fields_of(frame: bytes) -> dict[str, str]:
    lines = frame.decode().strip().split("\n")
    return dict(line.split(": ", 1) for line in lines if not line.startswith("retry"))


async def within_20_s(frame: Awaitable[bytes]) -> bytes:
    """Return the frame, or one that says that there was none."""
    try:
        return await asyncio.wait_for(frame, 20)
    except TimeoutError:
        return b"data: none came"


class TestOpening:
    @pytest.mark.parametrize(
        ("asked", "first"),
        [
            (None, ("begin", "7.2")),
            ("7.0", ("begin", "7.0")),
            ("7.2", ("begin", "7.2")),
            ("7.3", ("read-again", "7.2")),
            ("nonsense", ("read-again", "7.2")),
        ],
    )
    async def test_begins_behind_an_id_that_this_log_gave_or_says_to_read_again(
        self, streams: Streams, log: Log, asked: str | None, first: Any
    ) -> None:
        log.events[ADA] = ["1", "2"]

        async with streams.open(ADA, asked) as stream:
            fields = fields_of(await stream.next())

        assert (fields["event"], fields["id"]) == first

    async def test_behind_an_id_of_another_epoch_says_to_read_again(
        self, streams: Streams, log: Log
    ) -> None:
        log.events[ADA] = ["1", "2"]

        async with streams.open(ADA, "6.1") as stream:
            fields = fields_of(await stream.next())

        assert (fields["event"], fields["id"]) == ("read-again", "7.2")

    async def test_takes_a_place_until_it_is_closed(self, streams: Streams) -> None:
        async with streams.open(ADA, None):
            with pytest.raises(DomainError):
                async with streams.open(ADA, None):
                    pass
        async with streams.open(ADA, None):
            pass


class TestReading:
    async def test_one_statement_is_for_all_and_brings_each_its_own(
        self, streams: Streams, log: Log
    ) -> None:
        async with streams.open(ADA, None) as of_ada, streams.open(BOB, None) as of_bob:
            await of_ada.next(), await of_bob.next()
            log.events = {ADA: ["a"], BOB: ["b"]}
            await streams.step(0)
            frames = [await of_ada.next(), await of_bob.next()]

        assert [sorted(asked) for asked in log.asked] == [[ADA, BOB]]
        assert [fields_of(each) for each in frames] == [
            {"data": "a", "id": "7.1"},
            {"data": "b", "id": "7.1"},
        ]

    async def test_nothing_is_read_for_a_client_that_has_not_taken_what_was(
        self, streams: Streams, log: Log
    ) -> None:
        async with streams.open(ADA, None) as stream:
            await stream.next()
            log.events[ADA] = ["1"]
            await streams.step(0)
            log.events[ADA] += ["2"]
            await streams.step(0)
            assert len(log.asked) == 1
            first = await stream.next()
            await streams.step(0)
            second = await stream.next()

        assert [fields_of(each)["data"] for each in (first, second)] == ["1", "2"]

    async def test_what_is_more_than_a_page_is_read_page_by_page_without_a_wait(
        self, streams: Streams, log: Log
    ) -> None:
        log.events[ADA] = [str(number) for number in range(2 * MOST_AT_ONCE + 1)]
        running = asyncio.create_task(streams.run())

        async with streams.open(ADA, "7.0") as stream:
            await stream.next()
            async with asyncio.timeout(30):
                pages = [(await stream.next()).decode() for _ in range(3)]
        await streams.stop()
        await running

        assert [page.count("data: ") for page in pages] == [MOST_AT_ONCE, MOST_AT_ONCE, 1]

    async def test_behind_an_id_and_after_a_commit_of_this_process_it_waits_for_no_poll(
        self, streams: Streams, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("notification_service.streams._POLL_S", 3_600)
        monkeypatch.setattr("notification_service.streams.LONGEST_IDLE_S", 3_600)
        log.events[ADA] = ["1"]
        running = asyncio.create_task(streams.run())

        async with streams.open(BOB, None) as other:
            await other.next()
            await eventually(log.was_asked, every_s=0.001)
            async with streams.open(ADA, "7.0") as stream:
                await stream.next()
                missed = fields_of(await within_20_s(stream.next()))
                log.events[ADA] += ["2"]
                streams.wake()
                new = fields_of(await within_20_s(stream.next()))
        await streams.stop()
        await running

        assert [missed["data"], new["data"]] == ["1", "2"]

    @pytest.mark.parametrize(("epoch", "deleted"), [(8, 0), (7, 2)])
    async def test_behind_what_is_not_there_any_more_it_says_so_and_goes_on(
        self, streams: Streams, log: Log, epoch: int, deleted: int
    ) -> None:
        async with streams.open(ADA, None) as stream:
            await stream.next()
            log.events[ADA], log.epoch, log.deleted = ["1", "2"], epoch, deleted
            await streams.step(0)
            again = fields_of(await stream.next())
            log.events[ADA] += ["3"]
            await streams.step(0)
            then = fields_of(await stream.next())

        assert again == {"event": "read-again", "data": "{}", "id": f"{epoch}.2"}
        assert then == {"data": "3", "id": f"{epoch}.3"}

    async def test_a_database_that_is_away_is_trouble_and_ends_no_stream(
        self, streams: Streams, log: Log
    ) -> None:
        async with streams.open(ADA, None) as stream:
            await stream.next()
            log.events[ADA], log.is_away = ["1"], True
            await streams.step(0)
            trouble = streams.trouble()
            log.is_away = False
            await streams.step(0)

            assert fields_of(await stream.next())["data"] == "1"

        assert trouble == "the database: ConnectionRefusedError"
        assert streams.trouble() is None
