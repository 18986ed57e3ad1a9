"""Item-to-item lists: the neighbours of one item by the cosine or the Jaccard reading of counts."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jaccard import shared_interest
from stream_app.core.jit import kernel
from stream_app.core.scoring import View
from stream_app.core.tables import ItemTables

READINGS = ("cosine", "jaccard")


@kernel
def similar_nodes(
    view: View,
    nodes: NDArray[np.int64],
    prior: float,
    jaccard: bool,
    out: NDArray[np.int64],
    scores: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    """For each node its best neighbours, ties by id."""
    size = out.shape[1]
    for i in range(len(nodes)):
        y = nodes[i]
        row = view.nodes[y].row
        mass = view.nodes[y].mass
        m = 0
        if row >= 0 and mass > 0.0:
            for k in range(view.filled[row]):
                c = view.neighbour[row, k]
                s = float(view.forward[row, k] + view.backward[row, k])
                if c == y or s <= 0.0 or view.nodes[c].known == 0:
                    continue
                other = max(view.nodes[c].mass, 0.0) + prior
                v = shared_interest(s, mass, other) if jaccard else s / np.sqrt(mass * other)
                if m == size:
                    if v <= scores[i, m - 1]:
                        continue
                    m -= 1
                at = m
                while at > 0 and (
                    scores[i, at - 1] < v
                    or (scores[i, at - 1] == v and view.nodes[out[i, at - 1]].id > view.nodes[c].id)
                ):
                    out[i, at] = out[i, at - 1]
                    scores[i, at] = scores[i, at - 1]
                    at -= 1
                out[i, at] = c
                scores[i, at] = v
                m += 1
        counts[i] = m


def similar_items(
    tables: ItemTables,
    nodes: NDArray[np.int64],
    *,
    size: int,
    ts: float,
    reading: str = "cosine",
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Neighbour nodes ``(n, size)``, scores ``(n, size)`` and counts ``(n,)`` as of time ``ts``.

    With s the decayed count of a pair, m the sum of an item's pairs and p a small prior that keeps
    rare items from the top, the score is s / √(m_y (m_c + p)), or by the ``jaccard`` ``reading``
    s / (m_y + m_c + p − s).
    """
    assert reading in READINGS
    out = np.full((len(nodes), size), -1, np.int64)
    scores = np.zeros((len(nodes), size))
    counts = np.zeros(len(nodes), np.int64)
    view = View(tables.nodes, tables.neighbour, tables.forward, tables.backward, tables.filled)
    prior = tables.model.mass_prior * tables.growth(ts)
    similar_nodes(view, nodes, prior, reading == "jaccard", out, scores, counts)
    return out, scores, counts
