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

from chassis import relay as relay_module
from chassis.producer import Answer, KafkaAway
from chassis.relay import OutOfStep, Relay
from chassis.settings import ServiceSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Queue:
    """The outbox, as a list."""

    def __init__(self, *waiting: Mapping[str, Any]) -> None:
        self.deleted: list[int] = []
        self.aside: list[tuple[int, str]] = []
        self._waiting = waiting

    async def read(
        self, but_not: Sequence[str], on_their_way: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        return [
            row
            for row in self._waiting
            if row["aggregatetype"] not in but_not
            and row["position"] not in self.deleted
            and row not in on_their_way
        ]

    async def delete(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.deleted += [row["position"] for row in rows]

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
        "created_at": NOW,
    }


async def send_all(
    relay: Relay,
    queue: Queue,
    producer: Producer,
    rows: Sequence[Any],
    done: Sequence[Any] = (),
) -> tuple[list[int], list[int]]:
    """Return the positions of what is acknowledged and is still there, and of what comes next."""
    acknowledged, following = await relay._send_all(queue, producer, rows, done)  # type: ignore[arg-type]  # fakes
    return [row["position"] for row in acknowledged], [row["position"] for row in following]


class TestSendingTogether:
    async def test_what_was_acknowledged_before_is_deleted_and_the_next_is_read_meanwhile(
        self, relay: Relay
    ) -> None:
        rows = [row(number, "a") for number in (1, 2, 3)]
        queue, producer = Queue(*rows), Producer({})

        acknowledged, following = await send_all(relay, queue, producer, rows[1:2], rows[:1])

        assert queue.deleted == [1]
        assert (acknowledged, following) == ([2], [3])

    async def test_nothing_is_left_on_its_way_when_the_database_fails(self, relay: Relay) -> None:
        queue, producer = Queue(), Producer({})

        async def fail(_rows: object) -> None:
            raise ConnectionError

        queue.delete = fail  # type: ignore[method-assign, assignment]
        with pytest.raises(ConnectionError):
            await send_all(relay, queue, producer, [row(2, "a")], [row(1, "a")])

        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_only_what_was_acknowledged_is_deleted(self, relay: Relay) -> None:
        queue, producer = Queue(), Producer({2: KafkaTimeoutError()})

        with pytest.raises(KafkaAway):
            await send_all(relay, queue, producer, [row(1, "a"), row(2, "b"), row(3, "c")])

        assert queue.deleted == [1, 3]

    async def test_what_follows_a_failed_one_of_its_aggregate_is_sent_again_behind_it(
        self, relay: Relay
    ) -> None:
        queue, producer = Queue(), Producer({1: KafkaTimeoutError()})

        with pytest.raises(KafkaAway):
            await send_all(relay, queue, producer, [row(1, "a"), row(2, "a"), row(3, "b")])

        assert queue.deleted == [3]

    async def test_what_was_refused_is_to_be_tried_alone_in_order(self, relay: Relay) -> None:
        errors = {1: MessageSizeTooLargeError(), 3: OutOfOrderSequenceNumber()}

        with pytest.raises(OutOfStep) as raised:
            await send_all(
                relay, Queue(), Producer(errors), [row(1, "a"), row(2, "b"), row(3, "a")]
            )

        assert [each["position"] for each in raised.value.refused] == [1, 3]

    async def test_a_topic_that_is_missing_is_not_sent_to(self, relay: Relay) -> None:
        queue, producer = Queue(), Producer({}, missing=["gone"])

        acknowledged, _ = await send_all(relay, queue, producer, [row(1, "a", "gone"), row(2, "a")])

        assert (producer.sent, acknowledged) == ([2], [2])
        assert relay.trouble() == "starting"

    async def test_a_topic_that_is_forbidden_is_held_back_and_nothing_of_it_set_aside(
        self, relay: Relay
    ) -> None:
        queue, producer = Queue(), Producer({1: TopicAuthorizationFailedError("closed")})

        with pytest.raises(OutOfStep) as raised:
            await send_all(relay, queue, producer, [row(1, "a", "closed"), row(2, "a")])

        assert raised.value.refused == []
        assert queue.deleted == [2]
        await send_all(relay, queue, producer, [row(1, "a", "closed"), row(3, "a")])
        assert producer.sent == [1, 2, 3]


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
        pauses = [relay_module._pause_s(failures) for failures in (0, 1, 2, 10_000)]

        assert pauses == [0.2, 0.4, 0.8, 5.0]
