"""A consumer of the path service fed by hand: everything real but Kafka."""

from collections.abc import Callable, Sequence
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from chassis.consuming import offsets
from chassis.consuming.dead_letter_limit import DeadLetterLimit
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import Subscriber
from chassis.domain import DomainError, Kind
from chassis.testing import FakeChunkSource, FakeRecord, chunk_of
from contracts.envelope import EncodedEvent, Envelope
from contracts.events import IntegrationEvent
from tests.integration.chassis.path import PathWork, rows, signed_up, topic_of_its_own, utc_now

TOPIC = topic_of_its_own()


class NameIsTaken(DomainError):
    kind, code = Kind.CONFLICT, "name-is-taken"


def records_of(*events: EncodedEvent, offset: int = 0) -> list[FakeRecord]:
    return [FakeRecord.of(each, TOPIC.name, offset + n) for n, each in enumerate(events)]


def sign_ups(number: int, offset: int = 0) -> list[FakeRecord]:
    """One event each of so many subjects."""
    return records_of(*(signed_up(uuid4(), 1) for _ in range(number)), offset=offset)


def subject_of(record: FakeRecord) -> str:
    assert record.key is not None
    return record.key.decode()


class Failing:
    """What a handler does before its effect: it fails on chosen subjects, as often as told."""

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
    """Consumers that come and go like processes, on one database that stays."""

    def __init__(self, database: str, engine: AsyncEngine) -> None:
        self.database = database
        self.engine = engine
        self.commits = 0
        self.feed = FakeChunkSource()

    async def consumer(
        self,
        *subscribers: Subscriber[PathWork],
        bounds: tuple[int, int] = (0, 0),
        dead_letter_limit: int = 50,
    ) -> ChunkProcessor[PathWork]:
        """Start one, as a new process would on a topic with these offsets."""
        async with self.engine.begin() as connection:
            await offsets.begin(connection, subscribers, TOPIC.name, {0: bounds}, utc_now)
        return ChunkProcessor(
            TOPIC,
            subscribers,
            self.engine,
            PathWork,
            utc_now,
            on_commit=self._committed,
            dead_letter_limit=DeadLetterLimit(TOPIC.name, most=dead_letter_limit),
        )

    def _committed(self) -> None:
        self.commits += 1

    async def handle(
        self, consumer: ChunkProcessor[PathWork], records: Sequence[FakeRecord]
    ) -> None:
        await consumer.process(chunk_of(records), self.feed)

    async def place(self, name: str = "test.one") -> int:
        """Return where the subscriber's progress is."""
        query = "SELECT next_offset AS n FROM progress WHERE subscriber = $1"
        return int((await rows(self.database, query, name))[0]["n"])

    async def handled(self, name: str = "test.one") -> list[tuple[str, int]]:
        """Return subject and sequence of all that had its effect, in the order it had."""
        query = "SELECT subject, sequence FROM effects WHERE subscriber = $1 ORDER BY position"
        found = await rows(self.database, query, name)
        return [(row["subject"], row["sequence"]) for row in found]

    async def parked(self, name: str = "test.one") -> list[tuple[int, str, str, int]]:
        """Return offset, reason, code and tries of all that is parked."""
        query = 'SELECT * FROM parked WHERE subscriber = $1 ORDER BY "offset"'
        found = await rows(self.database, query, name)
        return [(row["offset"], row["reason"], row["error_code"], row["tries"]) for row in found]

    async def open_tries(self) -> list[tuple[str, int, int]]:
        """Return subscriber, offset and count of all tries that are held against something."""
        query = 'SELECT * FROM tries WHERE count > 0 ORDER BY subscriber, "offset"'
        found = await rows(self.database, query)
        return [(row["subscriber"], row["offset"], row["count"]) for row in found]
