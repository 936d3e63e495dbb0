"""The Faust app of a worker: one agent a topic, each fed with chunks."""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import faust
import structlog
from faust.contrib.asgi import bind_to_running_loop
from mode import CrashingSupervisor
from yarl import URL

from chassis.consuming.chunk import Chunk, ChunkSource
from chassis.consuming.faust_internals import check_faust_internals
from chassis.consuming.faust_transport import ChunkConsumer, ChunkSchema, ChunkTransport, NoTables
from chassis.kafka.client import KafkaSecurity
from chassis.settings import ServiceSettings

log = structlog.get_logger(__name__)

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


class Processor(Protocol):
    """What is done with the chunks of one topic."""

    async def process(self, chunk: Chunk, source: ChunkSource) -> None: ...


def make_app(
    service: str, settings: ServiceSettings, processors: Mapping[str, Processor]
) -> faust.App:
    """Make the app whose agents hand each topic's chunks to its processor; it is not started.

    :raises RuntimeError: Faust or aiokafka is of another version than this was written for
    """
    check_faust_internals()
    security = KafkaSecurity.of(settings)
    servers = [URL(f"kafka://{each}") for each in settings.kafka_bootstrap.split(",")]
    app = faust.App(
        service,
        broker=servers,
        broker_credentials=_credentials(security),
        broker_max_poll_records=settings.chunk_max_events,
        broker_max_poll_interval=_NEVER_S,
        broker_session_timeout=settings.kafka_session_timeout_s,
        broker_heartbeat_interval=settings.kafka_session_timeout_s / 6,
        broker_commit_interval=1.0,
        # A broker that has just started may not know a topic yet, and the group leader then
        # assigns its partitions to no member. Only another look at the metadata changes that.
        consumer_metadata_max_age_ms=_METADATA_MAX_AGE_MS,
        consumer_group_instance_id=f"{service}-{settings.worker_name}",
        # An automatic reset would read elsewhere than progress says, without an error.
        consumer_auto_offset_reset="none",
        consumer_max_fetch_size=_MOST_FETCHED_BYTES,
        stream_buffer_maxsize=_NEVER_FULL,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=Path(tempfile.gettempdir()) / f"{service}-{settings.worker_name}",
        agent_supervisor=CrashingSupervisor,
        TableManager=NoTables,
        loghandlers=[],
    )
    # What a service publishes goes through its outbox.
    app.boot_strategy = app.BootStrategy(app, enable_kafka_producer=False)
    app.transport = ChunkTransport(servers, app)
    for name, processor in processors.items():
        topic = app.topic(name, schema=ChunkSchema(), acks=False)
        app.agent(topic, name=f"{service}.{name}", isolated_partitions=True)(
            _agent_of(processor, app)
        )
    bind_to_running_loop(app)
    app.finalize()
    return app


def consumer_of(app: faust.App) -> ChunkConsumer:
    """Return the app's consumer, which is ours."""
    consumer = app.consumer
    assert isinstance(consumer, ChunkConsumer)  # noqa: S101 - for the type checker
    return consumer


async def stop_app(app: faust.App, started: asyncio.Task[None]) -> None:
    """Stop Faust, which can hang: the process then ends hard, and nothing is lost by it."""
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


def _agent_of(processor: Processor, app: faust.App) -> Any:
    async def process(stream: faust.StreamT[Any]) -> None:
        assert isinstance(stream, faust.Stream)  # noqa: S101 - for the type checker
        async for event in stream.noack().events():
            await processor.process(event.value.take(), consumer_of(app))

    return process


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
