"""Subscribers: which events are consumed, from where on, and by which handler."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache, cached_property
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from chassis import telemetry
from chassis.consuming.aggregates import Aggregates, NamesAggregates
from chassis.consuming.dead_letters import (
    BEHIND,
    FORKED,
    Failure,
    ParkedSubject,
    Parking,
    SeenAlready,
    not_understood,
    version_missed,
)
from chassis.consuming.inbox import Inbox, Seen, Verdict
from chassis.consuming.records import EventIdentity, Record, identity_in, identity_of, open_record
from chassis.consuming.versions import Choice, choose, others_of
from chassis.correlation import CorrelationContext, use_correlation
from chassis.persistence.database import Connection
from contracts.envelope import Envelope, InvalidEnvelope, decode, event_in
from contracts.events import IntegrationEvent, family_of, version_of
from contracts.topics import Topic

log = structlog.get_logger(__name__)

W = TypeVar("W")
W_contra = TypeVar("W_contra", contravariant=True)

Handler = Callable[[W, Any, Envelope], Awaitable[None]]
"""Handles one event in the open unit of work; it knows nothing of offsets, chunks or retries."""


class Start(StrEnum):
    """Where a subscriber begins that has never run."""

    BEGINNING = "beginning"
    NOW = "now"


class Outcome(StrEnum):
    """What a subscriber did with an event."""

    HANDLED = "handled"
    DROPPED = "dropped"
    PASSED_OVER = "passed-over"
    OTHER_VERSION = "other-version"
    NO_HANDLED_VERSION = "no-handled-version"
    ALREADY_HANDLED = "already-handled"
    PARKED = "parked"


# What is counted beside an outcome itself.
_COUNTED_ALSO: Final = {Outcome.NO_HANDLED_VERSION: Outcome.OTHER_VERSION}


@cache
def _counter(subscriber: str, outcome: str) -> Counter:
    return telemetry.consumer_events.labels(subscriber, outcome)


def count(subscriber: str, outcome: Outcome, events: int = 1) -> None:
    """Count events by what became of them."""
    _counter(subscriber, outcome).inc(events)
    if (also := _COUNTED_ALSO.get(outcome)) is not None:
        _counter(subscriber, also).inc(events)


class Subscriber(NamesAggregates[W_contra], Protocol[W_contra]):
    """Consumes the records of one topic in order; its progress is kept under its name.

    :ivar nobody_waits: its effects may come some hundredths of a second later, for less work
    """

    @property
    def name(self) -> str: ...
    @property
    def topic(self) -> Topic: ...
    @property
    def starts(self) -> Start: ...
    @property
    def nobody_waits(self) -> bool: ...

    async def take(
        self,
        work: W_contra,
        connection: Connection,
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
        connection: Connection,
        record: Record,
        now: Callable[[], datetime],
        *,
        counted: bool,
        in_order: bool,
    ) -> Outcome | Failure:
        """Handle a record that was parked, as a live one is; or return why it stays parked.

        A record that was ``counted`` when it was parked has its sequence in the inbox. Another is
        counted now, and with ``in_order`` it stays parked where its sequence is not the next.

        :raises SeenAlready: the inbox has counted another event under its sequence
        """


@dataclass(frozen=True)
class EventSubscriber(Generic[W]):
    """Handles some types of events, each event once, in order per subject.

    A fact that is published in several versions is handled once too, in the newest version that
    there is a handler for. Other versions are passed over.

    :param name: ``<service>.<what it does>``; never changed, for progress is kept under it
    :param handlers: the contract's model of each wanted type, and its handler
    :param aggregates: which existing aggregates the handler of a type loads
    :param empty_state: undoes all that it ever did, so that it can begin again; None: nothing can
    """

    name: str
    topic: Topic
    handlers: Mapping[type[IntegrationEvent], Handler[W]]
    starts: Start = Start.BEGINNING
    aggregates: Mapping[type[IntegrationEvent], Sequence[Aggregates[W]]] = field(
        default_factory=dict
    )
    empty_state: Callable[[Connection], Awaitable[None]] | None = None

    nobody_waits: ClassVar = False

    @cached_property
    def _models(self) -> Mapping[str, type[IntegrationEvent]]:
        return {model.event_type: model for model in self.handlers}

    @cached_property
    def _taken(self) -> Mapping[str, frozenset[int]]:
        """Return the wanted types without their versions, and the versions with a handler."""
        taken: dict[str, set[int]] = defaultdict(set)
        for type_ in self._models:
            taken[family_of(type_)].add(version_of(type_))
        return {family: frozenset(versions) for family, versions in taken.items()}

    @cached_property
    def _logged(self) -> set[tuple[str, bool]]:
        return set()

    def aggregates_in(
        self, records: Sequence[Record]
    ) -> Iterator[tuple[Aggregates[W], Iterable[Any]]]:
        for record in records if self.aggregates else ():
            # What can't be read is parked, and loads nothing.
            with suppress(InvalidEnvelope):
                identity = identity_of(record)
                model = self._models.get(identity.type)
                if model is not None and model in self.aggregates:
                    event = event_in(open_record(record, identity), model)
                    for each in self.aggregates[model]:
                        yield each, each.keys(event)

    async def take(
        self,
        work: W,
        connection: Connection,
        records: Sequence[Record],
        now: Callable[[], datetime],
        failure: Failure | None = None,
    ) -> Sequence[ParkedSubject]:
        parking = Parking(self.name, now)
        identified = [(record, *_try_identify(record)) for record in records]
        inbox = await self._lock(
            connection, [identity for _, identity, _ in identified if identity is not None]
        )
        for record, identity, invalid in identified:
            if identity is None:
                parking.park(record, None, not_understood(invalid))
                self._count(Verdict.NEXT, Outcome.PARKED)
            else:
                await self._take_one(work, record, identity, inbox, parking, failure)
        await inbox.flush(connection, now)
        await parking.flush(connection)
        return parking.stopped

    async def take_parked(
        self,
        work: W,
        connection: Connection,
        record: Record,
        now: Callable[[], datetime],
        *,
        counted: bool,
        in_order: bool,
    ) -> Outcome | Failure:
        identity, invalid = _try_identify(record)
        if identity is None:
            return not_understood(invalid)
        verdict = Verdict.NEXT if counted else await self._count_in(connection, identity, now)
        if verdict is Verdict.REPEAT:
            raise SeenAlready(
                f"{self.name} has handled number {identity.sequence} of {identity.subject}:"
                " discard this one"
            )
        if family_of(identity.type) not in self._taken:
            return Outcome.PASSED_OVER
        if in_order and verdict is Verdict.FORKED:
            return FORKED
        if in_order and verdict is Verdict.BEHIND:
            return BEHIND
        try:
            envelope = open_record(record, identity)
        except InvalidEnvelope as error:
            return not_understood(str(error))
        if envelope.versions is None:
            return await self._handle(work, envelope, Seen())
        inbox = await self._lock(connection, [identity])
        to_come = [
            sequence
            for sequence in others_of(envelope).values()
            # In order, those before it were released before it.
            if sequence > envelope.sequence or not in_order
        ]
        seen = await inbox.seen_with_parked(connection, identity.subject, to_come)
        outcome = await self._handle(work, envelope, seen)
        await inbox.flush(connection, now)
        return outcome

    async def _count_in(
        self, connection: Connection, identity: EventIdentity, now: Callable[[], datetime]
    ) -> Verdict:
        inbox = await self._lock(connection, [identity])
        verdict = inbox.judge(identity)
        await inbox.flush(connection, now)
        return verdict

    async def _lock(self, connection: Connection, identities: Sequence[EventIdentity]) -> Inbox:
        return await Inbox.lock(
            connection,
            self.name,
            self.topic.name,
            identities,
            from_beginning=self.starts is Start.BEGINNING,
        )

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
            return self._count(verdict, Outcome.DROPPED)
        if family_of(identity.type) not in self._taken:
            return self._count(verdict, Outcome.PASSED_OVER)
        if verdict is Verdict.FORKED:
            failure = FORKED
        elif verdict is Verdict.BEHIND:
            failure = BEHIND
        outcome = failure or await self._open_and_handle(work, record, identity, inbox)
        if isinstance(outcome, Outcome):
            return self._count(verdict, outcome)
        parking.park(record, identity, outcome)
        inbox.block(identity.subject)
        return self._count(verdict, Outcome.PARKED)

    async def _open_and_handle(
        self, work: W, record: Record, identity: EventIdentity, inbox: Inbox
    ) -> Outcome | Failure:
        try:
            envelope = open_record(record, identity)
        except InvalidEnvelope as error:
            return not_understood(str(error))
        return await self._handle(work, envelope, inbox.seen_of(identity.subject))

    async def _handle(self, work: W, envelope: Envelope, seen: Seen) -> Outcome | Failure:
        """Handle an event or pass it over, or return why neither can be done."""
        model = self._models.get(envelope.type)
        if model is not None and envelope.versions is None:
            return await self._handle_as(model, work, envelope)
        version = None if model is None else version_of(envelope.type)
        choice = choose(envelope, version, self._taken[family_of(envelope.type)], seen)
        outcome: Outcome | Failure
        if choice is Choice.MISSED:
            return version_missed(self.name)
        if choice is Choice.HANDLE and model is not None:
            outcome = await self._handle_as(model, work, envelope)
        elif choice is Choice.HANDLED and model is not None:
            outcome = Outcome.ALREADY_HANDLED
        else:
            outcome = self._pass_over(envelope, is_handled=choice is not Choice.NO_VERSION)
        if choice in (Choice.HANDLE, Choice.HANDLED):
            seen.handle(envelope.sequence, others_of(envelope).values())
        return outcome

    async def _handle_as(
        self, model: type[IntegrationEvent], work: W, envelope: Envelope
    ) -> Outcome | Failure:
        try:
            event = event_in(envelope, model)
        except InvalidEnvelope as error:
            return not_understood(str(error))
        with (
            use_correlation(CorrelationContext(envelope.correlationid, str(envelope.id))),
            telemetry.span(
                f"{self.name} {envelope.type}", SpanKind.CONSUMER, parent=envelope.traceparent
            ),
        ):
            await self.handlers[model](work, event, envelope)
        return Outcome.HANDLED

    def _pass_over(self, envelope: Envelope, *, is_handled: bool) -> Outcome:
        """Log the first event of a type that is passed over because of its version.

        :param is_handled: the fact is handled in another version
        """
        if (envelope.type, is_handled) not in self._logged:
            self._logged.add((envelope.type, is_handled))
            line = {"subscriber": self.name, "type": envelope.type}
            if is_handled:
                log.info("version-passed-over", handled_in_another=True, **line)
            else:
                log.warning("version-passed-over", handled_in_another=False, **line)
        return Outcome.OTHER_VERSION if is_handled else Outcome.NO_HANDLED_VERSION

    def _count(self, verdict: Verdict, outcome: Outcome) -> None:
        count(self.name, outcome)
        if verdict in (Verdict.AFTER_GAP, Verdict.LATE, Verdict.FORKED):
            _counter(self.name, verdict.value).inc()


@dataclass(frozen=True)
class RecordSubscriber(Generic[W]):
    """Keeps every record of a topic as it came, whatever it holds; ``keep`` finds repeats."""

    name: str
    topic: Topic
    keep: Callable[[W, Sequence[Record]], Awaitable[None]]
    starts: Start = Start.BEGINNING

    nobody_waits: ClassVar = True

    def aggregates_in(
        self, records: Sequence[Record]
    ) -> Iterable[tuple[Aggregates[W], Iterable[Any]]]:
        return ()

    async def take(
        self,
        work: W,
        connection: Connection,
        records: Sequence[Record],
        now: Callable[[], datetime],
        failure: Failure | None = None,
    ) -> Sequence[ParkedSubject]:
        if failure is None:
            await self.keep(work, records)
            count(self.name, Outcome.HANDLED, len(records))
            return ()
        parking = Parking(self.name, now)
        for record in records:
            # Without a subject: a record that could not be kept blocks no others.
            parking.park(record, None, failure)
        await parking.flush(connection)
        count(self.name, Outcome.PARKED, len(records))
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
        connection: Connection,
        record: Record,
        now: Callable[[], datetime],
        *,
        counted: bool,
        in_order: bool,
    ) -> Outcome | Failure:
        await self.keep(work, [record])
        return Outcome.HANDLED


def _try_identify(record: Record) -> tuple[EventIdentity | None, str]:
    try:
        return identity_of(record), ""
    except InvalidEnvelope as error:
        return None, str(error)
