"""What the relay does with Kafka's results, over a fake outbox and a fake producer."""

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
from chassis.publishing.producer import KafkaAway, SendResult
from chassis.publishing.relay import Relay, SequenceBroken
from chassis.settings import ServiceSettings
from chassis.testing import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeOutbox:
    """The outbox, as a list."""

    def __init__(self, *waiting: Mapping[str, Any]) -> None:
        self.deleted: list[int] = []
        self.calls = 0
        self.fails = False
        self.set_aside_rows: list[tuple[int, str]] = []
        self._waiting = waiting

    async def delete_and_fetch(
        self,
        acknowledged: Sequence[Mapping[str, Any]],
        *,
        in_flight: Sequence[Mapping[str, Any]],
        suspended: Sequence[str],
    ) -> Sequence[Mapping[str, Any]]:
        await self.delete(acknowledged)
        waiting = [
            row
            for row in self._waiting
            if row["aggregatetype"] not in suspended
            and row["position"] not in self.deleted
            and row not in in_flight
        ]
        return waiting[:MOST_ROWS]

    async def delete(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.fails:
            raise ConnectionError
        self.calls += 1
        self.deleted += [row["position"] for row in rows]

    async def depth(self) -> int:
        return len(self._waiting) - len(self.deleted)

    async def set_aside_waiting(self) -> int:
        return 0

    async def set_aside(self, row: Mapping[str, Any], code: str, message: str, at: object) -> None:
        self.set_aside_rows.append((row["position"], code))


class FakeBatch(NamedTuple):
    """Rows that are sent together."""

    rows: Sequence[Mapping[str, Any]]


class FakeProducer:
    """Acknowledges each row but those that it has an error for."""

    def __init__(self, errors: Mapping[int, BaseException], missing: Sequence[str] = ()) -> None:
        self.sent: list[int] = []
        self.closed = 0
        self._errors = errors
        self._missing = missing

    async def has_topic(self, topic: str) -> bool:
        return topic not in self._missing

    def is_hidden(self, topic: str) -> bool:
        return topic == "hidden"

    def batches_of(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[FakeBatch]:
        return [FakeBatch([row]) for row in rows]

    async def send(self, batches: Sequence[FakeBatch]) -> Sequence[SendResult]:
        rows = [row for batch in batches for row in batch.rows]
        self.sent += [row["position"] for row in rows]
        return [(row, self._errors.get(row["position"])) for row in rows]

    async def send_alone(self, row: Mapping[str, Any]) -> BaseException | None:
        return (await self.send([FakeBatch([row])]))[0][1]

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


class StopsWhenIdle:
    """Stops a relay as soon as it waits for a commit."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def wait_for_commit(self, _seconds: float) -> bool:
        await self._relay.stop()
        return False


async def publish(relay: Relay, outbox: FakeOutbox, producer: FakeProducer) -> None:
    """Publish what the outbox has, and stop."""
    relay._wait_for_commit = StopsWhenIdle(relay).wait_for_commit  # type: ignore[method-assign, assignment]
    await relay._publish_with(producer, outbox)  # type: ignore[arg-type]  # fakes


class TestPublishing:
    async def test_sends_rows_in_order_and_deletes_those_acknowledged(self, relay: Relay) -> None:
        outbox, producer = FakeOutbox(*(row(number, "a") for number in (1, 2, 3))), FakeProducer({})

        await publish(relay, outbox, producer)

        assert (producer.sent, outbox.deleted) == ([1, 2, 3], [1, 2, 3])

    async def test_sends_a_long_backlog_once_and_in_order(self, relay: Relay) -> None:
        positions = list(range(1, 3 * MOST_ROWS + 8))
        outbox, producer = FakeOutbox(*(row(each, "a") for each in positions)), FakeProducer({})

        await publish(relay, outbox, producer)

        assert (producer.sent, outbox.deleted) == (positions, positions)

    async def test_fetches_the_next_rows_while_kafka_has_the_first(self, relay: Relay) -> None:
        class Slow(FakeProducer):
            async def send(self, batches: Sequence[FakeBatch]) -> Sequence[SendResult]:
                await eventually(lambda: asyncio.sleep(0, outbox.calls >= 3), every_s=0)
                return await super().send(batches)

        outbox, producer = FakeOutbox(*(row(n, "a") for n in range(3 * MOST_ROWS))), Slow({})

        await publish(relay, outbox, producer)

        assert len(producer.sent) == 3 * MOST_ROWS

    async def test_leaves_no_task_running_when_the_database_fails(self, relay: Relay) -> None:
        outbox = FakeOutbox(*(row(number, "a") for number in range(3 * MOST_ROWS)))

        class Slow(FakeProducer):
            async def send(self, batches: Sequence[FakeBatch]) -> Sequence[SendResult]:
                outbox.fails = True
                await asyncio.sleep(60)
                raise AssertionError

        with pytest.raises(ConnectionError):
            await publish(relay, outbox, Slow({}))

        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_deletes_only_rows_that_kafka_acknowledged(self, relay: Relay) -> None:
        outbox = FakeOutbox(row(1, "a"), row(2, "b"), row(3, "c"))

        with pytest.raises(KafkaAway):
            await publish(relay, outbox, FakeProducer({2: KafkaTimeoutError()}))

        assert outbox.deleted == [1, 3]

    async def test_keeps_the_rows_that_follow_a_failed_one_of_their_aggregate(
        self, relay: Relay
    ) -> None:
        outbox = FakeOutbox(row(1, "a"), row(2, "a"), row(3, "b"))

        with pytest.raises(KafkaAway):
            await publish(relay, outbox, FakeProducer({1: KafkaTimeoutError()}))

        assert outbox.deleted == [3]

    async def test_sends_no_prefetched_row_after_a_failed_one(self, relay: Relay) -> None:
        outbox = FakeOutbox(*(row(number, "a") for number in range(3 * MOST_ROWS)))
        producer = FakeProducer({MOST_ROWS - 1: KafkaTimeoutError()})

        with pytest.raises(KafkaAway):
            await publish(relay, outbox, producer)

        assert producer.sent == list(range(MOST_ROWS))
        assert outbox.deleted == list(range(MOST_ROWS - 1))

    async def test_fetches_again_from_the_first_row_that_could_not_be_sent(
        self, relay: Relay
    ) -> None:
        class OneAtFirst(FakeProducer):
            def batches_of(self, rows: Sequence[Mapping[str, Any]]) -> Sequence[FakeBatch]:
                return super().batches_of(rows if self.sent else rows[:1])

        positions = list(range(2 * MOST_ROWS))
        outbox, producer = FakeOutbox(*(row(each, "a") for each in positions)), OneAtFirst({})

        await publish(relay, outbox, producer)

        assert (producer.sent, outbox.deleted) == (positions, positions)

    async def test_reports_the_refused_rows_in_order(self, relay: Relay) -> None:
        errors = {1: MessageSizeTooLargeError(), 3: OutOfOrderSequenceNumber()}

        with pytest.raises(SequenceBroken) as raised:
            await publish(
                relay, FakeOutbox(row(1, "a"), row(2, "b"), row(3, "a")), FakeProducer(errors)
            )

        assert [each["position"] for each in raised.value.refused] == [1, 3]

    async def test_sends_nothing_to_a_topic_that_is_missing(self, relay: Relay) -> None:
        outbox, producer = (
            FakeOutbox(row(1, "a", "gone"), row(2, "a")),
            FakeProducer({}, missing=["gone"]),
        )

        await publish(relay, outbox, producer)

        assert (producer.sent, outbox.deleted) == ([2], [2])
        assert relay.trouble() == "starting"

    @pytest.mark.parametrize(("topic", "kind"), [("gone", "missing"), ("hidden", "forbidden")])
    async def test_reports_a_missing_topic_and_a_forbidden_one_as_what_they_are(
        self, relay: Relay, topic: str, kind: str
    ) -> None:
        producer = FakeProducer({}, missing=[topic])
        relay._trouble = None

        await relay._suspend_missing(producer, {topic})  # type: ignore[arg-type]  # a fake

        assert relay.trouble() == f"topic {topic} is {kind}"

    async def test_suspends_a_forbidden_topic_and_sets_none_of_its_rows_aside(
        self, relay: Relay
    ) -> None:
        outbox = FakeOutbox(row(1, "a", "closed"), row(2, "a"))
        producer = FakeProducer({1: TopicAuthorizationFailedError("closed")})

        with pytest.raises(SequenceBroken) as raised:
            await publish(relay, outbox, producer)

        assert raised.value.refused == []
        assert outbox.deleted == [2]
        await publish(relay, outbox, producer)
        assert producer.sent == [1, 2]


class TestSendingAlone:
    @pytest.fixture
    def producers(self, monkeypatch: pytest.MonkeyPatch) -> list[FakeProducer]:
        opened: list[FakeProducer] = []
        errors: dict[int, BaseException] = {
            2: MessageSizeTooLargeError(),
            9: TopicAuthorizationFailedError("closed"),
        }

        class Opens:
            @staticmethod
            async def open(_settings: object) -> FakeProducer:
                opened.append(FakeProducer(errors))
                return opened[-1]

        monkeypatch.setattr(relay_module, "RowProducer", Opens)
        return opened

    async def test_sets_aside_a_row_refused_again_and_sends_no_later_row_of_its_aggregate(
        self, relay: Relay, producers: list[FakeProducer]
    ) -> None:
        outbox = FakeOutbox()
        rows = [row(1, "a"), row(2, "a"), row(3, "b"), row(4, "a")]

        await relay._send_each_alone(outbox, rows)  # type: ignore[arg-type]  # a fake

        assert outbox.set_aside_rows == [(2, "MessageSizeTooLargeError")]
        assert outbox.deleted == [1, 3]
        # After a refusal a fresh producer is opened; none is left open.
        assert [(each.sent, each.closed) for each in producers] == [([1, 2], 1), ([3], 1)]

    async def test_sets_no_row_of_a_forbidden_topic_aside(
        self, relay: Relay, producers: list[FakeProducer]
    ) -> None:
        outbox = FakeOutbox()
        rows = [row(9, "a", "closed"), row(10, "b", "closed"), row(11, "a")]

        await relay._send_each_alone(outbox, rows)  # type: ignore[arg-type]  # a fake

        assert outbox.set_aside_rows == []
        assert outbox.deleted == [11]


class TestPausing:
    def test_doubles_up_to_five_seconds(self) -> None:
        pauses = [relay_module._BACKOFF.pause_s(failures) for failures in (0, 1, 2, 10_000)]

        assert pauses == [0.2, 0.4, 0.8, 5.0]
