"""Which chunks are committed at once, which together, and what becomes of a batch that fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from chassis.consuming import group_commit as module
from chassis.consuming.chunk import Chunk, ChunkInProgress
from chassis.consuming.group_commit import GroupCommit
from chassis.testing import FakeChunkSource, eventually

Outcome = asyncio.Task[bool]


class Topic:
    """Commits chunks of one topic, each transaction when it is let, and keeps what it did."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.committed: list[list[int]] = []
        self.rolled_back = 0
        self.failing: set[int] = set()
        self._may_go = asyncio.Semaphore(0)

    def let(self, transactions: int) -> None:
        for _ in range(transactions):
            self._may_go.release()

    async def commit(self, chunks: Sequence[Chunk], *, within_s: float) -> None:
        partitions = [chunk.partition for chunk in chunks]
        self.begun.append(partitions)
        try:
            async with asyncio.timeout(within_s):
                await self._may_go.acquire()
        except BaseException:
            for _ in range(5):
                await asyncio.sleep(0)  # as the database's answer to a rollback
            self.rolled_back += 1
            raise
        if self.failing.intersection(partitions):
            raise ValueError(partitions)
        self.committed.append(partitions)


def chunk(partition: int, events: int = 1) -> tuple[ChunkInProgress, FakeChunkSource]:
    records: Any = [None] * events
    source = FakeChunkSource()
    return ChunkInProgress(Chunk("t", partition, 0, events, 1, records), source), source


async def settle() -> None:
    """Let every task go as far as it can without waiting for time."""
    for _ in range(10):
        await asyncio.sleep(0)


class Process:
    """Chunks of one process on their way to be committed."""

    def __init__(self) -> None:
        self.group_commit = GroupCommit(most_events=500)
        self.tasks: list[Outcome] = []

    async def begin(self, topic: Topic, *chunks: ChunkInProgress) -> Sequence[Outcome]:
        """Have these committed, in this order."""
        tasks = []
        for each in chunks:
            tasks.append(asyncio.create_task(self.group_commit.commit(each, topic.commit)))
            await settle()
        self.tasks += tasks
        return tasks


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = Process()
    yield process
    for task in process.tasks:
        task.cancel()
    await asyncio.gather(*process.tasks, return_exceptions=True)


@pytest.fixture
def topic() -> Topic:
    return Topic()


class TestSmallChunks:
    async def test_one_is_committed_at_once_and_alone(self, process: Process, topic: Topic) -> None:
        [first] = await process.begin(topic, chunk(0)[0])

        assert topic.begun == [[0]]
        topic.let(1)
        assert await first

    async def test_those_that_come_meanwhile_are_the_next_batch(
        self, process: Process, topic: Topic
    ) -> None:
        topic.let(2)
        first, *others = (chunk(number)[0] for number in range(4))

        outcomes = await asyncio.gather(
            *(process.group_commit.commit(each, topic.commit) for each in (first, *others))
        )

        assert topic.committed == [[0], [1, 2, 3]]
        assert outcomes == [True] * 4

    async def test_those_of_another_topic_are_a_batch_of_their_own(
        self, process: Process, topic: Topic
    ) -> None:
        other = Topic()
        await process.begin(topic, chunk(0)[0], chunk(1)[0])
        await process.begin(other, chunk(2)[0])
        await process.begin(topic, chunk(3)[0])

        topic.let(2)
        other.let(1)
        await settle()

        assert topic.committed == [[0], [1, 3]]
        assert other.committed == [[2]]

    async def test_no_batch_has_more_events_than_a_chunk_may_have(
        self, process: Process, topic: Topic
    ) -> None:
        sizes = (1, 240, 200, 100, 60)
        await process.begin(topic, *(chunk(n, events)[0] for n, events in enumerate(sizes)))

        topic.let(3)
        await settle()

        assert topic.committed == [[0], [1, 2, 4], [3]]

    async def test_one_that_is_no_longer_ours_is_left_out(
        self, process: Process, topic: Topic
    ) -> None:
        revoked, source = chunk(1)
        _, second, third = await process.begin(topic, chunk(0)[0], revoked, chunk(2)[0])
        source.revoked = True

        topic.let(2)

        assert not await second
        assert await third
        assert topic.committed == [[0], [2]]


class TestABatchThatFails:
    async def test_has_each_of_its_chunks_committed_by_itself(
        self, process: Process, topic: Topic
    ) -> None:
        topic.failing = {1}
        tasks = await process.begin(topic, *(chunk(number)[0] for number in range(3)))

        topic.let(4)
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)

        assert topic.begun == [[0], [1, 2], [1], [2]]
        assert isinstance(second, ValueError)
        assert (first, third) == (True, True)

    async def test_is_not_joined_again_by_a_chunk_that_failed_in_it(
        self, process: Process, topic: Topic
    ) -> None:
        topic.failing = {1}
        bad = chunk(1)[0]
        await process.begin(topic, chunk(0)[0], bad, chunk(2)[0])
        topic.let(4)
        await settle()
        topic.begun.clear()

        await process.begin(topic, chunk(3)[0], bad, chunk(4)[0])
        topic.let(3)
        await settle()

        assert topic.begun == [[3], [1], [4]]

    async def test_of_one_chunk_raises_what_was_wrong_with_it(
        self, process: Process, topic: Topic
    ) -> None:
        topic.failing = {0}
        topic.let(1)
        [first] = await process.begin(topic, chunk(0)[0])

        with pytest.raises(ValueError, match="0"):
            await first

    async def test_is_followed_by_the_next(self, process: Process, topic: Topic) -> None:
        topic.failing = {0}
        _, second = await process.begin(topic, chunk(0)[0], chunk(1)[0])

        topic.let(2)

        assert await second


async def until_begun(topic: Topic, *transactions: list[int]) -> None:
    async def are_begun() -> bool:
        return topic.begun == list(transactions)

    await eventually(are_begun)


class TestAChunkThatTakesLong:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_BATCH_TIMEOUT_S", 0.05)

    async def begin_slow(self, process: Process, topic: Topic) -> Outcome:
        """Begin a chunk that is committed by itself now, and has taken too long for that too."""
        [slow] = await process.begin(topic, chunk(0)[0])
        await until_begun(topic, [0], [0])
        await asyncio.sleep(0.06)  # at least: longer than a batch may take
        return slow

    async def test_is_committed_by_itself_and_holds_up_no_batch(
        self, process: Process, topic: Topic
    ) -> None:
        other = Topic()
        other.let(1)
        [slow] = await process.begin(topic, chunk(0)[0])
        [quick] = await process.begin(other, chunk(1)[0])

        assert await quick
        assert not slow.done()
        topic.let(1)
        assert await slow

    async def test_has_the_next_of_its_topic_skip_the_batch_so_that_it_is_handled_once(
        self, process: Process, topic: Topic
    ) -> None:
        slow = await self.begin_slow(process, topic)
        topic.let(1)
        await slow
        topic.begun.clear()

        [again] = await process.begin(topic, chunk(0)[0])
        await asyncio.sleep(0.1)  # at least: a batch would have failed by now
        topic.let(1)
        await again

        assert topic.begun == [[0]]

    async def test_is_in_batches_again_when_the_minute_is_over(
        self, process: Process, topic: Topic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_SLOW_TOPIC_SKIPS_BATCHES_FOR_S", 0.0)
        slow = await self.begin_slow(process, topic)
        topic.let(1)
        await slow
        topic.begun.clear()
        monkeypatch.setattr(module, "_BATCH_TIMEOUT_S", 600)

        await process.begin(topic, *(chunk(number)[0] for number in range(3)))
        topic.let(2)

        await until_begun(topic, [0], [1, 2])

    async def test_because_the_database_stood_still_once_is_no_reason_to_skip_batches(
        self, process: Process, topic: Topic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [stopped] = await process.begin(topic, chunk(0)[0])
        await until_begun(topic, [0], [0])
        monkeypatch.setattr(module, "_BATCH_TIMEOUT_S", 600)  # by itself it was quick
        topic.let(1)
        await stopped
        topic.begun.clear()

        await process.begin(topic, *(chunk(number)[0] for number in range(3)))
        topic.let(2)

        await until_begun(topic, [0], [1, 2])


class TestOneThatIsCancelled:
    async def test_while_it_waits_is_in_no_batch(self, process: Process, topic: Topic) -> None:
        _, gone, _ = await process.begin(topic, *(chunk(number)[0] for number in range(3)))

        gone.cancel()
        topic.let(2)
        await settle()

        assert topic.committed == [[0], [2]]

    async def test_leaves_the_rest_of_its_batch_to_be_committed(
        self, process: Process, topic: Topic
    ) -> None:
        _, leader, other = await process.begin(topic, *(chunk(number)[0] for number in range(3)))
        topic.let(1)
        await settle()

        leader.cancel()
        await settle()
        topic.let(1)

        assert leader.cancelled()
        assert await asyncio.wait_for(other, 20)
        assert topic.rolled_back == 0

    async def test_as_the_last_of_its_batch_ends_when_that_is_rolled_back(
        self, process: Process, topic: Topic
    ) -> None:
        [only] = await process.begin(topic, chunk(0)[0])

        only.cancel()
        await asyncio.wait([only])

        assert topic.rolled_back == 1

    async def test_with_all_its_batch_lets_the_next_one_go(
        self, process: Process, topic: Topic
    ) -> None:
        first, second = await process.begin(topic, chunk(0)[0], chunk(1)[0])

        first.cancel()
        topic.let(1)

        assert await second


class TestLargeChunks:
    async def test_are_committed_two_at_a_time_beside_a_batch(
        self, process: Process, topic: Topic
    ) -> None:
        await process.begin(topic, *(chunk(number, 400)[0] for number in range(3)))
        await process.begin(topic, chunk(3)[0])

        assert topic.begun == [[0], [1], [3]]

        topic.let(4)
        await settle()
        assert topic.committed == [[0], [1], [3], [2]]

    async def test_one_that_takes_long_gives_its_place_to_the_next(
        self, process: Process, topic: Topic, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_LARGE_TIMEOUT_S", 0.05)
        await process.begin(topic, *(chunk(number, 400)[0] for number in range(3)))

        async def third_is_begun() -> bool:
            return [2] in topic.begun

        await eventually(third_is_begun)
        assert topic.begun[:2] == [[0], [1]]
