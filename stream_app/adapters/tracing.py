"""OpenTelemetry traces over Kafka headers (W3C ``traceparent``), an optional extra: ``otel``.

A batch is one span. It is sampled when a record in it belongs to a sampled trace, which the span
then links to (a batch has many parents, so a link and not a parent), or else by chance. What
the batch produces carries the span's context on.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from stream_app.errors import ConfigurationError
from stream_app.ports import Headers, RawBatch

Handler = Callable[[RawBatch], Awaitable[None]]
LINKS_MAX = 32
HEADER = "traceparent"

try:
    from opentelemetry import trace
    from opentelemetry.propagate import extract, inject
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
except ImportError as exc:  # the extra is not installed
    _missing: ImportError | None = exc
else:
    _missing = None


class Tracing:
    """Spans of batches, sent by ``processor``; by default over OTLP/HTTP.

    Where to is said by OpenTelemetry's own variables, ``OTEL_EXPORTER_OTLP_ENDPOINT`` first.
    """

    def __init__(self, *, service: str, share: float, processor: "SpanProcessor | None" = None):
        if _missing is not None:
            raise ConfigurationError(
                "STREAM_APP_TRACES=otlp needs an extra: pip install 'stream_app[otel]'"
                f" ({_missing})"
            )
        if processor is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            processor = BatchSpanProcessor(OTLPSpanExporter())
        resource = Resource.create({"service.name": service})
        always = TracerProvider(resource=resource)
        by_chance = TracerProvider(resource=resource, sampler=TraceIdRatioBased(share))
        for provider in (always, by_chance):
            provider.add_span_processor(processor)
        self._always = always.get_tracer("stream_app")
        self._by_chance = by_chance.get_tracer("stream_app")
        self._processor = processor

    def traced(self, stage: str, handler: Handler) -> Handler:
        """``handler`` with a span around each batch."""

        async def handle(batch: RawBatch) -> None:
            links = _links(batch)
            tracer = self._always if links else self._by_chance
            attributes: dict[str, Any] = {
                "messaging.system": "kafka",
                "messaging.destination.name": batch.topic,
                "messaging.destination.partition.id": str(batch.partition),
                "messaging.batch.message_count": len(batch),
                "messaging.kafka.offset": batch.offsets[0] if batch.offsets else -1,
            }
            with tracer.start_as_current_span(
                f"{stage} {batch.topic}",
                kind=trace.SpanKind.CONSUMER,
                links=links,
                attributes=attributes,
            ):
                await handler(batch)

        return handle

    def headers(self) -> Headers:
        """What to add to records produced now: the context of the sampled span under way."""
        if not trace.get_current_span().get_span_context().trace_flags.sampled:
            return ()
        carrier: dict[str, str] = {}
        inject(carrier)
        return [(name, value.encode()) for name, value in carrier.items()]

    def close(self) -> None:
        """Send what is waiting."""
        self._processor.force_flush()
        self._processor.shutdown()


def _links(batch: RawBatch) -> "list[trace.Link]":
    """Sampled contexts among the records' headers, each once, at most ``LINKS_MAX``."""
    if not any(batch.headers):
        return []
    links: dict[int, trace.Link] = {}
    for headers in batch.headers:
        for name, value in headers:
            if name == HEADER and len(links) < LINKS_MAX:
                context = extract({HEADER: value.decode("ascii", "replace")})
                span = trace.get_current_span(context).get_span_context()
                if span.is_valid and span.trace_flags.sampled:
                    links[span.span_id] = trace.Link(span)
    return list(links.values())
