"""How a producer is closed when its broker does not answer any more."""

import asyncio

import pytest

from chassis.publishing.producer import RowProducer
from tests.unit.chassis.conftest import settings, until
from tests.unit.chassis.kafka.fake_broker import (
    INIT_PRODUCER_ID,
    METADATA,
    VERSIONS,
    fake_broker,
)

# More than the socket's buffers take.
MUCH = 64 * 1_048_576


async def test_a_frozen_broker_does_not_delay_the_close_and_gets_no_more_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fake_broker(VERSIONS, METADATA, INIT_PRODUCER_ID) as broker:
        producer = await RowProducer.open(settings(kafka_bootstrap=broker.address))
        aiokafka_producer = producer._producer
        [connection] = aiokafka_producer.client._conns.values()
        await until(lambda: broker.connections == 1)
        broker.freeze()
        connection._writer.write(b"\x7f" + bytes(MUCH))

        async def wait_for_the_broker() -> None:
            aiokafka_producer._closed = True
            await asyncio.Event().wait()

        monkeypatch.setattr(aiokafka_producer, "stop", wait_for_the_broker)

        async with asyncio.timeout(30):
            await producer.close()

        broker.resume()
        await until(lambda: broker.connections == 0)
        assert broker.received_bytes < MUCH
