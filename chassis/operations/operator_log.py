"""What operators did and read: an integration event in the transaction of each act."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from aiokafka import TopicPartition
from sqlalchemy import ARRAY, Uuid, bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from chassis.persistence.database import Connection
from chassis.persistence.outbox import Outbox
from chassis.persistence.tables import operated
from contracts.operations import DataReadV1, OperatorAct
from contracts.topics import Topic

#: Names the subscribers' subjects (RFC 9562, section 5.5).
_SUBSCRIBERS: Final = UUID("6f1d9c1e-2a4b-5c3d-8e7f-9a0b1c2d3e4f")
_PARTITIONS: Final = UUID("b3d1f0c2-6e4a-5f8b-9c7d-1e2f3a4b5c6d")

_subjects = bindparam("subjects", type_=ARRAY(Uuid))
_FIRST: Final = insert(operated).from_select(
    ["subject", "last_sequence"], select(func.unnest(_subjects), literal(1))
)
_COUNT: Final = _FIRST.on_conflict_do_update(
    index_elements=[operated.c.subject], set_={"last_sequence": operated.c.last_sequence + 1}
).returning(operated.c.subject, operated.c.last_sequence)


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and why."""

    by: str
    why: str


class OperatorLog:
    """Publishes what operators did and read in one service, through its outbox."""

    def __init__(self, service: str, topic: Topic, now: Callable[[], datetime]) -> None:
        self._source = f"/{service}"
        self._topic = topic
        self._now = now

    async def record(
        self, connection: Connection, acts: Mapping[UUID, OperatorAct | DataReadV1]
    ) -> None:
        """Write one event about each of these subjects to the outbox, in the open transaction."""
        if not acts:
            return
        # In one order everywhere, so that two operators never wait for each other.
        counted = await connection.execute(_COUNT, {"subjects": sorted(acts)})
        outbox = Outbox(self._source, self._now)
        for subject, sequence in counted:
            outbox.append(
                acts[subject],
                topic=self._topic,
                subject=subject,
                sequence=sequence,
                occurred_at=self._now(),
            )
        await outbox.flush(connection)


def subject_of_partition(partition: TopicPartition) -> UUID:
    """Return the subject of all acts on a partition that a consumer can't read on."""
    return uuid5(_PARTITIONS, f"{partition.topic}/{partition.partition}")


def subject_of_subscriber(subscriber: str, topic: str) -> UUID:
    """Return the subject of all acts on a subscriber."""
    return uuid5(_SUBSCRIBERS, f"{subscriber}/{topic}")
