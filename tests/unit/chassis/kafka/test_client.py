"""aiokafka lets out the cancellations of its own futures; they end nobody who only asked."""

import asyncio
from contextlib import suppress

import pytest
from aiokafka.errors import KafkaConnectionError

from chassis.kafka.client import translate_foreign_cancellation


async def of_its_own() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class TestACancellation:
    async def test_that_the_client_lets_out_is_a_lost_connection(self) -> None:
        with pytest.raises(KafkaConnectionError), translate_foreign_cancellation():
            await of_its_own()

    async def test_of_the_task_itself_goes_through(self) -> None:
        async def wait() -> None:
            with translate_foreign_cancellation():
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

        assert task.cancelled()

    async def test_by_a_time_out_stays_a_time_out(self) -> None:
        with pytest.raises(TimeoutError), translate_foreign_cancellation():
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
