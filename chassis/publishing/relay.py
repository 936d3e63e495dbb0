"""Publishes the outbox: in order per aggregate, each row until Kafka has acknowledged it.

One relay of a service works, and the others stand by: the one that holds the advisory lock, on the
very connection that it reads and deletes with. It keeps no cursor: each read begins at the lowest
position, because a cursor would step over a row that committed late.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from chassis.publishing.producer import KafkaAway, RowProducer, SendResult, is_away, is_forbidden
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

_BUSY_SLEEP_S: Final = 0.002
_STAND_BY_S: Final = 0.5
_QUIET_AFTER_S: Final = 10.0
_LONGEST_QUIET_SLEEP_S: Final = 1.0
_BACKOFF: Final = Backoff(first_s=0.2, longest_s=5.0, jitter=False)
_MEASURE_EVERY_S: Final = 5.0


class SequenceBroken(Exception):
    """Kafka refused records, and the producer's sequence numbers are of no more use.

    A record may have been refused only for another one in its batch: each is then sent alone.
    """

    def __init__(self, refused: Sequence[Row]) -> None:
        super().__init__(f"{len(refused)} rows")
        self.refused = refused


@dataclass
class _Pipeline:
    """The rows that one producer publishes: fetched, then sent, then acknowledged.

    The stages overlap: while Kafka has the rows that were sent, batches are made of those that
    were fetched, and the database has the next ones prefetched.
    """

    reader: OutboxReader
    producer: RowProducer
    fetched: Sequence[Row] = ()
    sent: Sequence[Row] = ()
    acknowledged: Sequence[Row] = ()
    prefetch: asyncio.Task[Sequence[Row]] | None = None
    results: asyncio.Task[Sequence[SendResult]] | None = None

    async def take_results(self) -> Sequence[SendResult]:
        """Wait for the results of the rows that were sent; then none is."""
        if self.results is None:
            return ()
        results = await self.results
        self.sent, self.results = (), None
        return results

    async def cancel(self) -> None:
        """Cancel what still runs, and wait for its end."""
        running = [task for task in (self.prefetch, self.results) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Relay:
    """A component that publishes one service's outbox until it is stopped."""

    name = "relay"
    # Committed events wait safely in the outbox, so requests need not wait for the relay.
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
        self._suspended_until: dict[str, float] = {}
        self._suspended_as: dict[str, str] = {}
        self._suspensions: Counter[str] = Counter()
        self._measured_at = 0.0

    def wake(self) -> None:
        """Have the relay look at the outbox now: this process committed to it."""
        self._wake.set()

    def trouble(self) -> str | None:
        """Return why rows are not published, or None when they are."""
        suspended = [
            f"topic {each} is {self._suspended_as[each]}" for each in self._suspended_until
        ]
        return self._trouble or "; ".join(suspended) or None

    async def stop(self) -> None:
        """Let ``run`` return when Kafka has answered for the rows that were sent."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Publish until stopped; waits for Kafka and the database by itself."""
        while not self._stopping.is_set():
            try:
                with translate_foreign_cancellation():
                    await self._hold_lock_and_publish()
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
            await self._pause(_BACKOFF.pause_s(self._failures))
            self._failures += 1

    async def _hold_lock_and_publish(self) -> None:
        """Publish until stopped, or until Kafka or the database is away."""
        connection = await connect(self._settings, self._lock_name)
        try:
            while not await try_lock(connection, self._lock_name):
                self._trouble = None  # to stand by is no trouble
                telemetry.relay_set_aside_waiting.set(0)  # the one that works reports them
                await self._pause(_STAND_BY_S)
                if self._stopping.is_set():
                    return
            while not self._stopping.is_set():
                await self._publish(OutboxReader(connection))
        finally:
            connection.terminate()

    async def _publish(self, reader: OutboxReader) -> None:
        """Publish with one producer, until Kafka refuses rows or the relay is stopped."""
        producer = await RowProducer.open(self._settings)
        self._trouble = None
        refused: Sequence[Row] = ()
        try:
            await self._publish_with(producer, reader)
        except SequenceBroken as error:
            refused = error.refused
        finally:
            await producer.close()
        await self._send_each_alone(reader, refused)

    async def _publish_with(self, producer: RowProducer, reader: OutboxReader) -> None:
        """Publish until the relay is stopped.

        :raises KafkaAway: some rows were not acknowledged; of the others, those that are not
            deleted yet are sent again, and consumers drop the repeats
        :raises SequenceBroken: some were refused; those that were acknowledged are deleted
        """
        pipeline = _Pipeline(reader, producer)
        idle_s, woken, quiet_since = self._settings.relay_idle_s, True, time.monotonic()
        try:
            while not self._stopping.is_set():
                # With no new commit, the results come before the next fetch.
                if not pipeline.fetched and not self._wake.is_set():
                    await self._await_results(pipeline)
                self._wake.clear()
                if not pipeline.fetched:
                    pipeline.fetched = await self._delete_and_fetch(pipeline, pipeline.sent)
                    if pipeline.fetched and not woken:
                        # Another process commits, and can't wake this one: poll often for a while.
                        idle_s, quiet_since = _BUSY_SLEEP_S, time.monotonic()
                if pipeline.fetched:
                    await self._send_fetched(pipeline)
                elif not pipeline.sent:
                    woken = await self._wait_for_commit(idle_s)
                    idle_s = min(idle_s * 2, self._longest_sleep_s(quiet_since))
                if not pipeline.sent:
                    self._failures = 0  # Kafka has acknowledged all that was sent
                await self._measure_depth(reader)
            await self._await_results(pipeline)
            await self._delete(reader, pipeline.acknowledged)
        finally:
            await pipeline.cancel()

    async def _send_fetched(self, pipeline: _Pipeline) -> None:
        """Send the rows that were fetched, when Kafka has acknowledged those before them.

        After a full fetch more rows may wait: those are prefetched while batches are made. If some
        rows may not be sent now, the prefetched ones are dropped, to be fetched again behind them.

        :raises KafkaAway, SequenceBroken: as ``_publish_with``
        """
        rows = pipeline.fetched
        if len(rows) == MOST_ROWS:
            in_flight = [*pipeline.sent, *rows]
            pipeline.prefetch = asyncio.create_task(self._delete_and_fetch(pipeline, in_flight))
            await asyncio.sleep(0)  # the query is sent before batches keep the event loop busy
        await self._suspend_missing(pipeline.producer, {row["aggregatetype"] for row in rows})
        batches = pipeline.producer.batches_of(
            [row for row in rows if row["aggregatetype"] not in self._suspended_until]
        )
        # If the database is gone, so is the lock, and this raises before anything more is sent.
        prefetched = await pipeline.prefetch if pipeline.prefetch else ()
        pipeline.prefetch = None
        await self._await_results(pipeline)
        pipeline.sent = [row for batch in batches for row in batch.rows]
        if pipeline.sent:
            pipeline.results = asyncio.create_task(pipeline.producer.send(batches))
        pipeline.fetched = prefetched if len(pipeline.sent) == len(rows) else ()

    async def _delete_and_fetch(
        self, pipeline: _Pipeline, in_flight: Sequence[Row]
    ) -> Sequence[Row]:
        """Delete the rows that Kafka has acknowledged, and return the next."""
        now = asyncio.get_running_loop().time()
        self._suspended_until = {
            t: until for t, until in self._suspended_until.items() if until > now
        }
        acknowledged, pipeline.acknowledged = pipeline.acknowledged, ()
        if acknowledged:
            await failpoint("relay.before-delete")
        rows = await pipeline.reader.delete_and_fetch(
            acknowledged, in_flight=in_flight, suspended=list(self._suspended_until)
        )
        if acknowledged:
            await failpoint("relay.after-delete")
            self._count_published(acknowledged)
        return rows

    async def _await_results(self, pipeline: _Pipeline) -> None:
        """Wait for the results of the rows that were sent; keep those acknowledged for the delete.

        :raises KafkaAway, SequenceBroken: as ``_publish_with``
        """
        acknowledged: list[Row] = []
        failed: list[tuple[Row, BaseException]] = []
        stuck: set[tuple[str, str]] = set()
        for row, error in await pipeline.take_results():
            aggregate = (row["aggregatetype"], row["aggregateid"])
            if error is not None:
                failed.append((row, error))
                stuck.add(aggregate)
            elif aggregate not in stuck:
                # What follows a failed row of its aggregate is sent again, behind it.
                acknowledged.append(row)
        pipeline.acknowledged = [*pipeline.acknowledged, *acknowledged]
        if not failed:
            return
        await self._delete(pipeline.reader, pipeline.acknowledged)
        for _, error in failed:
            if is_away(error):
                raise KafkaAway(type(error).__name__) from error
        for topic in {row["aggregatetype"] for row, error in failed if is_forbidden(error)}:
            self._suspend(topic, "forbidden")
        raise SequenceBroken([row for row, error in failed if not is_forbidden(error)])

    async def _send_each_alone(self, reader: OutboxReader, rows: Sequence[Row]) -> None:
        """Send rows one at a time, and set aside those that a fresh producer cannot send either.

        :raises KafkaAway: one was not acknowledged
        """
        stuck: set[tuple[str, str]] = set()
        producer: RowProducer | None = None
        try:
            for row in rows:
                topic = row["aggregatetype"]
                aggregate = (topic, row["aggregateid"])
                if aggregate in stuck:
                    continue
                producer = producer or await RowProducer.open(self._settings)
                await self._suspend_missing(producer, {topic})
                if topic in self._suspended_until:
                    continue
                error = await producer.send_alone(row)
                if error is None:
                    await self._delete(reader, [row])
                    continue
                if is_away(error):
                    raise KafkaAway(type(error).__name__) from error
                if is_forbidden(error):
                    self._suspend(topic, "forbidden")
                else:
                    await self._set_aside(reader, row, error)
                stuck.add(aggregate)
                await producer.close()
                producer = None
        finally:
            if producer is not None:
                await producer.close()

    async def _delete(self, reader: OutboxReader, acknowledged: Sequence[Row]) -> None:
        if acknowledged:
            await failpoint("relay.before-delete")
            await reader.delete(acknowledged)
            await failpoint("relay.after-delete")
            self._count_published(acknowledged)

    def _count_published(self, rows: Sequence[Row]) -> None:
        for topic, count in Counter(row["aggregatetype"] for row in rows).items():
            del self._suspensions[topic]
            telemetry.relay_published.labels(topic).inc(count)
        oldest_ms = min(row["created_ms"] for row in rows)
        telemetry.relay_latency_seconds.observe(self._now().timestamp() - oldest_ms / 1_000)

    async def _set_aside(self, reader: OutboxReader, row: Row, error: BaseException) -> None:
        code = type(error).__name__
        message = getattr(error, "description", None) or code
        await failpoint("relay.before-set-aside")
        await reader.set_aside(row, code, message, self._now())
        await failpoint("relay.after-set-aside")
        telemetry.relay_set_aside.labels(row["aggregatetype"]).inc()
        log.error(
            "row-set-aside", topic=row["aggregatetype"], subject=row["aggregateid"], error=code
        )

    async def _suspend_missing(self, producer: RowProducer, topics: set[str]) -> None:
        for topic in topics:
            if not await producer.has_topic(topic):
                self._suspend(topic, "forbidden" if producer.is_hidden(topic) else "missing")

    def _suspend(self, topic: str, because: str) -> None:
        """Fetch no rows of a topic for a while; those of other topics are published meanwhile."""
        suspensions = self._suspensions[topic]
        if not suspensions:
            log.warning("topic-held-back", topic=topic, because=because)
        self._suspensions[topic] += 1
        self._suspended_as[topic] = because
        pause_s = _BACKOFF.pause_s(suspensions)
        self._suspended_until[topic] = asyncio.get_running_loop().time() + pause_s

    async def _measure_depth(self, reader: OutboxReader) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._measured_at >= _MEASURE_EVERY_S:
            self._measured_at = now
            telemetry.relay_depth.set(await reader.depth())
            telemetry.relay_set_aside_waiting.set(await reader.set_aside_waiting())

    def _longest_sleep_s(self, quiet_since: float) -> float:
        """Return how long to sleep: 20 times as long where no other process commits for long."""
        longest_s = self._settings.relay_idle_s
        if time.monotonic() - quiet_since < _QUIET_AFTER_S:
            return longest_s
        return max(longest_s, min(20 * longest_s, _LONGEST_QUIET_SLEEP_S))

    async def _wait_for_commit(self, seconds: float) -> bool:
        """Wait for a commit of this process, or the stop; return whether one came in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        return self._wake.is_set()

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, whatever is committed, or until the relay is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
