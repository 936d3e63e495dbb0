"""Each service publishes every event in the versions that its readers take.

A reader takes the newest version that it has a handler for, so a version can end when every reader
has a handler for a newer one. A reader may keep its older handler, for what was published before
(``docs/decisions/0011``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from inspect import get_annotations
from typing import Any, get_args
from uuid import UUID

import pytest

from accounts_service.domain.account import (
    AccountOpened,
    Closed,
    Frozen,
    HoldCaptured,
    HoldExpired,
    HoldPlaced,
    HoldReleased,
    Transaction,
    TransactionCreated,
    TransactionKind,
    TransferReversed,
    Unfrozen,
)
from chassis.consuming.subscribers import EventSubscriber
from chassis.domain import DomainEvent
from chassis.operations.context import Service
from contracts.events import EventWithheld, IntegrationEvent, family_of, version_of
from contracts.topics import TOPICS, USERS_USER, Topic
from contracts.users import UserSignedUpV1
from services import WITH_DATABASE
from users_service.domain.task import TaskCreated, TaskName
from users_service.domain.user import OperatorCreated, UserSignedUp
from users_service.domain.values import Username

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADA, ACCOUNT, TASK = UUID(int=1), UUID(int=2), UUID(int=3)
TRANSFER, REVERSAL, HOLD, PAYEE = UUID(int=4), UUID(int=5), UUID(int=6), UUID(int=7)
OF_ACCOUNT: Mapping[str, Any] = {"account_id": ACCOUNT, "user_id": ADA, "occurred_at": NOW}
BY: Mapping[str, Any] = {**OF_ACCOUNT, "by": ADA}

#: One of every domain event of every service.
SAMPLES: Sequence[DomainEvent] = (
    UserSignedUp(ADA, Username("ada"), occurred_at=NOW),
    OperatorCreated(ADA, occurred_at=NOW),
    TaskCreated(TASK, TaskName("Rest"), ADA, occurred_at=NOW),
    AccountOpened(**OF_ACCOUNT, currency="USD"),
    TransactionCreated(
        **OF_ACCOUNT,
        currency="USD",
        transaction=Transaction(TRANSFER, 2, TransactionKind.TRANSFER, -5, 95, "Lunch", NOW),
        reverses=None,
    ),
    TransferReversed(**BY, transfer_id=TRANSFER, reversal_id=REVERSAL, reason="a mistake"),
    HoldPlaced(
        **OF_ACCOUNT,
        currency="USD",
        hold_id=HOLD,
        payee_id=PAYEE,
        minor_units=5,
        expires_at=NOW,
    ),
    HoldCaptured(**BY, currency="USD", hold_id=HOLD, transaction_id=TRANSFER, minor_units=5),
    HoldReleased(**BY, hold_id=HOLD),
    HoldExpired(**OF_ACCOUNT, hold_id=HOLD),
    Frozen(**BY, reason="stolen"),
    Unfrozen(**BY, reason="it is back"),
    Closed(**OF_ACCOUNT),
)

SERVICES: Mapping[str, Service[Any, Any]] = {
    each.name: import_module(f"{each.package}.bootstrap").SERVICE for each in WITH_DATABASE
}

Models = frozenset[type[IntegrationEvent]]


def domain_events_of(translate: Callable[..., Any]) -> set[type[DomainEvent]]:
    """Return the types that a service's ``translate`` takes, by its annotation."""
    event = get_annotations(translate, eval_str=True)["event"]
    return set(get_args(event) or [event])


def translated(service: Service[Any, Any]) -> Models:
    """Return what a service publishes of its domain events."""
    return frozenset(
        type(published)
        for translate in {aggregate.translate for aggregate in service.aggregates}
        for sample in SAMPLES
        if type(sample) in domain_events_of(translate)
        for published in translate(sample)
    )


def published_to(topic: Topic) -> Models:
    """Return what the owner of a topic publishes to it."""
    owner = SERVICES[topic.owner]
    if topic == owner.operations_topic:
        return frozenset(topic.events)  # operators' acts, by the chassis
    withheld = {event for event in topic.events if issubclass(event, EventWithheld)}
    return frozenset(translated(owner).intersection(topic.events) | withheld)


def readers() -> list[EventSubscriber[Any]]:
    """Return every subscriber that handles events by their types."""
    return [
        subscriber
        for service in SERVICES.values()
        for subscriber in service.subscribers(service.settings.model_construct())
        if isinstance(subscriber, EventSubscriber)
    ]


def taken_by(reader: EventSubscriber[Any]) -> Models:
    """Return the models that a reader takes: of each type, the newest that it has a handler for."""
    newest: dict[str, type[IntegrationEvent]] = {}
    for model in sorted(reader.handlers, key=lambda each: version_of(each.event_type)):
        newest[family_of(model.event_type)] = model
    return frozenset(newest.values())


def unpublished(
    reader: EventSubscriber[Any], published: Iterable[type[IntegrationEvent]]
) -> list[str]:
    """Return a line for each event that a reader takes and its topic's owner does not publish."""
    return [
        f"{reader.name} takes {model.event_type}, which {reader.topic.owner} does not publish"
        for model in taken_by(reader).difference(published)
    ]


def test_there_is_a_sample_of_every_domain_event() -> None:
    translates = {each.translate for service in SERVICES.values() for each in service.aggregates}
    events = set().union(*(domain_events_of(translate) for translate in translates))

    assert {type(sample) for sample in SAMPLES} == events
    assert len(SAMPLES) == len(events)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_publishes_is_in_the_catalogue(name: str) -> None:
    catalogued = {event for topic in TOPICS if topic.owner == name for event in topic.events}

    assert translated(SERVICES[name]) <= catalogued


@pytest.mark.parametrize(
    "reader", readers(), ids=lambda reader: f"{reader.name}-{reader.topic.name}"
)
def test_what_a_reader_takes_is_in_the_catalogue_and_published(
    reader: EventSubscriber[Any],
) -> None:
    assert set(reader.handlers) <= set(reader.topic.events)
    assert unpublished(reader, published_to(reader.topic)) == []


class UserSignedUpV2(UserSignedUpV1):
    event_type = "users.user-signed-up.v2"


async def _ignore(*_event: object) -> None:
    return None


def reader_of(*models: type[IntegrationEvent]) -> EventSubscriber[Any]:
    return EventSubscriber(
        name="test.read", topic=USERS_USER, handlers=dict.fromkeys(models, _ignore)
    )


class TestAReader:
    @pytest.mark.parametrize("published", [{UserSignedUpV1}, {UserSignedUpV1, UserSignedUpV2}])
    def test_of_the_old_version_has_it_while_it_is_published(
        self, published: set[type[IntegrationEvent]]
    ) -> None:
        assert unpublished(reader_of(UserSignedUpV1), published) == []

    def test_of_a_version_that_has_ended_is_named(self) -> None:
        assert unpublished(reader_of(UserSignedUpV1), {UserSignedUpV2}) == [
            "test.read takes users.user-signed-up.v1, which users does not publish"
        ]

    def test_of_a_version_that_is_not_published_yet_is_named(self) -> None:
        assert unpublished(reader_of(UserSignedUpV1, UserSignedUpV2), {UserSignedUpV1}) == [
            "test.read takes users.user-signed-up.v2, which users does not publish"
        ]

    def test_of_both_needs_the_new_one_only(self) -> None:
        assert unpublished(reader_of(UserSignedUpV1, UserSignedUpV2), {UserSignedUpV2}) == []
