"""A process's log lines, spans and metrics, connected by one correlation id."""

import logging
import re
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from chassis.correlation import correlation_or_none
from chassis.settings import ProcessSettings

#: The name of the logger whose lines are the security log.
SECURITY = "security"

_W3C = TraceContextTextMapPropagator()
_EXPORT_TIMEOUT_S = 2
_REPEAT_AFTER_S = 10.0
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Each would double the series, only to report when this process began to count.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation here

http_requests = Counter("http_requests", "Requests answered.", ["method", "route", "status"])
http_request_seconds = Histogram(
    "http_request_seconds", "Time to answer a request.", ["method", "route"], buckets=_SECONDS
)
http_connections_closed = Counter(
    "http_connections_closed",
    "Connections that the server closed although their clients had not finished.",
    ["reason"],
)
http_connections_open = Gauge("http_connections_open", "Connections of clients.")

http_streams_open = Gauge("http_streams_open", "Streams of server-sent events that are open.")
http_streams_ended = Counter(
    "http_streams_ended", "Streams of server-sent events that ended, by the reason.", ["reason"]
)

transaction_retries = Counter(
    "transaction_retries", "Commands that ran again after a conflict or a lost connection."
)

relay_published = Counter("relay_published", "Outbox rows acknowledged by Kafka.", ["topic"])
relay_set_aside = Counter("relay_set_aside", "Outbox rows that Kafka refused.", ["topic"])
relay_set_aside_waiting = Gauge(
    "relay_set_aside_waiting", "Outbox rows that Kafka refused, and that wait for an operator."
)
relay_latency_seconds = Histogram(
    "relay_latency_seconds",
    "From writing the oldest outbox row of a batch to Kafka's acknowledgement.",
    buckets=_SECONDS,
)
relay_depth = Gauge("relay_depth", "Outbox rows not yet published.")
outbox_age_seconds = Gauge(
    "outbox_age_seconds", "How long the oldest outbox row that waits for Kafka has waited."
)
outbox_slot_bytes = Gauge(
    "outbox_slot_bytes",
    "How much of PostgreSQL's log the reader of the outbox's slot has not read.",
)
outbox_slot_inactive_seconds = Gauge(
    "outbox_slot_inactive_seconds", "How long nobody has been connected to the outbox's slot."
)
relay_retries = Counter(
    "relay_retries", "Times that the relay paused because Kafka or PostgreSQL was away."
)

consumer_events = Counter("consumer_events", "Events by outcome.", ["subscriber", "outcome"])
consumer_chunk_seconds = Histogram(
    "consumer_chunk_seconds", "Time to handle one chunk.", ["topic"], buckets=_SECONDS
)
consumer_lag = Gauge(
    "consumer_lag", "Records published and not yet handled.", ["subscriber", "topic", "partition"]
)
consumer_given_up_offset = Gauge(
    "consumer_given_up_offset",
    "Where a partition can't be read on; one that is read has no series.",
    ["topic", "partition"],
)
consumer_hidden_offsets = Gauge(
    "consumer_hidden_offsets",
    "Offsets hidden by an open transaction; without one there is no series.",
    ["topic", "partition"],
)
consumer_held_partitions = Gauge(
    "consumer_held_partitions",
    "Partitions in which nothing is handled until an operator decides.",
    ["subscriber", "topic"],
)
consumer_replaying = Gauge(
    "consumer_replaying",
    "Partitions in which a subscriber is far behind the others, and reads by itself.",
    ["subscriber", "topic"],
)
consumer_parked = Counter("consumer_parked", "Events parked.", ["subscriber"])
consumer_parked_waiting = Gauge(
    "consumer_parked_waiting", "Parked events that wait for an operator.", ["subscriber"]
)
consumer_retries = Counter("consumer_retries", "Attempts that failed.", ["topic"])

timers_tried = Counter("timers", "Attempts to handle a timer, by outcome.", ["kind", "outcome"])
timers_due = Gauge("timers_due", "Aggregates with a due timer.")
timers_overdue_seconds = Gauge(
    "timers_overdue_seconds", "How long the longest overdue timer has been due."
)
timers_parked_waiting = Gauge("timers_parked_waiting", "Parked timers that wait for an operator.")


def configure_logging(service: str, settings: ProcessSettings) -> None:
    """Write every log line, those of libraries too, to standard error in one form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Context(service),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _without_data,
                last,
            ],
        )
    )
    handler.addFilter(_RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Of a level of its own: a process that logs little keeps a security log all the same.
    logging.getLogger(SECURITY).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    # At INFO httpx logs complete URLs, and their queries may contain personal data.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _RepeatFilter(logging.Filter):
    """Drops what Kafka's client logs again within 10 s, as it does while no broker answers."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        message, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._logged_at.get(message, -_REPEAT_AFTER_S) < _REPEAT_AFTER_S:
            return False
        self._logged_at[message] = now
        return True


class _Context:
    """Adds the service, the correlation id and the trace id to a line."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(
        self, _logger: object, _method: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        line["service"] = self._service
        current = correlation_or_none()
        line.setdefault("correlation_id", current.correlation_id if current else None)
        context = trace.get_current_span().get_span_context()
        line["trace_id"] = f"{context.trace_id:032x}" if context.is_valid else None
        return line


# PostgreSQL and pydantic quote in their messages what clients sent.
_QUOTED_DATA = re.compile(r"(?m)(?<=^DETAIL:).*$|(?<=input_value=).*(?=, input_type=)")


def _without_data(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if "exception" in line:
        line["exception"] = _QUOTED_DATA.sub("…", line["exception"])
    return line


class _WithoutInventions(SpanProcessor):
    """Removes from a request's span what a client may have invented: its query, an odd method."""

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        for name in ("url.query", "http.request.method_original"):
            if span.attributes and name in span.attributes:
                span.set_attribute(name, "…")


def configure_tracing(service: str, settings: ProcessSettings) -> TracerProvider:
    """Make spans for this service, and send them to ``otlp_endpoint``.

    Without an endpoint spans have their ids, which logs and events need, but are not recorded:
    recording is a tenth of the work on an event.
    """
    provider = TracerProvider(
        sampler=ALWAYS_OFF if settings.otlp_endpoint is None else None,
        resource=Resource.create(
            {"service.name": service, "service.instance.id": settings.worker_name}
        ),
    )
    provider.add_span_processor(_WithoutInventions())
    if settings.otlp_endpoint is not None:
        # 10 MB that most processes do not need.
        import requests  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        endpoint = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
        # For all attempts of one export: the process waits for the last export before it ends.
        session = requests.Session()
        session.trust_env = False  # as all our clients: no proxy stands between our own processes
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S, session=session)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


@cache
def _tracer_of(provider: trace.TracerProvider) -> Tracer:
    return provider.get_tracer("chassis")


def current_traceparent() -> str | None:
    """Return the current span as a W3C ``traceparent``, or None outside of any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


@contextmanager
def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    *,
    parent: str | None = None,
    links: Sequence[str] = (),
    **attributes: AttributeValue,
) -> Iterator[Span]:
    """Put the work of the block into a span, under ``parent`` (a ``traceparent``) or the current.

    ``links`` are the ``traceparent`` of other work that led to this; invalid ones are ignored.
    Of an exception only the type is recorded: its message may contain personal data.
    """
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider) and provider.sampler is ALWAYS_OFF:
        # The SDK comes to the same, and takes a quarter of the work on an event for it.
        unrecorded = _unrecorded(provider, parent)
        token = attach(trace.set_span_in_context(unrecorded))
        try:
            yield unrecorded
        finally:
            detach(token)
        return
    context = _W3C.extract({"traceparent": parent}) if parent else None
    with _tracer_of(provider).start_as_current_span(
        name,
        context=context,
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        if started.is_recording():
            for each in links:
                started.add_link(_context_of(each))
        try:
            yield started
        except Exception as error:
            started.set_status(trace.StatusCode.ERROR)
            started.set_attribute("error.type", type(error).__qualname__)
            raise


def _unrecorded(provider: TracerProvider, parent: str | None) -> Span:
    """Return a span that has its ids, which logs and events need, and is not recorded."""
    current = _context_of(parent) if parent else trace.get_current_span().get_span_context()
    ids = provider.id_generator
    return NonRecordingSpan(
        SpanContext(
            current.trace_id if current.is_valid else ids.generate_trace_id(),
            ids.generate_span_id(),
            is_remote=False,
            trace_state=current.trace_state,
        )
    )


def link_current_span(traceparent: str) -> None:
    """Link the current span to other work, whose ``traceparent`` this is; one that is none is not.

    So what others say of their traces is kept, and ours are not made of it.
    """
    current, linked = trace.get_current_span(), _context_of(traceparent)
    if current.is_recording() and linked.is_valid:
        current.add_link(linked)


def leave_path_out_of_span() -> None:
    """Take the path out of the span of a request for which there is no route."""
    current = trace.get_current_span()
    if current.is_recording():
        current.set_attribute("url.path", "…")


def _context_of(traceparent: str) -> SpanContext:
    return trace.get_current_span(_W3C.extract({"traceparent": traceparent})).get_span_context()
