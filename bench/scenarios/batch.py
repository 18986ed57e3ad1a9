"""CPU microseconds of one batch of 1, 16, 256 and 4,096 events through LEARN, or RELATE, by part.

And of a group of batches, one of each of eight partitions.

Memory adapters, one process, no server: what a batch costs besides the work on each of its events.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from bench.backlog import Load
from bench.options import Options
from bench.results import Result
from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.adapters.partitioning import partition_of
from stream_app.codec import Transitions, decode_transitions, encode_transitions
from stream_app.composition import Stages, compose
from stream_app.hashing import stable_hash
from stream_app.ports import RawBatch
from stream_app.settings import load_settings
from stream_app.telemetry import Quality

WARM, WARM_BATCH = 40_000, 2_048
BATCHES = {1: 320, 16: 320, 256: 64, 4_096: 16}  # how many, by events of one
UNCOUNTED = 8  # at most, of each size: arrays grow, kernels load
PARTITIONS = 8
GROUPED_MAX = 16  # events of a batch that is measured in a group, too: one of each partition


class Laps:
    """CPU seconds by part of one batch, as the stages tell their telemetry."""

    def __init__(self) -> None:
        self._at = 0.0
        self.batches: list[dict[str, float]] = []

    def begin(self) -> None:
        """A batch begins now."""
        self.batches.append(defaultdict(float))
        self._at = time.process_time()

    def lap(self, part: str) -> None:
        """See :class:`~stream_app.telemetry.Telemetry`."""
        now = time.process_time()
        self.batches[-1][part] += now - self._at
        self._at = now

    def cache(self, name: str, *, asked: int, missing: int) -> None:
        """Nothing."""

    def quality(self, found: Quality) -> None:
        """Nothing."""


def _row(stage: str, events: int, batches: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians over the batches after the first ones, whole and by part."""
    found = batches[min(UNCOUNTED, len(batches) // 2) :]
    cpu_us = statistics.median(sum(batch.values()) for batch in found) * 1e6
    parts = {
        part: round(statistics.median(batch[part] for batch in found) * 1e6, 1) for part in found[0]
    }
    return {
        "batch": f"{stage} of {events:,}",
        "batches": len(found),
        "us_per_batch": round(cpu_us, 1),
        "us_per_event": round(cpu_us / events, 2),
        **parts,
    }


def run(options: Options) -> Result:
    """All sizes over one state that grows, the smallest batches first."""
    counts = {size: max(int(n * options.scale), 4) for size, n in BATCHES.items()}
    rows = asyncio.run(_measure(options.events(WARM), counts))
    summary = {f"{row['batch']}, us": row["us_per_batch"] for row in rows}
    notes = [
        f"after {options.events(WARM):,} events; medians over batches. RELATE: transitions to items"
        " of one partition; run inside of the harness's own process"
    ]
    return Result(summary, rows, ("batch", "us_per_event"), notes)


class _Bench:
    """The stages over memory, and the load by partition as far as they were given it."""

    def __init__(self, events: int) -> None:
        settings = load_settings(
            {
                "STREAM_APP_CLICKSTREAM_PARTITIONS": str(PARTITIONS),
                "STREAM_APP_COOCCURRENCE_PARTITIONS": str(PARTITIONS),
            }
        )
        self.laps = Laps()
        self._clicks, self._moves = settings.clickstream_topic, settings.cooccurrence_topic
        self._log = MemoryLog(kept_topics={self._moves})
        self.stages: Stages = compose(
            settings,
            store=MemoryStore(),
            public=MemoryPublic(),
            log=self._log,
            clock=time.time,
            telemetry=self.laps,
        )
        self._waiting: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for key, value in Load(events, partitions=PARTITIONS).records():
            self._waiting[partition_of(key, PARTITIONS)].append(value)
        self._given = [0] * PARTITIONS
        self._told: list[Transitions] = []

    async def assign(self) -> None:
        self.stages.learn.gathering = True
        for p in range(PARTITIONS):
            await self.stages.learn.assign(p)
            await self.stages.relate.assign(p)

    async def learn(self, partitions: Sequence[int], size: int) -> None:
        """The next ``size`` events of each of the partitions, as one group."""
        batches = []
        for partition in partitions:
            first = self._given[partition]
            values = self._waiting[partition][first : first + size]
            self._given[partition] += len(values)
            batches.append(_batch(self._clicks, partition, first, values))
        self.laps.begin()
        await asyncio.gather(*map(self.stages.learn.process, batches))

    async def follow(self, *, keep: bool) -> None:
        """Merge what LEARN has said of items; of those of partition 0 ``keep`` it for later."""
        self.laps.begin()
        for owned in self.stages.learn.owned.values():
            await owned.waiting.hand_over()
        for q in range(PARTITIONS):
            batch = self._log.drain(self._moves, q)
            if q == 0 and keep:
                self._told += map(decode_transitions, batch.values)
            elif q == 0:
                await self.relate(batch.values)
            elif len(batch):
                self.laps.begin()
                await self.stages.relate.process(batch)

    async def relate(self, values: Sequence[bytes | None]) -> None:
        """Records for item partition 0, as one batch."""
        first = self.stages.relate.owned[0].cursor or 0
        batch = _batch(self._moves, 0, first, values)
        self.laps.begin()
        await self.stages.relate.process(batch)

    def messages(self, size: int) -> Iterator[list[bytes]]:
        """What was kept, as records of ``size`` transitions together."""
        told, self._told = self._told, []
        rows: list[bytes] = []
        n = 0
        for message in told:
            names = {stable_hash(name): name for name in message.names}
            at = 0
            while at < len(message.rows):
                some = message.rows[at : at + size - n]
                of = np.unique(np.append(some["item"], some["previous"])).tolist()
                last = at + len(some) == len(message.rows)
                rows.append(
                    encode_transitions(
                        message._replace(
                            rows=some,
                            names=[names[key] for key in of if key in names],
                            snapshots=message.snapshots if last else message.snapshots[:0],
                        )
                    )
                )
                at, n = at + len(some), n + len(some)
                if n == size:
                    yield rows
                    rows, n = [], 0


def _batch(topic: str, partition: int, first: int, values: Sequence[bytes | None]) -> RawBatch:
    n = len(values)
    offsets = range(first, first + n)
    return RawBatch(topic, partition, first + n, offsets, [None] * n, values, [-1] * n, [()] * n)


async def _measure(warm: int, counts: Mapping[int, int]) -> list[dict[str, Any]]:
    # Partitions get more or less of the load: there is some to spare.
    bench = _Bench(2 * (warm + 2 * sum(size * n for size, n in counts.items())))
    await bench.assign()
    first = min(WARM_BATCH, -(-warm // PARTITIONS))
    for _ in range(-(-warm // (PARTITIONS * first))):
        for p in range(PARTITIONS):
            await bench.learn([p], first)
        await bench.follow(keep=False)
    rows = []
    for size, n in counts.items():
        bench.laps.batches.clear()
        learned: list[dict[str, float]] = []
        for k in range(n):
            await bench.learn([k % PARTITIONS], size)
            learned.append(bench.laps.batches.pop())
            if k % PARTITIONS == PARTITIONS - 1 or k == n - 1:
                await bench.follow(keep=True)
        rows.append(_row("LEARN", size, learned))
        if size <= GROUPED_MAX:
            rows.append(await _together(bench, size, n // PARTITIONS))
        bench.laps.batches.clear()
        for values in islice(bench.messages(size), n):
            await bench.relate(values)
        if bench.laps.batches:  # a trial is too small for the largest
            rows.append(_row("RELATE", size, bench.laps.batches))
    return rows


async def _together(bench: _Bench, size: int, n: int) -> dict[str, Any]:
    """``n`` groups of a batch of each partition."""
    learned: list[dict[str, float]] = []
    for _ in range(max(n, 2)):
        await bench.learn(range(PARTITIONS), size)
        learned.append(bench.laps.batches.pop())
        await bench.follow(keep=True)
    row = _row("LEARN", PARTITIONS * size, learned)
    return row | {"batch": f"LEARN of {PARTITIONS} x {size:,}"}
