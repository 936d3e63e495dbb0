"""Whether a worker's events flow, looked at every second; where only a new process helps, it ends.

A crash inside Faust raises nothing, and a join that fails for good is silent too.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import faust
from aiokafka import TopicPartition
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from chassis import telemetry
from chassis.consuming import dead_letters, offsets
from chassis.consuming.cluster_check import ClusterCheck, names_of
from chassis.consuming.faust_app import consumer_of
from chassis.consuming.offsets import SubscriberOffset, lowest
from chassis.consuming.positions import StallDetector
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.subscribers import Subscriber
from chassis.persistence.advisory_lock import AdvisoryLock
from chassis.persistence.database import is_away

_LOOK_EVERY_S: Final = 1.0
_LOOK_WITHIN_S: Final = 2.0
_JOIN_WITHIN_S: Final = 30.0


class WorkerStalled(RuntimeError):
    """The Faust app no longer does its work; only a new process helps."""


class Watchdog:
    """Watches one app, and follows what operators changed of its subscribers' progress.

    :ivar trouble: why events do not flow, as far as it is seen here; None: they do
    :ivar given_up: partitions that are no longer read, each with why
    """

    def __init__(
        self,
        app: faust.App,
        processors: Mapping[str, ChunkProcessor[Any]],
        subscribers: Sequence[Subscriber[Any]],
        *,
        engine: AsyncEngine,
        cluster: ClusterCheck,
        worker_name: AdvisoryLock,
    ) -> None:
        self.trouble: str | None = "joining the consumer group"
        self.given_up: Mapping[TopicPartition, str] = {}
        self._app = app
        self._processors = processors
        self._subscribers = subscribers
        self._engine = engine
        self._cluster = cluster
        self._worker_name = worker_name
        self._stalls = StallDetector()
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
                self._report_lag()
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
        """Go back to where an operator resumed a subscriber, or had it begin again.

        The next chunk would be refused for it; but none may come.

        :raises WorkerStalled: progress can't be read, and the database is not away
        """
        consumer = consumer_of(self._app)
        # Before progress is read, which only an operator moves back.
        processed = consumer.processed
        try:
            async with asyncio.timeout(_LOOK_WITHIN_S), self._engine.connect() as connection:
                self._offsets = found = await offsets.read(connection, self._subscribers)
                waiting = await dead_letters.waiting(
                    connection, {each.name for each in self._subscribers}
                )
        except Exception as error:
            if is_away(error) or isinstance(error, PoolTimeoutError):
                return
            raise WorkerStalled(f"progress can't be read: {type(error).__name__}") from error
        for subscriber, events in waiting.items():
            telemetry.consumer_parked_waiting.labels(subscriber).set(events)
        for name, processor in self._processors.items():
            processor.paused = frozenset(
                each.subscriber for each in found if each.paused and each.tp.topic == name
            )
        for tp, offset in lowest(each for each in found if not each.paused).items():
            if offset < processed.get(tp, offset):
                await consumer.go_back(tp, offset)

    def _report_lag(self) -> None:
        consumer = consumer_of(self._app)
        self.given_up = consumer.given_up
        ends = consumer.ends
        for each in self._offsets:
            if (end := ends.get(each.tp)) is not None:
                telemetry.consumer_lag.labels(
                    each.subscriber, each.tp.topic, str(each.tp.partition)
                ).set(max(0, end - each.next_offset))
