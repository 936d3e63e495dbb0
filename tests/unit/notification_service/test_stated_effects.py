"""The effects that the verification states of this service are those that it has."""

from datetime import UTC, datetime

from chassis.correlation import new_id
from contracts.events import family_of
from notification_service.agents import subscribers
from notification_service.rules import PlanDeliveries, rules
from notification_service.slack_stand_in import messages
from verification import effects


def now() -> datetime:
    return datetime.now(UTC)


def test_the_rules_of_deliveries() -> None:
    # A rule may be about several versions of its event.
    stated = {rule: family_of(type_) for rule, type_ in effects.DELIVERY_RULES.items()}

    assert {
        rule.name: family_of(rule.event.event_type) for rule in rules(slack_channel="growth")
    } == stated


def test_who_plans_deliveries() -> None:
    plan = PlanDeliveries(rules(slack_channel="growth"), new_id, now)

    assert {each.name for each in subscribers(plan)} == {effects.PLANS_DELIVERIES}


def test_how_many_messages_the_stand_in_keeps() -> None:
    assert messages._MOST_KEPT == effects.MAX_STAND_IN_MESSAGES
