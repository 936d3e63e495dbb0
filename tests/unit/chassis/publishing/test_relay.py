"""What the relay makes of Kafka's answers, given by hand."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from aiokafka.errors import (
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from pydantic import SecretStr

from chassis.publishing import relay as relay_module
from chassis.publishing.outbox_reader import MOST_ROWS
from chassis.publishing.producer import Answer, KafkaAway
from chassis.publishing.relay import Relay, SequenceBroken
from chassis.settings import ServiceSettings
from chassis.testing import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Queue:
    """The outbox, as a list."""

    def __init__(self, *waiting: Mapping[str, Any]) -> None:
        self.deleted: list[int] = []
        self.turns = 0
        self.fails = False
        self.aside: list[tuple[int, str]] = []
        self._waiting = waiting

    async def turn(
        self,
        done: Sequence[Mapping[str, Any]],
        on_their_way: Sequence[Mapping[str, Any]],
        but_not: Sequence[str],
    ) -> Sequence[Mapping[str, Any]]:
        await self.delete(done)
        waiting = [
            row
            for row in self._waiting
            if row["aggregatetype"] not in but_not
            and row["position"] not in self.deleted
            and row not in on_their_way
        ]
        return waiting[:MOST_ROWS]

    async def delete(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.fails:
            raise ConnectionError
        self.turns += 1
        self.deleted += [row["position"] for row in rows]

    async def depth(self) -> int:
        return len(self._waiting) - len(self.deleted)

    async def set_aside(self, row: Mapping[str, Any], code: str, message: str, at: object) -> None:
        self.aside.append((row["position"], code))


class Batch(NamedTuple):
    """Rows that go together."""

    rows: Sequence[Mapping[str, Any]]


class Producer:
    """Answers each row as told."""

    def __init__(self, errors: Mapping[int, BaseException], missing: Sequence[str] = ()) -> None:
        self.sent: list[int] = []
        self.closed = 0
        self._errors = errors
        self._missing = missing

    async def has_topic(self, topic: str) -> bool:
        return topic not in self._missing

    def batches_of(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Batch]:
        return [Batch([row]) for row in rows]

    async def send(self, batches: Sequence[Batch]) -> Sequence[Answer]:
        rows = [row for batch in batches for row in batch.rows]
        self.sent += [row["position"] for row in rows]
        return [(row, self._errors.get(row["position"])) for row in rows]

    async def send_alone(self, row: Mapping[str, Any]) -> BaseException | None:
        return (await self.send([Batch([row])]))[0][1]

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def relay() -> Relay:
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://nowhere"),
        http_port=0,
        idempotency_secret=SecretStr("x" * 32),
    )
    return Relay(settings, service="test", now=lambda: NOW)


def row(position: int, aggregate: str, topic: str = "t") -> dict[str, Any]:
    return {
        "position": position,
        "aggregatetype": topic,
        "aggregateid": aggregate,
        "created_ms": int(NOW.timestamp() * 1_000),
    }


class Stopping:
    """Lets a relay publish until nothing waits any more."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def sleep(self, _seconds: float) -> bool:
        await self._relay.stop()
        return False


async def publish(relay: Relay, queue: Queue, producer: Producer) -> None:
    """Publish what waits in the outbox, and stop."""
    relay._sleep = Stopping(relay).sleep  # type: ignore[method-assign, assignment]
    await relay._publish_with(producer, queue)  # type: ignore[arg-type]  # fakes


class TestPublishing:
    async def test_sends_all_in_order_and_deletes_what_was_acknowledged(self, relay: Relay) -> None:
        queue, producer = Queue(*(row(number, "a") for number in (1, 2, 3))), Producer({})

        await publish(relay, queue, producer)

        assert (producer.sent, queue.deleted) == ([1, 2, 3], [1, 2, 3])

    async def test_goes_through_a_long_backlog_once_and_in_order(self, relay: Relay) -> None:
        positions = list(range(1, 3 * MOST_ROWS + 8))
        queue, producer = Queue(*(row(each, "a") for each in positions)), Producer({})

        await publish(relay, queue, producer)

        assert (producer.sent, queue.deleted) == (positions, positions)

    async def test_reads_on_while_kafka_has_what_was_read(self, relay: Relay) -> None:
        class Slow(Producer):
            async def send(self, batches: Sequence[Batch]) -> Sequence[Answer]:
                await eventually(lambda: asyncio.sleep(0, queue.turns >= 3), every_s=0)
                return await super().send(batches)

        queue, producer = Queue(*(row(n, "a") for n in range(3 * MOST_ROWS))), Slow({})

        await publish(relay, queue, producer)

        assert len(producer.sent) == 3 * MOST_ROWS

    async def test_leaves_nothing_on_its_way_when_the_database_fails(self, relay: Relay) -> None:
        queue = Queue(*(row(number, "a") for number in range(3 * MOST_ROWS)))

        class Slow(Producer):
            async def send(self, batches: Sequence[Batch]) -> Sequence[Answer]:
                queue.fails = True
                await asyncio.sleep(60)
                raise AssertionError

        with pytest.raises(ConnectionError):
            await publish(relay, queue, Slow({}))

        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_deletes_only_what_was_acknowledged(self, relay: Relay) -> None:
        queue = Queue(row(1, "a"), row(2, "b"), row(3, "c"))

        with pytest.raises(KafkaAway):
            await publish(relay, queue, Producer({2: KafkaTimeoutError()}))

        assert queue.deleted == [1, 3]

    async def test_sends_what_follows_a_failed_one_of_its_aggregate_again_behind_it(
        self, relay: Relay
    ) -> None:
        queue = Queue(row(1, "a"), row(2, "a"), row(3, "b"))

        with pytest.raises(KafkaAway):
            await publish(relay, queue, Producer({1: KafkaTimeoutError()}))

        assert queue.deleted == [3]

    async def test_sends_nothing_of_what_was_read_ahead_once_a_row_has_failed(
        self, relay: Relay
    ) -> None:
        queue = Queue(*(row(number, "a") for number in range(3 * MOST_ROWS)))
        producer = Producer({MOST_ROWS - 1: KafkaTimeoutError()})

        with pytest.raises(KafkaAway):
            await publish(relay, queue, producer)

        assert producer.sent == list(range(MOST_ROWS))
        assert queue.deleted == list(range(MOST_ROWS - 1))

    async def test_sends_again_from_the_first_that_could_not_go(self, relay: Relay) -> None:
        class OneAtFirst(Producer):
            def batches_of(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[Batch]:
                return super().batches_of(rows if self.sent else rows[:1])

        positions = list(range(2 * MOST_ROWS))
        queue, producer = Queue(*(row(each, "a") for each in positions)), OneAtFirst({})

        await publish(relay, queue, producer)

        assert (producer.sent, queue.deleted) == (positions, positions)

    async def test_tries_what_was_refused_alone_and_in_order(self, relay: Relay) -> None:
        errors = {1: MessageSizeTooLargeError(), 3: OutOfOrderSequenceNumber()}

        with pytest.raises(SequenceBroken) as raised:
            await publish(relay, Queue(row(1, "a"), row(2, "b"), row(3, "a")), Producer(errors))

        assert [each["position"] for each in raised.value.refused] == [1, 3]

    async def test_sends_nothing_to_a_topic_that_is_missing(self, relay: Relay) -> None:
        queue, producer = Queue(row(1, "a", "gone"), row(2, "a")), Producer({}, missing=["gone"])

        await publish(relay, queue, producer)

        assert (producer.sent, queue.deleted) == ([2], [2])
        assert relay.trouble() == "starting"

    async def test_holds_back_a_topic_that_is_forbidden_and_sets_nothing_of_it_aside(
        self, relay: Relay
    ) -> None:
        queue = Queue(row(1, "a", "closed"), row(2, "a"))
        producer = Producer({1: TopicAuthorizationFailedError("closed")})

        with pytest.raises(SequenceBroken) as raised:
            await publish(relay, queue, producer)

        assert raised.value.refused == []
        assert queue.deleted == [2]
        await publish(relay, queue, producer)
        assert producer.sent == [1, 2]


class TestSendingAlone:
    @pytest.fixture
    def producers(self, monkeypatch: pytest.MonkeyPatch) -> list[Producer]:
        opened: list[Producer] = []
        errors: dict[int, BaseException] = {
            2: MessageSizeTooLargeError(),
            9: TopicAuthorizationFailedError("closed"),
        }

        class Opens:
            @staticmethod
            async def open(_settings: object) -> Producer:
                opened.append(Producer(errors))
                return opened[-1]

        monkeypatch.setattr(relay_module, "RowProducer", Opens)
        return opened

    async def test_sets_aside_what_is_refused_again_and_leaves_what_is_behind_it(
        self, relay: Relay, producers: list[Producer]
    ) -> None:
        queue = Queue()
        rows = [row(1, "a"), row(2, "a"), row(3, "b"), row(4, "a")]

        await relay._send_each_alone(queue, rows)  # type: ignore[arg-type]  # a fake

        assert queue.aside == [(2, "MessageSizeTooLargeError")]
        assert queue.deleted == [1, 3]
        # After a refusal comes a fresh one; none is left open.
        assert [(each.sent, each.closed) for each in producers] == [([1, 2], 1), ([3], 1)]

    async def test_sets_nothing_aside_of_a_topic_that_is_forbidden(
        self, relay: Relay, producers: list[Producer]
    ) -> None:
        queue = Queue()
        rows = [row(9, "a", "closed"), row(10, "b", "closed"), row(11, "a")]

        await relay._send_each_alone(queue, rows)  # type: ignore[arg-type]  # a fake

        assert queue.aside == []
        assert queue.deleted == [11]


class TestPausing:
    def test_grows_to_a_bound_however_often_it_failed(self) -> None:
        pauses = [relay_module._BACKOFF.pause_s(failures) for failures in (0, 1, 2, 10_000)]

        assert pauses == [0.2, 0.4, 0.8, 5.0]
