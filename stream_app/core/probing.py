"""What each source would have given the item that a customer went on to: feedback for the blend."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.candidates import context_of, gather
from stream_app.core.jit import kernel
from stream_app.core.list_kinds import RECENT
from stream_app.core.model import CONTEXT_MAX, Model
from stream_app.core.revisits import Recent
from stream_app.core.scoring import (
    DIRECT,
    FORWARD,
    POPULAR,
    TWO_HOP,
    Floats,
    Notes,
    View,
    Work,
    place_of,
    total_of,
)
from stream_app.core.scoring_extra import Added


@kernel
def _share(
    values: Floats, n: int, target: int, own: NDArray[np.int64], places: NDArray[np.int64]
) -> float:
    """The target's share of a source's values over what is not the customer's own; -1 of none."""
    total, mine = total_of(values, n), 0.0
    for q in range(len(own)):
        if places[q] < n:
            mine += np.float64(values[places[q]])
    # What is left by rounding of a sum that was all the customer's own is nothing.
    if total - mine <= 1e-5 * total:
        return -1.0
    return np.float64(values[target]) / (total - mine) if target < n else 0.0


@kernel
def _added_shares(
    extra: Added,
    which: int,
    target: int,
    own: NDArray[np.int64],
    totals: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """The same for sources outside the kernel."""
    totals[:] = 0.0
    for e in range(extra.starts[which], extra.starts[which + 1]):
        c, source, value = extra.nodes[e], extra.sources[e], extra.values[e]
        if c < 0 or value <= 0.0:
            continue
        mine = False
        for q in range(len(own)):
            mine |= own[q] == c
        if not mine:
            totals[source] += value
            out[source] = max(out[source], 0.0)
            if c == target:
                out[source] += value
    for source in range(len(totals)):
        if totals[source] > 0.0:
            out[source] /= totals[source]


@kernel
def probe_batch(
    view: View,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    users: NDArray[np.void],
    targets: NDArray[np.int64],
    growth: NDArray[np.float64],
    popular: NDArray[np.int64],
    extra: Added,
    model: Model,
    weights: NDArray[np.float64],
    recent: Recent,
    work: Work,
    notes: Notes,
    out: NDArray[np.float64],
) -> None:
    """Fill ``out (n, SOURCES_N)``, given as -1, with each source's probability of ``targets (n,)``.

    ``users`` are as they were before they went on to the target. One of their own recent items says
    nothing about the blend: those are weighed by a regression of their own, so the row stays -1.
    """
    context, places, totals = notes.context, notes.seeds, notes.factors
    for i in range(len(users)):
        context_n, own_n = context_of(
            users[i], RECENT, keys, slots, recent, model, context, work.fade
        )
        own, target = context[:own_n], targets[i]
        again = target < 0
        for q in range(own_n):
            again |= own[q] == target
        if again:
            continue
        near = context[: min(context_n, CONTEXT_MAX)]
        n = gather(view, near, own, popular, extra, i, growth[i], model, weights, work)
        for q in range(own_n):
            places[q] = place_of(work.place, work.node, own[q], n) if own[q] >= 0 else n
        t = place_of(work.place, work.node, target, n)
        out[i, DIRECT] = _share(work.direct, n, t, own, places)
        out[i, TWO_HOP] = _share(work.two_hop, n, t, own, places)
        out[i, FORWARD] = _share(work.forward, n, t, own, places)
        out[i, POPULAR] = _share(work.popular, n, t, own, places)
        _added_shares(extra, i, target, own, totals, out[i])
