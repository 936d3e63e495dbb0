"""Subscribers: which events are consumed, from where on, and by which handler."""

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
    """Consumes the records of one topic in order; its progress is kept under its name."""

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
        """Handle records, in their order, in the open transaction; return whose events parked.

        With ``failure`` the one record is parked for that reason, where it would be handled.
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
        """Handle a record that was parked, as a live one is; or return why it stays parked.

        A record that was ``counted`` when it was parked has its sequence in the inbox. Another is
        counted now, and with ``in_order`` it stays parked where its sequence is not the next.

        :raises SeenAlready: the inbox has counted another event under its sequence
        """


@dataclass(frozen=True)
class EventSubscriber(Generic[W]):
    """Handles some types of events, each event once, in order per subject.

    :param name: ``<service>.<what it does>``; never changed, for progress is kept under it
    :param handlers: the contract's model of each wanted type, and its handler
    :param empty_state: undoes all that it ever did, so that it can begin again; None: nothing can
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
        """Return the wanted types, without their versions."""
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
        identified = [(record, *_try_identify(record)) for record in records]
        inbox = await Inbox.lock(
            connection,
            self.name,
            self.topic.name,
            [identity for _, identity, _ in identified if identity is not None],
            from_beginning=self.starts is Start.BEGINNING,
        )
        for record, identity, invalid in identified:
            if identity is None:
                parking.park(record, None, not_understood(invalid))
                self._count(Verdict.NEXT, "parked")
            else:
                await self._take_one(work, record, identity, inbox, parking, failure)
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
        identity, invalid = _try_identify(record)
        if identity is None:
            return not_understood(invalid)
        verdict = Verdict.NEXT if counted else await self._count_in(connection, identity, now)
        if verdict is Verdict.REPEAT:
            raise SeenAlready(
                f"{self.name} has handled number {identity.sequence} of {identity.subject}:"
                " discard this one"
            )
        if _family(identity.type) not in self._families:
            return None
        if in_order and verdict is Verdict.FORKED:
            return FORKED
        if in_order and verdict is Verdict.BEHIND:
            return BEHIND
        return await self._open_and_handle(work, record, identity)

    async def _count_in(
        self, connection: AsyncConnection, identity: EventIdentity, now: Callable[[], datetime]
    ) -> Verdict:
        inbox = await Inbox.lock(
            connection,
            self.name,
            self.topic.name,
            [identity],
            from_beginning=self.starts is Start.BEGINNING,
        )
        verdict = inbox.judge(identity)
        await inbox.flush(connection, now)
        return verdict

    def identity_of_edited(self, payload: bytes) -> EventIdentity:
        """Return the identity of an event that an operator wrote.

        :raises InvalidEnvelope: it is no event, or none that this subscriber handles
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
        identity: EventIdentity,
        inbox: Inbox,
        parking: Parking,
        failure: Failure | None,
    ) -> None:
        verdict = inbox.judge(identity)
        if verdict is Verdict.REPEAT:
            return self._count(verdict, "dropped")
        if _family(identity.type) not in self._families:
            return self._count(verdict, "passed-over")
        if verdict is Verdict.FORKED:
            failure = FORKED
        elif verdict is Verdict.BEHIND:
            failure = BEHIND
        elif failure is None:
            failure = await self._open_and_handle(work, record, identity)
        if failure is None:
            return self._count(verdict, "handled")
        parking.park(record, identity, failure)
        inbox.block(identity.subject)
        return self._count(verdict, "parked")

    async def _open_and_handle(
        self, work: W, record: Record, identity: EventIdentity
    ) -> Failure | None:
        """Handle an event, or return why it can't be handled."""
        model = self._models.get(identity.type)
        if model is None:
            return not_understood(f"{identity.type}: no version that {self.name} knows")
        try:
            envelope = open_record(record, identity)
            event = event_in(envelope, model)
        except InvalidEnvelope as error:
            return not_understood(str(error))
        with (
            use_correlation(CorrelationContext(envelope.correlationid, str(envelope.id))),
            telemetry.span(
                f"{self.name} {identity.type}", SpanKind.CONSUMER, parent=envelope.traceparent
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
    """Keeps every record of a topic as it came, whatever it holds; ``keep`` finds repeats."""

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
            # Without a subject: a record that could not be kept blocks no others.
            parking.park(record, None, failure)
        await parking.flush(connection)
        telemetry.consumer_events.labels(self.name, "parked").inc(len(records))
        # Each counts as an aggregate of its own, so that the dead-letter limit holds here too.
        return [
            ParkedSubject(
                f"{each.partition}@{each.offset}", failure.code, each.partition, each.offset
            )
            for each in records
        ]

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


def _try_identify(record: Record) -> tuple[EventIdentity | None, str]:
    try:
        return identity_of(record), ""
    except InvalidEnvelope as error:
        return None, str(error)


def _family(event_type: str) -> str:
    return event_type.rpartition(".v")[0]
