"""A login may do what the catalogue says of its service, and nothing else."""

import dataclasses

import pytest

from contracts.acls import VERIFICATION, Acl, Operation, Pattern, Resource, acls_of
from contracts.topics import TOPICS, USERS_USER, Topic

every_topic = pytest.mark.parametrize("topic", TOPICS, ids=lambda each: each.name)


def logins(topic: Topic, operation: Operation) -> list[str]:
    """Who may do this with a topic."""
    wanted = (Resource.TOPIC, topic.name, operation)
    return [
        each.login for each in acls_of() if (each.resource, each.name, each.operation) == wanted
    ]


@every_topic
def test_a_topic_is_written_by_its_owner_alone(topic: Topic) -> None:
    assert logins(topic, Operation.WRITE) == [topic.owner]


@every_topic
def test_a_topic_is_read_by_its_consumers_and_the_verification_alone(topic: Topic) -> None:
    assert logins(topic, Operation.READ) == sorted({*topic.consumers, VERIFICATION})
    assert logins(topic, Operation.DESCRIBE_CONFIGS) == sorted(topic.consumers)


def test_a_service_joins_its_own_group_alone() -> None:
    groups = {each for each in acls_of() if each.resource is Resource.GROUP}

    readers = {consumer for topic in TOPICS for consumer in topic.consumers}
    assert groups == {Acl(each, Resource.GROUP, each, Operation.READ) for each in readers}


def test_only_topics_of_the_catalogue_and_groups_are_named_and_each_as_itself() -> None:
    topics = {each.name for each in acls_of() if each.resource is Resource.TOPIC}

    assert topics == {topic.name for topic in TOPICS}
    assert {each.pattern for each in acls_of()} == {Pattern.LITERAL}


def test_a_team_that_reads_has_the_groups_that_begin_with_its_name_and_may_no_more() -> None:
    read = dataclasses.replace(USERS_USER, consumers=(*USERS_USER.consumers, "growth"))

    assert [each for each in acls_of([read, *TOPICS[1:]]) if each.login == "growth"] == [
        Acl("growth", Resource.TOPIC, read.name, Operation.READ),
        Acl("growth", Resource.GROUP, "growth.", Operation.READ, Pattern.PREFIXED),
    ]


def test_what_the_logins_may_do_is_the_same_whatever_the_order_of_the_catalogue() -> None:
    assert acls_of(reversed(TOPICS)) == acls_of()
