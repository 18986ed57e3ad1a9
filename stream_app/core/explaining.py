"""What each source gave each item of one list: the parts that its score is the sum of."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.candidates import context_of, gather
from stream_app.core.jit import allocating, kernel
from stream_app.core.list_kinds import POPULAR_SEEDS
from stream_app.core.model import CONTEXT_MAX, RING_MAX, Model
from stream_app.core.restricting import seeds_of
from stream_app.core.revisits import Recent
from stream_app.core.scoring import (
    DIRECT,
    EXPLORATION,
    FORWARD,
    POPULAR,
    REPEAT,
    RETURN,
    SOURCES_N,
    TWO_HOP,
    Floats,
    View,
    Work,
    blend,
    confidence,
    flat,
    place_of,
    scales,
)
from stream_app.core.scoring_extra import Added, added_scales, blend_added
from stream_app.core.scoring_select import use_revisits


class Parts(NamedTuple):
    """Of m items: ``scores (m,)``, ``parts`` and ``shares (m, SOURCES_N)``.

    A score is the sum of its parts. A share is that of the item in what its source gave to all
    candidates; of ``repeat`` and ``return`` both are the probability that the item comes next.
    ``scores`` are 0 for items that no source named: rules or exploration have put them there.
    """

    scores: NDArray[np.float64]
    parts: NDArray[np.float64]
    shares: NDArray[np.float64]


def new_parts(items: int) -> Parts:
    """Room for the parts of ``items``."""
    wide = (items, SOURCES_N)
    return Parts(np.zeros(items), np.zeros(wide), np.zeros(wide))


@kernel
def _of_table(
    values: Floats, n: int, source: int, factor: Any, places: NDArray[np.int64], out: Parts
) -> None:
    total = 0.0
    for t in range(n):
        total += np.float64(values[t])
    for i in range(len(places)):
        if places[i] < n and total > 0.0:
            out.shares[i, source] = np.float64(values[places[i]]) / total
            out.parts[i, source] = np.float64(factor * flat(values[places[i]]))


@allocating
def _of_added(
    extra: Added, factors: NDArray[np.float64], wanted: NDArray[np.int64], out: Parts
) -> None:
    totals = np.zeros(SOURCES_N)
    for e in range(len(extra.nodes)):
        totals[extra.sources[e]] += np.float64(extra.values[e])
    for e in range(len(extra.nodes)):
        s = extra.sources[e]
        for i in range(len(wanted)):
            if extra.nodes[e] == wanted[i] and s != EXPLORATION and totals[s] > 0.0:
                out.shares[i, s] = np.float64(extra.values[e]) / totals[s]
                out.parts[i, s] = np.float64(np.float32(factors[s]) * flat(extra.values[e]))


@allocating
def take_apart(
    view: View,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    user: Any,
    kind: Any,
    g: float,
    partition: Any,
    popular: NDArray[np.int64],
    extra: Added,
    model: Model,
    weights: NDArray[np.float64],
    recent: Recent,
    work: Work,
    wanted: NDArray[np.int64],
    out: Parts,
) -> None:
    """Fill ``out`` for the nodes ``wanted (m,)`` of one list, scored as ``rank_batch`` does.

    What the ``kind`` of list leaves out afterwards is not taken back. ``extra`` are candidates of
    this one list; ``weights (SOURCES_N,)`` those of the user's step, as this kind uses them.
    """
    context, added_factors = np.zeros(RING_MAX, np.int64), np.zeros(SOURCES_N)
    seeds = np.zeros(RING_MAX, np.int64)
    context_n, own_n = context_of(user, kind.anchor, keys, slots, recent, model, context, work.fade)
    near, own = context[: min(context_n, CONTEXT_MAX)], context[:own_n]
    own_seeds = seeds[: seeds_of(kind, user, context[:context_n], keys, slots, seeds)]
    more = popular if kind.seeds == POPULAR_SEEDS else own_seeds
    n = gather(view, near, own, more, extra, 0, g, model, weights, work)
    share = model.blend_share * confidence(view, near, work.fade, g, model)
    factors = scales(n, weights, share, work)
    blend(n, factors, work)
    added_scales(extra, 0, weights, share, added_factors)
    blend_added(extra, 0, added_factors, n, work)
    use_revisits(view, context, own_n, recent, partition, g, model, weights, work, n)
    places = np.zeros(len(wanted), np.int64)
    for i in range(len(wanted)):
        places[i] = place_of(work.place, work.node, wanted[i], n) if wanted[i] >= 0 else n
        if places[i] < n:
            out.scores[i] = np.float64(work.score[places[i]])
    _of_table(work.direct, n, DIRECT, factors[0], places, out)
    _of_table(work.two_hop, n, TWO_HOP, factors[1], places, out)
    _of_table(work.forward, n, FORWARD, factors[2], places, out)
    _of_table(work.popular, n, POPULAR, factors[3], places, out)
    _of_added(extra, added_factors, wanted, out)
    for i in range(len(wanted)):
        for q in range(own_n):
            source = REPEAT if q == 0 else RETURN
            if own[q] >= 0 and own[q] == wanted[i] and weights[source] > 0.0:
                out.parts[i] *= 0.0 if q == 0 else model.return_share
                out.parts[i, source] = np.float64(work.revisit[q])
                out.shares[i, source] = out.parts[i, source]
