import gzip
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog
from fastapi import APIRouter, Request
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel

from chassis.correlation import CorrelationContext, use_correlation
from chassis.telemetry import (
    SECURITY,
    configure_logging,
    configure_tracing,
    current_traceparent,
    span,
)
from tests.unit.chassis.conftest import Serve, settings

Written = Callable[[], str]


@contextmanager
def a_collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Serve as a collector of spans; yield its address, and the paths and bodies it was sent."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What was written to standard error; after the test logging is configured as before."""
    root, httpx_log = logging.getLogger(), logging.getLogger("httpx")
    handlers, level, httpx_level = root.handlers[:], root.level, httpx_log.level
    before = structlog.get_config()
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    httpx_log.setLevel(httpx_level)
    logging.captureWarnings(capture=False)
    structlog.configure(**before)


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (finished,) = spans.get_finished_spans()
    return finished


class TestLogging:
    def test_a_line_is_one_json_object_with_its_correlation_id(self, written: Written) -> None:
        configure_logging("toys", settings())

        with use_correlation(CorrelationContext("order-17")):
            structlog.get_logger("shop").info("toy sold", price=3)

        line = json.loads(written())
        assert line.pop("timestamp").endswith("Z")
        assert line == {
            "event": "toy sold",
            "price": 3,
            "level": "info",
            "logger": "shop",
            "service": "toys",
            "correlation_id": "order-17",
            "trace_id": None,
        }

    def test_a_line_of_a_library_has_the_same_form(self, written: Written) -> None:
        configure_logging("toys", settings())

        logging.getLogger("aiokafka.client").warning("node %d is away", 3)

        line = json.loads(written())
        assert (line["event"], line["level"]) == ("node 3 is away", "warning")
        assert (line["logger"], line["service"]) == ("aiokafka.client", "toys")

    def test_a_repeated_message_of_kafkas_client_is_dropped_and_no_other(
        self, written: Written
    ) -> None:
        configure_logging("toys", settings())

        for number in range(100):
            logging.getLogger("aiokafka").error("Unable connect to node with id %s", number)
            logging.getLogger("shop").error("no customer for %s", number)
        logging.getLogger("aiokafka").error("Unable to update metadata from %s", [1])

        loggers = [json.loads(line)["logger"] for line in written().splitlines()]
        assert loggers.count("aiokafka") == 2
        assert loggers.count("shop") == 100

    def test_a_line_without_a_correlation_id_makes_none(self, written: Written) -> None:
        configure_logging("toys", settings())
        log = structlog.get_logger()

        log.info("starting")
        log.info("started")

        lines = [json.loads(line) for line in written().splitlines()]
        assert [line["correlation_id"] for line in lines] == [None, None]

    @pytest.mark.usefixtures("spans")
    def test_a_line_in_a_span_has_its_trace_id(self, written: Written) -> None:
        configure_logging("toys", settings())

        with span("selling") as current:
            structlog.get_logger().info("toy sold")

        line = json.loads(written())
        assert line["trace_id"] == f"{current.get_span_context().trace_id:032x}"

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_an_error_is_logged_without_what_clients_sent(
        self, written: Written, log_format: str
    ) -> None:
        class Toy(BaseModel):
            price: int

        # In two parts, because a traceback also quotes the source.
        address = "ann@" + "example.org"
        configure_logging("toys", settings(log_format=log_format))
        try:
            try:
                Toy.model_validate({"price": address})
            except ValueError as error:
                detail = f"Key (email)=({address}) already exists."
                raise RuntimeError(f"duplicate key\nDETAIL:  {detail}") from error
        except RuntimeError:
            structlog.get_logger().exception("unexpected error")

        logged = written()
        assert "test_telemetry.py" in logged
        assert "RuntimeError: duplicate key" in logged
        assert address not in logged

    def test_console_lines_have_colours_only_on_a_terminal(self, written: Written) -> None:
        configure_logging("toys", settings(log_format="console"))

        structlog.get_logger().info("toy sold")

        logged = written()
        assert "toy sold" in logged
        assert "\x1b" not in logged

    def test_the_level_is_a_setting(self, written: Written) -> None:
        configure_logging("toys", settings(log_level="WARNING"))

        structlog.get_logger().info("toy sold")
        logging.getLogger("faust").info("started")

        assert written() == ""

    def test_the_security_log_is_written_at_any_level(self, written: Written) -> None:
        configure_logging("toys", settings(log_level="WARNING"))

        structlog.get_logger(SECURITY).info("operator-read")

        assert f'"logger": "{SECURITY}"' in written()

    def test_a_warning_is_logged(self, written: Written) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            configure_logging("toys", settings())
            warnings.warn("this will go away", stacklevel=1)
            logging.captureWarnings(capture=False)

        assert "this will go away" in json.loads(written())["event"]


OF_A_TRACE = {"traceparent", "tracestate", "baggage"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TestSpans:
    def test_without_an_endpoint_spans_have_ids_and_are_not_recorded(
        self, spans: InMemorySpanExporter
    ) -> None:
        tracer = configure_tracing("toys", settings()).get_tracer("toys")

        parent = TraceContextTextMapPropagator().extract({"traceparent": PARENT})
        first, continued = tracer.start_span("first"), tracer.start_span("continued", parent)

        assert not first.is_recording()
        assert first.get_span_context().is_valid
        assert continued.get_span_context().trace_id == 0x0AF7651916CD43DD8448EB211C80319C

    def test_are_sent_to_their_endpoint_past_any_proxy(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        for exceptions in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(exceptions, raising=False)
        with a_collector() as (endpoint, received):
            provider = configure_tracing("toys", settings(otlp_endpoint=endpoint))
            provider.get_tracer("toys").start_span("a toy is sold").end()
            provider.shutdown()

        ((path, body),) = received
        assert path == "/v1/traces"
        assert b"a toy is sold" in body

    def test_what_is_not_recorded_continues_traces_and_nests_all_the_same(
        self, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trace.get_tracer_provider(), "sampler", ALWAYS_OFF)

        with span("handle", parent=PARENT) as outer:
            in_outer = current_traceparent()
            with span("inner") as inner:
                in_inner = current_traceparent()
        with span("another", parent="nonsense"):
            in_another = current_traceparent()

        assert spans.get_finished_spans() == ()
        assert not outer.is_recording()
        outer_id = f"{outer.get_span_context().span_id:016x}"
        inner_id = f"{inner.get_span_context().span_id:016x}"
        assert in_outer == f"00-0af7651916cd43dd8448eb211c80319c-{outer_id}-00"
        assert in_inner == f"00-0af7651916cd43dd8448eb211c80319c-{inner_id}-00"
        assert outer_id not in (inner_id, "b7ad6b7169203331")
        assert in_another is not None
        assert "0af7651916cd43dd8448eb211c80319c" not in in_another
        assert current_traceparent() is None

    def test_a_span_continues_a_traceparent(self, spans: InMemorySpanExporter) -> None:
        with span("handle", SpanKind.CONSUMER, parent=PARENT, topic="toys.toy"):
            inner = current_traceparent()

        finished = only(spans)
        context = finished.get_span_context()
        assert context is not None
        assert f"{context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
        assert finished.parent is not None
        assert f"{finished.parent.span_id:016x}" == "b7ad6b7169203331"
        assert finished.kind is SpanKind.CONSUMER
        assert dict(finished.attributes or {}) == {"topic": "toys.toy"}
        assert inner == f"00-0af7651916cd43dd8448eb211c80319c-{context.span_id:016x}-01"

    def test_spans_nest(self, spans: InMemorySpanExporter) -> None:
        with span("outer"), span("inner"):
            pass

        inner, outer = spans.get_finished_spans()
        assert inner.parent == outer.get_span_context()

    def test_it_links_to_other_work_and_ignores_an_invalid_link(
        self, spans: InMemorySpanExporter
    ) -> None:
        with span("chunk", links=[PARENT, "nonsense"]):
            pass

        (link,) = only(spans).links
        assert f"{link.context.span_id:016x}" == "b7ad6b7169203331"

    def test_only_the_type_of_an_error_is_recorded(self, spans: InMemorySpanExporter) -> None:
        with pytest.raises(ValueError, match="hunter2"), span("handle"):
            raise ValueError("hunter2")

        finished = only(spans)
        assert not finished.status.is_ok
        assert "hunter2" not in finished.to_json()
        assert dict(finished.attributes or {}) == {"error.type": "ValueError"}

    def test_outside_of_a_span_there_is_no_traceparent(self) -> None:
        assert current_traceparent() is None


class TestRequests:
    async def test_a_request_continues_the_clients_trace(
        self, serve: Serve, spans: InMemorySpanExporter
    ) -> None:
        router = APIRouter()

        @router.post("/toys/{number}")
        async def post_toy(number: int) -> str | None:
            with span("sell"):
                return current_traceparent()

        async with serve(router) as client:
            answer = await client.post(
                "/toys/1?email=ann@example.org", headers={"traceparent": PARENT}
            )

        sell, request = spans.get_finished_spans()
        assert answer.json().startswith("00-0af7651916cd43dd8448eb211c80319c-")
        assert (request.name, request.kind) == ("POST /toys/{number}", SpanKind.SERVER)
        assert sell.parent == request.get_span_context()
        assert "example.org" not in request.to_json()

    async def test_at_the_edge_a_request_begins_a_trace_and_links_to_the_clients(
        self, serve: Serve, spans: InMemorySpanExporter
    ) -> None:
        router = APIRouter()

        @router.get("/toys")
        async def get_toys(request: Request) -> list[str]:
            return [name for name in request.headers if name in OF_A_TRACE]

        clients = {"traceparent": PARENT, "tracestate": "a=hunter2", "baggage": "b=hunter2"}
        async with serve(router, edge=True) as client:
            answer = await client.get("/toys", headers=clients)

        request = only(spans)
        (link,) = request.links
        assert request.parent is None
        assert f"{link.context.span_id:016x}" == "b7ad6b7169203331"
        assert f"{request.get_span_context().trace_id:032x}" not in PARENT  # type: ignore[union-attr]
        assert answer.json() == []
        assert "hunter2" not in request.to_json()

    async def test_at_the_edge_a_trace_that_is_none_links_to_nothing(
        self, serve: Serve, spans: InMemorySpanExporter
    ) -> None:
        async with serve(edge=True) as client:
            await client.get("/toys", headers={"traceparent": "nonsense"})

        assert only(spans).links == ()

    async def test_no_span_has_a_path_without_a_route_or_a_method_of_the_clients_invention(
        self, serve: Serve, spans: InMemorySpanExporter
    ) -> None:
        async with serve(APIRouter()) as client:
            await client.get("/hunter2")
            await client.request("HUNTER2", "/docs")

        told = "".join(each.to_json() for each in spans.get_finished_spans())
        assert "hunter2" not in told.lower()

    async def test_an_unexpected_error_leaves_no_message_in_the_trace(
        self, serve: Serve, spans: InMemorySpanExporter
    ) -> None:
        router = APIRouter()

        @router.get("/toys")
        async def get_toys() -> None:
            raise RuntimeError("hunter2")

        async with serve(router) as client:
            await client.get("/toys")

        finished = only(spans)
        assert not finished.status.is_ok
        assert "hunter2" not in finished.to_json()

    async def test_requests_for_health_and_metrics_have_no_span(
        self, serve: Serve, spans: InMemorySpanExporter
    ) -> None:
        async with serve() as client:
            await client.get("/health/ready")
            await client.get("/metrics")

        assert spans.get_finished_spans() == ()
