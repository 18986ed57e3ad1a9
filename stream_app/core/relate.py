"""RELATE: merge transitions into the neighbour tables of the items one partition owns.

The counts are those of session co-occurrence, kept separately for "went on to" (forward) and "came
from" (backward), under forward decay (Cormode et al. 2009). A pair counts the less, the more items
and the more time lie between the two: who goes on at once compares, who comes back after ten
minutes has mostly turned to something else.
"""

import math

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, one_layout, signed
from stream_app.core.model import PREVIOUS_MAX, Model
from stream_app.core.neighbourhood import merge_snapshots
from stream_app.core.tables import ItemTables

_SORTED_SHARE = 16  # where there are so many more nodes than ids, sorting these is cheaper


@kernel
def _column(row: int, node: int, neighbour: NDArray[np.int32], filled: NDArray[np.int32]) -> int:
    """Column of ``node`` in the table ``row``, -1 when it is not there."""
    for k in range(filled[row]):
        if neighbour[row, k] == node:
            return k
    return -1


@kernel
def _slot(
    row: int,
    node: int,
    neighbour: NDArray[np.int32],
    forward: NDArray[np.float32],
    backward: NDArray[np.float32],
    filled: NDArray[np.int32],
    nodes: NDArray[np.void],
) -> int:
    """Column of ``node`` in the table ``row``; a full table gives up its smallest entry for it."""
    at = _column(row, node, neighbour, filled)
    if at >= 0:
        return at
    n: int = signed(filled[row])
    if n < neighbour.shape[1]:
        filled[row] = n + 1
        at = n
    else:
        at = 0
        least = forward[row, 0] + backward[row, 0]
        for k in range(1, n):
            total = forward[row, k] + backward[row, k]
            if total < least or (
                total == least and nodes[neighbour[row, k]].id < nodes[neighbour[row, at]].id
            ):
                at = k
                least = total
    neighbour[row, at] = node
    forward[row, at] = np.float32(0.0)
    backward[row, at] = np.float32(0.0)
    return at


@kernel
def _add(
    row: int,
    node: int,
    weight: float,
    direction: NDArray[np.float32],
    neighbour: NDArray[np.int32],
    forward: NDArray[np.float32],
    backward: NDArray[np.float32],
    filled: NDArray[np.int32],
    nodes: NDArray[np.void],
) -> None:
    """Add to one direction of a pair; what was evicted since cannot be taken back any more."""
    if weight > 0.0:
        at = _slot(row, node, neighbour, forward, backward, filled, nodes)
    else:
        at = _column(row, node, neighbour, filled)
    if at >= 0:
        direction[row, at] += np.float32(weight)


@kernel
def merge_transitions(
    transitions: NDArray[np.void],
    at: NDArray[np.int64],
    partition: np.uint64,
    partitions: np.uint64,
    distance_weights: NDArray[np.float64],
    pair_gap_s: float,
    pair_half_life_s: float,
    pair_origin: float,
    popularity_half_life_s: float,
    popularity_origin: float,
    nodes: NDArray[np.void],
    neighbour: NDArray[np.int32],
    forward: NDArray[np.float32],
    backward: NDArray[np.float32],
    filled: NDArray[np.int32],
) -> None:
    """Add ``(n,) TRANSITION`` in order; ``at (n, 1 + PREVIOUS_MAX)`` are their items' nodes."""
    for t in range(len(transitions)):
        move = transitions[t]
        g = 2.0 ** (move.ts / pair_half_life_s - pair_origin)
        j = at[t, 0]
        own_j = nodes[j].id % partitions == partition
        if own_j:
            gp = 2.0 ** (move.ts / popularity_half_life_s - popularity_origin)
            nodes[j].popularity += gp * move.weight
        for d in range(PREVIOUS_MAX):
            y = at[t, 1 + d]
            if y < 0:
                break
            near = pair_gap_s / (pair_gap_s + float(move.gap_s[d]))
            v = g * move.weight * distance_weights[d] * math.sqrt(near)
            own_y = nodes[y].id % partitions == partition
            if own_y:
                nodes[y].mass += v
                row = nodes[y].row
                if (
                    d == 0
                    and y != j
                    and move.weight > 0.0
                    and (_column(row, j, neighbour, filled) >= 0)
                ):
                    nodes[y].found += g
                _add(row, j, v, forward, neighbour, forward, backward, filled, nodes)
                if d == 0 and move.weight > 0.0:
                    nodes[y].out += g
                    if y == j:
                        nodes[y].repeats += g
            if own_j and y != j:
                nodes[j].mass += v
                row = nodes[j].row
                _add(row, y, v, backward, neighbour, forward, backward, filled, nodes)


def owned_nodes(
    tables: ItemTables, at: NDArray[np.int64], *, partition: int, partitions: int
) -> NDArray[np.int64]:
    """Distinct nodes of ``at`` that ``partition`` owns, ascending."""
    if _SORTED_SHARE * at.size < len(tables.nodes):
        nodes = np.unique(at)
        nodes = nodes[nodes >= 0]
    else:  # ids repeat so often that sorting is dearer
        seen = np.zeros(len(tables.nodes) + 1, np.bool_)
        seen[at.ravel()] = True  # -1 is no node: the last place
        nodes = np.flatnonzero(seen[:-1])
    mine: NDArray[np.bool_] = tables.nodes["id"][nodes] % np.uint64(partitions) == partition
    return nodes[mine]


def relate(
    tables: ItemTables,
    transitions: NDArray[np.void],
    at: NDArray[np.int64],
    *,
    partition: int,
    partitions: int,
) -> None:
    """Merge ``transitions``; the tables of :func:`owned_nodes` must be in memory and known."""
    if not len(transitions):
        return
    model: Model = tables.model
    tables.advance(float(transitions["ts"].max()))
    distance = np.arange(1.0, PREVIOUS_MAX + 1.0) ** -model.distance_power
    steps = 16.0
    merge_transitions(
        one_layout(transitions),
        at,
        np.uint64(partition),
        np.uint64(partitions),
        distance,
        model.pair_gap_s,
        model.pair_half_life_s,
        steps * tables.pair_landmark,
        model.popularity_half_life_s,
        steps * tables.popularity_landmark,
        tables.nodes,
        tables.neighbour,
        tables.forward,
        tables.backward,
        tables.filled,
    )


def relate_snapshots(
    tables: ItemTables, snapshots: NDArray[np.void], *, partition: int, partitions: int
) -> None:
    """Tell the partition's items about customers; their tables must be in memory and known."""
    merge_snapshots(
        one_layout(snapshots),
        partition,
        partitions,
        tables.keys,
        tables.slots,
        tables.nodes,
        tables.fans.reshape(-1),
        tables.fans_n,
    )
