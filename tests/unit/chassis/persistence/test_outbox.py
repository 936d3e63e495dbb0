"""The events that one unit of work publishes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID, uuid4

import pytest

from chassis.correlation import CorrelationContext, use_correlation
from chassis.domain import Aggregate, DomainEvent
from chassis.persistence.outbox import Outbox, OutboxRow
from contracts.envelope import CLIENT_CORRELATION_ID, Envelope, decode
from contracts.events import IntegrationEvent
from contracts.topics import USERS_USER
from contracts.users import TaskCreatedV1, UserSignedUpV1

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def outbox() -> Outbox:
    return Outbox("/users", lambda: NOW)


def append(outbox: Outbox, sequence: int = 1) -> None:
    user_id = uuid4()
    outbox.append(
        UserSignedUpV1(user_id=user_id, username="ada"),
        topic=USERS_USER,
        subject=user_id,
        sequence=sequence,
        occurred_at=NOW,
    )


def envelopes(rows: Sequence[OutboxRow]) -> list[Envelope]:
    return [decode(row["payload"]) for row in rows]


class TestAppending:
    def test_keeps_the_exact_record_with_its_columns(self) -> None:
        box = outbox()

        append(box, 3)

        [row] = box.take_rows()
        envelope = decode(row["payload"])
        assert (row["id"], row["aggregateid"], row["type"], row["sequence"]) == (
            envelope.id,
            envelope.subject,
            envelope.type,
            envelope.sequence,
        )
        assert row["aggregatetype"] == "users.user"
        assert row["headers"]["id"] == str(row["id"])
        assert list(box.take_rows()) == []

    def test_takes_the_current_correlation(self) -> None:
        box = outbox()

        with use_correlation(CorrelationContext("one")):
            append(box)
        with use_correlation(CorrelationContext("two", "caused")):
            append(box)

        one, two = envelopes(box.take_rows())
        assert (one.correlationid, one.causationid) == ("one", None)
        assert (two.correlationid, two.causationid) == ("two", "caused")

    def test_has_what_a_client_calls_its_request_beside_the_envelope(self) -> None:
        box = outbox()

        with use_correlation(CorrelationContext("one", client_id="order-17")):
            append(box)
        with use_correlation(CorrelationContext("two")):
            append(box)

        called, nameless = box.take_rows()
        assert called["headers"][CLIENT_CORRELATION_ID] == "order-17"
        assert b"order-17" not in called["payload"]
        assert CLIENT_CORRELATION_ID not in nameless["headers"]

    def test_without_a_correlation_makes_one_for_each_unit_of_work(self) -> None:
        first, second = outbox(), outbox()

        append(first)
        append(first)
        append(second)

        ids = [each.correlationid for box in (first, second) for each in envelopes(box.take_rows())]
        assert ids[0] == ids[1] != ids[2]


class UserSignedUpV2(UserSignedUpV1):
    event_type: ClassVar[str] = "users.user-signed-up.v2"


class Thing(Aggregate):
    def happen(self, times: int = 1) -> None:
        for _ in range(times):
            self._record(DomainEvent(occurred_at=NOW))


V1 = UserSignedUpV1(user_id=UUID(int=1), username="ada")
V2 = UserSignedUpV2(user_id=UUID(int=1), username="ada")
TASK = TaskCreatedV1(task_id=UUID(int=2), assignee_id=UUID(int=1), name="x")


class TestTheEventsOfAnAggregate:
    def publish(
        self, thing: Thing, *events: IntegrationEvent
    ) -> list[tuple[str, int, dict[int, int] | None]]:
        """Return type, sequence and versions of what is published of each domain event."""
        box = outbox()
        box.append_events_of(thing, topic=USERS_USER, translate=lambda _event: events)
        found = envelopes(box.take_rows())
        return [
            (each.type, each.sequence, dict(each.versions) if each.versions else None)
            for each in found
        ]

    def test_are_counted_by_its_sequence(self) -> None:
        thing = Thing(uuid4(), sequence=4)
        thing.happen(times=2)

        assert self.publish(thing, V1) == [
            (V1.event_type, 5, None),
            (V1.event_type, 6, None),
        ]
        assert thing.sequence == 6

    def test_that_are_not_published_are_returned_and_not_counted(self) -> None:
        thing = Thing(uuid4(), sequence=4)
        thing.happen()

        recorded = outbox().append_events_of(thing, topic=USERS_USER, translate=lambda _event: [])

        assert (len(recorded), thing.sequence) == (1, 4)

    @pytest.mark.parametrize("events", [(V1, V2), (V2, V1)], ids=["in-order", "newest-first"])
    def test_in_two_versions_are_adjacent_the_oldest_first_and_name_each_other(
        self, events: tuple[IntegrationEvent, ...]
    ) -> None:
        thing = Thing(uuid4(), sequence=6)
        thing.happen()

        assert self.publish(thing, *events) == [
            (V1.event_type, 7, {1: 7, 2: 8}),
            (V2.event_type, 8, {1: 7, 2: 8}),
        ]
        assert thing.sequence == 8

    def test_of_two_facts_name_only_the_versions_of_their_own(self) -> None:
        thing = Thing(uuid4())
        thing.happen()

        assert self.publish(thing, V1, TASK, V2) == [
            (V1.event_type, 1, {1: 1, 2: 2}),
            (V2.event_type, 2, {1: 1, 2: 2}),
            (TASK.event_type, 3, None),
        ]

    def test_that_would_have_one_type_twice_are_refused(self) -> None:
        thing = Thing(uuid4())
        thing.happen()

        with pytest.raises(ValueError, match="twice"):
            self.publish(thing, V1, V1)
