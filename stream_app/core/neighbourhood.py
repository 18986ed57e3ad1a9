"""User-based filtering: who else liked what this customer likes, and what else did they like?

Every customer has a decayed, sparse vector of item weights. LEARN tells the owners of its strongest
items about it now and then (a *snapshot*: at the first event of a session, and at its 3rd, 9th,
27th ...); an item keeps the last few customers who told it, its *fans*. Neighbours of a customer
are found among the fans of their recent items: cosine of the vectors, the best ``KNN_MAX``, and
Σ cosine · rating for each of their items (Resnick et al. 1994; Breese et al. 1998). Ratings are
relative to a customer's own largest one and fade with the half-life of the vectors.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.item_index import find
from stream_app.core.jit import allocating, copy_into, kernel, signed
from stream_app.core.model import CONTEXT_MAX

SNAPSHOT_ITEMS = 6
FANS_MAX = 6  # customers an item remembers
KNN_MAX = 10
_LEVELS = 255.0
_GROUND_MIN = 2  # a vector with one item says nothing that the item's own neighbours do not
Row = Any

# The strongest items of a customer, 0 = none; ratings are shares of the largest one.
_FIELDS: list[Any] = [
    ("item", "u8", (SNAPSHOT_ITEMS,)),
    ("customer", "u4"),  # the lower half of the id: enough to tell six apart, not who they are
    ("ts", "u4"),
    ("rating", "u1", (SNAPSHOT_ITEMS,)),  # in 255ths
    ("reserved", "u1", (2,)),
]
FAN = np.dtype(_FIELDS)
SNAPSHOT = np.dtype([*_FIELDS, ("offset", "i8")])  # of the event in its clickstream partition


@kernel
def snapshot_due(user: Row) -> bool:
    """Whether the session's length, with the event just applied, is a power of three from 3 on."""
    power = 3
    while power < user.session_events:
        power *= 3
    return bool(power == user.session_events)


@kernel
def take_snapshot(user: Row, ts: float, offset: int, out: Row) -> None:
    """The customer's strongest items into ``out``, ties by id; nothing when there are too few."""
    n = 0
    for k in range(signed(user.vector_n)):
        w, item = user.vector_weight[k], user.vector_item[k]
        if w <= 0.0:
            continue
        at = n
        while at > 0:
            other = index_of_item(user, out.item[at - 1])
            if user.vector_weight[other] > w or (
                user.vector_weight[other] == w and out.item[at - 1] < item
            ):
                break
            if at < SNAPSHOT_ITEMS:
                out.item[at] = out.item[at - 1]
            at -= 1
        if at < SNAPSHOT_ITEMS:
            out.item[at] = item
            n = min(n + 1, SNAPSHOT_ITEMS)
    if n < _GROUND_MIN:
        out.item[0] = 0
        return
    largest = user.vector_weight[index_of_item(user, out.item[0])]
    for k in range(n):
        share = user.vector_weight[index_of_item(user, out.item[k])] / largest
        out.rating[k] = max(1, int(share * _LEVELS + 0.5))
    out.customer = np.uint32(user.id & np.uint64(0xFFFFFFFF))
    out.ts = np.uint32(ts)
    out.offset = offset


@kernel
def index_of_item(user: Row, item: int) -> int:
    """Where an item stands in the customer's vector; it does."""
    at = 0
    while user.vector_item[at] != item:
        at += 1
    return at


@kernel
def forget_customer(user: Row, offset: int, out: Row) -> None:
    """A snapshot without ratings: the owners of these items forget the customer."""
    for k in range(min(signed(user.vector_n), SNAPSHOT_ITEMS)):
        out.item[k] = user.vector_item[k]
    out.customer = np.uint32(user.id & np.uint64(0xFFFFFFFF))
    out.offset = offset


@kernel
def _remember_fan(fans: NDArray[np.void], n: int, fan: Row) -> int:
    """Newest last, each customer once; returns the new number of fans."""
    at = n
    for k in range(n):
        if fans[k].customer == fan.customer:
            at = k
    if at == n and n == len(fans) and fan.rating[0] > 0:
        at = 0
    if at < n:
        for k in range(at, n - 1):
            fans[k] = fans[k + 1]
        n -= 1
    if fan.rating[0] > 0:
        copy_into(fans[n].item, fan.item)
        copy_into(fans[n].rating, fan.rating)
        fans[n].customer, fans[n].ts = fan.customer, fan.ts
        n += 1
    return n


@kernel
def merge_snapshots(
    snapshots: NDArray[np.void],
    partition: int,
    partitions: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    nodes: NDArray[np.void],
    fans: NDArray[np.void],
    fans_n: NDArray[np.uint8],
) -> None:
    """Tell the items of ``(n,) SNAPSHOT`` that the partition owns; their rows are in memory.

    ``fans (rows * FANS_MAX,) FAN`` are those of all rows, one row after the other.
    """
    for s in range(len(snapshots)):
        fan = snapshots[s]
        for k in range(SNAPSHOT_ITEMS):
            item = fan.item[k]
            if item != 0 and item % np.uint64(partitions) == np.uint64(partition):
                row = nodes[find(keys, slots, item)].row
                mine = fans[row * FANS_MAX : (row + 1) * FANS_MAX]
                fans_n[row] = _remember_fan(mine, signed(fans_n[row]), fan)


@kernel
def fan_cosine(user: Row, fan: Row) -> float:
    """Cosine of a customer's vector and a fan's."""
    dot, ours, theirs = 0.0, 0.0, 0.0
    for k in range(signed(user.vector_n)):
        ours += np.float64(user.vector_weight[k]) ** 2
    for j in range(SNAPSHOT_ITEMS):
        if fan.item[j] == 0:
            break
        rating = float(fan.rating[j])
        theirs += rating * rating
        for k in range(signed(user.vector_n)):
            if user.vector_item[k] == fan.item[j]:
                dot += rating * float(user.vector_weight[k])
    return dot / math.sqrt(ours * theirs) if ours > 0.0 and theirs > 0.0 else 0.0


@kernel
def _neighbours(
    user: Row,
    context: NDArray[np.int64],
    nodes: NDArray[np.void],
    fans: NDArray[np.void],
    fans_n: NDArray[np.uint8],
    best: NDArray[np.int64],
    cosines: NDArray[np.float64],
) -> int:
    """The most similar fans of the ``context``, ``row * FANS_MAX + place``, ties by customer."""
    own = np.uint32(user.id & np.uint64(0xFFFFFFFF))
    m = 0
    for d in range(len(context)):
        row = signed(nodes[context[d]].row) if context[d] >= 0 else -1
        if row < 0:
            continue
        for f in range(signed(fans_n[row])):
            this = row * FANS_MAX + f
            customer, ts = fans[this].customer, fans[this].ts
            if customer == own:
                continue
            known = -1
            for k in range(m):
                if fans[best[k]].customer == customer:
                    known = k
            if known >= 0 and fans[best[known]].ts >= ts:
                continue
            cosine = fan_cosine(user, fans[this])
            if known >= 0:  # what they told a while ago gives way to what they told last
                for k in range(known, m - 1):
                    best[k], cosines[k] = best[k + 1], cosines[k + 1]
                m -= 1
            at = m
            while at > 0 and (
                cosines[at - 1] < cosine
                or (cosines[at - 1] == cosine and fans[best[at - 1]].customer > customer)
            ):
                at -= 1
            for k in range(m, at, -1):
                best[k], cosines[k] = best[k - 1], cosines[k - 1]
            best[at], cosines[at] = this, cosine
            m += 1
    return m


@allocating
def draw_user_knn(
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    contexts: NDArray[np.int64],
    ts: NDArray[np.float64],
    half_life_s: float,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    nodes: NDArray[np.void],
    fans: NDArray[np.void],
    fans_n: NDArray[np.uint8],
    starts: NDArray[np.int64],
    out: NDArray[np.int64],
    values: NDArray[np.float32],
    wanted: NDArray[np.uint64],
) -> int:
    """Candidates of ``users[rows]``; returns how many of ``wanted`` ids are not in memory."""
    best = np.zeros(CONTEXT_MAX * FANS_MAX + 1, np.int64)
    cosines = np.zeros(CONTEXT_MAX * FANS_MAX + 1)
    n, missing = 0, 0
    for i in range(len(rows)):
        starts[i] = n
        user = users[rows[i]]
        m = _neighbours(user, contexts[i], nodes, fans, fans_n, best, cosines)
        for b in range(min(m, KNN_MAX)):
            if cosines[b] <= 0.0:
                break
            fan = fans[best[b]]
            faded = cosines[b] * 0.5 ** (max(ts[i] - float(fan.ts), 0.0) / half_life_s)
            for j in range(SNAPSHOT_ITEMS):
                if fan.item[j] == 0:
                    break
                c = find(keys, slots, fan.item[j])
                if c < 0 or nodes[c].known == 0:
                    if missing < len(wanted):
                        wanted[missing] = fan.item[j]
                        missing += 1
                    continue
                at = starts[i]
                while at < n and out[at] != c:
                    at += 1
                if at == n:
                    out[n], values[n] = c, np.float32(0.0)
                    n += 1
                values[at] += np.float32(faded * float(fan.rating[j]) / _LEVELS)
    starts[len(rows)] = n
    return missing
