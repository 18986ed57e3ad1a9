"""The product's transport with a handler that only counts."""

import os
from collections.abc import Mapping
from pathlib import Path

from bench.progress import Progress
from stream_app.adapters.limits import Limits
from stream_app.adapters.transport import add_stage, make_app
from stream_app.ports import RawBatch
from stream_app.settings import load_settings

settings = load_settings()
progress = Progress(Path(os.environ["BENCH_PROGRESS"]))


async def from_start(partitions: set[tuple[str, int]]) -> Mapping[tuple[str, int], int | None]:
    """Read everything."""
    return dict.fromkeys(partitions)


async def count(batch: RawBatch) -> None:
    """Take note of a batch."""
    progress.add(applied=len(batch))


app = make_app(
    settings.app_id,
    brokers=settings.bootstrap.split(","),
    start_offsets=from_start,
    limits=Limits(batch_records_max=settings.batch_events_max),
    web_port=settings.web_port,
)
add_stage(app, "count", settings.clickstream_topic, count)
