"""``python -m faults.malformed [RECORDS]``: how fast records that are no events pass, and what they
leave in memory, against good records of the same shop. CPU time of one process on memory adapters.

Last line: JSON with ``good_per_cpu_s``, ``malformed_per_cpu_s``, ``ratio`` and ``grown_mib`` (of
resident memory between the first tenth of the malformed records and the last).
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from faults.load import hostile
from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.composition import compose
from stream_app.ports import RawBatch, Record
from stream_app.settings import load_settings
from stream_app.simulator import LIVE, Shop
from stream_app.warmup import warm_up

BATCH = 2_000
RECORDS = 1_000_000
Pairs = Sequence[tuple[bytes, bytes]]


class _Forgetful(MemoryLog):
    """A log that only counts: a broker keeps its records elsewhere."""

    sent = 0

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Append nothing."""
        self.sent += len(records)


def good(n: int) -> Iterator[Pairs]:
    """Batches of the simulated shop."""
    shop = Shop(seed=1, n_items=2_000, n_customers=5_000, rate=1_000.0, pace=LIVE)
    for _ in range(n // BATCH):
        yield list(shop.events(BATCH))


def bad(n: int) -> Iterator[Pairs]:
    """Batches of records that are no events, the same hundred ones again and again."""
    draw = random.Random(1)
    kinds = [hostile(draw, BATCH) for _ in range(5)]
    for number in range(n // BATCH):
        yield kinds[number % len(kinds)]


async def rate(batches: Iterator[Pairs]) -> tuple[float, list[float]]:
    """Records per second of CPU time through LEARN, and resident MiB after each tenth."""
    settings = load_settings({"STREAM_APP_CLICKSTREAM_PARTITIONS": "1"})
    log = _Forgetful()
    stages = compose(settings, store=MemoryStore(), public=MemoryPublic(), log=log, clock=time.time)
    await stages.learn.assign(0)
    offset, cpu_s, sizes = 0, 0.0, []
    for pairs in batches:
        n = len(pairs)
        nothing = [()] * n
        batch = RawBatch(
            settings.clickstream_topic,
            0,
            offset + n,
            range(offset, offset + n),
            [key for key, _ in pairs],
            [value for _, value in pairs],
            [int(time.time() * 1000)] * n,
            nothing,
        )
        offset += n
        began = time.process_time()
        await stages.learn.process(batch)
        cpu_s += time.process_time() - began
        sizes.append(resident_mib())
    assert log.sent >= 0
    return offset / cpu_s, sizes[:: max(1, len(sizes) // 10)]


def resident_mib() -> float:
    """Of this process."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main(arguments: Sequence[str]) -> int:
    """Measure; exit code 1 below half the rate of good records."""
    n = int(arguments[0]) if arguments else RECORDS
    warm_up(load_settings({}))
    good_rate, _ = asyncio.run(rate(good(min(n, 100_000))))
    bad_rate, sizes = asyncio.run(rate(bad(n)))
    ratio, grown = bad_rate / good_rate, sizes[-1] - sizes[min(1, len(sizes) - 1)]
    said = {
        "records": n,
        "good_per_cpu_s": round(good_rate),
        "malformed_per_cpu_s": round(bad_rate),
        "ratio": round(ratio, 2),
        "resident_mib": [round(size) for size in sizes],
        "grown_mib": round(grown, 1),
    }
    print(orjson.dumps(said).decode(), flush=True)
    return 0 if ratio >= 0.5 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
