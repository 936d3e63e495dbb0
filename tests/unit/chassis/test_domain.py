"""An aggregate returns its recorded events; an error has its kind, code and message."""

from datetime import UTC, datetime
from uuid import uuid4

from chassis.domain import Aggregate, BrokenField, DomainEvent, InvalidFields, Kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class TestAnAggregate:
    def test_returns_each_event_once_and_in_order(self) -> None:
        aggregate = Aggregate(uuid4())
        first, second = DomainEvent(occurred_at=NOW), DomainEvent(occurred_at=NOW)
        aggregate._record(first)
        aggregate._record(second)

        assert [id(each) for each in aggregate.take_events()] == [id(first), id(second)]
        assert list(aggregate.take_events()) == []

    def test_that_was_never_stored_has_no_version_and_no_sequence(self) -> None:
        aggregate = Aggregate(uuid4())

        assert (aggregate.version, aggregate.sequence) == (0, 0)


class TestInvalidFields:
    def test_names_every_broken_field(self) -> None:
        error = InvalidFields(
            BrokenField("name", "too-short", "at least 2"), BrokenField("email", "odd", "has an @")
        )

        assert (error.kind, error.code) == (Kind.INVALID, "invalid-fields")
        assert str(error) == "name: at least 2; email: has an @"
