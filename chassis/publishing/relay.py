"""Publishes the outbox: in order per aggregate, each row until Kafka has acknowledged it.

One relay a service works, the others stand by: the one that holds the advisory lock, on the very
connection that it reads and deletes with. It keeps no cursor: each read begins at the lowest
position, for a row that committed late would be stepped over by any other.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog
from aiokafka.errors import KafkaConnectionError

from chassis import telemetry
from chassis.backoff import Backoff
from chassis.failpoints import failpoint
from chassis.kafka.client import translate_foreign_cancellation
from chassis.persistence.advisory_lock import connect, try_lock
from chassis.persistence.database import is_away as is_database_away
from chassis.persistence.outbox import relay_lock_name
from chassis.publishing.outbox_reader import MOST_ROWS, OutboxReader, Row
from chassis.publishing.producer import Answer, Batch, KafkaAway, RowProducer, is_away, is_forbidden
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

_BUSY_SLEEP_S: Final = 0.002
_STAND_BY_S: Final = 0.5
_BACKOFF: Final = Backoff(first_s=0.2, longest_s=5.0, jitter=False)
_COUNT_EVERY_S: Final = 5.0


class SequenceBroken(Exception):
    """Kafka refused records, maybe for others' sake that shared a batch: each is tried alone."""

    def __init__(self, refused: Sequence[Row]) -> None:
        super().__init__(f"{len(refused)} rows")
        self.refused = refused


class _Way:
    """Where the rows are that one producer publishes: read, with Kafka, or acknowledged."""

    def __init__(self) -> None:
        self.rows: Sequence[Row] = ()
        self.sent: Sequence[Row] = ()
        self.done: Sequence[Row] = ()
        self.reading: asyncio.Task[Sequence[Row]] | None = None
        self._answers: asyncio.Task[Sequence[Answer]] | None = None

    def send(self, producer: RowProducer, batches: Sequence[Batch]) -> None:
        self.sent = [row for batch in batches for row in batch.rows]
        if self.sent:
            self._answers = asyncio.create_task(producer.send(batches))

    async def answers(self) -> Sequence[Answer]:
        """Return what became of each row that was sent."""
        if self._answers is None:
            return ()
        answers = await self._answers
        self.sent, self._answers = (), None
        return answers

    async def abandon(self) -> None:
        """Leave nothing at work that nobody waits for."""
        left = [task for task in (self.reading, self._answers) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class Relay:
    """A component that publishes one service's outbox until it is stopped."""

    name = "relay"
    # What is committed waits safely; requests need not.
    gates_readiness = False

    def __init__(
        self, settings: ServiceSettings, *, service: str, now: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._lock_name = relay_lock_name(service)
        self._now = now
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._trouble: str | None = "starting"
        self._failures = 0
        self._held_back: dict[str, float] = {}
        self._times_held_back: dict[str, int] = {}
        self._counted_at = 0.0

    def wake(self) -> None:
        """Say that something was committed to the outbox."""
        self._wake.set()

    def trouble(self) -> str | None:
        """Say why rows are not published, or None when they are."""
        held = [f"topic {each} is missing or forbidden" for each in self._held_back]
        return self._trouble or "; ".join(held) or None

    async def stop(self) -> None:
        """Let ``run`` return after the batch in hand."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Publish until stopped; waits for Kafka and the database by itself."""
        while not self._stopping.is_set():
            try:
                with translate_foreign_cancellation():
                    await self._work()
            except (KafkaAway, KafkaConnectionError) as error:
                reason = f"Kafka does not take records: {error}"
            except Exception as error:
                if not is_database_away(error):
                    raise
                reason = f"the database is away: {type(error).__name__}"
            else:
                return
            if reason != self._trouble:
                log.info("relay-paused", reason=reason)
            self._trouble = reason
            telemetry.relay_retries.inc()
            await self._rest(_BACKOFF.pause_s(self._failures))
            self._failures += 1

    async def _work(self) -> None:
        """Hold the lock and publish, until stopped or until something is away."""
        connection = await connect(self._settings, self._lock_name)
        try:
            while not await try_lock(connection, self._lock_name):
                self._trouble = None  # standing by is the right thing to do
                await self._rest(_STAND_BY_S)
                if self._stopping.is_set():
                    return
            while not self._stopping.is_set():
                await self._publish(OutboxReader(connection))
        finally:
            connection.terminate()

    async def _publish(self, queue: OutboxReader) -> None:
        """Publish with one producer, until it is out of step or we are to stop."""
        producer = await RowProducer.open(self._settings)
        self._trouble = None
        refused: Sequence[Row] = ()
        try:
            await self._publish_with(producer, queue)
        except SequenceBroken as error:
            refused = error.refused
        finally:
            await producer.close()
        await self._send_each_alone(queue, refused)

    async def _publish_with(self, producer: RowProducer, queue: OutboxReader) -> None:
        """Publish until we are to stop: what Kafka has, what is made ready and what is read differ.

        :raises KafkaAway: some rows were not answered; of the others, what is not deleted yet is
            sent again, and dropped as a repeat
        :raises SequenceBroken: some were refused; what was acknowledged is deleted
        """
        way = _Way()
        idle_s, woken = self._settings.relay_idle_s, True
        try:
            while not self._stopping.is_set():
                # Where more was committed it is read meanwhile; else the answer comes first.
                if not way.rows and not self._wake.is_set():
                    await self._await_answers(queue, way)
                self._wake.clear()
                if not way.rows:
                    way.rows = await self._turn(queue, way, way.sent)
                    if way.rows and not woken:
                        # Somebody else commits too, and says nothing: look often for a while.
                        idle_s = _BUSY_SLEEP_S
                if way.rows:
                    await self._send_on(producer, queue, way)
                elif not way.sent:
                    woken = await self._sleep(idle_s)
                    idle_s = min(idle_s * 2, self._settings.relay_idle_s)
                if not way.sent:
                    self._failures = 0  # what was sent has been answered for
                await self._count(queue)
            await self._await_answers(queue, way)
            await self._delete(queue, way.done)
        finally:
            await way.abandon()

    async def _send_on(self, producer: RowProducer, queue: OutboxReader, way: _Way) -> None:
        """Give Kafka the rows that were read, when it has answered for those before them.

        Where more may wait they are read meanwhile, so that the database and Kafka are at work
        while batches are made. If some may not go now, what is behind them is read again.

        :raises KafkaAway: as ``_publish_with``
        :raises SequenceBroken: as ``_publish_with``
        """
        rows = way.rows
        if len(rows) == MOST_ROWS:
            way.reading = asyncio.create_task(self._turn(queue, way, [*way.sent, *rows]))
            await asyncio.sleep(0)  # it asks the database before we are busy
        await self._hold_back_missing(producer, {row["aggregatetype"] for row in rows})
        batches = producer.batches_of(
            [row for row in rows if row["aggregatetype"] not in self._held_back]
        )
        # Where the database is gone, and so our lock, nothing more is sent.
        ahead = await way.reading if way.reading else ()
        way.reading = None
        await self._await_answers(queue, way)
        way.send(producer, batches)
        way.rows = ahead if len(way.sent) == len(rows) else ()

    async def _turn(
        self, queue: OutboxReader, way: _Way, on_their_way: Sequence[Row]
    ) -> Sequence[Row]:
        """Delete what was acknowledged, and return the next rows."""
        now = asyncio.get_running_loop().time()
        self._held_back = {topic: until for topic, until in self._held_back.items() if until > now}
        done, way.done = way.done, ()
        if done:
            await failpoint("relay.before-delete")
        rows = await queue.turn(done, on_their_way, list(self._held_back))
        if done:
            await failpoint("relay.after-delete")
            self._count_published(done)
        return rows

    async def _await_answers(self, queue: OutboxReader, way: _Way) -> None:
        """Wait until Kafka has answered for what it has, and sort out what it said.

        :raises KafkaAway: as ``_publish_with``
        :raises SequenceBroken: as ``_publish_with``
        """
        acknowledged: list[Row] = []
        failed: list[tuple[Row, BaseException]] = []
        stuck: set[tuple[str, str]] = set()
        for row, answer in await way.answers():
            aggregate = (row["aggregatetype"], row["aggregateid"])
            if answer is not None:
                failed.append((row, answer))
                stuck.add(aggregate)
            elif aggregate not in stuck:
                # What comes after a failed one of its aggregate is sent again, behind it.
                acknowledged.append(row)
        way.done = [*way.done, *acknowledged]
        if not failed:
            return
        await self._delete(queue, way.done)
        for _, error in failed:
            if is_away(error):
                raise KafkaAway(type(error).__name__) from error
        for topic in {row["aggregatetype"] for row, error in failed if is_forbidden(error)}:
            self._hold_back(topic)
        raise SequenceBroken([row for row, error in failed if not is_forbidden(error)])

    async def _send_each_alone(self, queue: OutboxReader, rows: Sequence[Row]) -> None:
        """Send rows one at a time, and set aside those that a fresh producer cannot send either.

        :raises KafkaAway: one was not answered
        """
        stuck: set[tuple[str, str]] = set()
        producer: RowProducer | None = None
        try:
            for row in rows:
                aggregate = (row["aggregatetype"], row["aggregateid"])
                if aggregate in stuck:
                    continue
                producer = producer or await RowProducer.open(self._settings)
                await self._hold_back_missing(producer, {row["aggregatetype"]})
                if row["aggregatetype"] in self._held_back:
                    continue
                error = await producer.send_alone(row)
                if error is None:
                    await self._delete(queue, [row])
                elif is_away(error):
                    raise KafkaAway(type(error).__name__) from error
                else:
                    if is_forbidden(error):
                        self._hold_back(row["aggregatetype"])
                    else:
                        await self._set_aside(queue, row, error)
                    stuck.add(aggregate)
                    await producer.close()
                    producer = None
        finally:
            if producer is not None:
                await producer.close()

    async def _delete(self, queue: OutboxReader, rows: Sequence[Row]) -> None:
        if rows:
            await failpoint("relay.before-delete")
            await queue.delete(rows)
            await failpoint("relay.after-delete")
            self._count_published(rows)

    def _count_published(self, rows: Sequence[Row]) -> None:
        for topic, count in Counter(row["aggregatetype"] for row in rows).items():
            self._times_held_back.pop(topic, None)
            telemetry.relay_published.labels(topic).inc(count)
        oldest_ms = min(row["created_ms"] for row in rows)
        telemetry.relay_latency_seconds.observe(self._now().timestamp() - oldest_ms / 1_000)

    async def _set_aside(self, queue: OutboxReader, row: Row, error: BaseException) -> None:
        code = type(error).__name__
        message = getattr(error, "description", None) or code
        await failpoint("relay.before-set-aside")
        await queue.set_aside(row, code, message, self._now())
        await failpoint("relay.after-set-aside")
        telemetry.relay_set_aside.labels(row["aggregatetype"]).inc()
        log.error(
            "row-set-aside", topic=row["aggregatetype"], subject=row["aggregateid"], error=code
        )

    async def _hold_back_missing(self, producer: RowProducer, topics: set[str]) -> None:
        for topic in topics:
            if not await producer.has_topic(topic):
                self._hold_back(topic)

    def _hold_back(self, topic: str) -> None:
        """Read no rows of a topic for a while; the others go on."""
        times = self._times_held_back.get(topic, 0)
        if not times:
            log.warning("topic-held-back", topic=topic)
        self._times_held_back[topic] = times + 1
        self._held_back[topic] = asyncio.get_running_loop().time() + _BACKOFF.pause_s(times)

    async def _count(self, queue: OutboxReader) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._counted_at >= _COUNT_EVERY_S:
            self._counted_at = now
            telemetry.relay_depth.set(await queue.depth())

    async def _sleep(self, seconds: float) -> bool:
        """Sleep until something is committed in this process, or we are to stop; say if it was."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        return self._wake.is_set()

    async def _rest(self, seconds: float) -> None:
        """Do nothing for so long, whatever is committed, unless we are to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
