"""Who wants which events, from when on, and what is done with each."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis import telemetry
from chassis.consuming.dead_letters import (
    BEHIND,
    FORKED,
    Failure,
    ParkedSubject,
    Parking,
    SeenAlready,
    not_understood,
)
from chassis.consuming.inbox import Inbox, Verdict
from chassis.consuming.records import EventIdentity, Record, identity_in, identity_of, open_record
from chassis.correlation import CorrelationContext, use_correlation
from contracts.envelope import Envelope, InvalidEnvelope, decode, event_in
from contracts.events import IntegrationEvent
from contracts.topics import Topic

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)

Handler = Callable[[W, Any, Envelope], Awaitable[None]]
"""Handles one event in the open unit of work; it knows nothing of offsets, chunks or retries."""


class Start(StrEnum):
    """Where a subscriber begins that has never run."""

    BEGINNING = "beginning"
    NOW = "now"


class Subscriber(Protocol[W_contra]):
    """Something that takes the records of one topic, in order, and remembers how far it came."""

    @property
    def name(self) -> str: ...
    @property
    def topic(self) -> Topic: ...
    @property
    def starts(self) -> Start: ...

    async def take(
        self,
        work: W_contra,
        connection: AsyncConnection,
        records: Sequence[Record],
        now: Callable[[], datetime],
        failure: Failure | None = None,
    ) -> Sequence[ParkedSubject]:
        """Take records, in their order, in the open transaction; return what was stopped.

        With ``failure`` the one record is parked for that reason, if it would be handled.
        """

    async def take_parked(
        self,
        work: W_contra,
        connection: AsyncConnection,
        record: Record,
        now: Callable[[], datetime],
        *,
        counted: bool,
        in_order: bool,
    ) -> Failure | None:
        """Handle a record that was parked, as a live one is; or say why it stays parked.

        One that was ``counted`` when it came has its place in its subject. Another is given it
        now, and handled there unless ``in_order`` is false.

        :raises SeenAlready: another had its place
        """


@dataclass(frozen=True)
class EventSubscriber(Generic[W]):
    """Handles some types of event, each once, in order per subject.

    :param name: ``<service>.<what it does>``; it stays, for its progress is kept under it
    :param handlers: the contract's model of each wanted type, and what is done with it
    :param empty_state: undoes all that it ever did, so that it can begin anew; None: nothing can
    """

    name: str
    topic: Topic
    handlers: Mapping[type[IntegrationEvent], Handler[W]]
    starts: Start = Start.BEGINNING
    empty_state: Callable[[AsyncConnection], Awaitable[None]] | None = None

    @cached_property
    def _models(self) -> Mapping[str, type[IntegrationEvent]]:
        return {model.event_type: model for model in self.handlers}

    @cached_property
    def _families(self) -> frozenset[str]:
        """Return the types wanted, without their versions."""
        return frozenset(_family(type_) for type_ in self._models)

    async def take(
        self,
        work: W,
        connection: AsyncConnection,
        records: Sequence[Record],
        now: Callable[[], datetime],
        failure: Failure | None = None,
    ) -> Sequence[ParkedSubject]:
        parking = Parking(self.name, now)
        labelled = [(record, *_try_label(record)) for record in records]
        inbox = await Inbox.lock(
            connection,
            self.name,
            self.topic.name,
            [label for _, label, _ in labelled if label is not None],
            from_beginning=self.starts is Start.BEGINNING,
        )
        for record, label, invalid in labelled:
            if label is None:
                parking.park(record, None, not_understood(invalid))
                self._count(Verdict.NEXT, "parked")
            else:
                await self._take_one(work, record, label, inbox, parking, failure)
        await inbox.flush(connection, now)
        await parking.flush(connection)
        return parking.stopped

    async def take_parked(
        self,
        work: W,
        connection: AsyncConnection,
        record: Record,
        now: Callable[[], datetime],
        *,
        counted: bool,
        in_order: bool,
    ) -> Failure | None:
        label, invalid = _try_label(record)
        if label is None:
            return not_understood(invalid)
        verdict = Verdict.NEXT if counted else await self._count_in(connection, label, now)
        if verdict is Verdict.REPEAT:
            raise SeenAlready(
                f"{self.name} has seen number {label.sequence} of {label.subject}: discard this one"
            )
        if _family(label.type) not in self._families:
            return None
        if in_order and verdict is Verdict.FORKED:
            return FORKED
        if in_order and verdict is Verdict.BEHIND:
            return BEHIND
        return await self._open_and_handle(work, record, label)

    async def _count_in(
        self, connection: AsyncConnection, label: EventIdentity, now: Callable[[], datetime]
    ) -> Verdict:
        inbox = await Inbox.lock(
            connection,
            self.name,
            self.topic.name,
            [label],
            from_beginning=self.starts is Start.BEGINNING,
        )
        verdict = inbox.judge(label)
        await inbox.flush(connection, now)
        return verdict

    def label_of_edited(self, payload: bytes) -> EventIdentity:
        """Return the label of an event that an operator wrote.

        :raises InvalidEnvelope: it is none, or none that this subscriber handles
        """
        envelope = decode(payload)
        model = self._models.get(envelope.type)
        if model is None:
            raise InvalidEnvelope(f"type: none that {self.name} handles")
        event_in(envelope, model)
        return identity_in(envelope)

    async def _take_one(
        self,
        work: W,
        record: Record,
        label: EventIdentity,
        inbox: Inbox,
        parking: Parking,
        failure: Failure | None,
    ) -> None:
        verdict = inbox.judge(label)
        if verdict is Verdict.REPEAT:
            return self._count(verdict, "dropped")
        if _family(label.type) not in self._families:
            return self._count(verdict, "passed-over")
        if verdict is Verdict.FORKED:
            failure = FORKED
        elif verdict is Verdict.BEHIND:
            failure = BEHIND
        elif failure is None:
            failure = await self._open_and_handle(work, record, label)
        if failure is None:
            return self._count(verdict, "handled")
        parking.park(record, label, failure)
        inbox.block(label.subject)
        return self._count(verdict, "parked")

    async def _open_and_handle(
        self, work: W, record: Record, label: EventIdentity
    ) -> Failure | None:
        """Handle an event, or say why nobody can."""
        model = self._models.get(label.type)
        if model is None:
            return not_understood(f"{label.type}: no version that {self.name} knows")
        try:
            envelope = open_record(record, label)
            event = event_in(envelope, model)
        except InvalidEnvelope as error:
            return not_understood(str(error))
        with (
            use_correlation(CorrelationContext(envelope.correlationid, str(envelope.id))),
            telemetry.span(
                f"{self.name} {label.type}", SpanKind.CONSUMER, parent=envelope.traceparent
            ),
        ):
            await self.handlers[model](work, event, envelope)
        return None

    def _count(self, verdict: Verdict, outcome: str) -> None:
        telemetry.consumer_events.labels(self.name, outcome).inc()
        if verdict in (Verdict.AFTER_GAP, Verdict.LATE, Verdict.FORKED):
            telemetry.consumer_events.labels(self.name, verdict.value).inc()


@dataclass(frozen=True)
class RecordSubscriber(Generic[W]):
    """Takes every record of a topic as it came, whatever it holds; it tells repeats itself."""

    name: str
    topic: Topic
    keep: Callable[[W, Sequence[Record]], Awaitable[None]]
    starts: Start = Start.BEGINNING

    async def take(
        self,
        work: W,
        connection: AsyncConnection,
        records: Sequence[Record],
        now: Callable[[], datetime],
        failure: Failure | None = None,
    ) -> Sequence[ParkedSubject]:
        if failure is None:
            await self.keep(work, records)
            telemetry.consumer_events.labels(self.name, "handled").inc(len(records))
            return ()
        parking = Parking(self.name, now)
        for record in records:
            # Without a subject: what could not be kept blocks nobody.
            parking.park(record, None, failure)
        await parking.flush(connection)
        telemetry.consumer_events.labels(self.name, "parked").inc(len(records))
        # Each counts as an aggregate of its own, so that a bad deploy stops instead of parking all.
        return [ParkedSubject(f"{each.partition}@{each.offset}", failure.code) for each in records]

    async def take_parked(
        self,
        work: W,
        connection: AsyncConnection,
        record: Record,
        now: Callable[[], datetime],
        *,
        counted: bool,
        in_order: bool,
    ) -> Failure | None:
        await self.keep(work, [record])
        return None


def _try_label(record: Record) -> tuple[EventIdentity | None, str]:
    try:
        return identity_of(record), ""
    except InvalidEnvelope as error:
        return None, str(error)


def _family(event_type: str) -> str:
    return event_type.rpartition(".v")[0]
