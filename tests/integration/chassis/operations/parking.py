"""A subscriber that can't handle some events until it is repaired, and its operators."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import EventSubscriber, Start, Subscriber
from chassis.operations import dead_letters, release
from chassis.operations.context import ServiceRuntime
from chassis.operations.dead_letter_rows import OneParkedEvent
from chassis.operations.dead_letters import ParkedEdit
from chassis.operations.release import SubjectRelease
from chassis.operations.slices import ReleaseBody
from chassis.persistence.database import Database
from chassis.settings import ServiceSettings
from chassis.testing import FakeRecord
from contracts.envelope import EncodedEvent, Envelope
from contracts.events import IntegrationEvent
from contracts.users import UserSignedUpV1
from tests.integration.chassis.path import PathWork, rows, settings_for, signed_up, subscriber
from tests.integration.chassis.service import TOPIC, NameIsTaken, Service, records_of

from .operating import BY_ADA, runtime_of, service_of

NAME = "test.one"


class Faults:
    """Makes a handler fail on these sequences until it is repaired."""

    def __init__(self, *sequences: int) -> None:
        self.on = set(sequences)
        self.error: Exception = NameIsTaken("taken")

    async def __call__(self, _event: IntegrationEvent, envelope: Envelope) -> None:
        if envelope.sequence in self.on:
            raise self.error

    def repair(self) -> None:
        self.on.clear()


class Shop:
    """A service with one subscriber, which gets its chunks from the test, and its operators."""

    def __init__(self, database: str, engine: Database, *also: Subscriber[PathWork]) -> None:
        self.service = Service(database, engine)
        self.faults = Faults()
        self._models: Sequence[type[IntegrationEvent]] = (UserSignedUpV1,)
        self._starts = Start.BEGINNING
        self.subscribers: list[Subscriber[PathWork]] = [self._handler(), *also]
        self.woken = 0
        self.runtime: ServiceRuntime[ServiceSettings, PathWork] = runtime_of(
            service_of(TOPIC, self.subscribers),
            settings_for(database, "127.0.0.1:1"),
            engine,
            self._wake,
        )
        self._consumer: ChunkProcessor[PathWork] | None = None
        self._next_offset = 0

    def _handler(self) -> EventSubscriber[PathWork]:
        return subscriber(NAME, TOPIC, before=self.faults, models=self._models, starts=self._starts)

    def change_subscriber(
        self, *models: type[IntegrationEvent], starts: Start = Start.BEGINNING
    ) -> None:
        """Replace the process by one whose subscriber has handlers for these versions."""
        self._models, self._starts = models, starts
        self.subscribers[0] = self._handler()
        self._consumer = None

    def _wake(self) -> None:
        self.woken += 1

    async def comes(self, *events: EncodedEvent | FakeRecord) -> None:
        """Have the subscriber handle a chunk of these."""
        offset, self._next_offset = self._next_offset, self._next_offset + len(events)
        records = []
        for number, each in enumerate(events, start=offset):
            if isinstance(each, EncodedEvent):
                records += records_of(each, offset=number)
            else:
                records.append(
                    FakeRecord(TOPIC.name, 0, number, each.key, each.value, each.headers)
                )
        if self._consumer is None:
            self._consumer = await self.service.processor(*self.subscribers)
        await self.service.process(self._consumer, records)

    async def parks(self, subject: UUID, *sequences: int, failing: int | None = None) -> None:
        """Park these, because the first or another one fails; then repair the handler."""
        self.faults.on = {failing or sequences[0]}
        await self.comes(*(signed_up(subject, each) for each in sequences))
        self.faults.repair()

    async def edit(self, id_: UUID, payload: dict[str, Any]) -> None:
        edit = ParkedEdit(parked_id=id_, payload=payload)
        await dead_letters.edit(self.runtime, edit, BY_ADA)

    async def discard(self, id_: UUID) -> None:
        await dead_letters.discard(self.runtime, OneParkedEvent(parked_id=id_), BY_ADA)

    async def release_one(self, id_: UUID) -> ReleaseBody:
        return await release.release_one(self.runtime, OneParkedEvent(parked_id=id_), BY_ADA)

    async def release_subject(self, subject: UUID, subscriber: str = NAME) -> ReleaseBody:
        all_of = SubjectRelease(subscriber=subscriber, topic=TOPIC.name, subject=str(subject))
        return await release.release_subject(self.runtime, all_of, BY_ADA)

    async def apply(self, id_: UUID) -> ReleaseBody:
        return await release.apply(self.runtime, OneParkedEvent(parked_id=id_), BY_ADA)

    async def ids(self) -> dict[int, UUID]:
        """Return what is parked, by offset."""
        found = await rows(self.service.database, 'SELECT id, "offset" FROM parked')
        return {row["offset"]: row["id"] for row in found}

    async def row(self, id_: UUID) -> Any:
        (row,) = await rows(self.service.database, "SELECT * FROM parked WHERE id = $1", id_)
        return row

    async def handled(self) -> list[int]:
        """Return the sequences of the events that had effects, in the order of the effects."""
        return [sequence for _, sequence in await self.service.handled(NAME)]


def without_label(subject: UUID, sequence: int) -> FakeRecord:
    """Return an event without headers, and with a value that is no envelope."""
    (record,) = records_of(signed_up(subject, sequence))
    assert record.value is not None
    return replace(record, value=record.value.replace(b'"specversion"', b'"version"'), headers=[])
