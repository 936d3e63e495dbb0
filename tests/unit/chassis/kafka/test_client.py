"""A client of Kafka leaves no connection open, whenever its start fails or is cancelled."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from chassis.kafka import client as client_module
from chassis.kafka import partitions as partitions_module
from chassis.kafka.client import (
    LastingAdminClient,
    admin_client,
    complete,
    translate_foreign_cancellation,
)
from chassis.kafka.partitions import partition_bounds
from chassis.publishing import producer as producer_module
from chassis.publishing.producer import KafkaAway, RowProducer
from chassis.settings import KafkaSettings
from tests.unit.chassis.conftest import settings, until
from tests.unit.chassis.kafka.fake_broker import (
    METADATA,
    VERSIONS,
    FakeBroker,
    fake_broker,
)

REQUEST_TIMEOUT_S = 0.3
UNANSWERED = (KafkaError, KafkaAway, OSError)

Open = Callable[[str], Awaitable[object]]


async def open_admin_client(address: str) -> None:
    async with admin_client(address):
        await asyncio.Event().wait()


async def ask_for_bounds(address: str) -> None:
    await partition_bounds(KafkaSettings(kafka_bootstrap=address), [TopicPartition("t", 0)])


async def open_producer(address: str) -> None:
    await RowProducer.open(settings(kafka_bootstrap=address))


ANSWERED = [(), (VERSIONS,), (VERSIONS, METADATA)]
STARTS = [
    pytest.param(open_client, answers, id=f"{open_client.__name__}-{len(answers)}")
    for open_client in (open_admin_client, ask_for_bounds, open_producer)
    for answers in ANSWERED
]


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_REQUEST_TIMEOUT_MS", int(REQUEST_TIMEOUT_S * 1_000))
    monkeypatch.setattr(partitions_module, "_BOUNDS_TIMEOUT_S", REQUEST_TIMEOUT_S)
    monkeypatch.setattr(producer_module, "_REQUEST_TIMEOUT_S", REQUEST_TIMEOUT_S)


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    yield
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def cancel(task: "asyncio.Future[Any]", *, times: int = 1) -> None:
    """Cancel a task so many times, each in an iteration of its own, and wait for its end."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)
    await asyncio.wait([task], timeout=30)


def is_connected(broker: FakeBroker) -> bool:
    return bool(broker.unanswered) or broker.received == [VERSIONS, METADATA]


class TestAStart:
    @pytest.mark.parametrize(("open_client", "answers"), STARTS)
    @pytest.mark.parametrize("times", [1, 2])
    async def test_that_is_cancelled_leaves_no_connection_open(
        self, open_client: Open, answers: tuple[int, ...], times: int
    ) -> None:
        async with fake_broker(*answers) as broker:
            opening = asyncio.ensure_future(open_client(broker.address))
            await until(lambda: is_connected(broker))

            await cancel(opening, times=times)

            assert opening.cancelled()
            await until(lambda: broker.connections == 0)

    @pytest.mark.parametrize(
        ("open_client", "answers"), [each for each in STARTS if each.id != "open_admin_client-2"]
    )
    async def test_that_is_not_answered_raises_and_leaves_no_connection_open(
        self, open_client: Open, answers: tuple[int, ...]
    ) -> None:
        async with fake_broker(*answers) as broker:
            with pytest.raises(UNANSWERED):
                async with asyncio.timeout(10 * REQUEST_TIMEOUT_S):
                    await open_client(broker.address)

            await until(lambda: broker.connections == 0)

    async def test_goes_on_to_the_next_broker_when_one_does_not_answer(self) -> None:
        async with fake_broker() as silent, fake_broker(VERSIONS, METADATA) as answering:
            async with admin_client(f"{silent.address},{answering.address}"):
                assert answering.received == [VERSIONS, METADATA]

            await until(lambda: silent.connections == answering.connections == 0)

    async def test_that_is_cancelled_waits_for_every_broker_and_leaves_no_connection_open(
        self,
    ) -> None:
        async with fake_broker(VERSIONS) as one, fake_broker(VERSIONS) as other:
            opening = asyncio.ensure_future(open_admin_client(f"{one.address},{other.address}"))
            await until(lambda: one.unanswered > 0)

            await cancel(opening)

            assert opening.cancelled()
            await until(lambda: one.connections == other.connections == 0)


class TestCompletingWork:
    async def test_returns_its_result(self) -> None:
        assert await complete(asyncio.sleep(0, "done")) == "done"

    async def test_is_not_cut_short_by_a_cancellation(self) -> None:
        finish, finished = asyncio.Event(), False

        async def work() -> None:
            nonlocal finished
            await finish.wait()
            finished = True

        completing = asyncio.ensure_future(complete(work()))
        for _ in range(2):
            await asyncio.sleep(0)
            completing.cancel()
        await asyncio.sleep(0)
        finish.set()
        await asyncio.wait([completing])

        assert completing.cancelled()
        assert finished


class TestALastingAdminClient:
    @pytest.fixture
    async def broker(self) -> AsyncIterator[FakeBroker]:
        async with fake_broker(VERSIONS, METADATA) as broker:
            yield broker

    @pytest.fixture
    async def admin(self, broker: FakeBroker) -> AsyncIterator[LastingAdminClient]:
        admin = LastingAdminClient(KafkaSettings(kafka_bootstrap=broker.address))
        yield admin
        await admin.close()
        await until(lambda: broker.connections == 0)

    async def test_is_opened_once_for_many_requests(
        self, broker: FakeBroker, admin: LastingAdminClient
    ) -> None:
        for _ in range(3):
            await admin.ask(lambda client: client.describe_cluster())

        # One connection of the bootstrap, and one to the broker that the metadata names.
        assert broker.received.count(VERSIONS) == 2

    async def test_is_opened_again_after_a_request_that_failed(
        self, broker: FakeBroker, admin: LastingAdminClient
    ) -> None:
        first = await admin.ask(the_client)

        with pytest.raises(KafkaConnectionError):
            await admin.ask(fail)

        await until(lambda: broker.connections == 0)
        assert await admin.ask(the_client) is not first

    async def test_is_opened_again_after_a_request_that_was_cancelled(
        self, broker: FakeBroker, admin: LastingAdminClient
    ) -> None:
        first = await admin.ask(the_client)
        broker.answers = frozenset({VERSIONS})
        asking = asyncio.create_task(admin.ask(lambda client: client.describe_cluster()))
        await until(lambda: broker.unanswered > 0)

        await cancel(asking)

        assert asking.cancelled()
        await until(lambda: broker.connections == 0)
        broker.answers = frozenset({VERSIONS, METADATA})
        assert await admin.ask(the_client) is not first

    async def test_finds_brokers_that_have_all_moved(
        self, broker: FakeBroker, admin: LastingAdminClient
    ) -> None:
        async with fake_broker(VERSIONS, METADATA) as moved:
            broker.advertised_port = moved.port
            await admin.ask(lambda client: client.describe_cluster())
            moved.stop()
            broker.advertised_port = broker.port

            with pytest.raises(UNANSWERED):
                await admin.ask(lambda client: client.describe_cluster())

            await admin.ask(lambda client: client.describe_cluster())

    async def test_carries_out_one_request_at_a_time(self, admin: LastingAdminClient) -> None:
        running = most = 0

        async def request(_client: AIOKafkaAdminClient) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        await asyncio.gather(*(admin.ask(request) for _ in range(5)))

        assert most == 1


async def the_client(client: AIOKafkaAdminClient) -> AIOKafkaAdminClient:
    return client


async def fail(_client: AIOKafkaAdminClient) -> None:
    raise KafkaConnectionError("broken")


async def cancel_a_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class TestACancellation:
    async def test_of_a_future_of_the_client_is_a_lost_connection(self) -> None:
        with pytest.raises(KafkaConnectionError), translate_foreign_cancellation():
            await cancel_a_future()

    async def test_of_the_task_itself_stays_a_cancellation(self) -> None:
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
