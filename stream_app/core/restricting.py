"""What makes one kind of list unlike another: its candidates beyond the scores of the sources.

Kernels over rows of :mod:`stream_app.core.list_kinds`, called between scoring and shaping.
"""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bounded import index_of
from stream_app.core.catalog import CatalogView
from stream_app.core.item_index import find
from stream_app.core.jit import copy_into, kernel, signed
from stream_app.core.list_kinds import (
    ANCHOR_SEEDS,
    CART_ONLY,
    CART_SEEDS,
    MATCHES,
    OTHER_CATEGORY,
    OUT_ANCHORS,
    OUT_BOUGHT,
    OUT_CART,
    SAME_TOP,
)
from stream_app.core.revisits import Row
from stream_app.core.rules import Rules, bought_at, cycle_s
from stream_app.core.scoring import CONTENT, REPEAT, RETURN, SOURCES_N, Work, place_of
from stream_app.core.scoring_extra import Added

_LEAST = 1e-6  # what a place in the cart alone is worth: it settles ties, the newest first


@kernel
def weights_of(kind: Row, weights: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """The weights ``(SOURCES_N,)`` of a journey step, as this kind of list uses them."""
    for s in range(SOURCES_N):
        out[s] = weights[s] * kind.sources[s]
    if kind.only == MATCHES:
        out[CONTENT] = kind.matched


@kernel
def seeds_of(
    kind: Row,
    user: Row,
    anchors: NDArray[np.int64],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    seeds: NDArray[np.int64],
) -> int:
    """Items of the customer that are candidates anyway, into ``seeds``; returns how many."""
    n = 0
    if kind.seeds == ANCHOR_SEEDS:
        n = len(anchors)
        copy_into(seeds, anchors)
    elif kind.seeds == CART_SEEDS:
        n = signed(user.cart_n)
        for k in range(n):
            seeds[k] = find(keys, slots, user.cart_item[k])
    return n


@kernel
def _cart_price(catalog: CatalogView, user: Row) -> float:
    """The mean price of what is in the cart, as far as it is known; 0 when none is."""
    total, n = 0.0, 0
    for k in range(signed(user.cart_n)):
        row = find(catalog.keys, catalog.slots, user.cart_item[k])
        if row >= 0 and catalog.price[row] > 0.0:  # NaN is not
            total += float(catalog.price[row])
            n += 1
    return total / n if n > 0 else 0.0


@kernel
def _is_out(
    kind: Row,
    catalog: CatalogView,
    user: Row,
    item: int,
    category: int,
    top: int,
    price_max: float,
) -> bool:
    """Whether the item (a hash) does not belong into this kind of list."""
    if kind.only == CART_ONLY and index_of(user.cart_item, user.cart_n, item) < 0:
        return True
    if kind.out & OUT_CART != 0 and index_of(user.cart_item, user.cart_n, item) >= 0:
        return True
    if category == 0 and price_max <= 0.0:
        return False
    row = find(catalog.keys, catalog.slots, item)
    if row < 0:
        return False
    if kind.relation == SAME_TOP and catalog.category_top[row] != 0:
        if catalog.category_top[row] != top:
            return True
    elif kind.relation == OTHER_CATEGORY and catalog.category[row] == category:
        return category != 0
    return bool(price_max > 0.0 and float(catalog.price[row]) > price_max)  # NaN is not


@kernel
def _bring_back(
    kind: Row,
    rules: Rules,
    catalog: CatalogView,
    nodes: NDArray[np.void],
    user: Row,
    ts: float,
    seeds: NDArray[np.int64],
    best: float,
    work: Work,
    n: int,
) -> None:
    """What was bought comes first when it is due again, the longest overdue first; else not."""
    for a in range(len(seeds)):
        t = place_of(work.place, work.node, seeds[a], n) if seeds[a] >= 0 else n
        if t == n:
            continue
        item = nodes[seeds[a]].id
        cycle = float(cycle_s(rules, catalog, item))
        if cycle <= 0.0:
            cycle = kind.replenish_s
        age = ts - bought_at(user, item)
        work.score[t] = best * (2.0 - cycle / age) if age >= cycle else 0.0


@kernel
def restrict(
    kind: Row,
    rules: Rules,
    catalog: CatalogView,
    nodes: NDArray[np.void],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    user: Row,
    ts: float,
    anchors: NDArray[np.int64],
    seeds: NDArray[np.int64],
    extra: Added,
    which: int,
    best: float,
    work: Work,
    n: int,
) -> None:
    """Take the score from candidates that do not belong into this kind of list.

    ``keys`` and ``slots`` find nodes; ``anchors`` are those it was drawn from, ``seeds`` the
    customer's own, ``extra`` of list ``which`` what came from outside, ``best`` more than the
    sources can have given.
    """
    score, node = work.score, work.node
    if kind.only == MATCHES:
        for t in range(n):
            score[t] = -score[t]
        for e in range(extra.starts[which], extra.starts[which + 1]):
            c = extra.nodes[e]
            t = place_of(work.place, node, c, n) if c >= 0 else n
            if t < n and extra.sources[e] == CONTENT:
                score[t] = abs(score[t])
    category, top = 0, 0
    if kind.relation != 0 and len(anchors) > 0 and anchors[0] >= 0:
        row = find(catalog.keys, catalog.slots, nodes[anchors[0]].id)
        if row >= 0:
            category, top = signed(catalog.category[row]), signed(catalog.category_top[row])
    price_max = kind.price_share * _cart_price(catalog, user) if kind.price_share > 0.0 else 0.0
    if kind.only == CART_ONLY:
        for k in range(len(seeds)):
            t = place_of(work.place, node, seeds[k], n) if seeds[k] >= 0 else n
            if t < n:
                score[t] += np.float32(_LEAST * (k + 1))
    own = kind.out & OUT_CART != 0 and user.cart_n > 0
    # Else nobody is out: not worth a look at each.
    if own or kind.only == CART_ONLY or category != 0 or price_max > 0.0:
        for t in range(n):
            if score[t] > np.float32(0.0) and _is_out(
                kind, catalog, user, nodes[node[t]].id, category, top, price_max
            ):
                score[t] = np.float32(0.0)
    if kind.out & OUT_BOUGHT != 0:
        for k in range(signed(user.bought_n)):
            c = find(keys, slots, user.bought_item[k])
            t = place_of(work.place, node, c, n) if c >= 0 else n
            if t < n:
                score[t] = np.float32(0.0)
    if kind.out & OUT_ANCHORS != 0:
        for a in range(len(anchors)):
            t = place_of(work.place, node, anchors[a], n) if anchors[a] >= 0 else n
            if t < n:
                score[t] = np.float32(0.0)
    if kind.replenish_s > 0.0:
        _bring_back(kind, rules, catalog, nodes, user, ts, seeds, best, work, n)


@kernel
def name_own(
    kind: Row,
    seeds: NDArray[np.int64],
    chosen: NDArray[np.int64],
    sources: NDArray[np.uint8],
    because: NDArray[np.int64],
) -> None:
    """What is listed because it is the customer's own says so."""
    if kind.only == CART_ONLY or kind.replenish_s > 0.0:
        for i in range(len(chosen)):
            for k in range(len(seeds)):
                if seeds[k] == chosen[i] and sources[i] != REPEAT:
                    sources[i], because[i] = RETURN, -1
