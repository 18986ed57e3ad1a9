"""Score candidates for a customer from the item tables: CoStream, one prediction per call.

Direct neighbours of the recent items, neighbours of those (two hops), what followed the current
item, and popularity are normalised, raised to 0.8 and blended; the current item and the earlier
items of the session get their own, learned probabilities of coming back.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
from stream_app.core.model import CONTEXT_MAX, RING_MAX, Model

DIRECT, TWO_HOP, FORWARD, POPULAR, REPEAT, RETURN = range(6)
SOURCES = ("co_occurrence", "two_hop", "next_item", "popularity", "repeat", "return")
Row = Any


class Scratch(NamedTuple):
    """Work space of one scorer, one entry per node: accumulators, stamps and the touched nodes."""

    direct: NDArray[np.float64]
    two_hop: NDArray[np.float64]
    forward: NDArray[np.float64]
    popular: NDArray[np.float64]
    stamp: NDArray[np.int64]
    touched: NDArray[np.int32]
    tick: NDArray[np.int64]


def new_scratch(nodes: int) -> Scratch:
    """Work space for up to ``nodes`` items."""
    return Scratch(
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes),
        np.zeros(nodes, np.int64),
        np.zeros(nodes, np.int32),
        np.zeros(1, np.int64),
    )


class View(NamedTuple):
    """The parts of :class:`~stream_app.core.tables.ItemTables` that scoring reads."""

    nodes: NDArray[np.void]
    neighbour: NDArray[np.int32]
    forward: NDArray[np.float32]
    backward: NDArray[np.float32]
    filled: NDArray[np.int32]


@kernel
def _touch(scratch: Scratch, node: int, n: int) -> int:
    if scratch.stamp[node] != scratch.tick[0]:
        scratch.stamp[node] = scratch.tick[0]
        scratch.direct[node] = 0.0
        scratch.two_hop[node] = 0.0
        scratch.forward[node] = 0.0
        scratch.popular[node] = 0.0
        scratch.touched[n] = node
        n += 1
    return n


@kernel
def _direct(
    view: View, context: NDArray[np.int64], context_n: int, g: float, model: Model, scratch: Scratch
) -> int:
    """S1: decayed cosine of the recent items' neighbours; S3: what followed the current item."""
    n = 0
    for d in range(min(context_n, CONTEXT_MAX)):
        u = context[d]
        if u < 0:
            continue
        row = view.nodes[u].row
        mass = view.nodes[u].mass
        if row < 0 or mass <= 0.0:
            continue
        weight = np.exp(-model.context_decay * d) / np.sqrt(mass)
        for k in range(view.filled[row]):
            c = view.neighbour[row, k]
            s = view.forward[row, k] + view.backward[row, k]
            if s <= 0.0 or view.nodes[c].known == 0:
                continue
            n = _touch(scratch, c, n)
            scratch.direct[c] += weight * s
            if d == 0:
                scratch.forward[c] = max(0.0, view.forward[row, k])
    for t in range(n):
        c = scratch.touched[t]
        scratch.direct[c] /= np.sqrt(max(view.nodes[c].mass, 0.0) + model.mass_prior * g)
    return n


@kernel
def _strongest(values: NDArray[np.float64], touched: NDArray[np.int32], n: int, best: NDArray[np.int32]) -> int:
    """The nodes with the largest values, descending; ties keep the order they were touched in."""
    m = 0
    for t in range(n):
        c = touched[t]
        v = values[c]
        if m == len(best):
            if v <= values[best[m - 1]]:
                continue
            m -= 1
        at = m
        while at > 0 and values[best[at - 1]] < v:
            best[at] = best[at - 1]
            at -= 1
        best[at] = c
        m += 1
    return m


@kernel
def _two_hop(
    view: View, n: int, g: float, model: Model, scratch: Scratch, best: NDArray[np.int32]
) -> int:
    """S2: neighbours of the strongest direct neighbours."""
    m = _strongest(scratch.direct, scratch.touched, n, best[: model.two_hop_max])
    for b in range(m):
        y = best[b]
        row = view.nodes[y].row
        mass = view.nodes[y].mass
        if row < 0 or mass <= 0.0:
            continue
        weight = scratch.direct[y] / mass**0.3
        for k in range(view.filled[row]):
            c = view.neighbour[row, k]
            s = view.forward[row, k] + view.backward[row, k]
            if s <= 0.0 or view.nodes[c].known == 0:
                continue
            n = _touch(scratch, c, n)
            scratch.two_hop[c] += weight * s
    for t in range(n):
        c = scratch.touched[t]
        if scratch.two_hop[c] > 0.0:
            scratch.two_hop[c] /= np.sqrt(max(view.nodes[c].mass, 0.0) + model.mass_prior * g)
    return n


@kernel
def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return np.log(p / (1.0 - p))


@kernel
def _blend(
    n: int, model: Model, scratch: Scratch, scores: NDArray[np.float64], source: NDArray[np.uint8]
) -> None:
    """G of every touched node, and which source gave the most of it."""
    sums = np.zeros(4)
    for t in range(n):
        c = scratch.touched[t]
        sums[0] += scratch.direct[c]
        sums[1] += scratch.two_hop[c]
        sums[2] += scratch.forward[c]
        sums[3] += scratch.popular[c]
    total = (
        model.weight_direct + model.weight_two_hop + model.weight_forward + model.weight_popular
    )
    a0 = model.weight_direct / total / max(sums[0], 1e-300) ** 0.8
    a1 = model.weight_two_hop / total / max(sums[1], 1e-300) ** 0.8
    a2 = model.weight_forward / total / max(sums[2], 1e-300) ** 0.8
    a3 = model.weight_popular / total / max(sums[3], 1e-300) ** 0.8
    for t in range(n):
        c = scratch.touched[t]
        p0 = a0 * scratch.direct[c] ** 0.8 if scratch.direct[c] > 0.0 else 0.0
        p1 = a1 * scratch.two_hop[c] ** 0.8 if scratch.two_hop[c] > 0.0 else 0.0
        p2 = a2 * scratch.forward[c] ** 0.8 if scratch.forward[c] > 0.0 else 0.0
        p3 = a3 * scratch.popular[c] ** 0.8 if scratch.popular[c] > 0.0 else 0.0
        scores[t] = p0 + p1 + p2 + p3
        which, most = DIRECT, p0
        if p1 > most:
            which, most = TWO_HOP, p1
        if p2 > most:
            which, most = FORWARD, p2
        if p3 > most:
            which = POPULAR
        source[t] = which


@kernel
def score_context(
    view: View,
    context: NDArray[np.int64],
    counts: NDArray[np.int64],
    context_n: int,
    session_n: int,
    length: int,
    run: int,
    partition: Row,
    popular: NDArray[np.int64],
    popularity: NDArray[np.float64],
    g: float,
    model: Model,
    scratch: Scratch,
    best: NDArray[np.int32],
    scores: NDArray[np.float64],
    source: NDArray[np.uint8],
) -> int:
    """Candidates in ``scratch.touched[:n]`` with ``scores[:n]`` and ``source[:n]``; returns n.

    ``context`` are the customer's distinct recent items (nodes), newest first, of which the first
    ``session_n`` belong to the current session and occur ``counts`` times in it.
    """
    scratch.tick[0] += 1
    n = _direct(view, context, context_n, g, model, scratch)
    n = _two_hop(view, n, g, model, scratch, best)
    for p in range(len(popular)):
        if view.nodes[popular[p]].known != 0:
            n = _touch(scratch, popular[p], n)
            scratch.popular[popular[p]] = max(popularity[p], 0.0)
    for d in range(session_n):
        if context[d] >= 0:
            n = _touch(scratch, context[d], n)
    _blend(n, model, scratch, scores, source)
    if session_n == 0:
        return n
    r0 = (partition.repeats + 1.0) / (partition.transitions + 4.0)
    for t in range(n):
        c = scratch.touched[t]
        for d in range(session_n):
            if context[d] != c:
                continue
            if d == 0:
                rho = (view.nodes[c].repeats / g + model.repeat_prior * r0) / (
                    view.nodes[c].out / g + model.repeat_prior
                )
                cell = partition.repeat_p[min(length, 6), min(run, 4)]
                scores[t] = 2.0 / (1.0 + np.exp(-(_logit(rho) + _logit(cell) - _logit(r0))))
                source[t] = REPEAT
            else:
                back = partition.return_p[min(d, 5), min(counts[d], 3), min(session_n, 4)]
                if back > 0.5 * scores[t]:
                    source[t] = RETURN
                scores[t] = 0.5 * scores[t] + back
            break
    return n


@kernel
def select_top(
    nodes: NDArray[np.void],
    touched: NDArray[np.int32],
    scores: NDArray[np.float64],
    source: NDArray[np.uint8],
    n: int,
    out_node: NDArray[np.int64],
    out_score: NDArray[np.float64],
    out_source: NDArray[np.uint8],
) -> int:
    """The ``len(out_node)`` best candidates with a positive score; ties go to the smaller id."""
    m = 0
    for t in range(n):
        v = scores[t]
        if v <= 0.0:
            continue
        c = touched[t]
        if m == len(out_node):
            last = m - 1
            if v < out_score[last] or (
                v == out_score[last] and nodes[c].id > nodes[out_node[last]].id
            ):
                continue
            m -= 1
        at = m
        while at > 0 and (
            out_score[at - 1] < v
            or (out_score[at - 1] == v and nodes[out_node[at - 1]].id > nodes[c].id)
        ):
            out_node[at] = out_node[at - 1]
            out_score[at] = out_score[at - 1]
            out_source[at] = out_source[at - 1]
            at -= 1
        out_node[at] = c
        out_score[at] = v
        out_source[at] = source[t]
        m += 1
    return m
