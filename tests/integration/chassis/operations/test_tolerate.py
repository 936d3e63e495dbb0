"""An operator accepts bytes on a topic that are no event, on PostgreSQL and Kafka."""

import hashlib
from uuid import uuid4

import orjson
import pytest

from chassis.operations.context import ServiceRuntime
from chassis.operations.stopped_consumers import NotConsumed, OneRecord
from chassis.operations.tolerate import NoSuchRecord, RecordIsAnEvent, tolerate
from chassis.persistence.database import Database
from chassis.settings import ServiceSettings
from contracts.envelope import EncodedEvent
from contracts.topics import Topic
from tests.integration.chassis.path import (
    PathWork,
    create_topic,
    publish,
    rows,
    settings_for,
    signed_up,
    subscriber,
    topic_of_its_own,
)

from .operating import BY_ADA, runtime_of, service_of

GARBAGE = b"not an event"


@pytest.fixture
async def topic(kafka: str) -> Topic:
    """A topic with an event at 0 and with bytes that are none at 1."""
    topic = topic_of_its_own(1)
    await create_topic(kafka, topic)
    await publish(kafka, topic, [signed_up(uuid4(), 1), EncodedEvent(b"k", GARBAGE, [])])
    return topic


@pytest.fixture
def runtime(
    database: str, engine: Database, kafka: str, topic: Topic
) -> ServiceRuntime[ServiceSettings, PathWork]:
    service = service_of(topic, [subscriber("test.one", topic)])
    return runtime_of(service, settings_for(database, kafka), engine)


def record_at(topic: str, offset: int) -> OneRecord:
    return OneRecord(topic=topic, partition=0, offset=offset)


class TestARecordThatIsNoEvent:
    async def test_is_accepted_with_its_bytes_and_the_act_is_published(
        self, database: str, runtime: ServiceRuntime[ServiceSettings, PathWork], topic: Topic
    ) -> None:
        accepted = await tolerate(runtime, record_at(topic.name, 1), BY_ADA)

        [row] = await rows(database, "SELECT type, payload FROM outbox")
        assert row["type"] == "operations.record-tolerated.v1"
        sha256 = hashlib.sha256(GARBAGE).hexdigest()
        assert accepted.value_sha256 == sha256
        assert orjson.loads(row["payload"])["data"] == {
            "by": BY_ADA.by,
            "why": BY_ADA.why,
            "topic": topic.name,
            "partition": 0,
            "offset": 1,
            "value_sha256": sha256,
        }


class TestWhatHasNothingToAccept:
    async def test_is_refused(
        self, database: str, runtime: ServiceRuntime[ServiceSettings, PathWork], topic: Topic
    ) -> None:
        with pytest.raises(RecordIsAnEvent):
            await tolerate(runtime, record_at(topic.name, 0), BY_ADA)
        with pytest.raises(NoSuchRecord):
            await tolerate(runtime, record_at(topic.name, 2), BY_ADA)
        with pytest.raises(NotConsumed):
            await tolerate(runtime, record_at("another.topic", 0), BY_ADA)

        assert await rows(database, "SELECT FROM outbox") == []
