"""The end of scoring: the customer's own items, the best candidates, and the reasons for them."""

import math

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
from stream_app.core.model import Model
from stream_app.core.revisits import Recent, Row, revisit_logit
from stream_app.core.scoring import (
    REPEAT,
    RETURN,
    Notes,
    Scales,
    View,
    Work,
    leading_source,
    place_of,
)
from stream_app.core.scoring_extra import Added, explain_added


@kernel
def _log_odds(p: float) -> float:
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return math.log(p / (1.0 - p))


@kernel
def _repeat_log_odds(item: Row, partition: Row, g: float, model: Model) -> float:
    """How much more than others this item is followed by itself."""
    usual = (partition.repeats + 1.0) / (partition.transitions + 4.0)
    rate = (item.repeats / g + model.repeat_prior * usual) / (item.out / g + model.repeat_prior)
    return _log_odds(rate) - _log_odds(usual)


@kernel
def use_revisits(
    view: View,
    context: NDArray[np.int64],
    own_n: int,
    recent: Recent,
    partition: Row,
    g: float,
    model: Model,
    weights: NDArray[np.float64],
    work: Work,
    n: int,
) -> None:
    """Give the current item and the earlier ones the probability that they come next."""
    learned = partition.revisit_weights
    revisit, score, place, node = work.revisit, work.score, work.place, work.node
    for q in range(own_n):
        revisit[q] = 0.0
        if context[q] < 0 or weights[REPEAT if q == 0 else RETURN] == 0.0:
            continue
        z = revisit_logit(recent.categories, q, learned)
        share = model.return_share
        if q == 0:
            z += _repeat_log_odds(view.nodes[context[0]], partition, g, model)
            share = 0.0
        t = place_of(place, node, context[q], n)
        revisit[q] = 1.0 / (1.0 + math.exp(-z))
        score[t] = float(revisit[q]) + share * float(score[t])


@kernel
def explain(
    view: View,
    near: NDArray[np.int64],
    own: NDArray[np.int64],
    factors: Scales,
    extra: Added,
    which: int,
    model: Model,
    work: Work,
    notes: Notes,
    n: int,
    chosen: NDArray[np.int64],
    scores: NDArray[np.float64],
    sources: NDArray[np.uint8],
    because: NDArray[np.int64],
) -> None:
    """For each chosen node its leading source, and the ``near`` item that points to it most.

    No item is the reason for itself; one of the customer's ``own`` that comes back needs none.
    """
    place = work.place
    most, strength = notes.most[: len(chosen)], notes.strength[: len(chosen)]
    most[:] = 0.0
    strength[:] = 0.0
    for i in range(len(chosen)):
        t = place_of(place, work.node, chosen[i], n)
        if t < n:  # what fills a list need not be a candidate
            sources[i], most[i] = leading_source(t, factors, work)
    # From here on ``place`` finds the chosen ones: the candidates are done with.
    for i in range(len(chosen)):
        place[chosen[i]] = i
    for d in range(len(near)):
        u = near[d]
        if u < 0 or view.nodes[u].row < 0 or view.nodes[u].mass <= 0.0:
            continue
        row = view.nodes[u].row
        weight = work.fade[d] / math.sqrt(view.nodes[u].mass)
        for k in range(view.filled[row]):
            c = view.neighbour[row, k]
            i = place[c]
            if i < len(chosen) and chosen[i] == c and c != u:
                s = weight * float(view.forward[row, k] + view.backward[row, k])
                if s > strength[i]:
                    strength[i] = s
                    because[i] = u
    explain_added(extra, which, notes.factors, place, chosen, most, sources, because)
    for q in range(len(own)):
        i = place[own[q]] if own[q] >= 0 else len(chosen)
        if i < len(chosen) and chosen[i] == own[q] and 2.0 * work.revisit[q] > scores[i]:
            sources[i], because[i] = REPEAT if q == 0 else RETURN, -1
