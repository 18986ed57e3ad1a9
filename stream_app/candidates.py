"""Candidates from sources outside the scoring kernel, for a batch of lists: content, embeddings,
neighbours of the customer or by Jaccard of the recent items, what is asked for in the segment, what
rises.

Called by LEARN and by evaluation between learning and ranking; reads nothing but memory. Items it
has never heard of are wished for, and are there with one of the next batches.
"""

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from stream_app.core.audience import Audience
from stream_app.core.catalog import Catalog
from stream_app.core.content import ContentIndex
from stream_app.core.drawing import NEAR_ITEMS, Drawn, draw_near, find_contexts, new_drawn
from stream_app.core.embeddings import EmbeddingIndex
from stream_app.core.jaccard import draw_jaccard, new_desk, room_of
from stream_app.core.jit import one_layout
from stream_app.core.list_kinds import HOME, KINDS_OF_LISTS, SEARCH, drawn_from
from stream_app.core.model import CONTEXT_MAX, SEGMENTS_OF_EVENT
from stream_app.core.neighbourhood import KNN_MAX, SNAPSHOT_ITEMS, draw_user_knn
from stream_app.core.revisits import new_recent
from stream_app.core.scoring import (
    CONTENT,
    EMBEDDING,
    JACCARD,
    SEGMENT,
    SOURCES,
    TRENDING,
    USER_KNN,
    View,
)
from stream_app.core.scoring_extra import Extra, joined, spread
from stream_app.items import ItemReader

_Shares = tuple[NDArray[np.int64], NDArray[np.float32]]
_Trend = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
_DRAWN = (USER_KNN, JACCARD, CONTENT, EMBEDDING, SEGMENT, TRENDING)  # in this order
GIVEN = frozenset(SOURCES[s] for s in _DRAWN)
TREND_ITEMS = 30  # of a segment that are candidates
_NEAR = frozenset((USER_KNN, CONTENT, EMBEDDING))  # drawn from what a customer did last
_NOTHING = np.zeros(0, np.int64)
_ALWAYS = float("inf")
_TRENDS_MAX = 64
_LISTS_PER_COMPUTED = 16  # neighbours of one item are made anew for so many lists
_WANTED_MAX = 256


class Candidates:
    """Draws candidates for lists; ``sources`` are those of :data:`GIVEN` that are wanted.

    ``thin_only`` asks content only where items have been seen too rarely for counts to know them.
    ``exhaustive`` makes everything anew that is not up to date, however long it takes.
    """

    def __init__(
        self,
        items: ItemReader,
        catalog: Catalog,
        audience: Audience,
        *,
        sources: Set[str] = GIVEN,
        thin_only: bool = True,
        exhaustive: bool = False,
    ) -> None:
        self._items = items
        self._catalog = catalog
        self._audience = audience
        self._sources = sources & GIVEN
        self._thin_moves = items.tables.model.thin_moves if thin_only else _ALWAYS
        self.exhaustive = exhaustive
        self._content = ContentIndex(catalog)
        self._embeddings = EmbeddingIndex(items.tables)
        self._recent = new_recent()
        self._desk = new_desk(0, items.tables.model)
        self._node_of_row = np.zeros(0, np.int64)
        self._generation = -1
        self._trends: dict[int, _Trend] = {}
        self._together: dict[tuple[int, ...], _Shares] = {}  # of several of them
        self._trends_of = (-1, -1)

    def draw(
        self,
        users: NDArray[np.void],
        rows: NDArray[np.int64],
        which: NDArray[np.uint8] | None,
        ts: NDArray[np.float64],
        segments: NDArray[np.uint32],
    ) -> Extra | None:
        """Candidates of lists ``which (m,)`` of ``users[rows]`` as of ``ts (m,)``, in ``segments``.

        ``which`` are home lists where not given. ``segments (m, 2) uint32`` are hashes of the
        channel and the region each list is asked from; those of 0 are what the audience knows.
        """
        searches = np.flatnonzero(which == SEARCH) if which is not None else _NOTHING
        if not len(rows) or not (self._sources or len(searches)):
            return None
        tables = self._items.tables
        if self._generation != tables.generation:
            self._generation = tables.generation
            self._node_of_row[:] = -1
        lists = np.full(len(rows), HOME, np.uint8) if which is None else which
        drawing = [
            source
            for source in _DRAWN
            if SOURCES[source] in self._sources and (source != CONTENT or self._catalog.rows_n)
        ]
        if not _NEAR.isdisjoint(drawing):
            ids = np.zeros((len(rows), CONTEXT_MAX), np.uint64)
            find_contexts(
                users, one_layout(rows), KINDS_OF_LISTS["anchor"][lists], self._recent, ids
            )
            contexts = tables.lookup(ids.ravel()).reshape(ids.shape)
        now = float(ts.max())
        parts = []
        for source in drawing:
            at = drawn_from(source, lists)
            if not len(at):
                continue
            if source == USER_KNN:
                part = self._user_knn(users, rows[at], contexts[at], ts[at])
            elif source == JACCARD:
                part = self._by_jaccard(users, rows[at], lists[at], ts[at])
            elif source == CONTENT:
                part = self._near_content(ids[at, :NEAR_ITEMS], contexts[at, :NEAR_ITEMS], ts[at])
            elif source == EMBEDDING:
                part = self._near_embedded(contexts[at, :NEAR_ITEMS], ts[at], now)
            elif source == SEGMENT:
                part = self._by_segment(self._known(segments[at], users, rows[at]), now)
            else:
                part = self._trending(len(at), now)
            parts.append(spread(part, at, len(rows)))
        if len(searches) and self._catalog.rows_n:
            parts.append(spread(self._matching(users[rows[searches]]), searches, len(rows)))
        return joined([part for part in parts if len(part.nodes)], len(rows))

    def _compute_max(self, lists: int) -> int:
        return 1_000_000_000 if self.exhaustive else 1 + lists // _LISTS_PER_COMPUTED

    # -- the sources -------------------------------------------------------------------------

    def _user_knn(
        self,
        users: NDArray[np.void],
        rows: NDArray[np.int64],
        contexts: NDArray[np.int64],
        ts: NDArray[np.float64],
    ) -> Extra:
        tables = self._items.tables
        out = new_drawn(len(rows), KNN_MAX * SNAPSHOT_ITEMS)
        wanted = np.zeros(_WANTED_MAX, np.uint64)
        missing = draw_user_knn(
            users,
            rows,
            contexts,
            ts,
            tables.model.vector_half_life_s,
            tables.keys,
            tables.slots,
            tables.nodes,
            tables.fans.reshape(-1),
            tables.fans_n,
            out.starts,
            out.nodes,
            out.values,
            wanted,
        )
        self._items.want(wanted[:missing])
        return _extra(out, USER_KNN)

    def _by_jaccard(
        self,
        users: NDArray[np.void],
        rows: NDArray[np.int64],
        lists: NDArray[np.uint8],
        ts: NDArray[np.float64],
    ) -> Extra:
        t = self._items.tables
        if len(self._desk.place) < t.nodes_n:
            self._desk = new_desk(2 * t.nodes_n, t.model)
        out = new_drawn(len(rows), room_of(t.model))
        draw_jaccard(
            View(t.nodes, t.neighbour, t.forward, t.backward, t.filled),
            t.keys,
            t.slots,
            users,
            one_layout(rows),
            KINDS_OF_LISTS["anchor"][lists],
            t.growths(ts),
            t.model,
            self._recent,
            self._desk,
            out,
        )
        return _extra(out, JACCARD)

    def _near_content(
        self, ids: NDArray[np.uint64], contexts: NDArray[np.int64], ts: NDArray[np.float64]
    ) -> Extra:
        index = self._content
        index.sync()
        rows = self._catalog.rows(ids.ravel())
        budget = None if self.exhaustive else 4 * self._compute_max(len(ids))
        near = index.nearest(rows, compute_max=budget)
        nodes = self._nodes_of(near.rows).reshape(*ids.shape, -1)
        values = near.similarities.reshape(nodes.shape)
        return self._draw(contexts, nodes, values, ts, self._thin_moves, CONTENT)

    def _matching(self, users: NDArray[np.void]) -> Extra:
        """What each of ``users`` searched for: matches by the words of the catalog."""
        self._content.sync()
        found = self._content.matching(users["query_word"], users["query_n"])
        nodes = self._nodes_of(found.rows).reshape(found.rows.shape)
        known = nodes >= 0
        starts = np.zeros(len(users) + 1, np.int64)
        np.cumsum(known.sum(axis=1), out=starts[1:])
        n = int(starts[-1])
        return Extra(starts, nodes[known], found.similarities[known], np.full(n, CONTENT, np.uint8))

    def _near_embedded(
        self, contexts: NDArray[np.int64], ts: NDArray[np.float64], now: float
    ) -> Extra:
        near, cosines = self._embeddings.nearest(
            contexts.ravel(), ts=now, compute_max=self._compute_max(len(contexts))
        )
        nodes = near.astype(np.int64).reshape(*contexts.shape, -1)
        return self._draw(contexts, nodes, cosines.reshape(nodes.shape), ts, _ALWAYS, EMBEDDING)

    def _by_segment(self, segments: NDArray[np.uint32], ts: float) -> Extra:
        """Popularity in each list's segments, shares added up."""
        whole = list(map(tuple, segments.tolist()))
        kinds = sorted(set(whole))
        places = {kind: at for at, kind in enumerate(kinds)}
        at = np.array([places[kind] for kind in whole], np.int64)
        return _repeated([self._shares(kind, ts) for kind in kinds], at, SEGMENT)

    def _shares(self, segments: tuple[int, ...], ts: float) -> _Shares:
        """Nodes of what is asked for in any of ``segments``, and their shares of it."""
        trends = [self._trend(segment, ts) for segment in segments if segment]
        found = self._together.get(segments)
        if found is None:
            nodes = np.unique(np.concatenate([_NOTHING, *(trend[0] for trend in trends)]))
            values = np.zeros(len(nodes), np.float32)
            for those, popularity, _ in trends:
                values[np.searchsorted(nodes, those)] += popularity
            found = self._together[segments] = nodes, values
        return found

    def _trending(self, lists: int, ts: float) -> Extra:
        nodes, _, trend = self._trend(0, ts)
        rising = trend > 0
        return _repeated([(nodes[rising], trend[rising])], np.zeros(lists, np.int64), TRENDING)

    def _known(
        self, segments: NDArray[np.uint32], users: NDArray[np.void], rows: NDArray[np.int64]
    ) -> NDArray[np.uint32]:
        """``segments`` with what the shop says of customers whose events did not name any."""
        if not len(self._audience):
            return segments
        at = self._audience.rows(users["id"][rows])
        said = np.stack((self._audience.channel[at], self._audience.region[at]), axis=1)
        return np.where((segments == 0) & (at >= 0)[:, None], said, segments)

    # -- what they have in common ------------------------------------------------------------

    def _draw(
        self,
        contexts: NDArray[np.int64],
        near: NDArray[np.int64],
        values: NDArray[np.float32],
        ts: NDArray[np.float64],
        thin_moves: float,
        source: int,
    ) -> Extra:
        tables = self._items.tables
        out = new_drawn(len(contexts), contexts.shape[1] * near.shape[2])
        draw_near(
            one_layout(contexts),
            near,
            values,
            tables.nodes,
            tables.growths(ts),
            tables.model.context_decay,
            thin_moves,
            out,
        )
        return _extra(out, source)

    def _nodes_of(self, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """Nodes of catalog rows, made where an item has none yet; -1 for no row."""
        if len(self._node_of_row) < self._catalog.rows_n:
            grown = np.full(max(self._catalog.rows_n, 2 * len(self._node_of_row)), -1, np.int64)
            grown[: len(self._node_of_row)] = self._node_of_row
            self._node_of_row = grown
        if not len(self._node_of_row):
            return np.full(rows.size, -1, np.int64)
        flat = rows.ravel()
        known = np.unique(flat[flat >= 0])
        # A row may have gone to another item since.
        tables, ids = self._items.tables, self._catalog.ids
        nodes = self._node_of_row[known]
        stale = (nodes < 0) | (tables.nodes["id"][nodes] != ids[known])
        fresh = known[stale & (ids[known] != 0)]
        if len(fresh):
            tables.set_names(
                ids[fresh], [self._catalog.texts(row).item_id for row in fresh.tolist()]
            )
            self._node_of_row[fresh] = tables.lookup(ids[fresh])
            unread = tables.nodes["known"][self._node_of_row[fresh]] == 0
            self._items.want(ids[fresh[unread]])
        return np.where(flat >= 0, self._node_of_row[flat], -1)

    def _trend(self, segment: int, ts: float) -> _Trend:
        """Nodes of a segment's items, their shares of its popularity, and their trends."""
        state = (self._items.segments_version, self._items.tables.generation)
        if self._trends_of != state or len(self._trends) >= _TRENDS_MAX:
            self._trends_of, self._trends, self._together = state, {}, {}
        found = self._trends.get(segment)
        if found is None:
            tables = self._items.tables
            trend = self._items.trend(segment, ts, TREND_ITEMS)
            nodes = tables.lookup(trend.ids)
            here = nodes >= 0
            here[here] = tables.nodes["known"][nodes[here]] != 0
            self._items.want(trend.ids[~here])
            share = trend.popularity / max(float(trend.popularity.sum()), 1e-300)
            found = self._trends[segment] = (
                nodes[here],
                share[here].astype(np.float32),
                trend.trend[here].astype(np.float32),
            )
        return found


def _extra(drawn: Drawn, source: int) -> Extra:
    n = int(drawn.starts[-1])
    return Extra(
        drawn.starts,
        drawn.nodes[:n],
        drawn.values[:n],
        np.full(n, source, np.uint8),
        drawn.because[:n],
    )


def _repeated(drawn: list[_Shares], at: NDArray[np.int64], source: int) -> Extra:
    """Each list ``i`` gets the candidates ``drawn[at[i]]``."""
    sizes = np.array([len(nodes) for nodes, _ in drawn], np.int64)
    firsts = sizes.cumsum() - sizes
    counts = sizes[at]
    starts = np.zeros(len(at) + 1, np.int64)
    counts.cumsum(out=starts[1:])
    n = int(starts[-1])
    taken = np.repeat(firsts[at] - starts[:-1], counts) + np.arange(n)
    return Extra(
        starts,
        np.concatenate([nodes for nodes, _ in drawn])[taken],
        np.concatenate([values for _, values in drawn])[taken],
        np.full(n, source, np.uint8),
    )


def no_segments(lists: int) -> NDArray[np.uint32]:
    """For lists that nobody asked for from anywhere: ``(lists, 2)`` zeros."""
    return np.zeros((lists, SEGMENTS_OF_EVENT), np.uint32)
