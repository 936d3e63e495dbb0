"""What each login may do at Kafka: derived from the catalogue, and whatever is not here it may not.

Rights that Kafka implies are left out: who may read or write a topic may describe it, and who may
write to one may open an idempotent producer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from contracts.topics import TOPICS, Topic

VERIFICATION: Final = "verification"
"""The login of the verification, which reads every topic."""


class Resource(IntEnum):
    """What a right is about, by Kafka's number."""

    TOPIC = 2
    GROUP = 3


class Operation(IntEnum):
    """What a right allows, by Kafka's number."""

    READ = 3
    WRITE = 4
    DESCRIBE_CONFIGS = 10


class Pattern(IntEnum):
    """What a right's name stands for, by Kafka's number: itself, or all that begins with it."""

    LITERAL = 3
    PREFIXED = 4


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """A login may do something, from wherever it connects."""

    login: str
    resource: Resource
    name: str
    operation: Operation
    pattern: Pattern = Pattern.LITERAL


def acls_of(topics: Iterable[Topic] = TOPICS) -> Sequence[Acl]:
    """Return all that the logins may do with these topics.

    A service's login and consumer group have its name. A consumer that owns no topic is a team of
    readers, whose groups begin with its name and a dot.
    """
    topics = list(topics)
    services = {each.owner for each in topics}
    return sorted({acl for topic in topics for acl in _acls_of(topic, services)})


def _acls_of(topic: Topic, services: set[str]) -> Iterator[Acl]:
    yield Acl(topic.owner, Resource.TOPIC, topic.name, Operation.WRITE)
    yield Acl(VERIFICATION, Resource.TOPIC, topic.name, Operation.READ)
    for consumer in topic.consumers:
        yield Acl(consumer, Resource.TOPIC, topic.name, Operation.READ)
        if consumer in services:
            # Its workers compare the topic with the catalogue before they read.
            yield Acl(consumer, Resource.TOPIC, topic.name, Operation.DESCRIBE_CONFIGS)
            yield Acl(consumer, Resource.GROUP, consumer, Operation.READ)
        else:
            groups = f"{consumer}."
            yield Acl(consumer, Resource.GROUP, groups, Operation.READ, Pattern.PREFIXED)
