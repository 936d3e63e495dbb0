"""A chunk processor of the path service that gets its chunks from a test: real but for Kafka."""

from collections.abc import Callable, Sequence
from uuid import uuid4

from chassis.consuming import offsets
from chassis.consuming.attempts import CHUNK
from chassis.consuming.dead_letter_limit import DeadLetterLimit
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import Subscriber
from chassis.domain import DomainError, Kind
from chassis.persistence.database import Database
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of
from contracts.envelope import EncodedEvent, Envelope
from contracts.events import IntegrationEvent
from tests.integration.chassis.path import (
    PathWork,
    effects,
    rows,
    signed_up,
    topic_of_its_own,
    utc_now,
)

TOPIC = topic_of_its_own()


class NameIsTaken(DomainError):
    kind, code = Kind.CONFLICT, "name-is-taken"


def records_of(*events: EncodedEvent, offset: int = 0) -> list[FakeRecord]:
    return [FakeRecord.of(each, TOPIC.name, offset + n) for n, each in enumerate(events)]


def sign_ups(number: int, offset: int = 0) -> list[FakeRecord]:
    """Return so many records, each of another subject."""
    return records_of(*(signed_up(uuid4(), 1) for _ in range(number)), offset=offset)


def subject_of(record: FakeRecord) -> str:
    assert record.key is not None
    return record.key.decode()


class Failing:
    """Called before a handler's effect: it raises for chosen subjects, so many times."""

    def __init__(
        self, error: Callable[[], Exception], *records: FakeRecord, times: int = 1_000
    ) -> None:
        self.seen: list[str] = []
        self._error = error
        self._left = {subject_of(record): times for record in records}

    async def __call__(self, _event: IntegrationEvent, envelope: Envelope) -> None:
        self.seen.append(envelope.subject)
        if self._left.get(envelope.subject, 0) > 0:
            self._left[envelope.subject] -= 1
            raise self._error()


class Service:
    """Chunk processors one after another, as a process is replaced, on one database."""

    def __init__(self, database: str, engine: Database) -> None:
        self.database = database
        self.engine = engine
        self.commits = 0
        self.chunks = FakeChunkSource()
        engine.on_commit(effects, self._committed)

    async def processor(
        self,
        *subscribers: Subscriber[PathWork],
        bounds: tuple[int, int] = (0, 0),
        dead_letter_limit: int | DeadLetterLimit = 50,
        chunks_counted_for: str = CHUNK,
        far_behind: FarBehind | None = None,
    ) -> ChunkProcessor[PathWork]:
        """Return a new one, as a new process has it, for a topic with these offsets."""
        if isinstance(dead_letter_limit, int):
            dead_letter_limit = DeadLetterLimit(TOPIC.name, most=dead_letter_limit)
        async with self.engine.begin() as connection:
            await offsets.begin(connection, subscribers, TOPIC.name, {0: bounds}, utc_now)
        return ChunkProcessor(
            TOPIC,
            subscribers,
            self.engine,
            PathWork,
            utc_now,
            dead_letter_limit=dead_letter_limit,
            far_behind=far_behind,
            chunks_counted_for=chunks_counted_for,
        )

    def _committed(self) -> None:
        self.commits += 1

    async def process(
        self, processor: ChunkProcessor[PathWork], records: Sequence[FakeRecord]
    ) -> None:
        await processor.process(chunk_of(records), self.chunks)

    async def next_offset(self, name: str = "test.one") -> int:
        """Return the subscriber's next offset, from its progress."""
        query = "SELECT next_offset AS n FROM progress WHERE subscriber = $1"
        return int((await rows(self.database, query, name))[0]["n"])

    async def handled(self, name: str = "test.one") -> list[tuple[str, int]]:
        """Return subject and sequence of each effect, in the order of the effects."""
        query = "SELECT subject, sequence FROM effects WHERE subscriber = $1 ORDER BY position"
        found = await rows(self.database, query, name)
        return [(row["subject"], row["sequence"]) for row in found]

    async def parked(self, name: str = "test.one") -> list[tuple[int, str, str, int]]:
        """Return offset, reason, code and attempts of each parked event."""
        query = 'SELECT * FROM parked WHERE subscriber = $1 ORDER BY "offset"'
        found = await rows(self.database, query, name)
        return [(row["offset"], row["reason"], row["error_code"], row["tries"]) for row in found]

    async def open_attempts(self) -> list[tuple[str, int, int]]:
        """Return subscriber, offset and count of all attempts that were not finished."""
        query = 'SELECT * FROM tries WHERE count > 0 ORDER BY subscriber, "offset"'
        found = await rows(self.database, query)
        return [(row["subscriber"], row["offset"], row["count"]) for row in found]
