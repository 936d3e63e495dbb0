"""What is found out about records, and the span of a chunk."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from audit_service.records import ReceivedRecord, _client_correlation_id, _span
from tests.unit.audit_service.making import bytes_record, event, record

A = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1111111111111111-01"
A_TOO = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-2222222222222222-01"
B = "00-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-3333333333333333-01"


def span_of(spans: InMemorySpanExporter, *traceparents: str | None) -> ReadableSpan:
    with _span([ReceivedRecord.of(record(event(traceparent=each))) for each in traceparents]):
        pass
    (span,) = spans.get_finished_spans()
    return span


class TestTheSpanOfAChunk:
    def test_belongs_to_the_one_trace_of_all_its_events(self, spans: InMemorySpanExporter) -> None:
        span = span_of(spans, A, A_TOO, None)
        assert span.parent is not None
        assert span.parent.trace_id == int("a" * 32, 16)
        assert span.attributes == {"records": 3}

    def test_is_linked_once_to_each_of_several_traces(self, spans: InMemorySpanExporter) -> None:
        span = span_of(spans, A, B, A_TOO)
        assert span.parent is None
        assert [link.context.trace_id for link in span.links] == [
            int("a" * 32, 16),
            int("b" * 32, 16),
        ]

    def test_has_no_parent_and_no_links_if_no_event_is_traced(
        self, spans: InMemorySpanExporter
    ) -> None:
        with _span(
            [
                ReceivedRecord.of(bytes_record(b"no event")),
                ReceivedRecord.of(record(event(traceparent="?"))),
            ]
        ):
            pass
        (span,) = spans.get_finished_spans()
        assert (span.parent, list(span.links)) == (None, [])


def called(value: bytes | None) -> str | None:
    headers = [("type", b"t"), ("client-correlation-id", value)]
    return _client_correlation_id(bytes_record(b"", headers=headers))


class TestWhatAClientCallsItsRequest:
    def test_is_kept(self) -> None:
        assert called(b"order-17") == "order-17"
        assert called(b"x" * 128) == "x" * 128
        assert called(None) is None

    @pytest.mark.parametrize("value", [b"x" * 129, b"", b"a b", b"a\0", b"\xff"])
    def test_is_not_kept_where_it_could_be_no_id(self, value: bytes) -> None:
        assert called(value) is None
