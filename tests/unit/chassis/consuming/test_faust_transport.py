"""The chunk transport's own rules."""

import asyncio
import gc
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import tuples

from chassis.consuming.faust_transport import ChunkConsumer, ChunkThread, DeliveredChunk
from chassis.consuming.positions import FetchPosition
from chassis.testing import FakeRecord

TP = TopicPartition("t", 0)


class Kafka:
    """A consumer of one partition whose positions move by seeks and fetches only."""

    def __init__(self) -> None:
        self.seeks: list[int] = []
        self.paused: list[TopicPartition] = []
        self.asked: list[int] = []
        self.most = 500
        self._next = 0

    def assignment(self) -> set[TopicPartition]:
        return {TP}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.seeks.append(offset)
        self._next = offset

    def resume(self, tp: TopicPartition) -> None:
        self.paused = []

    def highwater(self, tp: TopicPartition) -> int:
        return 10_000

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int
    ) -> Mapping[TopicPartition, Sequence[Any]]:
        self.asked.append(timeout_ms)
        begin, self._next = self._next, self._next + self.most
        return dict.fromkeys(partitions, records(*range(begin, begin + self.most)))


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def thread(kafka: Kafka) -> ChunkThread:
    # Faust would start a thread and a loop; what is tested here needs neither.
    thread = object.__new__(ChunkThread)
    thread.fetch_positions = {}
    thread._ahead = defaultdict(deque)
    thread.given_up = {}
    thread._doubted = {}
    thread._epochs = iter(range(1, 1_000))  # type: ignore[assignment]  # counts just the same
    thread._moving = asyncio.Lock()
    thread._looked_at = 0.0
    thread._fetches_each_alone = False
    thread._most_records = 500
    thread._consumer = kafka
    done_is(thread, {TP: 0})
    return thread


def done_is(thread: ChunkThread, done: Mapping[TopicPartition, int]) -> None:
    consumer: Any = SimpleNamespace(flow_active=True, processed_up_to=done.get)
    thread.consumer = consumer


def records(*offsets: int) -> list[Any]:
    return [FakeRecord("t", 0, offset, None, None, []) for offset in offsets]


class TestPlaces:
    async def test_a_fetch_moves_the_place_and_its_chunk_begins_there(
        self, thread: ChunkThread
    ) -> None:
        await thread._seek_all({TP: 5})

        first = thread._chunk_of(TP, records(5, 6))
        second = thread._chunk_of(TP, records(7))

        assert first is not None
        assert second is not None
        assert [(each.begin, each.end, each.epoch) for each in (first, second)] == [
            (5, 7, 1),
            (7, 8, 1),
        ]

    async def test_a_seek_begins_a_new_epoch(self, thread: ChunkThread, kafka: Kafka) -> None:
        await thread._seek_all({TP: 5})
        await thread._seek_all({TP: 5})

        assert thread.fetch_positions == {TP: FetchPosition(2, 5)}
        assert kafka.seeks == [5, 5]

    async def test_a_rewind_of_the_current_epoch_seeks(self, thread: ChunkThread) -> None:
        await thread._seek_all({TP: 5})

        await thread._rewind(TP, 3, 1)

        assert thread.fetch_positions == {TP: FetchPosition(2, 3)}

    async def test_a_rewind_of_an_epoch_that_is_over_does_nothing(
        self, thread: ChunkThread
    ) -> None:
        await thread._seek_all({TP: 5})
        await thread._rewind(TP, 3, 1)

        await thread._rewind(TP, 3, 1)

        assert thread.fetch_positions == {TP: FetchPosition(2, 3)}

    async def test_a_place_elsewhere_than_assigned_is_none(self, thread: ChunkThread) -> None:
        await thread._seek_all({TopicPartition("t", 1): 5})

        assert thread.fetch_positions == {}

    async def test_a_hole_is_fetched_again_before_it_is_believed(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        await thread._seek_all({TP: 5})

        doubted = thread._chunk_of(TP, records(8, 9))
        believed = thread._chunk_of(TP, records(8, 9))

        assert doubted is None
        assert kafka.seeks == [5, 5]
        assert believed is not None
        assert (believed.begin, believed.end) == (5, 10)


class TestFetching:
    async def test_goes_two_chunks_ahead_of_what_is_done_and_no_further(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        await thread._seek_all({TP: 0})
        wanted: Any = frozenset({TP})

        fetched = [await thread._fetch(wanted) for _ in range(3)]

        assert [len(each) for each in fetched] == [1, 1, 0]
        done_is(thread, {TP: 500})
        assert list(await thread._fetch(wanted)) == [TP]

    async def test_goes_two_chunks_ahead_however_small_they_are(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.most = 3
        await thread._seek_all({TP: 0})
        wanted: Any = frozenset({TP})

        fetched = [await thread._fetch(wanted) for _ in range(3)]

        assert [len(each) for each in fetched] == [1, 1, 0]

    async def test_counts_from_zero_again_after_a_seek(self, thread: ChunkThread) -> None:
        await thread._seek_all({TP: 0})
        wanted: Any = frozenset({TP})
        for _ in range(2):
            await thread._fetch(wanted)

        await thread._seek_all({TP: 0})

        assert list(await thread._fetch(wanted)) == [TP]

    async def test_continues_for_a_partition_whose_progress_is_unknown(
        self, thread: ChunkThread
    ) -> None:
        done_is(thread, {})
        await thread._seek_all({TP: 0})
        wanted: Any = frozenset({TP})

        assert all([await thread._fetch(wanted) for _ in range(5)])


class TestTheConsumer:
    def consumer(self, places: Mapping[TopicPartition, FetchPosition]) -> ChunkConsumer:
        thread = object.__new__(ChunkThread)
        thread.fetch_positions = dict(places)
        consumer = object.__new__(ChunkConsumer)
        consumer._thread = thread
        return consumer

    @pytest.mark.parametrize(
        ("places", "current"),
        [({}, False), ({TP: FetchPosition(1, 9)}, True), ({TP: FetchPosition(2, 9)}, False)],
        ids=["revoked", "ours", "sought since"],
    )
    def test_a_chunk_is_current_in_its_epoch_only(
        self, places: Mapping[TopicPartition, FetchPosition], *, current: bool
    ) -> None:
        chunk = DeliveredChunk("t", 0, 5, 9, 1, [])

        assert self.consumer(places).is_current(chunk) is current


class TestToFaust:
    def test_a_chunk_makes_a_message(self) -> None:
        records_: Sequence[Any] = records(5, 6)
        chunk = DeliveredChunk("t", 0, 5, 7, 1, records_)
        consumer = object.__new__(ChunkConsumer)
        consumer.app = SimpleNamespace(consumer_generation_id=1)  # type: ignore[assignment]  # all it asks

        message = consumer._to_message(tuples.TP("t", 0), chunk)

        parcel: Any = message.value
        assert parcel.take() is chunk
        assert message.offset == chunk.offset

    def test_a_parcel_keeps_no_records_of_a_chunk_that_was_taken_out(self) -> None:
        chunk = DeliveredChunk("t", 0, 5, 7, 1, [])
        parcel = chunk.value

        parcel.take()

        assert chunk not in gc.get_referents(parcel)
        with pytest.raises(RuntimeError, match="twice"):
            parcel.take()

    def test_each_chunk_is_a_later_record(self) -> None:
        one, two = (DeliveredChunk("t", 0, 5, 7, 1, []) for _ in range(2))

        assert one.offset < two.offset
