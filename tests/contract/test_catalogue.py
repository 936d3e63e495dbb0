"""The catalogue keeps the rules that readers and operators count on."""

import re

import pytest

from contracts import topics
from contracts.envelope import decode
from contracts.events import EventWithheld, IntegrationEvent
from contracts.example_events import EXAMPLES
from contracts.json_schemas import Json, json_schemas
from contracts.topics import EVENTS, TOPICS, Topic
from contracts.users import UserSignedUpV1
from services import WITH_DATABASE

SERVICES = {service.name for service in WITH_DATABASE}

every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
every_event = pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.event_type)


def unbounded(schema: Json, place: str) -> list[str]:
    """Where text or a list in ``schema`` may grow without end."""
    bounds = {"string": {"maxLength", "format", "const", "enum", "pattern"}, "array": {"maxItems"}}
    kinds = bounds.get(str(schema.get("type")), set())
    # A pattern bounds only what ends without a star or a plus.
    fixed = not re.search(r"[*+]\)?\$?$", schema.get("pattern", "")) or "maxLength" in schema
    found = [] if not kinds or (kinds & schema.keys() and fixed) else [place]
    parts = {
        **schema.get("properties", {}),
        **schema.get("$defs", {}),
        **{str(i): part for i, part in enumerate(schema.get("anyOf", []))},
        **({"[]": schema["items"]} if "items" in schema else {}),
    }
    return found + [
        line for name, part in parts.items() for line in unbounded(part, f"{place}.{name}")
    ]


class TestTopics:
    @every_topic
    def test_audit_reads_it(self, topic: Topic) -> None:
        assert "audit" in topic.consumers

    @every_topic
    def test_owner_and_consumers_are_services_in_order(self, topic: Topic) -> None:
        assert {topic.owner, *topic.consumers} <= SERVICES
        assert list(topic.consumers) == sorted(set(topic.consumers))

    @every_topic
    def test_it_and_its_events_are_named_after_its_owner(self, topic: Topic) -> None:
        assert re.fullmatch(rf"{topic.owner}\.[a-z]+(-[a-z]+)*", topic.name)
        # Every service has the same events of operators.
        prefix = "operations" if topic.name.endswith(".operations") else topic.owner
        assert all(event.event_type.startswith(f"{prefix}.") for event in topic.events)

    @every_topic
    def test_an_event_of_it_can_be_withheld(self, topic: Topic) -> None:
        withheld = [event for event in topic.events if issubclass(event, EventWithheld)]

        family = topic.events[0].event_type.split(".")[0]
        assert [event.event_type for event in withheld] == [f"{family}.event-withheld.v1"]

    @every_topic
    def test_a_field_of_data_that_is_named_as_its_key_has_the_subject(self, topic: Topic) -> None:
        for event in topic.events:
            if topic.subject_field in event.model_fields:
                envelope = decode(EXAMPLES[event.event_type].payload)
                assert envelope.data[topic.subject_field] == envelope.subject

    def test_who_signed_up_is_in_such_a_field(self) -> None:
        assert topics.USERS_USER.subject_field in UserSignedUpV1.model_fields

    @pytest.mark.parametrize("owner", sorted(SERVICES))
    def test_each_service_has_a_topic_for_the_acts_of_operators(self, owner: str) -> None:
        assert f"{owner}.operations" in {topic.name for topic in TOPICS if topic.owner == owner}

    @every_topic
    def test_it_survives_the_loss_of_one_replica(self, topic: Topic) -> None:
        assert topic.replication_factor > topic.min_insync_replicas > 1

    def test_every_topic_of_the_module_is_catalogued(self) -> None:
        named = [value for value in vars(topics).values() if isinstance(value, Topic)]

        assert named == list(TOPICS)

    def test_a_name_is_one_topic(self) -> None:
        assert len({topic.name for topic in TOPICS}) == len(TOPICS)


class TestEvents:
    @every_event
    def test_its_type_is_a_service_a_fact_and_the_version_of_its_model(
        self, event: type[IntegrationEvent]
    ) -> None:
        name = re.fullmatch(r"([a-z]+)\.([a-z]+(?:-[a-z]+)*)\.v([1-9][0-9]*)", event.event_type)

        assert name
        assert event.__name__.lower().endswith(f"{name[2].replace('-', '')}v{name[3]}")

    @every_event
    def test_it_has_an_example(self, event: type[IntegrationEvent]) -> None:
        assert dict(EXAMPLES[event.event_type].headers)["type"].decode() == event.event_type

    def test_a_type_is_one_model(self) -> None:
        models = {event for topic in TOPICS for event in topic.events}

        assert len(EVENTS) == len(models)

    @pytest.mark.parametrize("name", json_schemas())
    def test_its_text_and_lists_are_bounded(self, name: str) -> None:
        assert unbounded(json_schemas()[name], name) == []
