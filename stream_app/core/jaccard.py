"""Candidates by Jaccard's measure: item-based filtering that reads pairs as shared interest.

A candidate c of a recent item y has s / (m_y + m_c + p - s): s is the decayed count of their pairs,
m the sum of an item's pairs, p the small prior that keeps rare items from the top (Jaccard 1901, of
counts instead of sets). Unlike the cosine it is no product of one factor by item, so each pair is
divided anew, and there is one hop. Called by :mod:`stream_app.candidates`.

Tea is in five pairs and milk in four, two of them tea with milk; honey is in two, one with tea. Who
looked at tea last and at honey before, which counts half, gets milk, of 2 / 7, and tea of 0.5 / 6:

>>> pair = lambda s, y, c: shared_interest(s, mass_of[y], mass_of[c])
>>> mass_of = {"tea": 5.0, "milk": 4.0, "honey": 2.0}
>>> round(1.0 * pair(2.0, "tea", "milk"), 4), round(0.5 * pair(1.0, "honey", "tea"), 4)
(0.2857, 0.0833)
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.candidates import context_of
from stream_app.core.drawing import Drawn
from stream_app.core.jit import inlined, kernel
from stream_app.core.model import CONTEXT_MAX, RING_MAX, Model
from stream_app.core.revisits import Recent
from stream_app.core.scoring import View, place_of


class Desk(NamedTuple):
    """Work space: the recent items of one list, how much each counts, and by node its place.

    ``most`` is what the strongest recent item gave each candidate of one list. ``place`` is never
    cleared: an entry counts only when the candidate there is the node itself.
    """

    context: NDArray[np.int64]
    fade: NDArray[np.float64]
    most: NDArray[np.float64]
    place: NDArray[np.int32]


def new_desk(nodes: int, model: Model) -> Desk:
    """Work space for up to ``nodes`` items."""
    return Desk(
        np.zeros(RING_MAX, np.int64),
        np.zeros(CONTEXT_MAX),
        np.zeros(room_of(model)),
        np.zeros(nodes, np.int32),
    )


def room_of(model: Model) -> int:
    """How many candidates one list can have."""
    return CONTEXT_MAX * model.neighbours_max


@inlined
def shared_interest(s: float, mass: float, other: float) -> float:
    """Which part of all pairs of two items they have with each other; ``other`` has its prior."""
    return s / max(mass + other - s, s)


@kernel
def draw_jaccard(
    view: View,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    anchors: NDArray[np.uint8],
    growth: NDArray[np.float64],
    model: Model,
    recent: Recent,
    desk: Desk,
    out: Drawn,
) -> None:
    """Σ fade · shared interest over what each of the lists of ``users[rows]`` is drawn from.

    ``anchors (m,)`` are those of the lists' kinds; items fade, and are candidates of their own, as
    for the tables' sources. A candidate whose sum of pairs is not in memory is left out.
    """
    context, fade, most, place = desk.context, desk.fade, desk.most, desk.place
    first, room = 0, len(most)
    for i in range(len(rows)):
        out.starts[i] = first
        nodes, values = out.nodes[first : first + room], out.values[first : first + room]
        because = out.because[first : first + room]
        n = 0
        prior = model.mass_prior * growth[i]
        context_n, _ = context_of(
            users[rows[i]], anchors[i], keys, slots, recent, model, context, fade
        )
        for d in range(min(context_n, CONTEXT_MAX)):
            y = context[d]
            if y < 0 or view.nodes[y].row < 0 or view.nodes[y].mass <= 0.0:
                continue
            row, mass = view.nodes[y].row, view.nodes[y].mass
            for k in range(view.filled[row]):
                c = view.neighbour[row, k]
                s = np.float64(view.forward[row, k] + view.backward[row, k])
                if s <= 0.0 or view.nodes[c].known == 0:
                    continue
                t = place_of(place, nodes, c, n)
                if t == n:
                    place[c], nodes[t], values[t], most[t] = t, c, np.float32(0.0), 0.0
                    n += 1
                other = max(view.nodes[c].mass, 0.0) + prior
                part = fade[d] * shared_interest(s, mass, other)
                values[t] += np.float32(part)
                if part > most[t]:
                    most[t], because[t] = part, y
        first += n
    out.starts[len(rows)] = first
