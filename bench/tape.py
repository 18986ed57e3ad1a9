"""Record what the pipeline reads, writes and sends, for the floor to do again without computing.

The stages run in this process on the memory adapters over the load; the last batches of every
partition are kept with all their bytes.
"""

import asyncio
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from bench.backlog import Load, batches
from stream_app.adapters.memory import MemoryLog, MemoryPublic, MemoryStore
from stream_app.composition import compose
from stream_app.core import learn as learning
from stream_app.ports import Claim, Commit, PublicHash, Record
from stream_app.settings import load_settings

KEPT = 4  # batches of each partition and stage


@dataclass(slots=True)
class Entry:
    """One batch of ``records`` records: its calls in the order they were made."""

    records: int
    loads: list[tuple[str, list[int], list[bytes]]] = field(default_factory=list)
    commit: Commit | None = None
    sends: list[tuple[str, int, list[Record]]] = field(default_factory=list)
    hashes: list[PublicHash] = field(default_factory=list)
    values: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class Tape:
    """Entries by stage and partition, and what one event of the load is worth."""

    learn: dict[int, list[Entry]]
    relate: dict[int, list[Entry]]
    stock: dict[int, list[Entry]]
    pairs_per_event: float
    lists_per_event: float

    def save(self, path: Path) -> None:
        """Write to a file that :meth:`read` of the same release reads."""
        path.write_bytes(pickle.dumps(self))

    @staticmethod
    def read(path: Path) -> "Tape":
        """The tape in ``path``, which this suite has written itself a moment ago."""
        tape: Tape = pickle.loads(path.read_bytes())
        return tape


class _Recorder:
    """All three ports; hands every call on and notes it in ``entry``."""

    def __init__(self, log: MemoryLog) -> None:
        self._store, self._public, self._log = MemoryStore(), MemoryPublic(), log
        self.entry = Entry(0)

    async def claim(self, space: str, partition: int, *, epoch_min: int = 0) -> Claim:
        return await self._store.claim(space, partition, epoch_min=epoch_min)

    async def load(
        self, space: str, partitions: Sequence[int], ids: Sequence[bytes]
    ) -> list[bytes | None]:
        self.entry.loads.append((space, list(partitions), list(ids)))
        return await self._store.load(space, partitions, ids)

    async def commit(self, claim: Claim, step: Commit) -> None:
        self.entry.commit = step
        await self._store.commit(claim, step)

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        self.entry.hashes += records
        return await self._public.put_hashes(records)

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        return await self._public.get_hashes(keys)

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        return await self._public.amend_hashes(records)

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        self.entry.values += pairs
        await self._public.put_values(pairs)

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        return await self._public.get(key)

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        self.entry.sends.append((topic, partition, list(records)))
        await self._log.send(topic, partition, records)


async def _record(load: Load, batch: int) -> Tape:
    partitions = str(load.partitions)
    settings = load_settings(
        {
            "STREAM_APP_CLICKSTREAM_PARTITIONS": partitions,
            "STREAM_APP_COOCCURRENCE_PARTITIONS": partitions,
        }
    )
    log = MemoryLog(kept_topics={settings.cooccurrence_topic, settings.sales_topic})
    recorder = _Recorder(log)
    stages = compose(settings, store=recorder, public=recorder, log=recorder, clock=time.time)
    for p in range(load.partitions):
        await stages.learn.assign(p)
        await stages.relate.assign(p)
        await stages.stock.assign(p)
    learned: dict[int, list[Entry]] = {p: [] for p in range(load.partitions)}
    related: dict[int, list[Entry]] = {p: [] for p in range(load.partitions)}
    stocked: dict[int, list[Entry]] = {p: [] for p in range(load.partitions)}
    later = (
        (settings.cooccurrence_topic, stages.relate.process, related),
        (settings.sales_topic, stages.stock.process, stocked),
    )
    totals: list[tuple[int, int, int]] = []  # events, pairs, lists of a batch
    pairs = _counted_pairs()
    for number, raw in enumerate(batches(load, settings.clickstream_topic, batch=batch), 1):
        before = pairs()
        entry = recorder.entry = Entry(len(raw))
        await stages.learn.process(raw)
        learned[raw.partition] = [*learned[raw.partition][1 - KEPT :], entry]
        lists = sum(len(r) for t, _, r in entry.sends if t == settings.recommendations_topic)
        totals.append((len(raw), pairs() - before, lists))
        if number % load.partitions == 0:
            for q, (topic, process, kept) in product(range(load.partitions), later):
                waiting = log.drain(topic, q)
                if len(waiting):
                    entry = recorder.entry = Entry(len(waiting))
                    await process(waiting)
                    kept[q] = [*kept[q][1 - KEPT :], entry]
    tail = totals[len(totals) // 2 :]
    events, counted, listed = (sum(column) for column in zip(*tail, strict=True))
    return Tape(learned, related, stocked, counted / events, listed / events)


def _counted_pairs() -> Callable[[], int]:
    """Count table entries raised: each transition, in both directions."""
    from stream_app import applying

    original, total = learning.learn, [0]

    def counting(*arguments: Any, **options: Any) -> Any:
        learned = original(*arguments, **options)
        total[0] += 2 * int((learned.transitions["previous"] != 0).sum())
        return learned

    assert hasattr(applying, "learn"), "who calls it has moved"
    setattr(applying, "learn", counting)  # noqa: B010  # this process records, nothing else
    return lambda: total[0]


def record(load: Load, path: Path, *, batch: int) -> None:
    """Record ``load`` into ``path``; the pipeline of this process is changed: run it in its own."""
    asyncio.run(_record(load, batch)).save(path)


def main(arguments: Sequence[str]) -> None:
    """``python -m bench.tape PATH EVENTS BATCH``."""
    path, events, batch = arguments
    record(Load(int(events)), Path(path), batch=int(batch))


if __name__ == "__main__":
    import sys

    # As bench.tape, not __main__: the floor unpickles by that name.
    from bench import tape

    tape.main(sys.argv[1:])
