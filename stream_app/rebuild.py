"""Rebuild all state from the log into a new generation of keys, and change over to it.

    next generation ─► every stage over its topic, silently ─► caught up ─► switch
      ─► workers see it, claim there, read on at its cursors ─► the old generation's keys go

Pages read the public keys all the while; workers work on the old generation until the switch.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream_app.adapters.following import followed
from stream_app.adapters.generations import GenerationStore
from stream_app.copying import space_of
from stream_app.ports import PublicHash, Record
from stream_app.settings import Settings
from stream_app.worker import Worker, redis_store, security, topic_specs

log = logging.getLogger(__name__)

LAG_MAX = 1_000  # records that may be missing at the switch: workers read them again
LOOK_S = 0.5
LOOK_ROUND_S = 8.0  # within which workers see a switch by themselves
SILENT_REFRESH_S = 600.0  # item lists are published by the workers, after the switch
PATIENCE_S = 30.0  # beyond the session time-out, until all workers have gone over
Place = tuple[str, int]  # state space, partition
Say = Callable[[str], None]


class _Silent:
    """Log and public store of a rebuild: what it would publish, the log has had long ago."""

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """See :meth:`stream_app.ports.Log.send`."""

    async def put_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublicStore.put_hashes`."""
        return 0

    async def get_hashes(self, keys: Sequence[str]) -> list[dict[bytes, bytes]]:
        """See :meth:`stream_app.ports.PublishedHashes.get_hashes`."""
        return [{} for _ in keys]

    async def amend_hashes(self, records: Sequence[PublicHash]) -> int:
        """See :meth:`stream_app.ports.PublishedHashes.amend_hashes`."""
        return 0

    async def put_values(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """See :meth:`stream_app.ports.PublicStore.put_values`."""

    async def get(self, key: str) -> dict[bytes, bytes] | bytes | None:
        """See :meth:`stream_app.ports.PublicStore.get`."""
        return None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What happened: generations, records read, whether workers have gone over, keys deleted."""

    old: int
    new: int
    records: int
    seconds: float
    taken_over: bool
    dropped: int


async def rebuilt(settings: Settings, *, keep_old: bool, say: Say) -> Rebuilt:
    """Do all of it. Stopped before the switch, it leaves only keys that the next one deletes."""
    began = time.monotonic()
    live = redis_store(settings)
    try:
        old = await live.generation()
        new = old + 1
        store = redis_store(settings, generation=new)
        before = redis_store(settings, generation=old)
        silent = _Silent()
        # Nothing is copied: the clickstream has it, or will have it from the workers.
        given = {"refresh_s": SILENT_REFRESH_S, "source_topics": ""}
        quiet = settings.model_copy(update=given)
        worker = Worker(quiet, store=store, public=silent, log=silent)
        try:
            records, epochs = await _replayed(worker, say)
            await live.switch(new)
            say(f"switched to generation {new}: workers go over within seconds")
            await _wait_for_workers(store, epochs, timeout_s=LOOK_ROUND_S)
            for place in epochs:  # who still works on the old one is told with the next commit
                await before.claim(*place)
            taken = await _wait_for_workers(
                store, epochs, timeout_s=settings.session_timeout_s + PATIENCE_S
            )
            dropped = 0
            if taken and not keep_old:
                dropped = await _dropped(before, list(epochs))
                dropped += await _dropped_sources(before, list(settings.source_formats()))
        finally:
            await worker.close()  # and its store
            await before.close()
    finally:
        await live.close()
    return Rebuilt(old, new, records, time.monotonic() - began, taken, dropped)


async def _replayed(worker: Worker, say: Say) -> tuple[int, dict[Place, int]]:
    """Apply the logs until next to nothing is missing; records read, and epochs claimed."""
    settings = worker.settings
    await asyncio.to_thread(worker.prepare)
    await worker.broadcasts.load()
    worker.stages.learn.serving = False
    stages = {kept.topic: kept for kept in worker.kept}
    for spec in topic_specs(settings):
        for number in range(spec.partitions if spec.name in stages else 0):
            kept = stages[spec.name]
            await worker.store.drop(kept.space, number)  # of one that was stopped half way
            await kept.keeper.assign(number)
    records, shown = 0, time.monotonic()
    async for batches, lag in followed(
        list(stages),
        brokers=settings.bootstrap.split(","),
        security=security(settings),
        records_max=settings.batch_events_max,
    ):
        for batch in batches:
            await stages[batch.topic].keeper.process(batch)
            records += len(batch)
        if time.monotonic() - shown > 1.0:
            shown = time.monotonic()
            say(f"{records:,} records applied, {lag:,} to go")
        if 0 <= lag <= LAG_MAX:
            break
    epochs = {
        (kept.space, number): owned.claim.epoch
        for kept in worker.kept
        for number, owned in kept.keeper.owned.items()
    }
    return records, epochs


async def _wait_for_workers(
    store: GenerationStore, epochs: dict[Place, int], *, timeout_s: float
) -> bool:
    """Whether every partition of the new generation has been claimed after us."""
    deadline = time.monotonic() + timeout_s
    waiting = dict(epochs)
    while waiting and time.monotonic() < deadline:
        for place, epoch in list(waiting.items()):
            if await store.epoch(*place) > epoch:
                del waiting[place]
        if waiting:
            await asyncio.sleep(LOOK_S)
    return not waiting


async def _dropped(store: GenerationStore, places: Sequence[Place]) -> int:
    return sum([await store.drop(space, number) for space, number in places])


async def _dropped_sources(store: GenerationStore, topics: Sequence[str]) -> int:
    """Cursors of what is copied, whose workers went on from theirs in the new generation."""
    dropped = 0
    for topic in topics:
        number = 0
        while keys := await store.drop(space_of(topic), number):
            number, dropped = number + 1, dropped + keys
    return dropped
