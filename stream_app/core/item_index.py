"""Where an item is in memory: an open-addressing index from 64-bit ids to nodes."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, signed

# One item in memory. ``row`` is its neighbour table, -1 while that is not in memory.
NODE = np.dtype(
    [
        ("id", "u8"),
        ("mass", "f8"),
        ("out", "f8"),
        ("repeats", "f8"),
        ("found", "f8"),  # of the moves to another item, those the table knew
        ("popularity", "f8"),
        ("loaded_at", "f8"),  # the caller's clock; -inf = never
        ("row", "i4"),
        ("known", "u1"),  # masses and table have been read from the store, or made here
        ("authority", "u1"),  # made here: this worker owns the item and nobody else writes it
    ],
    align=True,
)


@kernel
def find(keys: NDArray[np.uint64], slots: NDArray[np.int32], key: int) -> int:
    """Node of an id, -1 when there is none. Open addressing; ids are hashes already."""
    mask = np.uint64(len(keys) - 1)
    at = key & mask
    while slots[at] >= 0:
        if keys[at] == key:
            node: int = signed(slots[at])
            return node
        at = (at + np.uint64(1)) & mask
    return -1


@kernel
def _insert(keys: NDArray[np.uint64], slots: NDArray[np.int32], key: int, node: int) -> None:
    mask = np.uint64(len(keys) - 1)
    at = key & mask
    while slots[at] >= 0:
        at = (at + np.uint64(1)) & mask
    keys[at] = key
    slots[at] = node


@kernel
def ensure_ids(
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    nodes: NDArray[np.void],
    n: int,
    ids: NDArray[np.uint64],
    out: NDArray[np.int64],
) -> int:
    """Nodes of ``ids``, created where missing (id 0 gives -1); returns the new number of nodes."""
    for k in range(len(ids)):
        if ids[k] == 0:
            out[k] = -1
            continue
        node = find(keys, slots, ids[k])
        if node < 0:
            node = n
            n += 1
            _insert(keys, slots, ids[k], node)
            nodes[node].id = ids[k]
            nodes[node].row = -1
            nodes[node].known = 0
            nodes[node].authority = 0
            nodes[node].loaded_at = -np.inf
            nodes[node].mass = 0.0
            nodes[node].out = 0.0
            nodes[node].repeats = 0.0
            nodes[node].found = 0.0
            nodes[node].popularity = 0.0
        out[k] = node
    return n


@kernel
def lookup_ids(
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    ids: NDArray[np.uint64],
    out: NDArray[np.int64],
) -> None:
    for k in range(len(ids)):
        out[k] = find(keys, slots, ids[k]) if ids[k] != 0 else -1


@kernel
def select_stale(
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    nodes: NDArray[np.void],
    ids: NDArray[np.uint64],
    before: float,
    out: NDArray[np.uint64],
) -> int:
    """Into ``out`` those of ``ids`` that are not in memory or too old; returns how many."""
    n = 0
    for k in range(len(ids)):
        if ids[k] == 0:
            continue
        node = find(keys, slots, ids[k])
        if node < 0 or (nodes[node].authority == 0 and nodes[node].loaded_at < before):
            out[n] = ids[k]
            n += 1
    return n


@kernel
def reinsert_all(
    keys: NDArray[np.uint64], slots: NDArray[np.int32], nodes: NDArray[np.void], n: int
) -> None:
    for node in range(n):
        _insert(keys, slots, nodes[node].id, node)
