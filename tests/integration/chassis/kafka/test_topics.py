"""A client of Kafka leaves nothing behind, whenever it is given up."""

import asyncio
import gc
import warnings

from chassis.kafka.client import admin_client


async def test_an_admin_client_given_up_while_it_connects_leaves_no_connection_open(
    kafka: str,
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
