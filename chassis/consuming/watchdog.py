"""Whether a worker's events flow, looked at every second; where only a new process helps, it ends.

A crash inside Faust raises nothing, and a join that fails for good is silent too.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import faust
import structlog
from aiokafka import TopicPartition
from prometheus_client import Gauge

from chassis import telemetry
from chassis.consuming import dead_letters, holds, offsets
from chassis.consuming.cluster_check import ClusterCheck, names_of
from chassis.consuming.faust_app import consumer_of
from chassis.consuming.offsets import SubscriberOffset, lowest
from chassis.consuming.positions import OpenTransactions, StallDetector
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.replay import Replays
from chassis.consuming.subscribers import Subscriber
from chassis.persistence.advisory_lock import AdvisoryLock
from chassis.persistence.database import Database, NoConnectionFree, is_away

log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 1.0
_LOOK_WITHIN_S: Final = 2.0
_JOIN_WITHIN_S: Final = 30.0


class WorkerStalled(RuntimeError):
    """The Faust app no longer does its work; only a new process helps."""


class Watchdog:
    """Watches one app, and follows what operators changed of its subscribers' progress.

    :ivar trouble: why events do not flow, as far as it is seen here; None: they do
    :ivar holds: what is held, and why
    :ivar unread: partitions that are no longer read, or not for now, each with why
    """

    def __init__(
        self,
        app: faust.App,
        processors: Mapping[str, ChunkProcessor[Any]],
        subscribers: Sequence[Subscriber[Any]],
        *,
        database: Database,
        cluster: ClusterCheck,
        worker_name: AdvisoryLock,
        replays: Replays,
    ) -> None:
        self.trouble: str | None = "joining the consumer group"
        self.holds: Sequence[str] = ()
        self.unread: Mapping[TopicPartition, str] = {}
        self._app = app
        self._processors = processors
        self._subscribers = subscribers
        self._database = database
        self._cluster = cluster
        self._worker_name = worker_name
        self._replays = replays
        self._stalls = StallDetector()
        self._open_transactions = OpenTransactions()
        self._unread_offsets = _Gauges(telemetry.consumer_given_up_offset)
        self._hidden_offsets = _Gauges(telemetry.consumer_hidden_offsets)
        self._offsets: Sequence[SubscriberOffset] = ()

    async def watch(
        self, started: asyncio.Task[None], asking: asyncio.Task[None], stopping: asyncio.Event
    ) -> None:
        """Look after the app until asked to stop.

        :raises WorkerStalled: it crashed, or does not come to work
        :raises Exception: one of the tasks ended, with it
        """
        healthy_at = time.monotonic()
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_EVERY_S)
            for each in (started, asking):
                if each.done():
                    each.result()
            if self._app.crashed or self._app.should_stop:
                raise WorkerStalled("Faust crashed")
            if not self._worker_name.is_held():
                raise WorkerStalled("another worker took this one's name")
            stuck: Collection[TopicPartition] = ()
            if started.done() and not self._app.rebalancing:
                healthy_at = time.monotonic()
                self.trouble = None
                await self._follow_progress()
                self._report()
                stuck = self._stalls.look(self._unexplained_lag(), time.monotonic())
            if stuck or time.monotonic() - healthy_at > _JOIN_WITHIN_S:
                await self._end_if_kafka_answers(stuck)
                healthy_at = time.monotonic()
                self._stalls.restart()

    def _unexplained_lag(self) -> Mapping[TopicPartition, int]:
        """Return where those partitions are that lag, and whose processor has no reason for it."""
        return {
            tp: position
            for tp, position in consumer_of(self._app).lagging().items()
            if not self._processors[tp.topic].is_waiting()
        }

    async def _end_if_kafka_answers(self, stuck: Collection[TopicPartition]) -> None:
        """End the process, unless Kafka is away: then it would be no better off.

        :raises WorkerStalled: Kafka answers, and events do not flow
        """
        if (reason := await self._cluster.look()) is not None:
            self.trouble = reason
            return
        if stuck:
            raise WorkerStalled(f"no progress, although there is more: {names_of(stuck)}")
        raise WorkerStalled(f"not joined the consumer group within {_JOIN_WITHIN_S:g} s")

    async def _follow_progress(self) -> None:
        """Follow where an operator moved progress, which no chunk may come to reveal.

        Go back to where a subscriber was resumed, or had to begin again, unless it is far behind
        the others: a replay does that. Go on behind a batch that can't be read and was passed over.

        :raises WorkerStalled: progress can't be read, and the database is not away
        """
        consumer = consumer_of(self._app)
        # Before progress is read, which only an operator moves back.
        processed, given_up = consumer.processed, consumer.given_up
        before_giving_up = {tp: consumer.processed_up_to(tp) for tp in given_up}
        try:
            async with asyncio.timeout(_LOOK_WITHIN_S), self._database.connect() as connection:
                self._offsets = found = await offsets.read(connection, self._subscribers)
                waiting = await dead_letters.waiting(
                    connection, {each.name for each in self._subscribers}
                )
        except Exception as error:
            if is_away(error) or isinstance(error, NoConnectionFree):
                return
            raise WorkerStalled(f"progress can't be read: {type(error).__name__}") from error
        for subscriber, events in waiting.items():
            telemetry.consumer_parked_waiting.labels(subscriber).set(events)
        await self._follow_holds()
        for name, processor in self._processors.items():
            paused = frozenset(
                each.subscriber for each in found if each.paused and each.tp.topic == name
            )
            for each in sorted(paused ^ processor.paused):
                if each in paused:
                    log.warning("subscriber-paused", subscriber=each, topic=name)
                else:
                    log.info("subscriber-resumed", subscriber=each, topic=name)
            processor.paused = paused
        self._replays.follow(found, consumer)
        far_behind = self._replays.far_behind
        for tp, offset in lowest(filter(far_behind.is_read, found)).items():
            # Forward where the agent reads for a subscriber that is left to a replay now.
            if not 0 <= offset - processed.get(tp, offset) <= far_behind.events:
                await consumer.go_to(tp, offset)
            elif tp in given_up and (
                given_up[tp].position.next < offset or offset < (before_giving_up[tp] or 0)
            ):
                # Behind what can't be read, or back to who was resumed before it.
                await consumer.go_on(tp, offset)

    async def _follow_holds(self) -> None:
        """Read no more of what is held; find out where to read what is not, and is not read."""
        consumer = consumer_of(self._app)
        held = {each.tp for each in self._offsets}.difference(
            each.tp for each in self._offsets if each.held_because is None
        )
        await consumer.leave_all([tp for tp in consumer.topic_ids if tp in held])
        for tp in held:
            consumer.forget_out_of_range(tp)
        consumer.find_positions([tp for tp in consumer.unpositioned() if tp not in held])

    def _report(self) -> None:
        consumer = consumer_of(self._app)
        ends, given_up = consumer.ends, consumer.given_up
        self.holds = holds.describe(self._offsets)
        for subscriber in self._subscribers:
            telemetry.consumer_held_partitions.labels(subscriber.name, subscriber.topic.name).set(
                sum(
                    each.held_because is not None
                    for each in self._offsets
                    if (each.subscriber, each.tp.topic) == (subscriber.name, subscriber.topic.name)
                )
            )
        for each in self._offsets:
            if (end := ends.get(each.tp)) is not None:
                telemetry.consumer_lag.labels(
                    each.subscriber, each.tp.topic, str(each.tp.partition)
                ).set(max(0, end - each.next_offset))
        self.unread = (
            {tp: each.reason for tp, each in given_up.items()}
            | {
                tp: f"{tp.topic}[{tp.partition}] can't be read now, and is tried again: {reason}"
                for tp, reason in consumer.tried_again.items()
            }
            | dict(self._open_transactions.look(ends, consumer.hidden, time.monotonic()))
        )
        self._unread_offsets.set({tp: each.position.next for tp, each in given_up.items()})
        self._hidden_offsets.set(consumer.hidden)


class _Gauges:
    """One value of each partition that has one; the others have no series."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: frozenset[TopicPartition] = frozenset()

    def set(self, values: Mapping[TopicPartition, int]) -> None:
        for tp in self._shown.difference(values):
            self._gauge.remove(tp.topic, str(tp.partition))
        for tp, value in values.items():
            self._gauge.labels(tp.topic, str(tp.partition)).set(value)
        self._shown = frozenset(values)
