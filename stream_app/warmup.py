"""Compile or load every kernel before the worker joins its group: no customer waits for that."""

import asyncio
import threading
import time

import numpy as np
import orjson

from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.composition import Stages, compose
from stream_app.core.catalog import CatalogItem
from stream_app.core.model import KINDS
from stream_app.ports import RawBatch
from stream_app.settings import Settings

_TS = 1_700_000_000.0
_EVENTS = 100


def warm_up(settings: Settings) -> float:
    """Send a few events through the pipeline on memory adapters; returns the seconds it took."""
    started = time.monotonic()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_run(settings))
        except BaseException as exc:
            failures.append(exc)

    # Its own thread, because the caller may be inside an event loop that is not running yet.
    thread = threading.Thread(target=run, name="warm-up")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return time.monotonic() - started


async def _run(settings: Settings) -> None:
    one = {"clickstream_partitions": 1, "cooccurrence_partitions": 1}
    settings = settings.model_copy(update=one)
    store, log = MemoryStore(), MemoryLog()
    for first in (0, _EVENTS + 3):  # the second worker reads what the first one wrote
        stages = compose(settings, store=store, public=MemoryPublic(), log=log, clock=time.time)
        await stages.learn.assign(0)
        await stages.relate.assign(0)
        stages.catalog.upsert(
            [CatalogItem("1", title="shoe", stock=0.0), CatalogItem("2", title="shoe")]
        )
        stages.withdraw.follow(stages.learn)
        many = [_event(k) for k in range(first, first + _EVENTS)]
        await _happen(stages, settings, log, first, many)
        for k, kind in enumerate(("search", "view", "purchase"), first + _EVENTS):
            await _happen(stages, settings, log, k, [_event(k, kind)])  # one customer, one list
        stages.withdraw.changed(stages.catalog.ids[:1])
        await stages.withdraw.step()
        tables = stages.items.tables
        tables.ensure(np.arange(1, len(tables.keys), dtype=np.uint64))  # their index grows


async def _happen(
    stages: Stages, settings: Settings, log: MemoryLog, first: int, values: list[bytes]
) -> None:
    """A batch, through both stages."""
    await stages.learn.process(_batch(settings.clickstream_topic, first, values))
    await stages.relate.process(log.drain(settings.cooccurrence_topic, 0))
    await stages.relate.refresh()


def _event(k: int, kind: str | None = None) -> bytes:
    return orjson.dumps(
        {
            "event": kind or KINDS[k % len(KINDS)],
            "event_id": k,
            "user_id": 0 if kind else k // len(KINDS) % 3,
            "item_id": k * 7 % 10,
            "query": "shoe",
            "price": 1.0,
            "ts": _TS + k,
        }
    )


def _batch(topic: str, first: int, values: list[bytes]) -> RawBatch:
    n = len(values)
    offsets = range(first, first + n)
    return RawBatch(topic, 0, first + n, offsets, [None] * n, values, [-1] * n, [()] * n)
