"""Ranked lists without what must not be listed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream_app.core.ranking import Lists
from stream_app.core.tables import ItemTables

ListedIds = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]


def everything(ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """All of ``(n,)`` items may be listed: there is no catalog."""
    return np.ones(len(ids), np.bool_)


def keep_listed(
    lists: Lists, node_ids: NDArray[np.uint64], listed: ListedIds, *, size: int
) -> Lists:
    """``lists`` without the entries that ``listed`` refuses, at most ``size`` of each, in order."""
    used = np.arange(lists.nodes.shape[1]) < lists.counts[:, None]
    kept = np.zeros(lists.nodes.shape, np.bool_)
    kept[used] = listed(node_ids[lists.nodes[used]])
    counts = np.minimum(kept.sum(axis=1), size)
    if kept[used].all():
        return lists._replace(counts=counts)
    order = np.argsort(~kept, axis=1, kind="stable")
    return Lists(
        counts,
        np.take_along_axis(lists.nodes, order, axis=1),
        np.take_along_axis(lists.scores, order, axis=1),
        np.take_along_axis(lists.sources, order, axis=1),
        np.take_along_axis(lists.because, order, axis=1),
    )


def holding_any(
    tables: ItemTables, ids: NDArray[np.uint64], listed: ListedIds
) -> NDArray[np.uint64]:
    """Those of ``(n,)`` items whose neighbour table in memory has one that ``listed`` refuses."""
    nodes = tables.lookup(ids)
    nodes = nodes[nodes >= 0]
    nodes = nodes[tables.nodes["row"][nodes] >= 0]
    rows = tables.nodes["row"][nodes]
    used = np.arange(tables.neighbour.shape[1]) < tables.filled[rows][:, None]
    refused = np.zeros(used.shape, np.bool_)
    refused[used] = ~listed(tables.nodes["id"][tables.neighbour[rows][used]])
    return np.asarray(tables.nodes["id"][nodes[refused.any(axis=1)]], np.uint64)


def holding(tables: ItemTables, gone: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Ids of items whose neighbour table in memory has one of ``gone``, and of those' neighbours.

    Tables are bounded and so not quite symmetric: both sides are looked at.
    """
    rows = np.flatnonzero(tables.row_node >= 0)
    nodes = tables.row_node[rows]
    is_gone = np.zeros(tables.nodes_n + 1, np.bool_)
    is_gone[tables.lookup(gone)] = True
    is_gone[-1] = False  # where those are that are not in memory
    used = np.arange(tables.neighbour.shape[1]) < tables.filled[rows][:, None]
    near = tables.neighbour[rows]
    having = (is_gone[near] & used).any(axis=1)
    beside = np.unique(near[used & is_gone[nodes][:, None]])
    return np.union1d(tables.nodes["id"][nodes[having]], tables.nodes["id"][beside])
