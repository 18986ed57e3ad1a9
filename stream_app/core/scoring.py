"""Score candidates for a customer from the item tables: CoStream, one prediction per call.

Direct neighbours of the recent items, neighbours of those (two hops), what followed the current
item, and popularity are normalised, raised to 3/4 and blended; the customer's own recent items get
the probability that they come next. Both are comparable, because the blend is scaled by how often
the tables knew what came after the recent items.

The candidates of one prediction stand in short arrays that stay in the nearest cache; ``place``
says where, and is never cleared: an entry counts only when the candidate there is the node itself.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import inlined, kernel
from stream_app.core.model import CONTEXT_MAX, RING_MAX, Model

DIRECT, TWO_HOP, FORWARD, POPULAR, REPEAT, RETURN = range(6)
CONTENT, EMBEDDING, USER_KNN, SEGMENT, TRENDING, EXPLORATION, JACCARD = range(6, 13)
# Appended, never reordered: numbers are in stored blends, feedback counters and clicks.
SOURCES = (
    "co_occurrence",
    "two_hop",
    "next_item",
    "popularity",
    "repeat",
    "return",
    # From outside the kernel, as stream_app.core.scoring_extra.Extra:
    "content",
    "embedding",
    "user_knn",
    "segment",
    "trending",
    "exploration",
    "jaccard",
)
SOURCES_N = len(SOURCES)
PINNED = SOURCES_N  # no source: a merchandising rule put the item there
OWN_N = 6  # sources of the tables and of the customer's own items: there without an Extra
Row = Any
Floats = NDArray[np.float32]
Scales = tuple[Any, Any, Any, Any]

_ZERO = np.float32(0.0)
_TINY = np.float32(1e-30)  # sums that stand for nothing at all


class Work(NamedTuple):
    """Work space of one scorer: ``place`` and ``sums`` per node, all else per candidate."""

    place: NDArray[np.int32]
    sums: Floats  # of one list's neighbours of neighbours; 0 between two lists
    found: NDArray[np.int32]  # the nodes of these sums
    node: NDArray[np.int32]
    direct: Floats
    two_hop: Floats
    forward: Floats
    popular: Floats
    rarity: Floats  # 1 / sqrt(mass); 0 for items whose masses are not in memory
    score: Floats
    strongest: NDArray[np.int64]
    revisit: Floats  # per recent item of the customer: the probability that it comes next
    fade: NDArray[np.float64]  # per item that candidates are drawn from: how much it counts


def new_work(nodes: int, model: Model, added: int = 0) -> Work:
    """Work space for up to ``nodes`` items, and ``added`` candidates from outside per list."""
    candidates = (
        (CONTEXT_MAX + model.two_hop_max) * model.neighbours_max
        + model.popular_max
        + RING_MAX
        + added
    )
    return Work(
        np.zeros(nodes, np.int32),
        np.zeros(nodes, np.float32),
        np.zeros(candidates, np.int32),
        np.zeros(candidates, np.int32),
        np.zeros(candidates, np.float32),
        np.zeros(candidates, np.float32),
        np.zeros(candidates, np.float32),
        np.zeros(candidates, np.float32),
        np.zeros(candidates, np.float32),
        np.zeros(candidates, np.float32),
        np.zeros(model.two_hop_max, np.int64),
        np.zeros(RING_MAX, np.float32),
        np.zeros(CONTEXT_MAX),
    )


class Notes(NamedTuple):
    """Work space for one list: per recent item, per source, and from ``forced`` on per place."""

    context: NDArray[np.int64]
    seeds: NDArray[np.int64]
    weights: NDArray[np.float64]
    factors: NDArray[np.float64]
    forced: NDArray[np.int64]
    most: NDArray[np.float64]
    strength: NDArray[np.float64]
    spare: NDArray[np.int64]
    spare_scores: NDArray[np.float64]


def new_notes(list_size: int) -> Notes:
    """Work space for lists of up to ``list_size`` entries."""
    return Notes(
        np.zeros(RING_MAX, np.int64),
        np.zeros(RING_MAX, np.int64),
        np.zeros(SOURCES_N),
        np.zeros(SOURCES_N),
        np.zeros(list_size, np.int64),
        np.zeros(list_size),
        np.zeros(list_size),
        np.zeros(list_size, np.int64),
        np.zeros(list_size),
    )


class View(NamedTuple):
    """The parts of :class:`~stream_app.core.tables.ItemTables` that scoring reads."""

    nodes: NDArray[np.void]
    neighbour: NDArray[np.int32]
    forward: Floats
    backward: Floats
    filled: NDArray[np.int32]


@inlined
def place_of(place: NDArray[np.int32], node: NDArray[Any], c: int, n: int) -> Any:
    """Where ``c`` stands among the first ``n`` candidates; ``n`` when it is none."""
    t = np.int64(place[c])
    return t if (t < n) & (node[t] == c) else n


@kernel
def _weigh(
    nodes: NDArray[np.void],
    node: NDArray[np.int32],
    start: int,
    n: int,
    prior: float,
    rarity: Floats,
    popular: Floats,
) -> None:
    """Rarity and popularity of the candidates from ``start`` on."""
    for t in range(start, n):
        item = nodes[node[t]]
        known = item.known != 0
        rarity[t] = max(item.mass, 0.0) + prior if known else np.inf
        # Below, what nobody asked for in months would be a denormal number, and slow.
        popular[t] = item.popularity if known and item.popularity > 1e-25 else 0.0
    one = np.float32(1.0)
    for t in range(start, n):
        rarity[t] = one / np.sqrt(rarity[t])


@kernel
def add_direct(view: View, context: NDArray[np.int64], g: float, model: Model, work: Work) -> int:
    """S1: faded cosine of the recent items' neighbours; S3: what followed the current item."""
    n, first_n = 0, 0
    node, place = work.node, work.place
    direct, two_hop, followed = work.direct, work.two_hop, work.forward
    neighbour, forwards, backwards = view.neighbour, view.forward, view.backward
    for d in range(len(context)):
        u = context[d]
        if u < 0:
            continue
        row = view.nodes[u].row
        mass = view.nodes[u].mass
        if row < 0 or mass <= 0.0:
            continue
        weight = np.float32(work.fade[d] / math.sqrt(mass))
        before_n = n
        for k in range(view.filled[row]):
            forward = forwards[row, k]
            s = forward + backwards[row, k]
            if s <= _ZERO:
                continue
            # A row has each item once: it is looked up among those of the rows before, so that
            # this does not have to wait for whether the last one was new.
            c = neighbour[row, k]
            t: Any = np.int64(place[c])
            new = (t >= before_n) | (node[t] != c)
            t = n if new else t
            place[c], node[t] = t, c
            direct[t] = weight * s + (_ZERO if new else direct[t])
            n += new
            if d == 0:
                followed[t] = max(forward, _ZERO)
        if d == 0:
            first_n = n
    two_hop[:n] = _ZERO
    followed[first_n:n] = _ZERO
    rarity = work.rarity
    _weigh(view.nodes, node, 0, n, model.mass_prior * g, rarity, work.popular)
    for t in range(n):
        direct[t] *= rarity[t]
    return n


@kernel
def _find_strongest(values: Floats, n: int, best: NDArray[np.int64]) -> int:
    """Places of the largest values, descending; of equal ones the earlier place comes first."""
    m = 0
    for t in range(n):
        v = values[t]
        if m == len(best):
            if v <= values[best[m - 1]]:
                continue
            m -= 1
        at = m
        while at > 0 and values[best[at - 1]] < v:
            best[at] = best[at - 1]
            at -= 1
        best[at] = t
        m += 1
    return m


@kernel
def add_two_hop(view: View, n: int, model: Model, work: Work) -> int:
    """S2 before its division by the candidate's mass: neighbours of the strongest neighbours."""
    node, place = work.node, work.place
    direct, two_hop, followed = work.direct, work.two_hop, work.forward
    neighbour, forwards, backwards = view.neighbour, view.forward, view.backward
    sums, found = work.sums, work.found
    direct_n, found_n = n, 0
    t: Any
    m = _find_strongest(work.direct, n, work.strongest)
    for b in range(m):
        t = work.strongest[b]
        y = node[t]
        row = view.nodes[y].row
        mass = view.nodes[y].mass
        if row < 0 or mass <= 0.0 or direct[t] <= _ZERO:
            continue
        weight = np.float32(float(direct[t]) / mass**model.hub_power)
        for k in range(view.filled[row]):
            s = forwards[row, k] + backwards[row, k]
            if s <= _ZERO:
                continue
            # Without branches: whether a candidate is new is a coin that no processor predicts.
            c = neighbour[row, k]
            before = sums[c]
            found[found_n] = c
            found_n += before == _ZERO
            sums[c] = before + weight * s
    for j in range(found_n):
        c = found[j]
        total = sums[c]
        if total == _ZERO:
            continue  # found once more, because what it was given first was too little to count
        t = np.int64(place[c])
        new = (t >= direct_n) | (node[t] != c)  # each is found once: as above
        t = n if new else t
        place[c], node[t] = t, c
        two_hop[t] = total
        sums[c] = _ZERO
        n += new
    direct[direct_n:n] = _ZERO
    followed[direct_n:n] = _ZERO
    return n


@kernel
def add_others(
    view: View,
    popular: NDArray[np.int64],
    own: NDArray[np.int64],
    start: int,
    n: int,
    g: float,
    model: Model,
    work: Work,
) -> int:
    """Popular items, the customer's own, and the weights of all candidates from ``start`` on."""
    node, place = work.node, work.place
    rarity, direct, two_hop, forward = work.rarity, work.direct, work.two_hop, work.forward
    popular_n = min(len(popular), model.popular_max)
    for p in range(popular_n + len(own)):
        c = popular[p] if p < popular_n else own[p - popular_n]
        if c >= 0 and place_of(place, node, c, n) == n:
            place[c], node[n] = n, c
            direct[n] = two_hop[n] = forward[n] = _ZERO
            n += 1
    _weigh(view.nodes, node, start, n, model.mass_prior * g, rarity, work.popular)
    for t in range(n):
        two_hop[t] *= flat(rarity[t])  # mass ** -3/8: hubs count a little more than in S1
        if rarity[t] == _ZERO:
            forward[t] = _ZERO
    return n


@inlined
def flat(x: Any) -> Any:
    """To the power of 3/4, in square roots: four times the speed of a general power."""
    root = np.sqrt(x)
    return root * np.sqrt(root)


@kernel
def total_of(values: Floats, n: int) -> float:
    """Sum in eight lanes, which the compiler may add side by side."""
    a = b = c = d = e = f = g = h = _ZERO
    whole = n - n % 8
    for t in range(0, whole, 8):
        a += values[t]
        b += values[t + 1]
        c += values[t + 2]
        d += values[t + 3]
        e += values[t + 4]
        f += values[t + 5]
        g += values[t + 6]
        h += values[t + 7]
    for t in range(whole, n):
        a += values[t]
    total = np.float64(a) + np.float64(b) + np.float64(c) + np.float64(d)
    return total + np.float64(e) + np.float64(f) + np.float64(g) + np.float64(h)


@kernel
def _scale(values: Floats, n: int, weight: float) -> Any:
    """What a value to the power of 3/4 is multiplied with."""
    total = total_of(values, n)
    return np.float32(weight / total**0.75) if total > _TINY and weight > 0.0 else _ZERO


@kernel
def confidence(
    view: View, context: NDArray[np.int64], fade: NDArray[np.float64], g: float, model: Model
) -> float:
    """How often the tables knew the item that came after the recent ones, nearest counting most."""
    found, moved = 0.0, 0.0
    for d in range(len(context)):
        if context[d] >= 0 and view.nodes[context[d]].known != 0:
            item = view.nodes[context[d]]
            weight = fade[d] / g
            found += weight * max(item.found, 0.0)
            moved += weight * max(item.out - item.repeats, 0.0)
    return (found + model.found_prior * model.found_rate) / (moved + model.found_prior)


@kernel
def scales(n: int, weights: NDArray[np.float64], share: float, work: Work) -> Scales:
    """Multipliers of the four sources' values to the power of 3/4; together they give ``share``."""
    return (
        _scale(work.direct, n, share * weights[DIRECT]),
        _scale(work.two_hop, n, share * weights[TWO_HOP]),
        _scale(work.forward, n, share * weights[FORWARD]),
        _scale(work.popular, n, share * weights[POPULAR]),
    )


@kernel
def blend(n: int, factors: Scales, work: Work) -> None:
    """G of every candidate: the sum of scaled values to the power of 3/4."""
    a, b, c, d = factors
    direct, two_hop, forward, popular = work.direct, work.two_hop, work.forward, work.popular
    score = work.score
    for t in range(n):
        score[t] = (a * flat(direct[t]) + b * flat(two_hop[t]) + c * flat(forward[t])) + d * flat(
            popular[t]
        )


@kernel
def leading_source(t: int, factors: Scales, work: Work) -> tuple[int, float]:
    """Which source of the tables gave most of candidate ``t``'s blend, and how much."""
    a, b, c, d = factors
    parts = (
        a * flat(work.direct[t]),
        b * flat(work.two_hop[t]),
        c * flat(work.forward[t]),
        d * flat(work.popular[t]),
    )
    which = DIRECT
    for source in range(1, 4):
        if parts[source] > parts[which]:
            which = source
    return which, float(parts[which])
