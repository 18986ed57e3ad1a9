"""Item embeddings learned online from the stream, by random indexing of the neighbour tables.

Every item has an index vector of a few ±1, determined by its id alone (Kanerva et al. 2000;
Sahlgren 2005); its embedding is its own index vector plus those of its neighbours, weighted by the
cosine reading of the counts, of length one. Items with the same neighbours lie close together
though they may never have been seen together. Nothing is stored: an embedding is made from the
tables when it is needed, and again when its item's counts have grown. Called by
:mod:`stream_app.candidates`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import allocating, kernel, signed
from stream_app.core.scoring import Floats, View
from stream_app.core.tables import ItemTables

DIMENSIONS = 64
ONES = 4  # of an index vector that are not 0
NEIGHBOURS_MAX = 12  # kept per item
_HUBS = 8  # neighbours whose neighbours are candidates too
_CANDIDATES_MAX = 512
_GROWN = 0.2  # share by which an item's counts change before its embedding is made again


class Made(NamedTuple):
    """By row of the item tables; ``*_mass`` is the item's mass when it was made, -1 never."""

    node: NDArray[np.int64]  # whose they are: rows go from item to item
    vector: Floats  # (rows, DIMENSIONS)
    vector_mass: NDArray[np.float64]
    near: NDArray[np.int32]  # (rows, NEIGHBOURS_MAX) nodes, -1 none
    cosine: Floats
    near_mass: NDArray[np.float64]


@kernel
def add_index_vector(item: int, weight: float, out: Floats) -> None:
    """Add an item's index vector; places and signs are bits of its mixed id."""
    bits = np.uint64(item) * np.uint64(0x9E3779B97F4A7C15)
    bits = bits ^ (bits >> np.uint64(31))
    for _ in range(ONES):
        place = signed(bits & np.uint64(DIMENSIONS - 1))
        if (bits >> np.uint64(7)) & np.uint64(1):
            out[place] -= np.float32(weight)
        else:
            out[place] += np.float32(weight)
        bits = bits >> np.uint64(8)


@kernel
def embed(view: View, node: int, prior: float, out: Floats) -> None:
    """The embedding of one item with a neighbour table, of length 1; zeros when it has none."""
    out[:] = np.float32(0.0)
    row, mass = view.nodes[node].row, view.nodes[node].mass
    if row < 0 or mass <= 0.0:
        return
    add_index_vector(view.nodes[node].id, 1.0, out)
    for k in range(view.filled[row]):
        c = view.neighbour[row, k]
        s = float(view.forward[row, k] + view.backward[row, k])
        if c == node or s <= 0.0 or view.nodes[c].known == 0:
            continue
        weight = s / math.sqrt(mass * (max(view.nodes[c].mass, 0.0) + prior))
        add_index_vector(view.nodes[c].id, weight, out)
    length = np.float32(0.0)
    for d in range(DIMENSIONS):
        length += out[d] * out[d]
    if length > np.float32(0.0):
        length = np.sqrt(length)
        for d in range(DIMENSIONS):
            out[d] /= length


@kernel
def _changed(before: float, mass: float) -> bool:
    return bool(before < 0.0 or abs(mass - before) > _GROWN * before)


@kernel
def _vector_of(view: View, made: Made, node: int, prior: float) -> Any:
    """The row of an item whose embedding is made, -1 when it cannot be."""
    row, mass = signed(view.nodes[node].row), view.nodes[node].mass
    if row < 0 or mass <= 0.0 or view.nodes[node].known == 0:
        return -1
    if made.node[row] != node:
        made.node[row] = node
        made.vector_mass[row] = made.near_mass[row] = -1.0
    if _changed(made.vector_mass[row], mass):
        embed(view, node, prior, made.vector[row])
        made.vector_mass[row] = mass
    return row


@allocating
def _pool(view: View, node: int, seen: NDArray[np.uint8], out: NDArray[np.int64]) -> int:
    """Neighbours, and the neighbours of those that are connected most; each once."""
    row = view.nodes[node].row
    hubs = np.zeros(_HUBS, np.int64)
    strength = np.zeros(_HUBS, np.float32)
    m, n = 0, 0
    seen[node] = 1
    for k in range(view.filled[row]):
        c = signed(view.neighbour[row, k])
        s = view.forward[row, k] + view.backward[row, k]
        if c == node or s <= np.float32(0.0):
            continue
        if seen[c] == 0 and n < len(out):
            seen[c] = 1
            out[n] = c
            n += 1
        if m == _HUBS:
            if s <= strength[m - 1]:
                continue
            m -= 1
        at = m
        while at > 0 and strength[at - 1] < s:
            hubs[at], strength[at] = hubs[at - 1], strength[at - 1]
            at -= 1
        hubs[at], strength[at] = c, s
        m += 1
    for h in range(m):
        row = view.nodes[hubs[h]].row
        if row >= 0:
            for k in range(view.filled[row]):
                c = signed(view.neighbour[row, k])
                if seen[c] == 0 and n < len(out):
                    seen[c] = 1
                    out[n] = c
                    n += 1
    for k in range(n):
        seen[out[k]] = 0
    seen[node] = 0
    return n


@kernel
def find_near(
    view: View,
    made: Made,
    wanted: NDArray[np.int64],
    compute_max: int,
    prior: float,
    seen: NDArray[np.uint8],
    pool: NDArray[np.int64],
) -> int:
    """Renew the nearest items of ``wanted`` nodes, ``compute_max`` at most; returns how many."""
    done = 0
    for i in range(len(wanted)):
        y = wanted[i]
        row = _vector_of(view, made, y, prior) if y >= 0 else -1
        if row < 0 or not _changed(made.near_mass[row], view.nodes[y].mass):
            continue
        if done == compute_max:
            break
        done += 1
        near, cosine = made.near[row], made.cosine[row]
        near[:] = -1
        cosine[:] = np.float32(0.0)
        m = 0
        n = _pool(view, y, seen, pool)
        for k in range(n):
            c = pool[k]
            other = _vector_of(view, made, c, prior)
            if other < 0:
                continue
            v = np.float32(0.0)
            for d in range(DIMENSIONS):
                v += made.vector[row, d] * made.vector[other, d]
            if v <= np.float32(0.0) or (m == len(near) and v < cosine[m - 1]):
                continue
            if m == len(near):
                if v == cosine[m - 1] and view.nodes[c].id > view.nodes[near[m - 1]].id:
                    continue
                m -= 1
            at = m
            while at > 0 and (
                cosine[at - 1] < v
                or (cosine[at - 1] == v and view.nodes[near[at - 1]].id > view.nodes[c].id)
            ):
                near[at], cosine[at] = near[at - 1], cosine[at - 1]
                at -= 1
            near[at], cosine[at] = c, v
            m += 1
        made.near_mass[row] = view.nodes[y].mass
    return done


class EmbeddingIndex:
    """Embeddings of the items of one :class:`ItemTables`, and the nearest ones of each."""

    def __init__(self, tables: ItemTables) -> None:
        self._tables = tables
        self._generation = -1
        self._pool = np.zeros(_CANDIDATES_MAX, np.int64)
        self._reset()

    def _reset(self) -> None:
        self._generation = self._tables.generation
        self._made = _nothing(len(self._tables.filled))
        self._seen = np.zeros(len(self._tables.nodes), np.uint8)

    def nearest(
        self, nodes: NDArray[np.int64], *, ts: float, compute_max: int
    ) -> tuple[NDArray[np.int32], Floats]:
        """Nodes and cosines ``(n, NEIGHBOURS_MAX)`` of the items nearest to ``nodes (n,)``.

        At most ``compute_max`` items' are made anew; the others' are as they were, or none.
        """
        tables = self._tables
        if self._generation != tables.generation:
            self._reset()
        rows_n = len(tables.filled)
        if rows_n > len(self._made.node):
            grown = _nothing(rows_n)
            for name in Made._fields:
                getattr(grown, name)[: len(self._made.node)] = getattr(self._made, name)
            self._made = grown
        if len(self._seen) < len(tables.nodes):
            self._seen = np.zeros(len(tables.nodes), np.uint8)
        view = View(tables.nodes, tables.neighbour, tables.forward, tables.backward, tables.filled)
        prior = tables.model.mass_prior * tables.growth(ts)
        wanted = np.unique(nodes)
        find_near(view, self._made, wanted, compute_max, prior, self._seen, self._pool)
        rows = np.where(nodes >= 0, tables.nodes["row"][nodes], -1)
        near, cosine = self._made.near[rows], self._made.cosine[rows]
        missing = (rows < 0) | (self._made.node[rows] != nodes) | (self._made.near_mass[rows] < 0)
        near[missing], cosine[missing] = -1, 0.0
        return near, cosine


def _nothing(rows: int) -> Made:
    return Made(
        np.full(rows, -1, np.int64),
        np.zeros((rows, DIMENSIONS), np.float32),
        np.full(rows, -1.0),
        np.full((rows, NEIGHBOURS_MAX), -1, np.int32),
        np.zeros((rows, NEIGHBOURS_MAX), np.float32),
        np.full(rows, -1.0),
    )
