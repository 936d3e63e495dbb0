"""The span of a chunk: where its events' traces go on."""

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from audit_service.records import Kept, _span
from tests.unit.audit_service.making import bytes_record, event, record

A = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1111111111111111-01"
A_TOO = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-2222222222222222-01"
B = "00-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-3333333333333333-01"


def span_of(spans: InMemorySpanExporter, *traceparents: str | None) -> ReadableSpan:
    with _span([Kept.of(record(event(traceparent=each))) for each in traceparents]):
        pass
    (span,) = spans.get_finished_spans()
    return span


class TestTheSpanOfAChunk:
    def test_goes_on_with_the_one_trace_that_it_is_of(self, spans: InMemorySpanExporter) -> None:
        span = span_of(spans, A, A_TOO, None)
        assert span.parent is not None
        assert span.parent.trace_id == int("a" * 32, 16)
        assert span.attributes == {"records": 3}

    def test_is_linked_to_each_of_several_traces_once(self, spans: InMemorySpanExporter) -> None:
        span = span_of(spans, A, B, A_TOO)
        assert span.parent is None
        assert [link.context.trace_id for link in span.links] == [
            int("a" * 32, 16),
            int("b" * 32, 16),
        ]

    def test_stands_alone_where_nothing_is_traced(self, spans: InMemorySpanExporter) -> None:
        with _span([Kept.of(bytes_record(b"no event")), Kept.of(record(event(traceparent="?")))]):
            pass
        (span,) = spans.get_finished_spans()
        assert (span.parent, list(span.links)) == (None, [])
