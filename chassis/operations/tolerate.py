"""An operator accepts that a record is no event: the verification then counts it as explained."""

import hashlib
from typing import Annotated, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from pydantic import BaseModel, Field

from chassis.consuming.records import Record, identity_of, open_record
from chassis.domain import DomainError, Kind
from chassis.kafka.partitions import ask_as_consumer
from chassis.kafka.raw_fetch import raw_fetch
from chassis.operations import terminal
from chassis.operations.acts import Act, Command, Route
from chassis.operations.context import AnyRuntime
from chassis.operations.offsets import asking_kafka
from chassis.operations.operator_log import Operator, subject_of_partition
from chassis.operations.stopped_consumers import NotConsumed, OneRecord
from chassis.settings import KafkaSettings
from contracts.envelope import InvalidEnvelope
from contracts.operations import RecordToleratedV1

_FETCH_BYTES: Final = 1 << 20


class NoSuchRecord(DomainError):
    kind, code = Kind.NOT_FOUND, "no-such-record"


class RecordIsAnEvent(DomainError):
    kind, code = Kind.CONFLICT, "record-is-an-event"


class ToleratedBody(BaseModel):
    """Which bytes are accepted there; others at this place are not."""

    value_sha256: Annotated[str, Field(description="Of the value, in hexadecimal digits.")]


async def tolerate(runtime: AnyRuntime, one: OneRecord, operator: Operator) -> ToleratedBody:
    """Accept that a record is no event.

    :raises NotConsumed: the service does not read the topic
    :raises NoSuchRecord: the partition has none at this offset
    :raises RecordIsAnEvent: it is one, so nothing has to be accepted
    :raises KafkaIsAway: Kafka does not answer
    """
    if one.topic not in {each.topic.name for each in runtime.subscribers}:
        raise NotConsumed(one.topic)
    tp = TopicPartition(one.topic, one.partition)
    with asking_kafka("the record can't be looked at"):
        record = await _record_at(runtime.settings, tp, one.offset)
    if _is_event(record):
        raise RecordIsAnEvent(f"{_name(tp)}@{one.offset} is an event")
    sha256 = hashlib.sha256(record.value or b"").hexdigest()
    act = RecordToleratedV1(
        by=operator.by,
        why=operator.why,
        topic=tp.topic,
        partition=tp.partition,
        offset=one.offset,
        value_sha256=sha256,
    )
    async with runtime.act() as connection:
        await runtime.operator_log.record(connection, {subject_of_partition(tp): act})
    return ToleratedBody(value_sha256=sha256)


async def _record_at(settings: KafkaSettings, tp: TopicPartition, offset: int) -> Record:
    async def ask(consumer: AIOKafkaConsumer) -> Record | None:
        begins = await consumer.beginning_offsets([tp])  # the consumer learns the leader by that
        ends = await consumer.end_offsets([tp])
        if not begins[tp] <= offset < ends[tp]:
            return None
        client = consumer._client  # noqa: SLF001 - aiokafka offers no raw fetch
        try:
            fetched = await raw_fetch(client, tp, offset, max_bytes=_FETCH_BYTES)
        except OffsetOutOfRangeError:
            return None
        return next((each for each in fetched.records if each.offset == offset), None)

    found = await ask_as_consumer(settings, ask)
    if found is None:
        raise NoSuchRecord(f"{_name(tp)} has no record at offset {offset} that can be read")
    return found


def _is_event(record: Record) -> bool:
    try:
        open_record(record, identity_of(record))
    except InvalidEnvelope:
        return False
    return True


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}[{tp.partition}]"


TOLERATE: Final = Act(
    summary="Accept that a record is no event",
    description="For bytes that no subscriber parked: the verification counts them as explained."
    " Other bytes at the same place are not accepted by this.",
    input=OneRecord,
    output=ToleratedBody,
    run=tolerate,
    route=Route("POST", "/progress/tolerate", "post_tolerate"),
    command=Command(
        name="tolerate", show=terminal.fields, arguments=("topic", "partition", "offset")
    ),
)
