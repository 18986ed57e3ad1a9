"""Traces over Kafka headers: a sampled event's trace is linked and carried on."""

from typing import Any

import pytest

from stream_app.adapters.measured import MeasuredLog
from stream_app.adapters.memory import MemoryLog
from stream_app.adapters.telemetry import Metrics
from stream_app.adapters.tracing import Tracing
from stream_app.ports import RawBatch, Record

pytest.importorskip("opentelemetry.sdk")

SAMPLED = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
UNSAMPLED = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-00")
BROKEN = ("traceparent", b"\xff")


async def handled(*headers: tuple[str, bytes]) -> tuple[list[Any], Record]:
    """Spans and the record that a stage produced while it handled a batch of such records."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    tracing = Tracing(service="test", share=0.0, processor=SimpleSpanProcessor(spans))
    memory = MemoryLog()
    log = MeasuredLog(memory, Metrics(), dead_letter_topic="d", headers=tracing.headers)

    async def stage(_batch: RawBatch) -> None:
        await log.send("out", 0, [Record(b"k", b"v", (("a", b"b"),))])

    n = len(headers)
    batch = RawBatch("in", 0, n, range(n), [None] * n, [b""] * n, [-1] * n, [(h,) for h in headers])
    await tracing.traced("learn", stage)(batch)
    produced = memory.drain("out", 0)
    finished = list(spans.get_finished_spans())
    tracing.close()
    return finished, Record(None, None, produced.headers[0])


async def test_a_sampled_events_trace_is_linked_and_carried_on() -> None:
    spans, produced = await handled(UNSAMPLED, SAMPLED, SAMPLED, BROKEN)
    (span,) = spans
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{link.context.span_id:016x}" == "b7ad6b7169203331"
    sent = dict(produced.headers)
    assert sent["a"] == b"b"
    assert sent["traceparent"].decode().split("-")[1] == f"{span.context.trace_id:032x}"


async def test_without_a_sampled_event_nothing_is_traced_and_no_header_added() -> None:
    spans, produced = await handled(UNSAMPLED, BROKEN)
    assert spans == []
    assert dict(produced.headers) == {"a": b"b"}
