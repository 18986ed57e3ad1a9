"""What a list is drawn from, and the candidates of all sources: the first half of scoring."""

import math

import numpy as np
from numpy.typing import NDArray

from stream_app.core.anchors import anchors_of
from stream_app.core.item_index import find
from stream_app.core.jit import kernel
from stream_app.core.list_kinds import RECENT
from stream_app.core.model import CONTEXT_MAX, Model
from stream_app.core.revisits import Recent, Row
from stream_app.core.scoring import (
    FORWARD,
    TWO_HOP,
    View,
    Work,
    add_direct,
    add_others,
    add_two_hop,
)
from stream_app.core.scoring_extra import Added, place_added


@kernel
def context_of(
    user: Row,
    anchor: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    recent: Recent,
    model: Model,
    context: NDArray[np.int64],
    fade: NDArray[np.float64],
) -> tuple[int, int]:
    """Nodes that candidates are drawn from, newest first; how many, and how many may come back.

    ``anchor`` is that of a list's kind. The last items of earlier sessions fill what the current
    one leaves free: half of a shop's sessions are too short to say what they are about. ``fade``
    becomes what each of the first counts: less, the more items came after it, and the longer ago
    it was than the last one, as pairs do.
    """
    n, own_n = anchors_of(user, anchor, recent)
    for k in range(n):
        context[k] = find(keys, slots, recent.items[k])
    for k in range(min(n, CONTEXT_MAX)):
        fade[k] = math.exp(-model.context_decay * k)
        if anchor == RECENT:
            last, this = recent.last[0], recent.last[k]
            gap_s = max(float(user.ring_ts[last]) - float(user.ring_ts[this]), 0.0)
            fade[k] *= math.sqrt(model.pair_gap_s / (model.pair_gap_s + gap_s))
    return n, own_n


@kernel
def gather(
    view: View,
    near: NDArray[np.int64],
    own: NDArray[np.int64],
    popular: NDArray[np.int64],
    extra: Added,
    which: int,
    g: float,
    model: Model,
    weights: NDArray[np.float64],
    work: Work,
) -> int:
    """Candidates of the list ``which`` and their values into ``work``; returns how many.

    Sources of weight 0 need not be asked.
    """
    from_tables = weights[: FORWARD + 1].sum() > 0.0
    direct_n = add_direct(view, near, g, model, work) if from_tables else 0
    n = add_two_hop(view, direct_n, model, work) if weights[TWO_HOP] > 0.0 else direct_n
    n = place_added(extra, which, n, work)
    return add_others(view, popular, own, direct_n, n, g, model, work)
