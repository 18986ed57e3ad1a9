"""The stages in this process on a real broker and a real Redis server, timed stage by stage.

``python -m bench.inprocess BOOTSTRAP REDIS_URL EVENTS WARM BATCH ITEMS CUSTOMERS [FILE]`` prints
JSON; FILE are events to take instead of simulated ones. Run by the scenarios ``profile`` and
``model``, each time in a fresh process.
"""

import asyncio
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from bench.backlog import AnyLoad, FileLoad, Load, batches
from bench.timers import Timers
from stream_app import applying, pipeline, relating
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.memory import MemoryLog
from stream_app.adapters.redis_store import RedisStore
from stream_app.adapters.topics import ensure_topics
from stream_app.applying import Applier
from stream_app.candidates import Candidates
from stream_app.composition import compose
from stream_app.core.ranking import Ranker
from stream_app.events import EventDecoder
from stream_app.listing import Listing
from stream_app.loading import Loader
from stream_app.ports import RawBatch, Record
from stream_app.publishing import Publisher
from stream_app.settings import load_settings, own_topics
from stream_app.worker import kafka_log, redis_store, topic_specs

# (owner, attribute, stage): a stage with ">" is part of the one before it.
POINTS: tuple[tuple[Any, str, str], ...] = (
    (pipeline.Learn, "process", "LEARN"),
    (EventDecoder, "decode", "LEARN > decode"),
    (Loader, "load", "LEARN > load"),
    (applying, "learn", "LEARN > learn"),
    (Applier, "_learn_blends", "LEARN > weights"),
    (Applier, "_ranked", "LEARN > decide and score"),
    (Listing, "rank", "LEARN > score"),
    (Candidates, "draw", "LEARN > score, weights > candidates"),
    (Ranker, "rank", "LEARN > score > rank"),
    (Applier, "_outbox", "LEARN > outbox"),
    (applying, "pack_lists", "LEARN > pack lists"),
    (applying, "pack_transitions", "LEARN > outbox > transitions"),
    (applying, "changed_profiles", "LEARN > outbox > profiles"),
    (Publisher, "render", "LEARN > render"),
    (applying, "encode_outbox", "LEARN > pack outbox"),
    (applying, "state_blobs", "LEARN > pack users"),
    (Publisher, "publish", "LEARN > publish"),
    (Publisher, "hand_over", "LEARN > hand over"),
    (relating.Relate, "process", "RELATE"),
    (relating, "decoded", "RELATE > decode"),
    (relating.Relate, "_load", "RELATE > load"),
    (relating, "relate", "RELATE > merge"),
    (relating.Relate, "_render", "RELATE > similar lists"),
    (RedisStore, "load", "store: load (both stages)"),
    (RedisStore, "commit", "store: commit (both stages)"),
    (RedisStore, "put_hashes", "store: public hashes"),
    (RedisStore, "put_values", "store: public values"),
    (KafkaLog, "send", "log: send"),
)


class _BothLogs:
    """Sends to Kafka, and keeps the transitions for RELATE in this process."""

    def __init__(self, kafka: KafkaLog, memory: MemoryLog) -> None:
        self._kafka, self._memory = kafka, memory

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        await self._memory.send(topic, partition, records)
        await self._kafka.send(topic, partition, records)


async def measure(
    bootstrap: str, redis_url: str, load: AnyLoad, *, warm: int, batch: int
) -> dict[str, Any]:
    """Run the load; microseconds by stage for an event, a batch and a list."""
    group = f"inprocess-{uuid.uuid4().hex[:8]}"
    settings = load_settings(
        {
            "STREAM_APP_KAFKA_URL": f"kafka://{bootstrap}",
            "STREAM_APP_REDIS_URL": redis_url,
            "STREAM_APP_CLICKSTREAM_PARTITIONS": str(load.partitions),
            "STREAM_APP_COOCCURRENCE_PARTITIONS": str(load.partitions),
            **own_topics(f"{group}-"),
        }
    )
    await ensure_topics(topic_specs(settings), brokers=[bootstrap])
    memory = MemoryLog(kept_topics={settings.cooccurrence_topic})
    store, kafka = redis_store(settings), kafka_log(settings)
    timers = Timers()
    for owner, name, stage in POINTS:
        timers.patch(owner, name, stage)
    stages = compose(
        settings, store=store, public=store, log=_BothLogs(kafka, memory), clock=time.time
    )
    lists: list[int] = []  # of each batch: the scoring that was measured last began with it
    rank = Ranker.rank

    def counted(self: Ranker, users: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        lists.append(len(rows))
        return rank(self, users, rows, *rest, **options)

    setattr(Ranker, "rank", counted)  # noqa: B010  # as the timers do
    try:
        for p in range(load.partitions):
            await stages.learn.assign(p)
            await stages.relate.assign(p)
        done = 0
        ready = list(batches(load, settings.clickstream_topic, batch=batch))
        counted_from = next(k for k, n in enumerate(_running(ready)) if n >= warm) + 1
        for number, raw in enumerate(ready):
            if number == counted_from:
                timers.reset()
                lists.clear()
                done = 0
            await stages.learn.process(raw)
            done += len(raw)
            if number % load.partitions == load.partitions - 1:
                for q in range(load.partitions):
                    waiting = memory.drain(settings.cooccurrence_topic, q)
                    if len(waiting):
                        await stages.relate.process(waiting)
    finally:
        await kafka.stop()
        await store.close()
    return {
        "events": done,
        "batch": batch,
        "lists": sum(lists),
        "prediction_us_of_batches": _each(timers.cpu_calls_s["LEARN > score"], lists),
        "stages": [
            {
                "stage": stage,
                "cpu_us_per_event": round(timers.cpu_s[stage] / done * 1e6, 3),
                "wall_us_per_event": round(timers.wall_s[stage] / done * 1e6, 3),
                "cpu_us_per_call": round(timers.cpu_s[stage] / timers.calls[stage] * 1e6, 1),
                "calls": timers.calls[stage],
            }
            for _, _, stage in POINTS
            if timers.calls[stage]
        ],
    }


def _each(cpu_s: Sequence[float], lists: Sequence[int]) -> list[float]:
    """Microseconds of a list, batch by batch."""
    return [round(seconds / n * 1e6, 3) for seconds, n in zip(cpu_s, lists, strict=True) if n]


def _running(ready: Sequence[RawBatch]) -> list[int]:
    total, found = 0, []
    for raw in ready:
        total += len(raw)
        found.append(total)
    return found


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    bootstrap, redis_url, *numbers = arguments[:7]
    events, warm, batch, items, customers = map(int, numbers)
    load: AnyLoad = Load(events, n_items=items, n_customers=customers)
    if arguments[7:]:
        load = FileLoad(events, Path(arguments[7]))
    found = asyncio.run(measure(bootstrap, redis_url, load, warm=warm, batch=batch))
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
