"""Publishes the outbox: in order per aggregate, each row until Kafka has acknowledged it.

One relay a service works, the others stand by: the one that holds the advisory lock, on the very
connection that it reads and deletes with. It keeps no cursor: each read begins at the lowest
position, for a row that committed late would be stepped over by any other.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from chassis import telemetry
from chassis.kafka import KafkaSecurity
from chassis.locks import DATABASE_AWAY, connect, try_lock
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

_BATCH_ROWS: Final = 1_000
_ACK_WITHIN_MS: Final = 5_000
_BUSY_SLEEP_S: Final = 0.002
_STAND_BY_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0
_KNOW_TOPIC_WITHIN_S: Final = 2.0
_COUNT_EVERY_S: Final = 5.0
_COUNT_AT_MOST: Final = 100_000

_READ: Final = """
    SELECT position, aggregatetype, aggregateid, payload, headers, created_at
    FROM outbox
    WHERE aggregatetype <> ALL ($1::text[])
      AND NOT EXISTS (
          SELECT FROM outbox_set_aside AS stuck
          WHERE stuck.aggregatetype = outbox.aggregatetype
            AND stuck.aggregateid = outbox.aggregateid
      )
    ORDER BY position
    LIMIT $2
"""
_DELETE: Final = "DELETE FROM outbox WHERE position = ANY ($1::bigint[])"
_SET_ASIDE: Final = """
    WITH moved AS (DELETE FROM outbox WHERE position = $1 RETURNING *)
    INSERT INTO outbox_set_aside (
        position, id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at,
        error_code, error_message, set_aside_at
    )
    SELECT
        position, id, aggregatetype, aggregateid, type, sequence, payload, headers, created_at,
        $2, $3, $4
    FROM moved
"""
_COUNT: Final = "SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) AS waiting"

_NOT_THERE: Final = (UnknownTopicOrPartitionError, TopicAuthorizationFailedError)

Row = Any  # asyncpg.Record: a row of _READ


class KafkaAway(Exception):
    """Kafka does not take records now; nothing was marked published, all of it is sent again."""


class Relay:
    """A component that publishes one service's outbox until it is stopped."""

    name = "relay"
    # What is committed waits safely; requests need not.
    gates_readiness = False

    def __init__(
        self, settings: ServiceSettings, *, service: str, now: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._lock_name = f"{service}-relay"
        self._now = now
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._trouble: str | None = "starting"
        self._held_back: dict[str, float] = {}
        self._pauses_s: dict[str, float] = {}
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
        failures = 0
        while not self._stopping.is_set():
            try:
                await self._work()
                failures = 0
            except KafkaAway as error:
                self._trouble = f"Kafka does not take records: {error}"
            except DATABASE_AWAY as error:
                self._trouble = f"the database is away: {type(error).__name__}"
            if not self._stopping.is_set():
                log.info("relay-paused", reason=self._trouble)
                telemetry.relay_retries.inc()
                await self._sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures))
                failures += 1

    async def _work(self) -> None:
        """Hold the lock and publish, until stopped or until something is away."""
        connection = await connect(self._settings, self._lock_name)
        try:
            while not await try_lock(connection, self._lock_name):
                self._trouble = None  # standing by is the right thing to do
                if self._stopping.is_set():
                    return
                await self._sleep(_STAND_BY_S)
            while not self._stopping.is_set():
                await self._publish(connection)
        finally:
            connection.terminate()

    async def _publish(self, connection: "asyncpg.Connection") -> None:
        """Publish with one producer, until a record is refused or we are to stop."""
        producer = await self._new_producer()
        refused: Sequence[Row] = ()
        try:
            self._trouble = None
            idle_s = _BUSY_SLEEP_S
            while not self._stopping.is_set() and not refused:
                self._wake.clear()
                self._release_topics()
                rows = await connection.fetch(_READ, list(self._held_back), _BATCH_ROWS)
                if rows:
                    refused = await self._send_all(connection, producer, rows)
                    idle_s = _BUSY_SLEEP_S
                else:
                    await self._sleep(idle_s)
                    idle_s = min(idle_s * 2, self._settings.relay_idle_s)
                await self._count(connection)
        finally:
            await _close(producer)
        # After one refusal aiokafka's idempotent producer is out of step with the broker for
        # good, and rows that shared the refused batch failed with it: each is tried alone.
        await self._send_each_alone(connection, refused)

    async def _send_all(
        self, connection: "asyncpg.Connection", producer: AIOKafkaProducer, rows: Sequence[Row]
    ) -> Sequence[Row]:
        """Send rows together, delete what was acknowledged, and return what was refused."""
        known = [row for row in rows if await self._is_there(producer, row["aggregatetype"])]
        sent: list[tuple[Row, asyncio.Future[Any]]] = []
        refused: list[Row] = []
        stuck: set[tuple[str, str]] = set()
        for row in known:
            aggregate = (row["aggregatetype"], row["aggregateid"])
            if aggregate in stuck:
                continue
            try:
                sent.append((row, await _send(producer, row)))
            except KafkaError as error:
                _raise_if_away(error)
                stuck.add(aggregate)
                refused.append(row)
        answers = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
        acknowledged: list[Row] = []
        away: BaseException | None = None
        for (row, _), answer in zip(sent, answers, strict=True):
            aggregate = (row["aggregatetype"], row["aggregateid"])
            if not isinstance(answer, BaseException):
                if aggregate not in stuck:
                    acknowledged.append(row)
            else:
                # What is sent of its aggregate after it is sent again, behind it.
                stuck.add(aggregate)
                if _is_away(answer):
                    away = answer
                else:
                    refused.append(row)
        await self._delete(connection, acknowledged)
        if away is not None:
            raise KafkaAway(type(away).__name__) from away
        return sorted(refused, key=lambda row: int(row["position"]))

    async def _send_each_alone(self, connection: "asyncpg.Connection", rows: Sequence[Row]) -> None:
        """Send rows one at a time, and set aside those that a fresh producer cannot send either."""
        stuck: set[tuple[str, str]] = set()
        producer: AIOKafkaProducer | None = None
        try:
            for row in rows:
                aggregate = (row["aggregatetype"], row["aggregateid"])
                if aggregate in stuck:
                    continue
                producer = producer or await self._new_producer()
                try:
                    await (await _send(producer, row))
                except KafkaError as error:
                    _raise_if_away(error)
                    stuck.add(aggregate)
                    await self._set_aside(connection, row, error)
                    await _close(producer)
                    producer = None
                else:
                    await self._delete(connection, [row])
        finally:
            if producer is not None:
                await _close(producer)

    async def _delete(self, connection: "asyncpg.Connection", rows: Sequence[Row]) -> None:
        if not rows:
            return
        await connection.execute(_DELETE, [row["position"] for row in rows])
        now = self._now()
        for row in rows:
            telemetry.relay_published.labels(row["aggregatetype"]).inc()
            telemetry.relay_latency_seconds.observe((now - row["created_at"]).total_seconds())

    async def _set_aside(
        self, connection: "asyncpg.Connection", row: Row, error: KafkaError
    ) -> None:
        code = type(error).__name__
        await connection.execute(
            _SET_ASIDE, row["position"], code, error.description or code, self._now()
        )
        telemetry.relay_set_aside.labels(row["aggregatetype"]).inc()
        log.error(
            "row-set-aside", topic=row["aggregatetype"], subject=row["aggregateid"], error=code
        )

    async def _new_producer(self) -> AIOKafkaProducer:
        """Start a producer.

        :raises KafkaAway: no broker answers
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap,
            enable_idempotence=True,
            acks="all",
            request_timeout_ms=_ACK_WITHIN_MS,
            # The topics' limit decides, and the broker says so.
            max_request_size=16 * 1_048_576,
            **KafkaSecurity.of(self._settings).client_arguments(),
        )
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            await _close(producer)
            raise KafkaAway(type(error).__name__) from error
        return producer

    async def _is_there(self, producer: AIOKafkaProducer, topic: str) -> bool:
        """Tell whether rows of the topic can be sent; if not, hold them back for a while."""
        if topic in self._held_back:
            return False
        if producer.client.cluster.partitions_for_topic(topic):
            self._pauses_s.pop(topic, None)
            return True
        try:
            async with asyncio.timeout(_KNOW_TOPIC_WITHIN_S):
                await producer.partitions_for(topic)
        except (*_NOT_THERE, TimeoutError) as error:
            pause_s = min(self._pauses_s.get(topic, _FIRST_PAUSE_S) * 2, _LONGEST_PAUSE_S)
            self._pauses_s[topic] = pause_s
            self._held_back[topic] = asyncio.get_running_loop().time() + pause_s
            log.warning("topic-held-back", topic=topic, error=type(error).__name__)
            return False
        except (KafkaError, OSError) as error:
            raise KafkaAway(type(error).__name__) from error
        self._pauses_s.pop(topic, None)
        return True

    def _release_topics(self) -> None:
        now = asyncio.get_running_loop().time()
        self._held_back = {topic: at for topic, at in self._held_back.items() if at > now}

    async def _count(self, connection: "asyncpg.Connection") -> None:
        now = asyncio.get_running_loop().time()
        if now - self._counted_at >= _COUNT_EVERY_S:
            self._counted_at = now
            telemetry.relay_depth.set(await connection.fetchval(_COUNT, _COUNT_AT_MOST))

    async def _sleep(self, seconds: float) -> None:
        """Sleep until something is committed in this process, or we are to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()


async def _send(producer: AIOKafkaProducer, row: Row) -> "asyncio.Future[Any]":
    headers = orjson.loads(row["headers"])
    future: asyncio.Future[Any] = await producer.send(
        row["aggregatetype"],
        value=row["payload"],
        # Kafka keeps order only within a partition, and the key chooses it.
        key=row["aggregateid"].encode(),
        # When it was committed, not when it was sent: a reader can see how long it waited.
        timestamp_ms=int(row["created_at"].timestamp() * 1_000),
        headers=[(name, value.encode()) for name, value in headers.items()],
    )
    return future


def _is_away(error: BaseException) -> bool:
    """Tell whether the broker did not answer, rather than refuse."""
    if isinstance(error, KafkaConnectionError | KafkaTimeoutError | OSError):
        return True
    return isinstance(error, KafkaError) and bool(error.retriable)


def _raise_if_away(error: KafkaError) -> None:
    if _is_away(error):
        raise KafkaAway(type(error).__name__) from error


async def _close(producer: AIOKafkaProducer) -> None:
    """Close a producer, also one whose broker is gone and whose records will never be sent."""
    try:
        async with asyncio.timeout(2):
            await producer.stop()
    except (TimeoutError, KafkaError, OSError) as error:
        log.info("producer-abandoned", error=type(error).__name__)
        await producer.client.close()
