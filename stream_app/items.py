"""LEARN's reading side of item state: what a worker does not own, it caches for a while."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import LANDMARK_HALF_LIVES
from stream_app.core.ranking import Lists, Popular
from stream_app.core.render import Listed, listed, render_lists
from stream_app.core.tables import ItemTables
from stream_app.core.trending import ALL_NAME, SegmentCounts, Trend, decode_segments, trend_of
from stream_app.errors import SchemaUnknown
from stream_app.hashing import stable_hash
from stream_app.ports import ITEMS, StateStore
from stream_app.telemetry import SILENT, Telemetry

TOP_ID = b"top"  # beside the items of a partition: its most popular ones
SEGMENTS_ID = b"trends"  # and what is asked for by segment
TOP_MAX = 200
WANTED_MAX = 20_000
READ_MAX = 2_048
_TOP = np.dtype([("id", "u8"), ("popularity", "f8")])


@dataclass(frozen=True, slots=True)
class Top:
    """The most popular items of one item partition, relative to ``landmark``."""

    landmark: int = 0
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    popularity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def encode(self) -> bytes:
        """The blob stored under :data:`TOP_ID`."""
        rows = np.empty(len(self.ids), _TOP)
        rows["id"], rows["popularity"] = self.ids, self.popularity
        return np.int64(self.landmark).tobytes() + rows.tobytes()

    def at(self, landmark: int) -> NDArray[np.float64]:
        """Popularity relative to another landmark."""
        return np.ldexp(self.popularity, LANDMARK_HALF_LIVES * (self.landmark - landmark))


def decode_top(blob: bytes | None) -> Top:
    """The inverse of :meth:`Top.encode`; nothing is an empty top."""
    if not blob:
        return Top()
    if len(blob) % 16 != 8:
        raise SchemaUnknown(f"popularity of {len(blob)} bytes: run the release that wrote it")
    rows = np.frombuffer(blob[8:], _TOP)
    return Top(int(np.frombuffer(blob[:8], np.int64)[0]), rows["id"], rows["popularity"])


class _Merged(NamedTuple):
    """The most popular items of all partitions, and what they were merged from."""

    tops: list[Top]
    ids: NDArray[np.uint64]
    popularity: NDArray[np.float64]


def _merged(tops: list[Top], size: int) -> _Merged:
    landmark = max(top.landmark for top in tops)
    # Each is in descending order: beyond its first ``size`` none can be among the best.
    ids = np.concatenate([top.ids[:size] for top in tops])
    popularity = np.concatenate([top.at(landmark)[:size] for top in tops])
    order = np.lexsort((ids, -popularity))[:size]
    return _Merged(tops, ids[order], popularity[order])


class ItemReader:
    """Brings the item tables a batch needs into memory and keeps the overall popularity."""

    def __init__(
        self,
        store: StateStore,
        tables: ItemTables,
        *,
        partitions: int,
        cache_age_s: float,
        refresh_s: float,
        clock: Callable[[], float],
        telemetry: Telemetry = SILENT,
    ) -> None:
        self.tables = tables
        self.tops: dict[int, Top] = {}
        self.segments: dict[int, SegmentCounts] = {}
        self.segments_version = 0  # rises with every change of them
        self.owned: set[int] = set()  # RELATE keeps their tops itself
        self._store = store
        self._partitions = partitions
        self._cache_age_s = cache_age_s
        self._refresh_s = refresh_s
        self._clock = clock
        self._telemetry = telemetry
        self._tops_at = -np.inf
        self._wanted: dict[int, None] = {}
        self._merged: dict[int, _Merged] = {}  # by size, of which callers use three

    async def load(self, ids: NDArray[np.uint64]) -> None:
        """Make ``ids`` and their neighbours' masses present and fresh enough to score with."""
        if self.tables.full():
            self.tables.clear()
        await self._refresh_tops()
        wanted = np.fromiter(self._wanted, np.uint64)[:READ_MAX]
        for key in wanted.tolist():
            del self._wanted[key]
        popular, _ = self.top(self.tables.model.popular_max)
        fresh = await self._read(np.concatenate((ids, wanted, popular)))
        if not len(fresh):
            return
        unknown = self.tables.unknown_neighbours(fresh, limit=WANTED_MAX)
        fresh = await self._read(unknown[:READ_MAX])
        self.want(unknown[READ_MAX:])
        self.want(self.tables.unknown_neighbours(fresh, limit=WANTED_MAX))

    def want(self, ids: NDArray[np.uint64]) -> None:
        """Read ``ids`` along with one of the next batches; the oldest wishes give way."""
        self._wanted.update(dict.fromkeys(ids.tolist()))
        while len(self._wanted) > WANTED_MAX:
            del self._wanted[next(iter(self._wanted))]

    async def _read(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Read the stale ones of ``ids``; returns the nodes read."""
        asked = len(ids)
        ids = self.tables.stale(ids, before=self._clock() - self._cache_age_s)
        self._telemetry.cache("items", asked=asked, missing=len(ids))
        if not len(ids):
            return np.zeros(0, np.int64)
        blobs = await self._store.load(
            ITEMS,
            (ids % np.uint64(self._partitions)).astype(np.int64).tolist(),
            [key.tobytes() for key in ids],
        )
        # While we waited RELATE may have become the authority on some of them.
        nodes = self.tables.ensure(ids)
        use = self.tables.nodes["authority"][nodes] == 0
        nodes = np.asarray(nodes[use], np.int64)
        self.tables.decode(
            nodes,
            [blob for blob, used in zip(blobs, use.tolist(), strict=True) if used],
            now=self._clock(),
        )
        return nodes

    async def _refresh_tops(self) -> None:
        now = self._clock()
        others = [q for q in range(self._partitions) if q not in self.owned]
        if not others or now - self._tops_at < self._refresh_s:
            return
        self._tops_at = now
        n = len(others)
        blobs = await self._store.load(ITEMS, others * 2, [TOP_ID] * n + [SEGMENTS_ID] * n)
        for q, top, segments in zip(others, blobs[:n], blobs[n:], strict=True):
            if q not in self.owned:
                self.read_tops(q, top, segments)

    def read_tops(self, partition: int, top: bytes | None, segments: bytes | None) -> None:
        """Take in what is stored of a partition's popular items."""
        self.segments_version += 1
        self.tops[partition] = decode_top(top)
        self.segments[partition] = decode_segments(segments, self.tables.model)

    def trend(self, segment: int, ts: float, size: int) -> Trend:
        """What is asked for in a segment, by its hash; 0 is everybody."""
        return trend_of(self.segments.values(), segment, ts, self.tables.model, size=size)

    def segment_names(self) -> dict[str, int]:
        """Hashes of all segments by name, ``all`` first."""
        texts = {name: key for part in self.segments.values() for key, name in part.names.items()}
        return {ALL_NAME: 0} | {name: texts[name] for name in sorted(texts) if name}

    def top(self, size: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Ids and popularity of the most popular items of all partitions; ties by id."""
        tops = [top for top in self.tops.values() if len(top.ids)]
        if not tops:
            return np.zeros(0, np.uint64), np.zeros(0)
        merged = self._merged.get(size)
        if merged is None or list(map(id, merged.tops)) != list(map(id, tops)):
            merged = self._merged[size] = _merged(tops, size)
        return merged.ids, merged.popularity

    def popular(self) -> Popular:
        """The popularity source of the scorer."""
        ids, popularity = self.top(self.tables.model.popular_max)
        return Popular(self.tables.ensure(ids), popularity)

    def learn_names(self, names: list[str]) -> None:
        """Remember the texts of items that may be new."""
        if names:
            ids = np.array([stable_hash(name) for name in names], np.uint64)
            self.tables.set_names(ids, names)

    def names(self, ids: NDArray[np.uint64]) -> set[str]:
        """Item ids as text, of those in memory."""
        nodes = self.tables.lookup(ids)
        return {self.tables.names[node] for node in nodes[nodes >= 0].tolist()} - {""}

    def unsaved_names(self, lists: Lists) -> list[str]:
        """Texts of items in ``lists`` that RELATE may not have stored yet: nothing counts for them.

        Who finishes publishing the lists after a crash has these texts from nowhere else.
        """
        used = np.arange(lists.nodes.shape[1]) < lists.counts[:, None]
        named = np.concatenate((lists.nodes[used], lists.because[used]))
        uncounted = named[(named >= 0) & (self.tables.nodes["popularity"][named] == 0.0)]
        unsaved = sorted(set(uncounted.tolist()))
        return [name for node in unsaved if (name := self.tables.names[node])]

    def listed(self, lists: Lists) -> Listed:
        """Ranked lists with the names of what they hold, ready to be rendered.

        Scores are rounded to float32 as in the outbox, from which they may be rendered again.
        """
        names = self.tables.names
        return listed(
            names.bytes,
            names.starts,
            names.sizes,
            lists.nodes,
            lists.counts,
            lists.scores.astype(np.float32).astype(np.float64),
            lists.sources,
            lists.because,
        )

    def render(self, lists: Lists) -> list[bytes]:
        """JSON arrays of ranked lists."""
        return render_lists(self.listed(lists))
