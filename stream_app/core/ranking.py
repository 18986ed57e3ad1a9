"""SCORE: the lists of all customers a batch touched, from their states and the item tables."""

from collections.abc import Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.item_index import find
from stream_app.core.jit import kernel, signed
from stream_app.core.model import CONTEXT_MAX, RING_MAX, Model
from stream_app.core.revisits import Recent, Row, new_recent, recent_items
from stream_app.core.scoring import (
    FORWARD,
    POPULAR,
    REPEAT,
    RETURN,
    SOURCES,
    SOURCES_N,
    TWO_HOP,
    View,
    Work,
    add_direct,
    add_others,
    add_two_hop,
    blend,
    confidence,
    new_work,
    place_of,
    scales,
)
from stream_app.core.scoring_extra import (
    Added,
    Extra,
    added,
    added_scales,
    blend_added,
    place_added,
)
from stream_app.core.scoring_select import explain, select_top, use_revisits
from stream_app.core.tables import ItemTables
from stream_app.errors import ConfigurationError

LISTS = ("home", "cart")
HOME, CART = range(2)
_BLENDED = np.array([s for s in range(SOURCES_N) if s not in (REPEAT, RETURN)])


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


@kernel
def _context(
    user: Row,
    which: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    recent: Recent,
    context: NDArray[np.int64],
) -> tuple[int, int]:
    """Nodes that candidates are drawn from, newest first; how many, and how many may come back.

    The last items of earlier sessions fill what the current one leaves free: half of a shop's
    sessions are too short to say what they are about.
    """
    if which == CART:
        n = signed(user.cart_n)
        for k in range(n):
            context[k] = find(keys, slots, user.cart_item[n - 1 - k])
        return n, 0
    n, _ = recent_items(user, recent)
    for k in range(n):
        context[k] = find(keys, slots, recent.items[k])
    return n, n


@kernel
def _exclude(
    user: Row,
    which: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    exclude_seen: bool,
    work: Work,
    n: int,
) -> None:
    """Zero the scores of what must not be in the list."""
    cart_n = signed(user.cart_n) if which == CART else 0
    seen_n = signed(user.ring_n) if exclude_seen else 0
    for k in range(cart_n + seen_n):
        c = find(keys, slots, user.cart_item[k] if k < cart_n else user.ring_item[k - cart_n])
        if c >= 0:
            t = place_of(work.place, work.node, c, n)
            if t < n:
                work.score[t] = 0.0


@kernel
def rank_batch(
    view: View,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    which: NDArray[np.uint8],
    growth: NDArray[np.float64],
    partition: NDArray[np.void],
    popular: NDArray[np.int64],
    extra: Added,
    model: Model,
    weights: NDArray[np.float64],
    exclude_seen: bool,
    recent: Recent,
    work: Work,
    out: Lists,
) -> None:
    """Fill ``out[i]`` with list ``which[i]`` of ``users[rows[i]]``."""
    context = np.zeros(RING_MAX, np.int64)
    added_factors = np.zeros(SOURCES_N)
    from_tables = weights[: FORWARD + 1].sum() > 0.0
    for i in range(len(rows)):
        user, g = users[rows[i]], growth[i]
        context_n, own_n = _context(user, which[i], keys, slots, recent, context)
        near = context[: min(context_n, CONTEXT_MAX)]
        direct_n = add_direct(view, near, g, model, work) if from_tables else 0
        n = add_two_hop(view, direct_n, model, work) if weights[TWO_HOP] > 0.0 else direct_n
        n = place_added(extra, i, n, work)
        n = add_others(view, popular, context[:own_n], direct_n, n, g, model, work)
        share = model.blend_share * confidence(view, near, g, model)
        factors = scales(n, weights, share, work)
        blend(n, factors, work)
        if extra.starts[i + 1] > extra.starts[i]:
            added_scales(extra, i, weights, share, added_factors)
            blend_added(extra, i, added_factors, n, work)
        use_revisits(view, context, own_n, recent, partition[0], g, model, weights, work, n)
        _exclude(user, which[i], keys, slots, exclude_seen, work, n)
        count = select_top(view.nodes, work, n, out.nodes[i], out.scores[i])
        out.counts[i] = count
        explain(
            view,
            near,
            context[:own_n],
            factors,
            extra,
            i,
            added_factors,
            model,
            work,
            n,
            out.nodes[i, :count],
            out.scores[i],
            out.sources[i],
            out.because[i],
        )


def source_weights(model: Model, sources: Set[str]) -> NDArray[np.float64]:
    """Weights of :data:`~stream_app.core.scoring.SOURCES`: those left out 0, the blended sum to 1.

    Raises :class:`~stream_app.errors.ConfigurationError` for a name that is none of them.

    >>> source_weights(Model(), {"two_hop", "repeat"})[:6].tolist()
    [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    """
    unknown = sorted(sources - set(SOURCES))
    if unknown or not sources:
        raise ConfigurationError(
            f"sources {', '.join(unknown) or '(none)'}: choose of {', '.join(SOURCES)}"
        )
    on = np.array([name in sources for name in SOURCES], np.float64)
    on[_BLENDED] *= np.array(
        [
            model.weight_direct,
            model.weight_two_hop,
            model.weight_forward,
            model.weight_popular,
            model.weight_content,
            model.weight_embedding,
            model.weight_user_knn,
            model.weight_segment,
            model.weight_trending,
            model.weight_exploration,
        ]
    )
    # What sources outside give comes on top of the tables': a share of one is that of the tables.
    base = on[: POPULAR + 1].sum() or on[_BLENDED].sum()
    on[_BLENDED] /= max(base, 1e-300)
    return on


class Ranker:
    """Scores batches of customers against one :class:`ItemTables`; owns the work space.

    ``sources`` are names of :data:`~stream_app.core.scoring.SOURCES`, ``None`` for all.
    """

    def __init__(
        self,
        tables: ItemTables,
        *,
        list_size: int,
        exclude_seen: bool = False,
        sources: Set[str] | None = None,
    ) -> None:
        self.tables = tables
        self.list_size = list_size
        self.exclude_seen = exclude_seen
        self._weights = source_weights(tables.model, set(SOURCES) if sources is None else sources)
        self._recent = new_recent()
        self._added = 0  # candidates from outside that the work space has room for, per list
        self._work = new_work(1024, tables.model)

    def rank(
        self,
        users: NDArray[np.void],
        rows: NDArray[np.int64],
        which: NDArray[np.uint8],
        ts: NDArray[np.float64],
        partition: NDArray[np.void],
        popular: Popular,
        extra: Extra | None = None,
    ) -> Lists:
        """Lists ``which (n,) uint8`` of ``users[rows]`` as of event times ``ts (n,)``, seconds.

        ``extra`` are candidates for these lists from sources outside the kernel.
        """
        tables = self.tables
        n, k = len(rows), self.list_size
        more = added(extra, n)
        most = int(np.diff(more.starts).max(initial=0))
        if len(self._work.place) < tables.nodes_n or self._added < most:
            self._added = max(self._added, 2 * most)
            self._work = new_work(2 * tables.nodes_n, tables.model, self._added)
        out = Lists(
            np.zeros(n, np.int64),
            np.full((n, k), -1, np.int64),
            np.zeros((n, k)),
            np.zeros((n, k), np.uint8),
            np.full((n, k), -1, np.int64),
        )
        view = View(tables.nodes, tables.neighbour, tables.forward, tables.backward, tables.filled)
        rank_batch(
            view,
            tables.keys,
            tables.slots,
            users,
            rows,
            which,
            tables.growths(ts),
            partition,
            popular.nodes,
            more,
            tables.model,
            self._weights,
            self.exclude_seen,
            self._recent,
            self._work,
            out,
        )
        return out
