"""The chunk transport's own rules."""

import asyncio
import gc
import itertools
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    UnknownError,
    UnsupportedCodecError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import tuples

from chassis.consuming import careful_reading, chunk_thread
from chassis.consuming.careful_reading import CarefulReading
from chassis.consuming.chunk import Chunk
from chassis.consuming.chunk_thread import ChunkThread, DeliveredChunk
from chassis.consuming.faust_transport import ChunkConsumer
from chassis.consuming.positions import FetchPosition, ProcessedPositions, StartPosition
from chassis.kafka.raw_fetch import RawFetch, UnreadableBatch
from chassis.testing import FakeRecord

TP = TopicPartition("t", 0)
OTHER = TopicPartition("t", 1)
WANTED: Any = frozenset({TP, OTHER})


def records(*offsets: int, partition: int = 0) -> list[Any]:
    return [FakeRecord("t", partition, offset, None, None, []) for offset in offsets]


class Kafka:
    """A consumer of two partitions, of which the second is empty unless something is put there.

    A fetch returns what is at the position, and moves it; ``broken`` is what it raises instead when
    it comes to an offset, after it has moved the positions of other partitions.
    """

    def __init__(self) -> None:
        self.seeks: list[int] = []
        self.asked: list[int] = []
        self.most = 500
        self.held: dict[TopicPartition, int] = {TP: 10_000, OTHER: 0}
        self.positions: dict[TopicPartition, int] = {}
        self.stable: dict[TopicPartition, int] = {}
        self.broken: dict[tuple[TopicPartition, int], Exception] = {}
        self.without_record: dict[TopicPartition, int] = {}
        self.of_group: Exception | None = None
        self.committed: list[Mapping[TopicPartition, int]] = []
        self.refuses_commits = False
        self._client = object()
        self._coordinator = self
        self._fetcher = SimpleNamespace(error_future=Future[None](), _fetch_max_wait_ms=100)

    def assignment(self) -> set[TopicPartition]:
        return {TP, OTHER}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp == TP:
            self.seeks.append(offset)
        self.positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.positions[tp]

    def resume(self, tp: TopicPartition) -> None:
        pass

    def pause(self, tp: TopicPartition) -> None:
        pass

    def highwater(self, tp: TopicPartition) -> int:
        return self.held[tp]

    def last_stable_offset(self, tp: TopicPartition) -> int:
        return self.stable.get(tp, self.held[tp])

    def check_errors(self) -> None:
        if self.of_group is not None:
            raise self.of_group

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self.refuses_commits:
            raise KafkaError
        self.committed.append(offsets)

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int
    ) -> Mapping[TopicPartition, Sequence[Any]]:
        self.asked.append(timeout_ms)
        if self.of_group is not None:
            raise self.of_group
        found = {}
        # The other one first, so that its records are lost where the call raises.
        for tp in sorted(partitions, reverse=True):
            begin = self.positions[tp]
            if (error := self.broken.get((tp, begin))) is not None:
                raise error
            end = min(begin + self.most, self.held[tp])
            ends = [at for broken, at in self.broken if broken == tp and begin < at < end]
            end = min([end, *ends])
            if end > begin:
                found[tp] = records(*range(begin, end), partition=tp.partition)
            self.positions[tp] = end + self.without_record.get(tp, 0)
        return found


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def thread(kafka: Kafka) -> ChunkThread:
    # Faust would start a thread and a loop; what is tested here needs neither.
    thread = object.__new__(ChunkThread)
    thread.fetch_positions = {}
    thread._ahead = defaultdict(deque)
    thread.ends = {}
    thread.given_up = {}
    thread.out_of_range = {}
    thread.careful = CarefulReading()
    thread._still = {}
    thread._committed = {}
    thread._epochs = iter(range(1, 1_000))  # type: ignore[assignment]  # counts just the same
    thread._moving = asyncio.Lock()
    thread._looked_at = 0.0
    thread._fetched_at = time.monotonic()
    thread._rests_until = 0.0
    thread._most_records = 500
    thread._consumer = kafka
    done_is(thread, {})
    return thread


async def nothing(*_arguments: object) -> None: ...


def done_is(thread: ChunkThread, done: Mapping[TopicPartition, int]) -> None:
    consumer: Any = SimpleNamespace(flow_active=True, processed_up_to=done.get, pace_s=0.0)
    thread.consumer = consumer


async def seek(thread: ChunkThread, offset: int, *others: TopicPartition) -> None:
    await thread._seek_all({tp: StartPosition(offset) for tp in (TP, *others)})


async def fetch(thread: ChunkThread) -> dict[TopicPartition, Chunk]:
    return {tp: chunk for tp, [chunk] in (await thread._fetch(WANTED)).items()}


def bounds(chunk: Chunk) -> tuple[int, int, int]:
    return chunk.begin, chunk.end, len(chunk.records)


class RawFetches:
    """What raw fetches return, by partition: a result, or an error to raise."""

    def __init__(self) -> None:
        self.results: dict[TopicPartition, RawFetch | Exception] = {}
        self.asked: list[tuple[TopicPartition, int]] = []

    async def __call__(
        self, _client: object, tp: TopicPartition, offset: int, **_options: int
    ) -> RawFetch:
        self.asked.append((tp, offset))
        result = self.results.get(tp, RawFetch([], offset, None, offset, is_plain=True))
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> RawFetches:
    fetches = RawFetches()
    monkeypatch.setattr(careful_reading, "raw_fetch", fetches)
    monkeypatch.setattr(careful_reading, "_TRY_AGAIN_S", 0.0)
    monkeypatch.setattr(chunk_thread, "_NOTHING_READY_S", 0.0)
    return fetches


def unreadable(offset: int, records_: Sequence[Any] = ()) -> RawFetch:
    batch = UnreadableBatch(offset, offset + 1, b"", "its CRC does not match")
    return RawFetch(records_, offset, batch, 10_000, is_plain=True)


class TestPositions:
    async def test_a_fetch_moves_the_position_and_its_chunk_begins_there(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.most = 2
        await seek(thread, 5)

        first, second = [(await fetch(thread))[TP] for _ in range(2)]

        assert [(*bounds(each), each.epoch) for each in (first, second)] == [
            (5, 7, 2, 1),
            (7, 9, 2, 1),
        ]

    async def test_a_seek_begins_a_new_epoch(self, thread: ChunkThread, kafka: Kafka) -> None:
        await seek(thread, 5)
        await seek(thread, 5)

        assert thread.fetch_positions == {TP: FetchPosition(2, 5)}
        assert kafka.seeks == [5, 5]

    async def test_a_rewind_of_the_current_epoch_seeks(self, thread: ChunkThread) -> None:
        await seek(thread, 5)

        await thread._rewind(TP, 3, 1)

        assert thread.fetch_positions == {TP: FetchPosition(2, 3)}

    async def test_a_rewind_of_an_epoch_that_is_over_does_nothing(
        self, thread: ChunkThread
    ) -> None:
        await seek(thread, 5)
        await thread._rewind(TP, 3, 1)

        await thread._rewind(TP, 3, 1)

        assert thread.fetch_positions == {TP: FetchPosition(2, 3)}

    async def test_a_partition_elsewhere_than_assigned_has_none(self, thread: ChunkThread) -> None:
        await thread._seek_all({TopicPartition("t", 2): StartPosition(5)})

        assert thread.fetch_positions == {}


class TestOffsetsWithoutARecord:
    async def test_behind_records_are_part_of_their_chunk(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.held[TP], kafka.without_record[TP] = 7, 2
        await seek(thread, 5)

        assert bounds((await fetch(thread))[TP]) == (5, 9, 2)

    async def test_make_an_empty_chunk(self, thread: ChunkThread, kafka: Kafka) -> None:
        kafka.held[TP], kafka.without_record[TP] = 5, 1
        await seek(thread, 5)

        assert [bounds(each) for each in (await fetch(thread)).values()] == [(5, 6, 0)]

    async def test_before_records_are_part_of_their_chunk(
        self, thread: ChunkThread, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def after_a_hole(*_partitions: TopicPartition, **_: int) -> Mapping[Any, Any]:
            kafka.positions[TP] = 10
            return {TP: records(8, 9)}

        monkeypatch.setattr(kafka, "getmany", after_a_hole)
        await seek(thread, 5)

        assert bounds((await fetch(thread))[TP]) == (5, 10, 2)

    async def test_are_passed_over_by_no_code_but_ours(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        await seek(thread, 5)
        kafka.positions[TP] = 8

        assert await fetch(thread) == {}
        assert kafka.seeks == [5, 5]

        await fetch(thread)
        assert bounds((await fetch(thread))[TP])[0] == 5

    async def test_that_a_transaction_hides_are_no_part_of_what_there_is(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.stable[TP] = 9_990
        await seek(thread, 5, OTHER)

        await fetch(thread)

        assert thread.ends == {TP: 9_990, OTHER: 0}
        assert thread.hidden == {TP: 10}


class TestFetching:
    async def test_goes_two_chunks_ahead_of_what_is_done_and_no_further(
        self, thread: ChunkThread
    ) -> None:
        done_is(thread, {TP: 0})
        await seek(thread, 0)

        fetched = [await fetch(thread) for _ in range(3)]

        assert [len(each) for each in fetched] == [1, 1, 0]
        done_is(thread, {TP: 500})
        assert list(await fetch(thread)) == [TP]

    async def test_goes_two_chunks_ahead_however_small_they_are(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.most = 3
        done_is(thread, {TP: 0})
        await seek(thread, 0)

        fetched = [await fetch(thread) for _ in range(3)]

        assert [len(each) for each in fetched] == [1, 1, 0]

    async def test_counts_from_zero_again_after_a_seek(self, thread: ChunkThread) -> None:
        done_is(thread, {TP: 0})
        await seek(thread, 0)
        for _ in range(2):
            await fetch(thread)

        await seek(thread, 0)

        assert list(await fetch(thread)) == [TP]

    async def test_continues_for_a_partition_whose_progress_is_unknown(
        self, thread: ChunkThread
    ) -> None:
        await seek(thread, 0)

        assert all([await fetch(thread) for _ in range(5)])

    async def test_gives_each_partition_a_chunk_when_one_has_more_than_enough(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.held[OTHER] = 10_000
        await seek(thread, 0, OTHER)

        assert set(await fetch(thread)) == {TP, OTHER}

    async def test_that_ends_by_itself_ends_the_process(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        await seek(thread, 0)
        kafka._fetcher.error_future.set_exception(KafkaError())

        with pytest.raises(KafkaError):
            await fetch(thread)


FOUND_IN_BATCHES = (
    CorruptRecordException(),
    UnsupportedCodecError(),
    RecordTooLargeError(),
    UnicodeDecodeError("utf-8", b"", 0, 1, ""),
    zlib.error(),
    EOFError(),
    OSError(),
    SystemError(),
    UnknownError(),
)


class TestWhatCannotBeRead:
    @pytest.mark.parametrize("error", FOUND_IN_BATCHES, ids=lambda error: type(error).__name__)
    async def test_stops_its_partition_only_and_is_reported_with_its_offset(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches, error: Exception
    ) -> None:
        kafka.broken[TP, 7] = error
        kafka.held[OTHER] = 40
        await seek(thread, 5, OTHER)
        raw.results[TP] = unreadable(7)
        kafka.most = 10

        fetched = [chunk for _ in range(20) for chunk in (await fetch(thread)).values()]

        assert [bounds(each) for each in fetched if each.tp == TP] == [(5, 7, 2)]
        others = [each for each in fetched if each.tp == OTHER]
        assert (others[0].begin, others[-1].end) == (5, 40)
        assert all(one.end == two.begin for one, two in itertools.pairwise(others))
        assert all(len(each.records) == each.end - each.begin for each in others)
        assert {tp: (each.position.next, each.reason) for tp, each in thread.given_up.items()} == {
            TP: (7, "t[0] can't be read at offset 7: its CRC does not match")
        }

    async def test_is_tried_some_times(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.broken[TP, 5] = CorruptRecordException()
        raw.results[TP] = unreadable(5)
        await seek(thread, 5)

        for _ in range(10):
            await fetch(thread)

        assert raw.asked == [(TP, 5)] * careful_reading._MOST_TRIES

    async def test_is_read_on_when_it_was_the_wire(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.broken[TP, 5] = CorruptRecordException()
        raw.results[TP] = unreadable(5)
        await seek(thread, 5)
        for _ in range(3):
            await fetch(thread)

        kafka.broken.clear()
        raw.results[TP] = RawFetch(records(5, 6), 7, None, 10_000, is_plain=True)

        assert bounds((await fetch(thread))[TP]) == (5, 7, 2)
        assert bounds((await fetch(thread))[TP]) == (7, 507, 500)
        assert thread.given_up == {}

    async def test_is_looked_at_again_and_read_on_when_its_broker_was_repaired(
        self,
        thread: ChunkThread,
        kafka: Kafka,
        raw: RawFetches,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(careful_reading, "_LOOK_AGAIN_S", 0.0)
        kafka.broken[TP, 5] = CorruptRecordException()
        raw.results[TP] = unreadable(5)
        await seek(thread, 5)
        for _ in range(10):
            await fetch(thread)
        assert set(thread.given_up) == {TP}

        kafka.broken.clear()
        raw.results[TP] = RawFetch(records(5), 6, None, 10_000, is_plain=True)

        assert bounds((await fetch(thread))[TP]) == (5, 505, 500)
        assert thread.given_up == {}

    async def test_is_read_on_behind_it_when_progress_is_there(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.broken[TP, 5] = CorruptRecordException()
        raw.results[TP] = unreadable(5)
        await seek(thread, 5)
        for _ in range(10):
            await fetch(thread)

        await thread._go_on(TP, 5)
        assert set(thread.given_up) == {TP}

        await thread._go_on(TP, 6)
        assert bounds((await fetch(thread))[TP])[0] == 6
        assert thread.given_up == {}

    async def test_gives_the_records_of_an_odd_batch_and_stays_careful_for_as_long(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.broken[TP, 5] = UnicodeDecodeError("utf-8", b"", 0, 1, "")
        raw.results[TP] = RawFetch(records(5), 6, None, 10_000, is_plain=False)
        await seek(thread, 5)
        await fetch(thread)

        assert bounds((await fetch(thread))[TP]) == (5, 6, 1)
        assert TP in thread.careful
        raw.results[TP] = RawFetch(records(6), 7, None, 10_000, is_plain=True)
        assert bounds((await fetch(thread))[TP]) == (6, 7, 1)
        assert TP not in thread.careful

    async def test_is_found_although_the_client_only_logs_it(
        self,
        thread: ChunkThread,
        kafka: Kafka,
        raw: RawFetches,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def nothing(*_: object, **__: object) -> Mapping[Any, Any]:
            return {}

        monkeypatch.setattr(chunk_thread, "_STILL_AFTER_S", 0.0)
        monkeypatch.setattr(kafka, "getmany", nothing)
        raw.results[TP] = CorruptRecordException()
        await seek(thread, 5)
        for _ in range(10):
            await fetch(thread)

        assert [each.reason for each in thread.given_up.values()] == [
            "t[0] can't be read at offset 5: CorruptRecordException"
        ]

    async def test_of_a_partition_that_was_revoked_meanwhile_is_nothing(
        self, thread: ChunkThread, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def revoked_meanwhile(*_: object, **__: object) -> RawFetch:
            thread.fetch_positions.clear()
            return unreadable(5)

        monkeypatch.setattr(careful_reading, "raw_fetch", revoked_meanwhile)
        monkeypatch.setattr(careful_reading, "_MOST_TRIES", 1)
        await seek(thread, 5)
        thread.careful.start([TP])

        assert await fetch(thread) == {}
        assert thread.given_up == {}


class TestWhatIsNoFaultOfABatch:
    @pytest.mark.parametrize(
        "error",
        [KafkaConnectionError(), LeaderNotAvailableError()],
        ids=lambda error: type(error).__name__,
    )
    async def test_is_waited_for_however_long_it_takes(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches, error: Exception
    ) -> None:
        kafka.broken[TP, 5] = error
        await seek(thread, 5)
        for _ in range(10):
            assert await fetch(thread) == {}
        assert raw.asked == []

        kafka.broken.clear()
        assert bounds((await fetch(thread))[TP])[0] == 5

    async def test_is_waited_for_in_careful_reading_too_and_reported(
        self, thread: ChunkThread, raw: RawFetches
    ) -> None:
        raw.results[TP] = LeaderNotAvailableError()
        await seek(thread, 5)
        thread.careful.start([TP])
        for _ in range(10):
            assert await fetch(thread) == {}

        assert thread.given_up == {}
        assert thread.careful.reason(TP) == "LeaderNotAvailableError"

    async def test_is_a_rebalance_before_the_first_seek(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.broken[TP, 5] = NoOffsetForPartitionError()
        await seek(thread, 5)

        assert await fetch(thread) == {}
        assert (thread.given_up, raw.asked) == ({}, [])

    async def test_is_an_offset_that_is_not_there(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.broken[TP, 5] = OffsetOutOfRangeError({TP: 5})
        raw.results[OTHER] = OffsetOutOfRangeError()
        await seek(thread, 5, OTHER)
        thread.careful.start([OTHER])

        await fetch(thread)

        assert thread.out_of_range == {TP: 5, OTHER: 5}
        assert thread.fetch_positions == {}

    async def test_is_an_error_of_the_group_which_ends_the_process(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.of_group = GroupAuthorizationFailedError()
        await seek(thread, 5)

        with pytest.raises(GroupAuthorizationFailedError):
            await fetch(thread)


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


class TestAQuietConsumer:
    async def test_is_one_that_got_nothing_for_long(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.held[TP], kafka.held[OTHER] = 7, 5
        await seek(thread, 5, OTHER)
        thread._fetched_at -= 3_600

        await fetch(thread)
        await fetch(thread)

        assert kafka.asked == [500, 100]

    async def test_is_none_that_does_not_know_yet_where_to_begin_everywhere(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        kafka.held[TP] = 5
        await seek(thread, 5)
        thread._fetched_at -= 3_600

        await fetch(thread)

        assert kafka.asked == [100]
        assert kafka._fetcher._fetch_max_wait_ms == 100

    async def test_lets_brokers_wait_no_longer_once_its_partitions_are_revoked(
        self, thread: ChunkThread, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_partitions_revoked", nothing)
        kafka.held[TP] = kafka.held[OTHER] = 5
        await seek(thread, 5, OTHER)
        thread._fetched_at -= 3_600
        await fetch(thread)

        await thread.on_partitions_revoked(set())

        assert kafka.asked == [500]
        assert kafka._fetcher._fetch_max_wait_ms == 100

    async def test_is_none_that_reads_carefully(
        self, thread: ChunkThread, kafka: Kafka, raw: RawFetches
    ) -> None:
        kafka.held[OTHER] = 5
        await seek(thread, 5, OTHER)
        raw.results[TP] = RawFetch(records(5), 6, None, 10_000, is_plain=False)
        thread.careful.start([TP])
        thread._fetched_at -= 3_600

        await fetch(thread)
        thread.careful.start([TP])
        await fetch(thread)

        assert kafka.asked == [500, 100]


class TestAPace:
    async def test_is_kept_after_few_records(self, thread: ChunkThread, kafka: Kafka) -> None:
        thread.consumer.pace_s = 3_600.0
        kafka.held[TP] = 7
        await seek(thread, 5)
        await fetch(thread)

        next_one = asyncio.create_task(fetch(thread))
        await asyncio.wait([next_one], timeout=0.1)

        assert not next_one.done()
        next_one.cancel()

    async def test_is_not_kept_while_there_are_many(self, thread: ChunkThread) -> None:
        thread.consumer.pace_s = 3_600.0
        await seek(thread, 5)

        sizes = [bounds((await fetch(thread))[TP])[2] for _ in range(2)]

        assert sizes == [500, 500]

    async def test_is_not_kept_while_there_are_more_than_a_fetch_returns(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        thread.consumer.pace_s = 3_600.0
        kafka.most = 2
        await seek(thread, 5)

        sizes = [bounds((await fetch(thread))[TP])[2] for _ in range(2)]

        assert sizes == [2, 2]

    async def test_ends(self, thread: ChunkThread, kafka: Kafka) -> None:
        thread.consumer.pace_s = 0.01
        kafka.held[TP] = 7
        await seek(thread, 5)
        await fetch(thread)
        kafka.held[TP] = 8

        assert bounds((await fetch(thread))[TP]) == (7, 8, 1)


class TestCommittedOffsets:
    @pytest.fixture(autouse=True)
    def _is_its_own_thread(self, thread: ChunkThread, monkeypatch: pytest.MonkeyPatch) -> None:
        async def call(method: Callable[..., Awaitable[None]], *arguments: Any) -> None:
            await method(*arguments)

        monkeypatch.setattr(thread, "call_thread", call)
        monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_partitions_revoked", nothing)

    async def test_are_those_that_have_moved(self, thread: ChunkThread, kafka: Kafka) -> None:
        kafka.refuses_commits = True
        await thread.commit_for_lag_tools({TP: 5, OTHER: 7})
        kafka.refuses_commits = False

        for _ in range(2):
            await thread.commit_for_lag_tools({TP: 5, OTHER: 7})
        await thread.commit_for_lag_tools({TP: 6, OTHER: 7})

        assert kafka.committed == [{TP: 5, OTHER: 7}, {TP: 6}]

    async def test_are_all_of_a_partition_that_another_worker_may_have_had(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        await thread.commit_for_lag_tools({TP: 5})
        await thread.on_partitions_revoked(set())
        await thread.commit_for_lag_tools({TP: 5})

        assert kafka.committed == [{TP: 5}, {TP: 5}]

    async def test_are_all_of_a_partition_that_is_sought(
        self, thread: ChunkThread, kafka: Kafka
    ) -> None:
        await thread.commit_for_lag_tools({TP: 5, OTHER: 7})
        await seek(thread, 5)
        await thread.commit_for_lag_tools({TP: 5, OTHER: 7})

        assert kafka.committed == [{TP: 5, OTHER: 7}, {TP: 5}]


class TestAPartitionThatLags:
    @pytest.mark.parametrize("is_tried", [False, True], ids=["read", "tried again"])
    async def test_is_no_stall_while_it_is_tried_again(
        self, thread: ChunkThread, raw: RawFetches, *, is_tried: bool
    ) -> None:
        consumer = object.__new__(ChunkConsumer)
        consumer._thread, consumer._processed = thread, ProcessedPositions()
        await seek(thread, 5)
        consumer._processed.start({TP: 5})
        if is_tried:
            raw.results[TP] = LeaderNotAvailableError()
            thread.careful.start([TP])
        await fetch(thread)

        assert consumer.lagging() == ({} if is_tried else {TP: 5})
        assert consumer.tried_again == ({TP: "LeaderNotAvailableError"} if is_tried else {})


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
