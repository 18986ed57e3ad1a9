"""Candidates of lists from what stands near the customer's recent items, by one source or another.

The last items count most, with the same decay as for co-occurrence. A source may be asked only
where the evidence is thin: where the recent item, or the candidate, has been seen too rarely for
counts to know it. Called by :mod:`stream_app.candidates`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.anchors import anchors_of
from stream_app.core.jit import kernel
from stream_app.core.model import CONTEXT_MAX
from stream_app.core.revisits import Recent
from stream_app.core.scoring import Floats

NEAR_ITEMS = 3  # recent items whose content and embedding neighbours are candidates
Row = Any


class Drawn(NamedTuple):
    """Candidates of m lists: as in :class:`~stream_app.core.scoring_extra.Extra`, with room."""

    starts: NDArray[np.int64]
    nodes: NDArray[np.int64]
    values: Floats
    because: NDArray[np.int64]


@kernel
def find_contexts(
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    anchors: NDArray[np.uint8],
    recent: Recent,
    out: NDArray[np.uint64],
) -> None:
    """Ids of what each list is drawn from, by its ``anchors``, into ``out (m, CONTEXT_MAX)``."""
    for i in range(len(rows)):
        n, _ = anchors_of(users[rows[i]], anchors[i], recent)
        for k in range(min(n, CONTEXT_MAX)):
            out[i, k] = recent.items[k]


@kernel
def _is_thin(item: Row, g: float, moves: float) -> bool:
    return bool(item.known == 0 or item.out < moves * g)


@kernel
def draw_near(
    contexts: NDArray[np.int64],
    near: NDArray[np.int64],
    values: Floats,
    nodes: NDArray[np.void],
    growth: NDArray[np.float64],
    context_decay: float,
    thin_moves: float,
    out: Drawn,
) -> None:
    """Σ decay · value over the context ``(m, d)``, whose items' neighbours are ``near (m, d, k)``.

    Only pairs of which one has fewer than ``thin_moves`` decayed moves to other items.
    """
    n = 0
    for i in range(len(contexts)):
        first = n
        out.starts[i] = first
        for d in range(contexts.shape[1]):
            y = contexts[i, d]
            if y < 0:
                continue
            weight = math.exp(-context_decay * d)
            thin = _is_thin(nodes[y], growth[i], thin_moves)
            for k in range(near.shape[2]):
                c = near[i, d, k]
                if c < 0 or c == y or not (thin or _is_thin(nodes[c], growth[i], thin_moves)):
                    continue
                at = first
                while at < n and out.nodes[at] != c:
                    at += 1
                if at == n:
                    out.nodes[n], out.values[n], out.because[n] = c, np.float32(0.0), y
                    n += 1
                out.values[at] += np.float32(weight * np.float64(values[i, d, k]))
    out.starts[len(contexts)] = n


def new_drawn(lists: int, per_list: int) -> Drawn:
    """Room for ``per_list`` candidates of each of ``lists``."""
    room = lists * per_list
    return Drawn(
        np.zeros(lists + 1, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.float32),
        np.full(room, -1, np.int64),
    )
