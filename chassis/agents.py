"""The Faust side of a service: one agent a topic, each fed with chunks."""

import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import faust
import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from faust.contrib.asgi import bind_to_running_loop
from mode import CrashingSupervisor
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from yarl import URL

from chassis import parking, progress, telemetry
from chassis.chunks import ChunkConsumer, ChunkTransport, NoTables, PassThrough
from chassis.consume import Consumer
from chassis.database import is_away, is_connection_lost
from chassis.done import Standstill
from chassis.kafka import (
    KafkaSecurity,
    admin_client,
    cancelled_by_us_only,
    shares_of,
    shortcomings,
    topic_states,
)
from chassis.lanes import Lanes
from chassis.libraries import check_libraries
from chassis.locks import NamedLock
from chassis.progress import Standing, foremost, hindmost
from chassis.settings import ServiceSettings
from chassis.subscribers import Subscriber
from chassis.transactor import Work

log = structlog.get_logger(__name__)

W = TypeVar("W", bound=Work)

_LOOK_EVERY_S: Final = 1.0
_LOOK_WITHIN_S: Final = 2.0
_ASK_AGAIN_S: Final = 0.5
_ASK_KAFKA_EVERY_S: Final = 3.0
_JOIN_WITHIN_S: Final = 30.0
_START_WITHIN_S: Final = 3.0
_STOP_WITHIN_S: Final = 10.0
# Beyond this aiokafka leaves the group for good when nothing is polled, as with no partition.
_NEVER_S: Final = 2_000_000.0
_METADATA_MAX_AGE_MS: Final = 3_000
# Chunks of a partition that may wait in Faust: more than our transport hands it. Where it thinks
# that all partitions have too much, Faust sleeps for a second.
_NEVER_FULL: Final = 16
# Of each partition: about a chunk of usual events. A larger event comes all the same, by itself.
_MOST_FETCHED_BYTES: Final = 256 * 1024


class Stalled(RuntimeError):
    """The Faust app no longer does its work; only a new process helps."""


class Agents(Generic[W]):
    """A component that runs a service's subscribers until it is stopped.

    :param open_work: makes the unit of work that handlers get, on a chunk's connection
    :param on_commit: called after each commit, to wake the relay of the same process
    """

    name = "agents"
    # Consumers that stand still take nobody's requests away.
    gates_readiness = False

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        service: str,
        engine: AsyncEngine,
        open_work: Callable[[AsyncConnection], W],
        subscribers: Sequence[Subscriber[W]],
        now: Callable[[], datetime],
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._engine = engine
        self._now = now
        self._subscribers = subscribers
        by_topic: dict[str, list[Subscriber[W]]] = defaultdict(list)
        for subscriber in subscribers:
            same_topic = by_topic[subscriber.topic.name]
            if any(each.name == subscriber.name for each in same_topic):
                raise ValueError(f"two subscribers to one topic are named {subscriber.name}")
            same_topic.append(subscriber)
        lanes = Lanes()
        self._consumers = {
            name: Consumer(
                chosen[0].topic,
                chosen,
                engine,
                open_work,
                now,
                on_commit=on_commit,
                lanes=lanes,
                most_events=settings.chunk_max_events,
            )
            for name, chosen in by_topic.items()
        }
        self._worker = NamedLock(settings, f"{service}-worker-{settings.worker_name}")
        self._app: faust.App | None = None
        self._trouble: str | None = "starting"
        self._lacking: str | None = None
        self._placing: str | None = None
        self._partitions: frozenset[TopicPartition] = frozenset()
        self._unowned: frozenset[TopicPartition] = frozenset()
        self._standings: Sequence[Standing] = ()
        self._shorter: Mapping[TopicPartition, str] = {}
        self._given_up: Mapping[TopicPartition, str] = {}
        self._stopping = asyncio.Event()

    def trouble(self) -> str | None:
        """Say why events do not flow, or None when they do."""
        said = [self._lacking, self._placing, *self._shorter.values(), *self._given_up.values()]
        said += [each.trouble() for each in self._consumers.values()]
        if self._unowned:
            said.append(f"no worker has {_names_of(self._unowned)}")
        return self._trouble or "; ".join(each for each in said if each) or None

    async def run(self) -> None:
        """Consume until stopped; waits for Kafka and the database by itself.

        :raises Stalled: Faust crashed or does not come to work; the process must end
        """
        async with contextlib.AsyncExitStack() as open_:
            if not await self._until_stopped(self._wait_for_kafka()):
                return
            self._trouble = "waiting until this worker's name is free and the database answers"
            if not await self._until_stopped(open_.enter_async_context(self._worker.held())):
                return
            self._trouble = "joining the consumer group"
            app = self._app = self._make_app()
            asking = asyncio.create_task(self._keep_asking(app))
            started = asyncio.create_task(app.start())
            try:
                await self._watch(app, started, asking)
            finally:
                asking.cancel()
                await asyncio.gather(self._end(app, started), asyncio.wait([asking]))

    async def stop(self) -> None:
        """Finish the chunks in hand, leave, and let ``run`` return."""
        self._stopping.set()

    async def _until_stopped(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do the work unless asked to stop first; say whether it was done."""
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
        while (reason := await self._what_kafka_lacks()) is not None:
            if reason != self._trouble:
                log.info("waiting", reason=reason)
            self._trouble = reason
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _keep_asking(self, app: faust.App) -> None:
        """Ask Kafka all the time for a sign of life: Faust says nothing when there is none."""
        while True:
            await asyncio.sleep(_ASK_KAFKA_EVERY_S)
            self._lacking = await self._what_kafka_lacks()
            if self._lacking is None:
                await self._have_all_shared_out(app)

    async def _have_all_shared_out(self, app: faust.App) -> None:
        """Have the group share its partitions out anew where some stay with nobody.

        A worker that is back within its session is given what it had, and not asked to share out
        (KIP-345). So nobody looks for partitions that are added then, or before: the group's
        leader would, and is the worker that was away. Of those that are not the leader Kafka
        shares nothing out, so all may ask.
        """
        before = self._unowned
        try:
            with cancelled_by_us_only():
                async with self._admin_client() as client:
                    shares = await shares_of(client, self._service)
        except (KafkaError, OSError, ValueError) as error:
            log.info("group-not-described", error=type(error).__name__)
            return
        self._unowned = self._partitions.difference(*shares.values()) if shares else frozenset()
        if still := before & self._unowned:
            log.warning("partitions-unowned", partitions=_names_of(still))
            await _feed_of(app).rejoin()

    async def _what_kafka_lacks(self) -> str | None:
        topics = [consumer.topic for consumer in self._consumers.values()]
        try:
            with cancelled_by_us_only():
                async with self._admin_client() as client:
                    states = await topic_states(client, [topic.name for topic in topics])
        except (KafkaError, OSError) as error:
            return f"Kafka does not answer: {type(error).__name__}"
        there = {name: state for name, state in states.items() if state is not None}
        self._partitions = frozenset(
            TopicPartition(name, number)
            for name, state in there.items()
            for number in range(state.partitions)
        )
        short = [each for topic in topics for each in shortcomings(topic, states[topic.name])]
        if len(there) == len(states) and self._settings.environment == "development":
            return None
        return "; ".join(short) or None

    def _admin_client(self) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
        return admin_client(self._settings.kafka_bootstrap, KafkaSecurity.of(self._settings))

    def _make_app(self) -> faust.App:
        check_libraries()
        settings = self._settings
        security = KafkaSecurity.of(settings)
        servers = [URL(f"kafka://{each}") for each in settings.kafka_bootstrap.split(",")]
        app = faust.App(
            self._service,
            broker=servers,
            broker_credentials=_credentials(security),
            broker_max_poll_records=settings.chunk_max_events,
            broker_max_poll_interval=_NEVER_S,
            broker_session_timeout=settings.kafka_session_timeout_s,
            broker_heartbeat_interval=settings.kafka_session_timeout_s / 6,
            broker_commit_interval=1.0,
            # A broker that has just started may not know a topic yet, and the group leader then
            # gives its partitions to nobody. Only a look at the metadata makes it do so anew.
            consumer_metadata_max_age_ms=_METADATA_MAX_AGE_MS,
            consumer_group_instance_id=f"{self._service}-{settings.worker_name}",
            # An automatic reset would read elsewhere than progress says, and nobody would know.
            consumer_auto_offset_reset="none",
            consumer_max_fetch_size=_MOST_FETCHED_BYTES,
            stream_buffer_maxsize=_NEVER_FULL,
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            datadir=Path(tempfile.gettempdir()) / f"{self._service}-{settings.worker_name}",
            agent_supervisor=CrashingSupervisor,
            TableManager=NoTables,
            loghandlers=[],
        )
        # What a service publishes goes through its outbox.
        app.boot_strategy = app.BootStrategy(app, enable_kafka_producer=False)
        app.transport = ChunkTransport(servers, app)
        for name, consumer in self._consumers.items():
            topic = app.topic(name, schema=PassThrough(), acks=False)
            app.agent(topic, name=f"{self._service}.{name}", isolated_partitions=True)(
                _handler_of(consumer, app)
            )
        bind_to_running_loop(app)
        app.finalize()
        feed = _feed_of(app)
        feed.positions = self._positions
        return app

    async def _positions(
        self, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return where to read each partition from, as soon as Kafka and the database tell."""
        while True:
            try:
                places = await self._places(partitions)
            except Exception as error:
                if not (isinstance(error, KafkaError) or is_connection_lost(error)):
                    raise
                self._placing = f"where to read on is not known: {type(error).__name__}"
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                self._placing = None
                return places

    async def _places(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        assert self._app is not None  # noqa: S101 - for the type checker
        feed = _feed_of(self._app)
        places: dict[TopicPartition, int] = {}
        shorter: dict[TopicPartition, str] = {}
        for name, consumer in self._consumers.items():
            bounds = await feed.bounds(name)
            async with self._engine.begin() as connection:
                standings = await progress.begin(
                    connection, consumer.subscribers, name, bounds, self._now
                )
            # Where all are paused, what they will need first waits for one of them.
            last = hindmost(standings) | hindmost(each for each in standings if not each.paused)
            first_of_all = foremost(standings)
            # Asked again: progress may have moved, and with it the end, since it was asked first.
            bounds = await feed.bounds(name)
            for tp in (each for each in partitions if each.topic == name):
                first, following = bounds[tp.partition]
                if last[tp] < first or first_of_all[tp] > following:
                    # A restored cluster, or a cut log. To go on would lose what is missing.
                    shorter[tp] = (
                        f"{name}[{tp.partition}] holds {first} to {following},"
                        f" and progress is at {last[tp]}"
                    )
                    log.error("topic-shorter-than-progress", topic=name, partition=tp.partition)
                else:
                    places[tp] = last[tp]
        self._shorter = shorter
        return places

    async def _watch(
        self, app: faust.App, started: asyncio.Task[None], asking: asyncio.Task[None]
    ) -> None:
        """Look after the app until asked to stop.

        A crash inside Faust raises nothing here, and a join that fails for good is silent too.
        """
        healthy_at = time.monotonic()
        standstill = Standstill()
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LOOK_EVERY_S)
            for each in (started, asking):
                if each.done():
                    each.result()
            if app.crashed or app.should_stop:
                raise Stalled("Faust crashed")
            if not self._worker.is_held():
                raise Stalled("another worker took this one's name")
            stuck: Collection[TopicPartition] = ()
            if started.done() and not app.rebalancing:
                healthy_at = time.monotonic()
                self._trouble = None
                await self._follow_progress(app)
                self._report_lag(app)
                stuck = standstill.look(self._behind_unsaid(app), time.monotonic())
            if stuck or time.monotonic() - healthy_at > _JOIN_WITHIN_S:
                await self._end_if_kafka_answers(stuck)
                healthy_at = time.monotonic()
                standstill.excuse()

    def _behind_unsaid(self, app: faust.App) -> Mapping[TopicPartition, int]:
        """Return where those partitions are that lag, and whose consumer does not say why."""
        return {
            tp: place
            for tp, place in _feed_of(app).behind().items()
            if self._consumers[tp.topic].trouble() is None
        }

    async def _end_if_kafka_answers(self, stuck: Collection[TopicPartition]) -> None:
        """End the process, unless Kafka is away: then it would be no better off.

        :raises Stalled: Kafka is there, and events do not flow
        """
        if (reason := await self._what_kafka_lacks()) is not None:
            self._trouble = reason
            return
        if stuck:
            raise Stalled(f"no progress, although there is more: {_names_of(stuck)}")
        raise Stalled(f"not joined the consumer group within {_JOIN_WITHIN_S:g} s")

    async def _follow_progress(self, app: faust.App) -> None:
        """Go back to where an operator resumed a subscriber, or had it begin anew.

        The next chunk would be refused for it; but none may come.

        :raises Stalled: progress can't be read, and the database is not away
        """
        feed = _feed_of(app)
        # Before progress is read, which only an operator moves back.
        done = feed.done
        try:
            async with asyncio.timeout(_LOOK_WITHIN_S), self._engine.connect() as connection:
                self._standings = await progress.read(connection, self._subscribers)
                waiting = await parking.waiting(
                    connection, {each.name for each in self._subscribers}
                )
        except Exception as error:
            if is_away(error) or isinstance(error, PoolTimeoutError):
                return
            raise Stalled(f"progress can't be read: {type(error).__name__}") from error
        for subscriber, events in waiting.items():
            telemetry.consumer_parked_waiting.labels(subscriber).set(events)
        for name, consumer in self._consumers.items():
            consumer.paused = frozenset(
                each.subscriber for each in self._standings if each.paused and each.tp.topic == name
            )
        for tp, offset in hindmost(each for each in self._standings if not each.paused).items():
            if offset < done.get(tp, offset):
                await feed.go_back(tp, offset)

    def _report_lag(self, app: faust.App) -> None:
        feed = _feed_of(app)
        self._given_up = feed.given_up
        ends = feed.ends
        for each in self._standings:
            if (end := ends.get(each.tp)) is not None:
                telemetry.consumer_lag.labels(
                    each.subscriber, each.tp.topic, str(each.tp.partition)
                ).set(max(0, end - each.next_offset))

    async def _end(self, app: faust.App, started: asyncio.Task[None]) -> None:
        """Stop Faust, which can hang: the process then ends hard, and nothing is lost by it."""
        self._trouble = "stopping"
        # Stopped amid its start it hangs, or leaves connections open.
        await asyncio.wait([started], timeout=_START_WITHIN_S)
        started.cancel()
        # Not to be cancelled, and not to be waited for either when it hangs.
        stopping = asyncio.create_task(app.stop())
        await asyncio.wait([stopping], timeout=_STOP_WITHIN_S)
        if not stopping.done():
            log.warning("faust-did-not-stop")
        elif (error := stopping.exception()) is not None:
            log.warning("faust-stopped-badly", error=type(error).__name__)


def _handler_of(consumer: Consumer[Any], app: faust.App) -> Any:
    async def take(stream: faust.StreamT[Any]) -> None:
        assert isinstance(stream, faust.Stream)  # noqa: S101 - for the type checker
        async for event in stream.noack().events():
            await consumer.handle(event.value.take(), _feed_of(app))

    return take


def _names_of(partitions: Collection[TopicPartition]) -> str:
    return ", ".join(f"{tp.topic}[{tp.partition}]" for tp in sorted(partitions))


def _feed_of(app: faust.App) -> ChunkConsumer:
    feed = app.consumer
    assert isinstance(feed, ChunkConsumer)  # noqa: S101 - for the type checker
    return feed


def _credentials(security: KafkaSecurity) -> Any:
    if security.protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=security.sasl_username,
            password=security.sasl_password,
            mechanism=security.sasl_mechanism,
            ssl_context=security.ssl_context,
        )
    if security.ssl_context is not None:
        return faust.SSLCredentials(security.ssl_context)
    return None
