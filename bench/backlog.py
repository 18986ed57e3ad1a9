"""The load: a simulated shop's item events with a fixed seed, put into a topic before a run."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import orjson

from bench.options import SEED
from stream_app.adapters.kafka import KafkaLog
from stream_app.adapters.partitioning import partition_of
from stream_app.adapters.topics import TopicSpec, ensure_topics
from stream_app.offline.eventfile import read_events
from stream_app.ports import RawBatch, Record
from stream_app.simulator import Shop

CHUNK = 16_384
# Nothing to learn pairs from: left out, so that every event of the load asks for the whole job.
_WITHOUT_ITEM_WORK = tuple(
    f'"event":"{name}"'.encode()
    for name in "impression search begin_checkout refund support share".split()
)

_START, _DAY_S = 1_700_000_000.0, 86_400.0
_PAST_RATE = 0.02  # events of a customer and second
_OTHER_IDS = b'"event_id":"', b'"event_id":"past-'
_SESSION = re.compile(rb',"session_id":"[^"]*"')


@dataclass(frozen=True, slots=True)
class Load:
    """Which events: the same load is the same bytes, on every machine.

    Known customers only and no session ids: a visit ends after half an hour without an event, so
    that nearly every event has enough before it to form all the pairs there can be. ``rate`` is
    events per second of the shop's own time; with ``n_customers`` it decides how many events of a
    customer lie in one batch. The first ``past`` events are of a day before, when all of the shop's
    customers came at once.
    """

    events: int
    n_items: int = 10_000
    n_customers: int = 20_000
    rate: float = 1_000.0
    partitions: int = 8
    seed: int = SEED
    past: int = 0

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, JSON) in time order: views, clicks, carts, purchases, wishes, ratings."""
        before = self._drawn(
            self.past, rate=_PAST_RATE * self.n_customers, start_ts=_START - _DAY_S
        )
        yield from ((key, value.replace(*_OTHER_IDS)) for key, value in before)
        yield from self._drawn(self.events - self.past, rate=self.rate, start_ts=_START)

    def _drawn(self, n: int, *, rate: float, start_ts: float) -> Iterator[tuple[bytes, bytes]]:
        if not n:
            return
        shop = Shop(
            seed=self.seed,
            n_items=self.n_items,
            n_customers=self.n_customers,
            rate=rate,
            start_ts=start_ts,
        )
        kept = (
            (key, _SESSION.sub(b"", value))
            for key, value in shop.events(100 * n)
            if b'"user_id"' in value and not any(name in value for name in _WITHOUT_ITEM_WORK)
        )
        yield from islice(kept, n)


class AnyLoad(Protocol):
    """Events in order, and how they are partitioned."""

    @property
    def events(self) -> int:
        """How many at most."""
        ...

    @property
    def partitions(self) -> int:
        """Of the clickstream."""
        ...

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, JSON) in time order."""
        ...


@dataclass(frozen=True, slots=True)
class FileLoad:
    """The first events of an event file."""

    events: int
    path: Path
    partitions: int = 8

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, JSON) in the file's order of time."""
        table = read_events(self.path)
        for row in range(min(len(table), self.events)):
            yield table.key(row) or b"", orjson.dumps(table.row(row))


async def fill(load: AnyLoad, bootstrap: str, topic: str, *, skip: int = 0) -> None:
    """Create ``topic`` and put the load into it, all of it or what follows ``skip`` events."""
    spec = TopicSpec(topic, load.partitions, 1)
    await ensure_topics([spec], brokers=[bootstrap])
    records = islice(load.records(), skip, None)
    async with KafkaLog([bootstrap], client_id="bench-load") as log:
        while chunk := list(islice(records, CHUNK)):
            parts: list[list[Record]] = [[] for _ in range(load.partitions)]
            for key, value in chunk:
                parts[partition_of(key, load.partitions)].append(Record(key, value))
            await asyncio.gather(*(log.send(topic, p, part) for p, part in enumerate(parts)))


def batches(load: AnyLoad, topic: str, *, batch: int) -> Iterator[RawBatch]:
    """The load as a worker's handler gets it: per partition, ``batch`` events at a time."""
    waiting: list[list[tuple[bytes, bytes]]] = [[] for _ in range(load.partitions)]
    sent = [0] * load.partitions
    for record in load.records():
        p = partition_of(record[0], load.partitions)
        waiting[p].append(record)
        if len(waiting[p]) == batch:
            yield _batch(topic, p, sent[p], waiting[p])
            sent[p] += batch
            waiting[p] = []
    for p, rest in enumerate(waiting):
        if rest:
            yield _batch(topic, p, sent[p], rest)


def _batch(topic: str, partition: int, first: int, records: list[tuple[bytes, bytes]]) -> RawBatch:
    n = len(records)
    return RawBatch(
        topic,
        partition,
        first + n,
        range(first, first + n),
        [key for key, _ in records],
        [value for _, value in records],
        [-1] * n,
        [()] * n,
    )
