from typing import Any
from uuid import uuid4

from opentelemetry.sdk.trace import TracerProvider

from chassis.correlation import new_id
from chassis.testing import Clock
from contracts.accounts import AccountOpenedV1
from contracts.events import IntegrationEvent, family_of
from contracts.topics import ACCOUNTS_ACCOUNT, USERS_USER
from contracts.users import UserSignedUpV1
from notification_service.agents import subscribers
from notification_service.in_memory import InMemoryDeliveries
from notification_service.rules import SLACK, PlanDeliveries, Rule, rules

from .making import NOW, signed_up


class FakeWork:
    def __init__(self) -> None:
        self.deliveries = InMemoryDeliveries()

    async def flush(self) -> None:
        pass


def planning(*extra: Rule[Any]) -> PlanDeliveries:
    return PlanDeliveries([*rules(slack_channel="growth"), *extra], new_id, Clock(NOW))


def rule_for(name: str, event: type[IntegrationEvent]) -> Rule[Any]:
    return Rule(name=name, event=event, medium=SLACK, address="other", text=lambda _: "hello")


class TestPlanDeliveries:
    async def test_a_sign_up_is_sent_to_the_growth_channel(self) -> None:
        work = FakeWork()
        event, envelope = signed_up("ada")

        await planning()(work, event, envelope)

        (stored,) = work.deliveries.stored.values()
        delivery = stored.planned
        assert (delivery.rule, delivery.medium, delivery.address, delivery.text) == (
            "slack-growth-user-signed-up",
            "slack",
            "growth",
            "ada signed up",
        )
        assert (delivery.event_id, delivery.correlation_id) == (envelope.id, "c-1")
        assert delivery.created_at == NOW

    async def test_each_rule_of_an_event_makes_one_delivery(self) -> None:
        work = FakeWork()
        event, envelope = signed_up()

        await planning(rule_for("second", UserSignedUpV1), rule_for("third", AccountOpenedV1))(
            work, event, envelope
        )

        assert sorted(each.planned.rule for each in work.deliveries.stored.values()) == [
            "second",
            "slack-growth-user-signed-up",
        ]

    async def test_a_delivery_has_the_trace_in_which_it_was_planned(self) -> None:
        work = FakeWork()
        event, envelope = signed_up()

        with TracerProvider().get_tracer("test").start_as_current_span("consume") as span:
            await planning()(work, event, envelope)

        (stored,) = work.deliveries.stored.values()
        assert stored.planned.traceparent is not None
        assert f"{span.get_span_context().trace_id:032x}" in stored.planned.traceparent


class TestSubscribers:
    def test_one_consumes_sign_ups(self) -> None:
        (subscriber,) = subscribers(planning())

        assert subscriber.name == "notification.plan-deliveries"
        assert subscriber.topic is USERS_USER
        assert set(subscriber.handlers) == {each.event for each in rules(slack_channel="growth")}

    def test_a_rule_for_an_event_of_another_topic_adds_a_subscriber(self) -> None:
        first, second = subscribers(planning(rule_for("second", AccountOpenedV1)))

        assert first.topic is USERS_USER
        assert (second.topic, set(second.handlers)) == (ACCOUNTS_ACCOUNT, {AccountOpenedV1})


class TestNames:
    def test_rules_of_one_name_are_about_versions_of_one_event(self) -> None:
        known = [(each.name, each.event.event_type) for each in rules(slack_channel=str(uuid4()))]

        assert len(known) == len(set(known))
        families = {(name, family_of(type_)) for name, type_ in known}
        assert len(families) == len({name for name, _ in known})
