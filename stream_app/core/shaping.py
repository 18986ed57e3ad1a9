"""From scored candidates to a list: rules, caps, diversity, exploration, and what fills gaps."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.catalog import Catalog, CatalogView
from stream_app.core.item_index import find
from stream_app.core.jit import copy_into, kernel, signed
from stream_app.core.list_kinds import CART
from stream_app.core.revisits import Row
from stream_app.core.rules import Rules, bar
from stream_app.core.scoring import EXPLORATION, Notes, Work
from stream_app.core.scoring_extra import Added

POOL_FACTOR = 3  # a list of k is shaped from the 3 k best candidates that the rules allow
BY_SCORE = -1  # instead of a source: the entry is there for its score
_SAME_CATEGORY, _SAME_TOP, _SAME_BRAND = 0.5, 0.3, 0.2  # how alike two items are, at most 1


class Fallback(NamedTuple):
    """Items that fill a list which rules left short, in order: ``nodes``, ``sources (n,)``."""

    nodes: NDArray[np.int64]
    sources: NDArray[np.uint8]


class Pool(NamedTuple):
    """Work space: the best allowed candidates, and what is known of them."""

    nodes: NDArray[np.int64]
    scores: NDArray[np.float64]
    rows: NDArray[np.int64]  # in the catalog
    alike: NDArray[np.float64]  # to the most similar item taken so far
    taken: NDArray[np.uint8]


def new_pool(list_size: int) -> Pool:
    """Room to shape lists of ``list_size``."""
    size = POOL_FACTOR * list_size
    return Pool(
        np.zeros(size, np.int64),
        np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size),
        np.zeros(size, np.uint8),
    )


NO_FALLBACK = Fallback(np.zeros(0, np.int64), np.zeros(0, np.uint8))
EMPTY_CATALOG = Catalog(items_max=1).view()._replace(flags=np.zeros(0, np.uint8))


class Shape(NamedTuple):
    """What turns scores into a list; ``checked``: whether every candidate has to be."""

    checked: bool
    rules: Rules
    catalog: CatalogView
    fallback: Fallback
    pool: Pool


@kernel
def select_allowed(
    nodes: NDArray[np.void],
    work: Work,
    n: int,
    checked: bool,
    rules: Rules,
    catalog: CatalogView,
    user: Row,
    which: int,
    ts: float,
    chosen: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> int:
    """The best candidates with a positive score that the rules allow; returns how many.

    Ties go to the smaller id. Rules are asked only about candidates that would be among the best.
    """
    m, size = 0, len(chosen)
    score, node = work.score, work.node
    least = np.float32(0.0)
    for t in range(n):
        v = score[t]
        if v < least or v <= np.float32(0.0):
            continue
        c = node[t]
        if m == size and v == least and nodes[c].id > nodes[chosen[m - 1]].id:
            continue
        if checked and bar(rules, catalog, user, which, ts, nodes[c].id) != 0:
            continue
        if m == size:
            m -= 1
        at = m
        while at > 0 and (
            scores[at - 1] < v or (scores[at - 1] == v and nodes[chosen[at - 1]].id > nodes[c].id)
        ):
            chosen[at] = chosen[at - 1]
            scores[at] = scores[at - 1]
            at -= 1
        chosen[at] = c
        scores[at] = v
        m += 1
        if m == size:
            least = np.float32(scores[m - 1])
    return m


@kernel
def likeness(catalog: CatalogView, a: int, b: int) -> float:
    """How alike two rows of the catalog are, 0 … 1; an item without a row is like nothing."""
    if a < 0 or b < 0:
        return 0.0
    alike = 0.0
    if catalog.category[a] != 0 and catalog.category[a] == catalog.category[b]:
        alike += _SAME_CATEGORY
    if catalog.category_top[a] != 0 and catalog.category_top[a] == catalog.category_top[b]:
        alike += _SAME_TOP
    if catalog.brand[a] != 0 and catalog.brand[a] == catalog.brand[b]:
        alike += _SAME_BRAND
    return alike


@kernel
def fits(
    rules: Rules, catalog: CatalogView, nodes: NDArray[np.void], chosen: NDArray[np.int64], row: int
) -> bool:
    """Whether one more item of its category and brand is within the caps."""
    if row < 0 or (rules.category_max == 0 and rules.brand_max == 0):
        return True
    categories, brands = 0, 0
    for i in range(len(chosen)):
        other = find(catalog.keys, catalog.slots, nodes[chosen[i]].id)
        if other >= 0:
            if catalog.category[row] != 0 and catalog.category[other] == catalog.category[row]:
                categories += 1
            if catalog.brand[row] != 0 and catalog.brand[other] == catalog.brand[row]:
                brands += 1
    return (rules.category_max == 0 or categories < rules.category_max) and (
        rules.brand_max == 0 or brands < rules.brand_max
    )


@kernel
def take_best(
    nodes: NDArray[np.void],
    pool: Pool,
    m: int,
    rules: Rules,
    catalog: CatalogView,
    out: NDArray[np.int64],
    scores: NDArray[np.float64],
) -> int:
    """Fill ``out`` from the pool by maximal marginal relevance within the caps; how many there are.

    Carbonell and Goldstein 1998: (1 - d) · score / best score - d · likeness to what is listed.
    """
    for i in range(m):
        pool.rows[i] = find(catalog.keys, catalog.slots, nodes[pool.nodes[i]].id)
        pool.alike[i] = 0.0
        pool.taken[i] = 0
    count = 0
    while count < len(out):
        best, value = -1, -np.inf
        for i in range(m):
            if pool.taken[i] == 0:
                v = (1.0 - rules.diversity) * pool.scores[i] / pool.scores[0]
                v -= rules.diversity * pool.alike[i]
                if v > value and fits(rules, catalog, nodes, out[:count], pool.rows[i]):
                    best, value = i, v
        if best < 0:
            break
        pool.taken[best] = 1
        out[count] = pool.nodes[best]
        scores[count] = pool.scores[best]
        count += 1
        if rules.diversity > 0.0:
            for i in range(m):
                alike = likeness(catalog, pool.rows[i], pool.rows[best])
                pool.alike[i] = max(pool.alike[i], alike)
    return count


@kernel
def _listed(out: NDArray[np.int64], count: int, node: int) -> bool:
    found = False
    for i in range(count):
        found |= out[i] == node
    return found


@kernel
def _append(
    nodes: NDArray[np.void],
    node: int,
    source: int,
    rules: Rules,
    catalog: CatalogView,
    user: Row,
    which: int,
    ts: float,
    count: int,
    out: NDArray[np.int64],
    scores: NDArray[np.float64],
    forced: NDArray[np.int64],
) -> int:
    """Append ``node`` without a score if it may be there; returns the new length."""
    if node < 0 or _listed(out, count, node):
        return count
    item = nodes[node].id
    if bar(rules, catalog, user, which, ts, item) != 0:
        return count
    row = find(catalog.keys, catalog.slots, item)
    if not fits(rules, catalog, nodes, out[:count], row):
        return count
    out[count] = node
    scores[count] = 0.0
    forced[count] = source
    return count + 1


@kernel
def explored_places(rules: Rules, user: Row, which: int, size: int) -> int:
    """How many places of a list go to new items: the share of them, rounded by a hash."""
    if rules.exploration <= 0.0:
        return 0
    # The 64-bit finaliser of MurmurHash3 over who, which and when.
    z = np.uint64(user.id) ^ (np.uint64(user.offset + 2) * np.uint64(0x9E3779B97F4A7C15))
    z = z + np.uint64(which)
    z = (z ^ (z >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    z = (z ^ (z >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    draw = float((z ^ (z >> np.uint64(33))) >> np.uint64(11)) / 9007199254740992.0
    return int(size * rules.exploration + draw)


@kernel
def fill(
    nodes: NDArray[np.void],
    extra: Added,
    which_list: int,
    fallback: Fallback,
    rules: Rules,
    catalog: CatalogView,
    user: Row,
    which: int,
    ts: float,
    count: int,
    out: NDArray[np.int64],
    scores: NDArray[np.float64],
    notes: Notes,
) -> int:
    """New items on the last places, and the fallback where the rules left places empty."""
    size, forced = len(out), notes.forced
    places = explored_places(rules, user, which, size)
    first, last = extra.starts[which_list], extra.starts[which_list + 1]
    if places > 0 and last > first:
        kept = min(count, size - places)
        spared = count - kept
        copy_into(notes.spare, out[kept:count])
        copy_into(notes.spare_scores, scores[kept:count])
        at = kept
        for e in range(first, last):
            if at < kept + places and extra.sources[e] == EXPLORATION:
                at = _append(
                    nodes, extra.nodes[e], EXPLORATION, rules, catalog, user, which, ts, at, out,
                    scores, forced,
                )  # fmt: skip
        # Places that no new item took go back to those who had them.
        for i in range(spared):
            if at < size and not _listed(out, at, notes.spare[i]):
                row = find(catalog.keys, catalog.slots, nodes[notes.spare[i]].id)
                if fits(rules, catalog, nodes, out[:at], row):
                    out[at], scores[at] = notes.spare[i], notes.spare_scores[i]
                    forced[at] = BY_SCORE
                    at += 1
        count = at
    for k in range(len(fallback.nodes)):
        if count == size:
            break
        count = _append(
            nodes, fallback.nodes[k], signed(fallback.sources[k]), rules, catalog, user,
            which, ts, count, out, scores, forced,
        )  # fmt: skip
    return count


@kernel
def shape_list(
    nodes: NDArray[np.void],
    work: Work,
    n: int,
    shape: Shape,
    extra: Added,
    which_list: int,
    user: Row,
    which: int,
    filled: bool,
    ts: float,
    out: NDArray[np.int64],
    scores: NDArray[np.float64],
    notes: Notes,
) -> int:
    """List ``which`` of ``user`` into ``out (k,)`` and ``scores``; returns how many entries it has.

    ``notes.forced`` tells the source of entries that are not there for their score, else
    ``BY_SCORE``; only lists that are ``filled`` have some.
    """
    rules, catalog, pool = shape.rules, shape.catalog, shape.pool
    checked = shape.checked or which == CART
    notes.forced[:] = BY_SCORE
    if not rules.shaped:
        count = select_allowed(
            nodes, work, n, checked, rules, catalog, user, which, ts, out, scores
        )  # fmt: skip
    else:
        m = select_allowed(
            nodes, work, n, checked, rules, catalog, user, which, ts, pool.nodes, pool.scores
        )  # fmt: skip
        count = take_best(nodes, pool, m, rules, catalog, out, scores)
    short = (count < len(out)) & (len(shape.fallback.nodes) > 0)
    if filled and ((rules.exploration > 0.0) | short):
        count = fill(
            nodes, extra, which_list, shape.fallback, rules, catalog, user, which, ts, count,
            out, scores, notes,
        )  # fmt: skip
    return count
