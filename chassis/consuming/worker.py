"""A worker: the part of a service's process that consumes, under a name of its own."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar

import structlog

from chassis.consuming.cluster_check import ClusterCheck, names_of
from chassis.consuming.dead_letter_limit import DeadLetterLimit
from chassis.consuming.far_behind import FarBehind
from chassis.consuming.faust_app import consumer_of, make_app, stop_app
from chassis.consuming.faust_transport import ChunkConsumer
from chassis.consuming.group_commit import GroupCommit
from chassis.consuming.processor import ChunkProcessor
from chassis.consuming.replay import Replays
from chassis.consuming.start_positions import StartPositions
from chassis.consuming.subscribers import Subscriber
from chassis.consuming.watchdog import Watchdog
from chassis.persistence.advisory_lock import AdvisoryLock
from chassis.persistence.database import Connection, Database
from chassis.persistence.tables import UNKNOWN_TOPIC_ID
from chassis.persistence.transactor import Work
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

# Where nobody waits for the effects: the four events of a sign-up then come in two chunks or three.
_PACE_S: Final = 0.025
_ASK_AGAIN_S: Final = 0.5
_ASK_KAFKA_EVERY_S: Final = 3.0


def pace_s(subscribers: Sequence[Subscriber[Any]]) -> float:
    """Return how long a consumer rests after few records: not at all where somebody waits."""
    return _PACE_S if all(each.nobody_waits for each in subscribers) else 0.0


class Worker(Generic[W]):
    """A component that runs a service's subscribers until it is stopped.

    :param open_work: makes the unit of work that handlers get, on a chunk's connection
    """

    name = "agents"
    # A worker that stands still does not keep the process from answering requests.
    gates_readiness = False

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        service: str,
        database: Database,
        open_work: Callable[[Connection], W],
        subscribers: Sequence[Subscriber[W]],
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._service = service
        self._database = database
        self._subscribers = subscribers
        self._by_topic = _by_topic(subscribers)
        self._make_processor = partial(
            ChunkProcessor[W],
            database=database,
            open_work=open_work,
            now=now,
            suspects=asyncio.Lock(),
        )
        self._limits = {
            topic: DeadLetterLimit(
                topic, most=settings.dead_letter_limit, window_s=settings.dead_letter_window_s
            )
            for topic in self._by_topic
        }
        far_behind = FarBehind(settings.replay_behind_events)
        group_commit = GroupCommit(settings.chunk_max_events)
        self._processors = {
            topic: self._make_processor(
                chosen[0].topic,
                chosen,
                group_commit=group_commit,
                dead_letter_limit=self._limits[topic],
                far_behind=far_behind,
            )
            for topic, chosen in self._by_topic.items()
        }
        self._worker_name = AdvisoryLock(settings, f"{service}-worker-{settings.worker_name}")
        self._cluster = ClusterCheck(
            settings, service, [each.topic for each in self._processors.values()]
        )
        self._start_positions = StartPositions(
            database, self._processors, self._cluster.ask_topic_ids, now, far_behind
        )
        self._replays = Replays(settings, far_behind, self._processor_for)
        self._watchdog: Watchdog | None = None
        self._phase: str | None = "starting"
        self._stopping = asyncio.Event()

    def trouble(self) -> str | None:
        """Return why events do not flow, or None when they do."""
        watchdog = self._watchdog
        if watchdog is None and self._worker_name.is_taken():
            return f"another process has the worker name {self._settings.worker_name}"
        if phase := self._phase or (watchdog and watchdog.trouble):
            return phase
        reasons = [self._cluster.lacking, *sorted({*self._start_positions.waiting.values()})]
        reasons += watchdog.holds if watchdog else ()
        reasons += watchdog.unread.values() if watchdog else ()
        reasons += [each.trouble() for each in self._processors.values()]
        reasons += self._replays.troubles()
        if self._cluster.unassigned:
            reasons.append(f"no worker has {names_of(self._cluster.unassigned)}")
        return "; ".join(each for each in reasons if each) or None

    async def run(self) -> None:
        """Consume until stopped; waits for Kafka and the database by itself.

        :raises WorkerStalled: Faust crashed or does not come to work; the process must end
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._cluster.close)
            if not await self._until_stopped(self._wait_for_kafka()):
                return
            self._phase = "waiting until this worker's name is free and the database answers"
            if not await self._until_stopped(stack.enter_async_context(self._worker_name.held())):
                return
            await self._run_app()

    async def stop(self) -> None:
        """Finish the chunks in hand, leave the group, and let ``run`` return."""
        self._stopping.set()

    async def _run_app(self) -> None:
        app = make_app(self._service, self._settings, self._processors)
        consumer = consumer_of(app)
        consumer.pace_s = pace_s(self._subscribers)
        consumer.positions = lambda partitions: self._start_positions.find(partitions, consumer)
        watchdog = self._watchdog = Watchdog(
            app,
            self._processors,
            self._subscribers,
            database=self._database,
            cluster=self._cluster,
            worker_name=self._worker_name,
            replays=self._replays,
        )
        self._phase = None
        asking = asyncio.create_task(self._keep_asking_kafka(consumer))
        started = asyncio.create_task(app.start())
        try:
            await watchdog.watch(started, asking, self._stopping)
        finally:
            self._phase = "stopping"
            asking.cancel()
            await asyncio.gather(
                stop_app(app, started), asyncio.wait([asking]), self._replays.close()
            )

    def _processor_for(self, topic: str, name: str) -> ChunkProcessor[W]:
        """Make the processor of a subscriber's replay: it shares no transaction with the agent's.

        The agent's progress forgets the attempts at chunks that lie before it. So those of a replay
        are counted as the subscriber's own.
        """
        [subscriber] = [each for each in self._by_topic[topic] if each.name == name]
        return self._make_processor(
            subscriber.topic,
            [subscriber],
            dead_letter_limit=self._limits[topic],
            chunks_counted_for=name,
        )

    async def _until_stopped(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do the work unless asked to stop first; tell whether it was done."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait([doing])
            return False
        doing.result()
        return True

    async def _wait_for_kafka(self) -> None:
        """Wait until Kafka answers and has what the catalogue asks for.

        Faust must not be started before: it gives up at once, or looks as if it had started.
        """
        while (reason := await self._cluster.look()) is not None:
            if reason != self._phase:
                log.info("waiting", reason=reason)
            self._phase = reason
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _keep_asking_kafka(self, consumer: ChunkConsumer) -> None:
        """Ask the cluster again and again: Faust reports nothing when no broker answers.

        A topic that was made again is no longer read: where to read it is found out again, and then
        it is held.

        Where partitions stay unassigned, have the group assign them. A worker that is back within
        its session is given what it had, and the group does not rebalance (KIP-345); so its
        partitions that were added then, or before, would wait until the group's leader looks for
        them, and the leader may be the very worker that was away. Kafka rebalances only at the
        leader's request, so every worker may ask.
        """
        while True:
            await asyncio.sleep(_ASK_KAFKA_EVERY_S)
            lacking = await self._cluster.look()
            await consumer.leave_all(
                [
                    tp
                    for tp, known in consumer.topic_ids.items()
                    if self._cluster.topic_ids.get(tp.topic, known) not in (UNKNOWN_TOPIC_ID, known)
                ]
            )
            if lacking is not None:
                continue
            if still := await self._cluster.find_unassigned():
                log.warning("partitions-unowned", partitions=names_of(still))
                await consumer.rejoin()


def _by_topic(subscribers: Sequence[Subscriber[W]]) -> dict[str, list[Subscriber[W]]]:
    by_topic: dict[str, list[Subscriber[W]]] = defaultdict(list)
    for subscriber in subscribers:
        same_topic = by_topic[subscriber.topic.name]
        if any(each.name == subscriber.name for each in same_topic):
            raise ValueError(f"two subscribers to one topic are named {subscriber.name}")
        same_topic.append(subscriber)
    return by_topic
