"""A fixture with the spans of a test. All tests share one provider: OpenTelemetry allows one."""

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from chassis.settings import ProcessSettings
from chassis.telemetry import configure_tracing


@pytest.fixture(scope="session")
def span_exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = configure_tracing("tests", ProcessSettings(http_port=0))
    provider.sampler = ALWAYS_ON
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def spans(span_exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    """Every span that ends from here on."""
    span_exporter.clear()
    return span_exporter
