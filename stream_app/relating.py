"""RELATE: one batch of the co-occurrence topic into the item tables one partition owns.

decode → drop what was seen → load → merge → commit → publish similar:<item_id>
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.books import Books, decoded
from stream_app.codec import Transitions, decode_transitions
from stream_app.core.learn import TRANSITION
from stream_app.core.listing import ListedIds, everything, holding, keep_listed
from stream_app.core.model import PREVIOUS_MAX
from stream_app.core.neighbourhood import SNAPSHOT
from stream_app.core.ranking import Lists
from stream_app.core.raw import picked, together, zeroed
from stream_app.core.relate import owned_nodes, relate, relate_snapshots
from stream_app.core.scoring import DIRECT, POPULAR
from stream_app.core.similar import similar_items
from stream_app.hashing import short_hash
from stream_app.items import SEGMENTS_ID, TOP_ID, TOP_MAX, ItemReader, Top
from stream_app.ports import (
    ACCOUNTS_ID,
    ITEMS,
    Claim,
    Commit,
    Log,
    PublicStore,
    RawBatch,
    StateStore,
)
from stream_app.rejects import dead_letter
from stream_app.retrying import retrying
from stream_app.settings import Settings
from stream_app.telemetry import SILENT, Telemetry

PENDING_MAX = 10_000
PUBLISH_MAX = 500
PART_BYTES_MAX = 1_000_000  # merged at a time: about 20,000 transitions


class Meta(Books):
    """An item partition's own state: counters, and per source partition the last offset merged."""

    what = "item partition"

    transitions: int = 0
    last_ts: float = 0.0
    watermarks: dict[int, int] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a batch says that was not merged yet: ``(n,) TRANSITION`` and ``(m,) SNAPSHOT``."""

    rows: NDArray[np.void]
    snapshots: NDArray[np.void]

    def ids(self) -> NDArray[np.uint64]:
        """All items: of each row the item and those before it, then those of the snapshots."""
        moves = np.concatenate((self.rows["item"][:, None], self.rows["previous"]), axis=1)
        ids: NDArray[np.uint64] = np.concatenate((moves.ravel(), self.snapshots["item"].ravel()))
        return ids

    def nodes_of_rows(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """``(n, 1 + PREVIOUS_MAX)``: those of the rows among the ``nodes`` of :meth:`ids`."""
        return nodes[: self.rows.size * (1 + PREVIOUS_MAX)].reshape(-1, 1 + PREVIOUS_MAX)


def fresh_of(rows: Sequence[NDArray[np.void]], snapshots: Sequence[NDArray[np.void]]) -> Fresh:
    """The parts of several messages, one after the other."""
    return Fresh(
        together(rows) if rows else zeroed(0, TRANSITION),
        together(snapshots) if snapshots else zeroed(0, SNAPSHOT),
    )


@dataclass(slots=True)
class Owned:
    """An item partition this worker owns. ``pending`` items have an old public list."""

    claim: Claim
    cursor: int | None
    meta: Meta
    pending: dict[int, None] = field(default_factory=dict)
    published_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # a batch or a refresh, not both


class Relate:
    """The RELATE stage. One batch of a partition at a time; partitions may run side by side.

    ``listed`` says which items may be in lists of items.
    """

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        public: PublicStore,
        log: Log,
        items: ItemReader,
        clock: Callable[[], float],
        telemetry: Telemetry = SILENT,
        listed: ListedIds = everything,
    ) -> None:
        self._settings = settings
        self._store = store
        self._public = public
        self._log = log
        self._items = items
        self._clock = clock
        self._telemetry = telemetry
        self._partitions = settings.cooccurrence_partitions
        self.owned: dict[int, Owned] = {}
        self.listed = listed
        self._trending = asyncio.Lock()  # what was rendered first is written first

    async def process(self, batch: RawBatch) -> None:
        """Merge ``batch``; errors as for :meth:`stream_app.pipeline.Learn.process`."""
        owned = self.owned[batch.partition]
        async with owned.lock:
            for part in batch.parts(bytes_max=PART_BYTES_MAX):
                await self._process(owned, part)
            # A little early, or the timer would do it for all partitions at once.
            await self._publish(owned, after_s=0.75 * self._settings.refresh_s)
            self._telemetry.lap("publish")

    async def _process(self, owned: Owned, batch: RawBatch) -> None:
        batch = batch.since(owned.cursor)
        if owned.cursor is not None and batch.next_offset <= owned.cursor:
            return  # a redelivery of what is stored
        messages, rejects = decoded(batch, decode_transitions)
        self._telemetry.lap("decode")
        await dead_letter(self._log, self._settings.dead_letter_topic, batch, rejects)
        meta = msgspec.structs.replace(owned.meta, watermarks=dict(owned.meta.watermarks))
        rows = _unseen(messages, meta)
        nodes, mine = await self._load(batch.partition, rows)
        self._telemetry.lap("load")
        writes = self._merge(batch.partition, rows, nodes, mine, messages, meta)
        self._telemetry.lap("merge")
        start = owned.cursor if owned.cursor is not None else 0
        meta.dead_lettered += len(rejects)
        meta.skipped += batch.next_offset - start - len(batch)
        pending = dict(owned.pending)
        pending.update(dict.fromkeys(int.from_bytes(key, "little") for key, _ in writes[:-2]))
        writes.append((ACCOUNTS_ID, meta.accounts(batch.next_offset, transitions=meta.transitions)))
        step = Commit(
            owned.cursor,
            batch.next_offset,
            writes,
            meta.encode(),
            np.fromiter(pending, np.uint64).tobytes(),
        )
        await retrying(lambda: self._store.commit(owned.claim, step), "committing items")
        self._telemetry.lap("commit")
        owned.cursor, owned.meta, owned.pending = step.cursor, meta, pending

    async def assign(self, partition: int) -> int | None:
        """Claim a partition; returns where to read on."""
        held = self.owned.get(partition)
        epoch_min = held.claim.epoch if held else 0
        claim = await retrying(
            lambda: self._store.claim(ITEMS, partition, epoch_min=epoch_min), "claiming items"
        )
        tops = await retrying(
            lambda: self._store.load(ITEMS, [partition] * 2, [TOP_ID, SEGMENTS_ID]),
            "reading popularity",
        )
        self._items.tables.forget(partition, self._partitions)
        self._items.read_tops(partition, *tops)
        self._items.owned.add(partition)
        pending = np.frombuffer(claim.outbox, np.uint64).tolist()
        self.owned[partition] = Owned(
            claim, claim.cursor, Meta.decode(claim.meta), dict.fromkeys(pending)
        )
        return claim.cursor

    def revoke(self, partition: int) -> None:
        """Forget a partition that another worker owns now; its tables become a mere cache."""
        if self.owned.pop(partition, None) is not None:
            self._items.tables.forget(partition, self._partitions)
            self._items.owned.discard(partition)

    async def _publish(self, owned: Owned, *, after_s: float) -> None:
        """Refresh ``similar:`` keys, not sooner than ``after_s`` unless many are waiting."""
        if not owned.pending:
            return
        now = self._clock()
        if now - owned.published_at < after_s and len(owned.pending) < PENDING_MAX:
            return
        owned.published_at = now
        await self._publish_pending(owned)

    async def _publish_pending(self, owned: Owned) -> None:
        todo = list(owned.pending)
        for at in range(0, len(todo), PUBLISH_MAX):
            pairs = await self._render(np.array(todo[at : at + PUBLISH_MAX], np.uint64), owned)
            await retrying(lambda p=pairs: self._public.put_values(p), "writing similar items")  # type: ignore[misc]
        for key in todo:
            owned.pending.pop(key, None)

    async def refresh(self) -> None:
        """Publish what waits in quiet partitions; partition 0's owner also what is trending."""
        for owned in list(self.owned.values()):
            if owned.lock.locked():
                continue  # a batch is being merged, which ends with publishing
            async with owned.lock:
                await self._publish(owned, after_s=self._settings.refresh_s)
        if 0 in self.owned:
            await self._publish_trending()

    async def withdraw(self, gone: NDArray[np.uint64]) -> None:
        """Publish without delay the lists of our items that may hold one of ``gone`` items."""
        await retrying(lambda: self._items.load(gone), "reading items")
        ids = holding(self._items.tables, gone)
        by_partition = [
            (owned, ids[ids % np.uint64(self._partitions) == partition])
            for partition, owned in self.owned.items()
        ]
        await asyncio.gather(
            *(self._publish_now(owned, mine) for owned, mine in by_partition),
            *([self._publish_trending()] if 0 in self.owned else ()),
        )

    async def publish_now(self, partition: int, ids: NDArray[np.uint64]) -> None:
        """Refresh the ``similar:`` keys of items of a partition, if it is (still) ours."""
        owned = self.owned.get(partition)
        if owned is not None and len(ids):
            await self._publish_now(owned, ids)

    async def _publish_now(self, owned: Owned, ids: NDArray[np.uint64]) -> None:
        """Refresh the ``similar:`` keys of these items, after what is being published.

        And those that wait: what their tables do not hold any more may be in their old lists.
        """
        async with owned.lock:
            owned.pending = dict.fromkeys([*ids.tolist(), *owned.pending])
            await self._publish_pending(owned)

    async def _publish_trending(self) -> None:
        """What is popular, with everybody and in each segment, and what rises."""
        async with self._trending:
            await self._publish_tops()

    async def _publish_tops(self) -> None:
        size = self._settings.trending_size
        ts = max((owned.meta.last_ts for owned in self.owned.values()), default=0.0)
        found = {"all": self._items.top(TOP_MAX)}  # some may not be listed
        for name, segment in self._items.segment_names().items():
            trend = self._items.trend(segment, ts, size)
            if segment == 0:
                rising = np.lexsort((trend.ids, -trend.trend))
                rising = rising[trend.trend[rising] > 0]
                found["rising"] = trend.ids[rising], trend.trend[rising]
            elif name not in found:
                found[name] = trend.ids, trend.popularity
        for name, (ids, values) in found.items():
            if len(ids):
                await self._publish_top(f"trending:{name}", ids, values)

    async def _publish_top(
        self, key: str, ids: NDArray[np.uint64], values: NDArray[np.float64]
    ) -> None:
        listed = np.flatnonzero(self.listed(ids))[: self._settings.trending_size]
        ids, values = ids[listed], values[listed]
        await retrying(lambda: self._items.load(ids), "reading items")
        (text,) = self._items.render(
            Lists(
                np.array([len(ids)]),
                self._items.tables.lookup(ids)[None, :],
                (values / max(values.sum(), 1e-300))[None, :],
                np.full((1, len(ids)), POPULAR, np.uint8),
                np.full((1, len(ids)), -1),
            )
        )
        await retrying(lambda: self._public.put_values([(key, text)]), "writing what is trending")

    async def _load(
        self, partition: int, fresh: Fresh
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bring the authoritative tables of the partition's items in ``fresh`` into memory.

        Returns the nodes of all its ids, none when all was seen before, or is malformed, and those
        of the partition's items, each once: valid until somebody waits.
        """
        tables, ids = self._items.tables, fresh.ids()
        if tables.full():  # once: a batch with more items than are kept must come to its end
            tables.clear()
        while True:
            at = tables.ensure(ids)
            mine = owned_nodes(tables, at, partition=partition, partitions=self._partitions)
            of = tables.nodes
            missing = of["id"][mine[(of["authority"][mine] == 0) | (of["row"][mine] < 0)]]
            if not len(missing):
                return at, mine
            keys, needed = [key.tobytes() for key in missing], of["id"][mine]
            blobs = await retrying(
                lambda k=keys: self._store.load(ITEMS, [partition] * len(k), k),  # type: ignore[misc]
                "reading items",
            )
            nodes = tables.ensure(missing)  # nothing held over the wait is valid any more
            tables.ensure_rows(tables.ensure(needed))  # at once: none pushes another one out
            tables.decode(nodes, blobs, now=self._clock())
            tables.nodes["authority"][nodes] = 1

    def _merge(
        self,
        partition: int,
        fresh: Fresh,
        nodes: NDArray[np.int64],
        mine: NDArray[np.int64],
        messages: Sequence[Transitions],
        meta: Meta,
    ) -> list[tuple[bytes, bytes]]:
        """Merge and return what to commit: the blobs of the changed items, last the popularity.

        ``nodes`` and ``mine`` are what loading found.
        """
        tables, rows = self._items.tables, fresh.rows
        self._items.learn_names([name for message in messages for name in message.names])
        at = fresh.nodes_of_rows(nodes)
        owner = {"partition": partition, "partitions": self._partitions}
        tables.ensure_rows(mine)
        relate(tables, rows, at, **owner)
        relate_snapshots(tables, fresh.snapshots, **owner)
        segments = self._items.segments[partition]
        texts = {short_hash(text): text for message in messages for text in message.segments}
        segments.add(rows, texts, **owner)
        self._items.segments_version += 1
        if len(rows):
            meta.last_ts = max(meta.last_ts, float(rows["ts"].max()))
        meta.transitions += len(rows)
        # Not ours: those are in memory by now.
        unknown = at[(at >= 0) & (tables.nodes["known"][at] == 0)]
        self._items.want(tables.nodes["id"][np.unique(unknown)])
        top = self._top(partition, mine)
        self._items.tops[partition] = top
        keys = [key.tobytes() for key in tables.nodes["id"][mine]]
        own = [(TOP_ID, top.encode()), (SEGMENTS_ID, segments.encode())]
        return [*zip(keys, tables.encode(mine), strict=True), *own]

    def _top(self, partition: int, changed: NDArray[np.int64]) -> Top:
        """The partition's most popular items after ``changed`` ones were merged."""
        tables = self._items.tables
        old = self._items.tops[partition]
        anew = np.zeros(tables.nodes_n + 1, np.bool_)
        anew[changed] = True
        kept = ~anew[tables.lookup(old.ids)]  # the last place is that of those not in memory
        ids = np.concatenate((old.ids[kept], tables.nodes["id"][changed]))
        popularity = np.concatenate(
            (old.at(tables.popularity_landmark)[kept], tables.nodes["popularity"][changed])
        )
        order = np.lexsort((ids, -popularity))[:TOP_MAX]
        return Top(tables.popularity_landmark, ids[order], popularity[order])

    async def _render(self, ids: NDArray[np.uint64], owned: Owned) -> list[tuple[str, bytes]]:
        await retrying(lambda: self._items.load(ids), "reading items")
        tables = self._items.tables
        nodes = tables.ensure(ids)
        out, scores, counts = similar_items(
            tables,
            nodes,
            size=tables.model.neighbours_max,  # some may not be listed
            ts=owned.meta.last_ts,
            reading=self._settings.similar_reading,
        )
        direct, nothing = np.full(out.shape, DIRECT, np.uint8), np.full(out.shape, -1)
        lists, size = Lists(counts, out, scores, direct, nothing), self._settings.similar_size
        texts = self._items.render(keep_listed(lists, tables.nodes["id"], self.listed, size=size))
        return [
            (f"similar:{tables.names[node]}", text)
            for node, text in zip(nodes.tolist(), texts, strict=True)
            if tables.names[node]
        ]


def _unseen(messages: Sequence[Transitions], meta: Meta) -> Fresh:
    """Rows above the watermarks, which they raise: a republished or replayed batch adds nothing."""
    rows, snapshots = [], []
    for message in messages:
        seen = meta.watermarks.get(message.source_partition, -1)
        new = picked(message.rows, message.rows["offset"] > seen)
        told = picked(message.snapshots, message.snapshots["offset"] > seen)
        if len(new) or len(told):
            last = max(new["offset"].max(initial=-1), told["offset"].max(initial=-1))
            meta.watermarks[message.source_partition] = int(last)
            meta.applied += 1
            rows.append(new)
            snapshots.append(told)
        else:
            meta.repeated += 1
    return fresh_of(rows, snapshots)
