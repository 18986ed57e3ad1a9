"""SCORE: the lists of all customers a batch touched, from their states and the item tables."""

from collections.abc import Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.candidates import context_of, gather
from stream_app.core.catalog import CatalogView
from stream_app.core.explaining import Parts, new_parts, take_apart
from stream_app.core.hybrid import ASLEEP, ranking_weights
from stream_app.core.jit import kernel, one_layout
from stream_app.core.list_kinds import KINDS_OF_LISTS, LISTS, POPULAR_SEEDS, sizes
from stream_app.core.model import CONTEXT_MAX, Model
from stream_app.core.probing import probe_batch
from stream_app.core.restricting import name_own, restrict, seeds_of, weights_of
from stream_app.core.revisits import Recent, new_recent
from stream_app.core.rules import Rules, make_rules
from stream_app.core.scoring import (
    SOURCES,
    SOURCES_N,
    Notes,
    View,
    Work,
    confidence,
    new_notes,
    new_work,
    scales,
)
from stream_app.core.scoring import (
    blend as blend_tables,
)
from stream_app.core.scoring_extra import Added, Extra, added, added_scales, blend_added
from stream_app.core.scoring_select import explain, use_revisits
from stream_app.core.shaping import (
    EMPTY_CATALOG,
    NO_FALLBACK,
    Fallback,
    Shape,
    new_pool,
    shape_list,
)
from stream_app.core.tables import ItemTables

__all__ = ["LISTS", "Lists", "Popular", "Ranker", "rank_batch"]


class Popular(NamedTuple):
    """The most popular items: ``nodes (n,) int64`` and ``weights (n,) float64``, descending."""

    nodes: NDArray[np.int64]
    weights: NDArray[np.float64]


class Lists(NamedTuple):
    """Ranked lists of n customers: ``nodes``, ``scores``, ``sources`` and ``because`` (n, k).

    ``counts (n,)`` tells how many entries of each row are used; ``because`` is the node that an
    entry was drawn from, -1 when there is no single one.
    """

    counts: NDArray[np.int64]
    nodes: NDArray[np.int64]
    scores: NDArray[np.float64]
    sources: NDArray[np.uint8]
    because: NDArray[np.int64]

    def between(self, first: int, end: int) -> "Lists":
        """The lists ``first`` … ``end - 1`` alone."""
        return Lists(
            self.counts[first:end],
            self.nodes[first:end],
            self.scores[first:end],
            self.sources[first:end],
            self.because[first:end],
        )


@kernel
def rank_batch(
    view: View,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    which: NDArray[np.uint8],
    kinds: NDArray[np.void],
    rooms: NDArray[np.int64],
    ts: NDArray[np.float64],
    growth: NDArray[np.float64],
    homes: NDArray[np.int64],
    partitions: NDArray[np.void],
    popular: NDArray[np.int64],
    extra: Added,
    model: Model,
    weights: NDArray[np.float64],
    shape: Shape,
    recent: Recent,
    work: Work,
    notes: Notes,
    out: Lists,
) -> None:
    """Fill ``out[i]`` with list ``which[i]`` of ``users[rows[i]]``, ``rooms[which[i]]`` at most.

    ``homes (n,)`` are rows of ``partitions``, of ``weights`` and of the learned cycles; of one that
    holds for all there is a single row.
    """
    context, seeds = notes.context, notes.seeds
    step_weights, added_factors, forced = notes.weights, notes.factors, notes.forced
    for i in range(len(rows)):
        user, g, kind = users[rows[i]], growth[i], kinds[which[i]]
        home, cycles = homes[i], shape.rules.learned
        shape.rules.home[0] = min(home, len(cycles) - 1)
        weights_of(kind, weights[min(home, len(weights) - 1), user.step], step_weights)
        context_n, own_n = context_of(
            user, kind.anchor, keys, slots, recent, model, context, work.fade
        )
        anchors = context[:context_n]
        near = context[: min(context_n, CONTEXT_MAX)]
        own_seeds = seeds[: seeds_of(kind, user, anchors, keys, slots, seeds)]
        more = popular if kind.seeds == POPULAR_SEEDS else own_seeds
        n = gather(view, near, context[:own_n], more, extra, i, g, model, step_weights, work)
        share = model.blend_share * confidence(view, near, work.fade, g, model)
        factors = scales(n, step_weights, share, work)
        blend_tables(n, factors, work)
        if extra.starts[i + 1] > extra.starts[i]:
            added_scales(extra, i, step_weights, share, added_factors)
            blend_added(extra, i, added_factors, n, work)
        part = partitions[min(home, len(partitions) - 1)]
        use_revisits(view, context, own_n, recent, part, g, model, step_weights, work, n)
        if not kind.plain:
            restrict(
                kind, shape.rules, shape.catalog, view.nodes, keys, slots, user, ts[i], anchors,
                own_seeds, extra, i, share * step_weights.sum(), work, n,
            )  # fmt: skip
        room = rooms[which[i]]
        count = shape_list(
            view.nodes, work, n, shape, extra, i, user, which[i], kind.filled != 0, ts[i],
            out.nodes[i, :room], out.scores[i], notes,
        )  # fmt: skip
        out.counts[i] = count
        explain(
            view, near, context[:own_n], factors, extra, i, model, work, notes, n,
            out.nodes[i, :count], out.scores[i], out.sources[i], out.because[i],
        )  # fmt: skip
        name_own(kind, own_seeds, out.nodes[i, :count], out.sources[i], out.because[i])
        for k in range(count):
            if forced[k] >= 0:
                out.sources[i, k], out.because[i, k] = forced[k], -1


class Ranker:
    """Scores batches of customers against one :class:`ItemTables`; owns the work space.

    ``sources`` are names of :data:`~stream_app.core.scoring.SOURCES`, ``None`` for all; ``rules``
    what may be listed, ``None`` for no rules but, with ``exclude_seen``, nothing seen recently.
    """

    def __init__(
        self,
        tables: ItemTables,
        *,
        list_size: int,
        exclude_seen: bool = False,
        sources: Set[str] | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.tables = tables
        self.list_size = list_size
        self.rules = make_rules(seen=exclude_seen) if rules is None else rules
        self._pool = new_pool(list_size)
        self.sources = frozenset(SOURCES if sources is None else sources)
        self._published = ranking_weights(tables.model, self.sources)
        self._recent = new_recent()
        self._added = 0  # candidates from outside that the work space has room for, per list
        self._work = new_work(1024, tables.model)
        self._notes = new_notes(list_size)

    def rank(
        self,
        users: NDArray[np.void],
        rows: NDArray[np.int64],
        which: NDArray[np.uint8],
        ts: NDArray[np.float64],
        partitions: NDArray[np.void],
        popular: Popular,
        extra: Extra | None = None,
        blend: NDArray[np.void] | None = None,
        catalog: CatalogView = EMPTY_CATALOG,
        fallback: Fallback = NO_FALLBACK,
        cycles: NDArray[np.void] | None = None,
        homes: NDArray[np.int64] | None = None,
    ) -> Lists:
        """Lists ``which (n,) uint8`` of ``users[rows]`` as of event times ``ts (n,)``, seconds.

        ``homes (n,)`` is the row of each list's partition in ``partitions (p,)``, 0 if not given.
        ``extra`` are candidates for these lists from sources outside the kernel; ``blend (p,)
        BLEND`` the learned weights, ``None`` for the published ones; ``cycles (p,) CYCLES`` how
        soon customers buy an item again. ``catalog`` says what may be listed, ``fallback`` what
        fills a list that the rules left short.
        """
        tables = self.tables
        n, k = len(rows), self.list_size
        more = self._prepared(extra, n)
        rules = self.rules if cycles is None else self.rules._replace(learned=cycles)
        if len(self._notes.forced) != k:
            self._notes = new_notes(k)
        out = Lists(
            np.zeros(n, np.int64),
            np.full((n, k), -1, np.int64),
            np.zeros((n, k)),
            np.zeros((n, k), np.uint8),
            np.full((n, k), -1, np.int64),
        )
        rank_batch(
            self._view(),
            tables.keys,
            tables.slots,
            users,
            one_layout(rows),
            one_layout(which),
            KINDS_OF_LISTS,
            sizes(k),
            one_layout(ts),
            tables.growths(ts),
            np.zeros(n, np.int64) if homes is None else homes,
            partitions,
            popular.nodes,
            more,
            tables.model,
            self._weights(blend),
            Shape(rules.any or len(catalog.flags) > 0, rules, catalog, fallback, self._pool),
            self._recent,
            self._work,
            self._notes,
            out,
        )
        return out

    def probe(
        self,
        users: NDArray[np.void],
        items: NDArray[np.uint64],
        ts: NDArray[np.float64],
        popular: Popular,
        extra: Extra | None = None,
    ) -> NDArray[np.float64]:
        """What each source gave the item ``items (n,)`` that came next: ``(n, SOURCES_N)``.

        ``users (n,)`` are customers as they were before, ``extra`` their candidates from outside.
        See :func:`~stream_app.core.probing.probe_batch`.
        """
        tables = self.tables
        more = self._prepared(extra, len(users))
        given = np.full((len(users), SOURCES_N), ASLEEP)
        probe_batch(
            self._view(),
            tables.keys,
            tables.slots,
            users,
            tables.lookup(items),
            tables.growths(ts),
            popular.nodes,
            more,
            tables.model,
            self._published[0],
            self._recent,
            self._work,
            self._notes,
            given,
        )
        return given

    def take_apart(
        self,
        users: NDArray[np.void],
        which: int,
        ts: float,
        partition: NDArray[np.void],
        popular: Popular,
        nodes: NDArray[np.int64],
        extra: Extra | None = None,
        blend: NDArray[np.void] | None = None,
    ) -> tuple[Parts, NDArray[np.float64]]:
        """What the sources give ``nodes (m,)`` in list ``which`` of the one customer in ``users``.

        Also the weights ``(SOURCES_N,)`` that their step is ranked with. Nothing is filtered.
        """
        tables, out = self.tables, new_parts(len(nodes))
        learned = None if blend is None else ranking_weights(tables.model, self.sources, blend)
        kind, weights = KINDS_OF_LISTS[which], np.zeros(SOURCES_N)
        weights_of(
            kind, (self._published if learned is None else learned)[users[0]["step"]], weights
        )
        more = self._prepared(extra, 1)
        take_apart(
            self._view(), tables.keys, tables.slots, users[0], kind,
            float(tables.growths(np.array([ts]))[0]), partition[0], popular.nodes, more,
            tables.model, weights, self._recent, self._work, nodes, out,
        )  # fmt: skip
        return out, weights

    def _weights(self, blend: NDArray[np.void] | None) -> NDArray[np.float64]:
        """``(p, STEPS_MAX, SOURCES_N)``, or one for all; of ``blend`` or as published."""
        if blend is None:
            return self._published[None]
        every = np.empty((len(blend), *self._published.shape))
        for k in range(len(blend)):
            every[k] = ranking_weights(self.tables.model, self.sources, blend[k : k + 1])
        return every

    def _view(self) -> View:
        t = self.tables
        return View(t.nodes, t.neighbour, t.forward, t.backward, t.filled)

    def _prepared(self, extra: Extra | None, lists: int) -> Added:
        """``extra`` for the kernels, and a work space that has room for it and for all items."""
        more = added(extra, lists)
        most = int((more.starts[1:] - more.starts[:-1]).max(initial=0))
        if len(self._work.place) < self.tables.nodes_n or self._added < most:
            self._added = max(self._added, 2 * most)
            self._work = new_work(2 * self.tables.nodes_n, self.tables.model, self._added)
        return more
