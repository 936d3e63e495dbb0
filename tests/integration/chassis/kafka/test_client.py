"""A client of Kafka works again after a restart of the broker, and leaves no connection open."""

import asyncio
import gc
import warnings

import psutil
import pytest
from aiokafka.errors import KafkaError

from chassis.kafka.client import LastingAdminClient, admin_client
from chassis.kafka.topics import topic_states
from chassis.persistence.database import Database
from chassis.settings import KafkaSettings
from chassis.testing import eventually
from local_cluster.testing import RunningInfrastructure
from tests.integration.chassis.path import (
    create_topic,
    one_consuming,
    topic_of_its_own,
)


def connections_to(kafka: str) -> int:
    """Return how many connections this process has to the broker."""
    port = int(kafka.rpartition(":")[2])
    opened = psutil.Process().net_connections("tcp")
    return sum(each.raddr.port == port for each in opened if each.status == psutil.CONN_ESTABLISHED)


class TestAnAdminClient:
    async def test_cancelled_at_any_step_of_its_start_leaves_no_connection_open(
        self, kafka: str
    ) -> None:
        async def connect() -> None:
            async with admin_client(kafka):
                pass

        with warnings.catch_warnings(record=True) as left_open:
            warnings.simplefilter("always", ResourceWarning)
            for steps in range(1, 30):
                connecting = asyncio.create_task(connect())
                for _ in range(steps):
                    await asyncio.sleep(0.0005)
                connecting.cancel()
                await asyncio.wait([connecting])
            gc.collect()

        assert [str(each.message) for each in left_open] == []
        assert connections_to(kafka) == 0


class TestALastingAdminClient:
    async def test_works_again_after_the_broker_was_restarted(
        self, own_kafka: RunningInfrastructure
    ) -> None:
        kafka, topic = own_kafka.kafka_bootstrap, topic_of_its_own()
        await create_topic(kafka, topic)
        admin = LastingAdminClient(KafkaSettings(kafka_bootstrap=kafka))

        async def topic_is_found() -> bool:
            states = await admin.ask(lambda client: topic_states(client, [topic.name]))
            return states[topic.name] is not None

        async def topic_is_found_again() -> bool:
            try:
                return await topic_is_found()
            except (KafkaError, OSError):
                return False

        assert await topic_is_found()
        await asyncio.to_thread(own_kafka.stop, "kafka")
        try:
            with pytest.raises((KafkaError, OSError)):
                await topic_is_found()
        finally:
            await asyncio.to_thread(own_kafka.resume, "kafka")

        await eventually(topic_is_found_again, within_s=60)
        await admin.close()
        assert connections_to(kafka) == 0


class TestAWorker:
    async def test_that_stops_leaves_no_connection_open(
        self, database: str, kafka: str, engine: Database
    ) -> None:
        topic = topic_of_its_own()
        await create_topic(kafka, topic)

        async with one_consuming(database, kafka, engine, topic) as running:

            async def works() -> bool:
                return running.worker.trouble() is None

            await eventually(works, within_s=60)
            assert connections_to(kafka) > 0

        assert connections_to(kafka) == 0
