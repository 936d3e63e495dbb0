"""Chunks of several partitions that share a transaction: as if each had had its own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
from sqlalchemy import text

from chassis.backoff import Backoff
from chassis.clock import utc_now
from chassis.consuming import offsets, retry_policy
from chassis.consuming.processor import SUSPECT_AFTER, ChunkProcessor
from chassis.consuming.single_events import MOST_TRIES
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of, eventually
from contracts.envelope import Envelope
from contracts.events import IntegrationEvent
from tests.integration.chassis.path import PathWork, rows, schema, signed_up, subscriber
from tests.integration.chassis.service import TOPIC, NameIsTaken, Service, subject_of

_GATE, _PARTITIONS = 0, 4


def record(partition: int, offset: int = 0) -> FakeRecord:
    return FakeRecord.of(signed_up(uuid4(), 1), TOPIC.name, offset, partition)


class Path:
    """A consumer of some partitions, whose first chunk is the batch until it is let through."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sources = {number: FakeChunkSource() for number in range(_PARTITIONS)}
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.gate = record(_GATE)
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self.revoked_at_the_gate: int | None = None
        self.processor: ChunkProcessor[PathWork]

    async def start(self) -> None:
        one = subscriber("test.one", TOPIC, before=self._look)
        bounds = dict.fromkeys(range(_PARTITIONS), (0, 0))
        async with self.service.engine.begin() as connection:
            await offsets.begin(connection, [one], TOPIC.name, bounds, utc_now)
        self.processor = ChunkProcessor(TOPIC, [one], self.service.engine, PathWork, utc_now)

    async def _look(self, _event: IntegrationEvent, envelope: Envelope) -> None:
        if envelope.subject == subject_of(self.gate):
            self.reached.set()
            await self.opened.wait()
            if self.revoked_at_the_gate is not None:
                self.sources[self.revoked_at_the_gate].revoked = True
        if envelope.subject in self.failing:
            raise NameIsTaken
        if envelope.subject in self.hanging:
            await asyncio.sleep(60)

    def begun(self, records: Sequence[FakeRecord]) -> "asyncio.Task[None]":
        source = self.sources[records[0].partition]
        return asyncio.create_task(self.processor.process(chunk_of(records), source))

    async def together(self, *chunks: Sequence[FakeRecord]) -> list["asyncio.Task[None]"]:
        """Have these wait for the first batch, in this order, and let that go."""
        first = self.begun([self.gate])
        await self.reached.wait()
        waiting: list[asyncio.Task[None]] = []
        for chunk in chunks:
            waiting.append(self.begun(chunk))
            await eventually(lambda: asyncio.sleep(0, self._queue() == len(waiting)))
        self.opened.set()
        await first
        return waiting

    def _queue(self) -> int:
        return len(self.processor._group_commit._waiting)

    async def transactions(self) -> int:
        """Return how many transactions the effects were written in."""
        [row] = await rows(
            self.service.database, "SELECT count(DISTINCT xmin::text) n FROM effects"
        )
        return int(row["n"])

    async def places(self) -> list[int]:
        found = await rows(
            self.service.database, 'SELECT next_offset AS n FROM progress ORDER BY "partition"'
        )
        return [row["n"] for row in found]


@pytest.fixture
async def path(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    monkeypatch.setattr(retry_policy, "BACKOFF", Backoff(first_s=0.02, longest_s=0.02))
    async with schema(database) as engine:
        path = Path(Service(database, engine))
        await path.start()
        yield path


# A process that handles one chunk of each partition as a worker does, and dies of one event.
_DIES = """
import asyncio, contextlib, os, sys
from chassis.clock import utc_now
from chassis.consuming import offsets
from chassis.consuming.processor import ChunkProcessor
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of
from tests.integration.chassis import path

database, name, *subjects = sys.argv[1:]
topic = path.Topic(name=name, key="x", owner="x", consumers=(), events=())

beside = asyncio.Semaphore(0)

async def die(_event, envelope):
    if envelope.subject == subjects[0]:
        # Not before the others are at work beside it, if they may.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                for _ in subjects[1:]:
                    await beside.acquire()
        os._exit(7)
    beside.release()
    await asyncio.sleep(0.5)

async def main():
    async with path.schema(database) as engine:
        one = path.subscriber("test.one", topic, before=die)
        bounds = dict.fromkeys(range(len(subjects)), (0, 0))
        async with engine.begin() as connection:
            found = await offsets.begin(connection, [one], name, bounds, utc_now)
        processor = ChunkProcessor(topic, [one], engine, path.PathWork, utc_now)
        places = {each.tp.partition: each.next_offset for each in found}
        records = [
            FakeRecord.of(path.signed_up(path.UUID(subject), 1), name, 0, partition)
            for partition, subject in enumerate(subjects)
            if not places[partition]
        ]
        await asyncio.gather(
            *(processor.process(chunk_of([each]), FakeChunkSource()) for each in records)
        )

asyncio.run(main())
"""


class TestAnEventThatKillsItsProcess:
    async def test_is_parked_and_no_event_that_was_handled_beside_it(self, path: Path) -> None:
        database = path.service.database
        subjects = [str(uuid4()) for _ in range(_PARTITIONS)]
        deaths, code = 0, 7
        while code == 7 and deaths <= SUSPECT_AFTER + MOST_TRIES:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _DIES, database, TOPIC.name, *subjects
            )
            code = await process.wait()
            deaths += code == 7

        assert code == 0
        parked = await rows(database, "SELECT subject, error_code FROM parked")
        assert [tuple(each) for each in parked] == [(subjects[0], "worker-died")]
        assert {each[0] for each in await path.service.handled()} == set(subjects[1:])


class TestChunksThatWait:
    async def test_share_a_transaction_and_each_moves_its_own_partition(self, path: Path) -> None:
        chunks = [[record(1), record(1, 1)], [record(2)], [record(3)]]

        await asyncio.gather(*await path.together(*chunks))

        assert len(await path.service.handled()) == 5
        assert await path.transactions() == 2
        assert await path.places() == [1, 2, 1, 1]
        assert [path.sources[each].done for each in range(_PARTITIONS)] == [1, 2, 1, 1]
        assert await path.service.open_attempts() == []

    async def test_do_not_suffer_from_one_that_fails(self, path: Path) -> None:
        bad = record(2)
        path.failing = {subject_of(bad)}

        await asyncio.gather(*await path.together([record(1)], [bad], [record(3)]))

        assert len(await path.service.handled()) == 3
        assert [code for _, _, code, _ in await path.service.parked()] == ["name-is-taken"]
        assert await path.places() == [1, 1, 1, 1]

    async def test_do_not_suffer_from_one_behind_a_hole(self, path: Path) -> None:
        await asyncio.gather(*await path.together([record(1)], [record(2, 7)], [record(3)]))

        assert len(await path.service.handled()) == 3
        assert path.sources[2].rewound_to == [0]
        assert await path.places() == [1, 1, 0, 1]

    async def test_leave_one_out_that_is_no_longer_ours(self, path: Path) -> None:
        path.revoked_at_the_gate = 2

        await asyncio.gather(*await path.together([record(1)], [record(2)]))

        assert await path.places() == [1, 1, 0, 0]
        assert path.sources[2].done is None

    async def test_are_committed_though_the_first_of_them_is_no_longer_ours(
        self, path: Path
    ) -> None:
        path.revoked_at_the_gate = 1

        await asyncio.gather(*await path.together([record(1)], [record(2)]))

        assert await path.places() == [1, 0, 1, 0]
        assert (path.sources[1].done, path.sources[2].done) == (None, 1)
        assert await path.service.open_attempts() == []

    async def test_wait_only_briefly_for_one_whose_progress_is_locked(self, path: Path) -> None:
        held = "SELECT FROM progress WHERE partition = 2 FOR UPDATE"
        async with path.service.engine.begin_rolled_back() as another:
            await another.execute(text(held))

            one, two, three = await path.together([record(1)], [record(2)], [record(3)])
            await asyncio.wait([one, three], timeout=30)

            assert (one.done(), two.done(), three.done()) == (True, False, True)
        await two
        assert await path.places() == [1, 1, 1, 1]

    async def test_are_committed_once_though_the_first_of_them_is_cancelled(
        self, path: Path
    ) -> None:
        slow = record(1)
        path.hanging = {subject_of(slow)}
        leader, *others = await path.together([slow], [record(2)], [record(3)])
        await asyncio.sleep(0)

        leader.cancel()

        await asyncio.gather(*others)
        await leader
        assert await path.places() == [1, 0, 1, 1]


class TestOneThatTakesLong:
    async def test_does_not_keep_others_from_being_committed(self, path: Path) -> None:
        slow = record(1)
        path.hanging = {subject_of(slow)}
        hanging = path.begun([slow])
        await eventually(
            lambda: asyncio.sleep(0, path.processor._group_commit._committing is not None)
        )

        await asyncio.wait_for(asyncio.gather(path.begun([record(2)]), path.begun([record(3)])), 8)

        assert not hanging.done()
        assert await path.places() == [0, 0, 1, 1]
        hanging.cancel()
        await hanging
