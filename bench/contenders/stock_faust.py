"""Faust as it comes: an agent that only counts raw events."""

import os
from typing import Any

import faust

from bench.contenders.job import Task
from bench.progress import Progress

task = Task.from_environment()
progress = Progress(task.progress)
app = faust.App(
    task.group,
    broker=f"kafka://{task.bootstrap}",
    value_serializer="raw",
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    topic_allow_declare=False,
    datadir=os.environ["BENCH_DIR"],
)


@app.agent(app.topic(task.topic, key_type=bytes, value_type=bytes))
async def count(events: Any) -> None:
    """Take note of each event."""
    async for _ in events:
        progress.add(applied=1)


if __name__ == "__main__":
    app.main()
