"""SCORE: the lists of all customers a batch touched, from their states and the item tables."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.item_index import find
from stream_app.core.jit import kernel, signed
from stream_app.core.learn import Row, distinct_items, run_length
from stream_app.core.model import CONTEXT_MAX, RING_MAX, Model
from stream_app.core.scoring import Scratch, View, new_scratch, score_context, select_top
from stream_app.core.tables import ItemTables

LISTS = ("home", "cart")
HOME, CART = range(2)


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
    items: NDArray[np.uint64],
    counts: NDArray[np.int64],
    context: NDArray[np.int64],
) -> tuple[int, int]:
    """Nodes that candidates are drawn from, newest first; how many, and how many of the session."""
    if which == CART:
        n = signed(user.cart_n)
        for k in range(n):
            context[k] = find(keys, slots, user.cart_item[n - 1 - k])
        return n, np.int64(0)
    end = signed(user.ring_n)
    first = end - signed(user.session_n)
    session_n = distinct_items(user.ring_item, first, end, items, counts)
    n = session_n
    if session_n == 0:  # a new session starts from what the last ones were about
        n = distinct_items(user.ring_item, 0, end, items, counts)
    for k in range(n):
        context[k] = find(keys, slots, items[k])
    return n, session_n


@kernel
def _exclude(
    user: Row,
    which: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    exclude_seen: bool,
    scratch: Scratch,
    n: int,
    scores: NDArray[np.float64],
) -> None:
    """Zero the scores of what must not be in the list."""
    excluded = np.full(RING_MAX + RING_MAX, -1, np.int64)
    m = 0
    if which == CART:
        for k in range(user.cart_n):
            excluded[m] = find(keys, slots, user.cart_item[k])
            m += 1
    if exclude_seen:
        for k in range(user.ring_n):
            excluded[m] = find(keys, slots, user.ring_item[k])
            m += 1
    for e in range(m):
        if excluded[e] >= 0 and scratch.stamp[excluded[e]] == scratch.tick[0]:
            for t in range(n):
                if scratch.touched[t] == excluded[e]:
                    scores[t] = 0.0
                    break


@kernel
def _reasons(
    view: View,
    context: NDArray[np.int64],
    context_n: int,
    model: Model,
    chosen: NDArray[np.int64],
    count: int,
    because: NDArray[np.int64],
) -> None:
    """For each chosen node the context item that points to it most strongly."""
    strength = np.zeros(len(chosen))
    for d in range(min(context_n, CONTEXT_MAX)):
        u = context[d]
        if u < 0 or view.nodes[u].row < 0 or view.nodes[u].mass <= 0.0:
            continue
        row = view.nodes[u].row
        weight = np.exp(-model.context_decay * d) / np.sqrt(view.nodes[u].mass)
        for k in range(view.filled[row]):
            c = view.neighbour[row, k]
            for i in range(count):
                if chosen[i] == c:
                    s = weight * (view.forward[row, k] + view.backward[row, k])
                    if s > strength[i]:
                        strength[i] = s
                        because[i] = u


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
    popularity: NDArray[np.float64],
    model: Model,
    exclude_seen: bool,
    scratch: Scratch,
    work: tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.uint8]],
    out: Lists,
) -> None:
    """Fill ``out[i]`` with list ``which[i]`` of ``users[rows[i]]``."""
    items = np.zeros(RING_MAX, np.uint64)
    counts = np.zeros(RING_MAX, np.int64)
    context = np.zeros(RING_MAX, np.int64)
    best, scores, source = work
    for i in range(len(rows)):
        user = users[rows[i]]
        context_n, session_n = _context(user, which[i], keys, slots, items, counts, context)
        end = signed(user.ring_n)
        run = run_length(user.ring_item, end - signed(user.session_n), end)
        n = score_context(
            view,
            context,
            counts,
            context_n,
            session_n,
            signed(user.session_events),
            run,
            partition[0],
            popular,
            popularity,
            growth[i],
            model,
            scratch,
            best,
            scores,
            source,
        )
        _exclude(user, which[i], keys, slots, exclude_seen, scratch, n, scores)
        out.counts[i] = select_top(
            view.nodes,
            scratch.touched,
            scores,
            source,
            n,
            out.nodes[i],
            out.scores[i],
            out.sources[i],
        )
        _reasons(view, context, context_n, model, out.nodes[i], out.counts[i], out.because[i])


class Ranker:
    """Scores batches of customers against one :class:`ItemTables`; owns the work space."""

    def __init__(self, tables: ItemTables, *, list_size: int, exclude_seen: bool = False) -> None:
        self.tables = tables
        self.list_size = list_size
        self.exclude_seen = exclude_seen
        self._reserve(1024)

    def _reserve(self, nodes: int) -> None:
        self._scratch = new_scratch(nodes)
        self._work = (
            np.zeros(self.tables.model.two_hop_max, np.int32),
            np.zeros(nodes),
            np.zeros(nodes, np.uint8),
        )

    def rank(
        self,
        users: NDArray[np.void],
        rows: NDArray[np.int64],
        which: NDArray[np.uint8],
        ts: NDArray[np.float64],
        partition: NDArray[np.void],
        popular: Popular,
    ) -> Lists:
        """Lists ``which (n,) uint8`` of ``users[rows]`` as of event times ``ts (n,)`` in seconds."""
        tables = self.tables
        if len(self._scratch.stamp) < tables.nodes_n:
            self._reserve(2 * tables.nodes_n)
        n, k = len(rows), self.list_size
        out = Lists(
            np.zeros(n, np.int64),
            np.full((n, k), -1, np.int64),
            np.zeros((n, k)),
            np.zeros((n, k), np.uint8),
            np.full((n, k), -1, np.int64),
        )
        view = View(
            tables.nodes, tables.neighbour, tables.forward, tables.backward, tables.filled
        )
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
            popular.weights,
            tables.model,
            self.exclude_seen,
            self._scratch,
            self._work,
            out,
        )
        return out
