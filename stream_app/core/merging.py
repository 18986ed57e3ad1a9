"""Fold what an anonymous session did into the customer who turned out to have been there.

Both histories are lists by time; the merged one is what they hold together, as far as it fits. What
only the newer of two can know (step, category) comes from there, except that a cart filled before
the login is not forgotten by the step.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bounded import index_of
from stream_app.core.customer import Row, add_to_vector, decay_vector
from stream_app.core.jit import allocating, copy_into, kernel, signed
from stream_app.core.model import DEVICE, RING_MAX, Model


@allocating
def _merge_rings(user: Row, other: Row, same: bool) -> None:
    """The newest item events of both; of two at the same second the customer's counts as newer."""
    item, kind = np.zeros(RING_MAX, np.uint64), np.zeros(RING_MAX, np.uint8)
    ts, inside = np.zeros(RING_MAX, np.uint32), np.zeros(RING_MAX, np.uint8)
    a, b = signed(user.ring_n) - 1, signed(other.ring_n) - 1
    own = signed(user.ring_n) - signed(user.session_n)
    others = signed(other.ring_n) - signed(other.session_n)
    n = 0
    while n < RING_MAX and (a >= 0 or b >= 0):
        at = RING_MAX - 1 - n
        if b < 0 or (a >= 0 and user.ring_ts[a] >= other.ring_ts[b]):
            item[at], kind[at], ts[at] = user.ring_item[a], user.ring_kind[a], user.ring_ts[a]
            inside[at] = 1 if a >= own else 0
            a -= 1
        else:
            item[at], kind[at], ts[at] = other.ring_item[b], other.ring_kind[b], other.ring_ts[b]
            inside[at] = 1 if same and b >= others else 0
            b -= 1
        n += 1
    session_n, opened = 0, False
    for k in range(n):
        at = RING_MAX - n + k
        if inside[at] == 1:
            if not opened:
                opened, session_n = True, n - k
            else:
                kind[at] &= 0x7F  # only its first event opens a session
        user.ring_item[k], user.ring_kind[k], user.ring_ts[k] = item[at], kind[at], ts[at]
    user.ring_n, user.session_n = n, session_n


@allocating
def _joined(
    older: NDArray[Any], older_n: int, newer: NDArray[Any], newer_n: int, skipped: NDArray[Any]
) -> int:
    """Put what only ``older`` has before ``newer``, in place, dropping the oldest; how many."""
    size = len(newer)
    kept = np.zeros(2 * size, newer.dtype)
    n = 0
    for k in range(older_n):
        if index_of(newer, newer_n, older[k]) < 0 and index_of(skipped, len(skipped), older[k]) < 0:
            kept[n] = older[k]
            n += 1
    for k in range(newer_n):
        kept[n] = newer[k]
        n += 1
    first = max(0, n - size)
    for k in range(n - first):
        newer[k] = kept[first + k]
    return n - first


@allocating
def _merge_bought(user: Row, other: Row) -> None:
    """What both bought, each item dated by its later purchase."""
    item, ts, n = user.bought_item.copy(), user.bought_ts.copy(), signed(user.bought_n)
    others_n = signed(other.bought_n)
    user.bought_n = _joined(other.bought_item, others_n, user.bought_item, n, item[:0])
    user.bought_ts[:] = 0
    for k in range(signed(user.bought_n)):
        own = index_of(item, n, user.bought_item[k])
        others = index_of(other.bought_item, others_n, user.bought_item[k])
        if own >= 0:
            user.bought_ts[k] = ts[own]
        if others >= 0:
            user.bought_ts[k] = max(user.bought_ts[k], other.bought_ts[others])


@kernel
def _same_session(user: Row, other: Row, gap_s: float) -> bool:
    """Whether both were in one session; a device's id is that of many, with pauses between."""
    if user.session == 0 or user.session != other.session:
        return False
    apart_s = max(user.session_start - other.last_ts, other.session_start - user.last_ts)
    return bool(other.anonymous != DEVICE or apart_s <= gap_s)


@kernel
def merge_customers(user: Row, other: Row, model: Model) -> None:
    """Add the anonymous ``other`` to ``user``, in place."""
    same = _same_session(user, other, model.session_gap_s)
    later = other.last_ts > user.last_ts
    waiting = other.cart_n > 0 and user.cart_n == 0 and user.purchase_ts < other.last_ts
    if later or waiting:
        user.step, user.previous_step = other.step, other.previous_step
        user.entered_at = other.entered_at
    if user.category_views == 0 or later:
        user.category, user.category_views = other.category, other.category_views
    elif same and user.category == other.category:
        user.category_views = min(signed(user.category_views) + signed(other.category_views), 255)
    _merge_rings(user, other, same)
    nothing = user.bought_item[:0]
    bought = user.bought_item[: signed(user.bought_n)]
    done = bought if user.purchase_ts >= other.last_ts else nothing
    user.cart_n = _joined(
        other.cart_item, signed(other.cart_n), user.cart_item, signed(user.cart_n), done
    )
    _merge_bought(user, other)
    user.seen_n = _joined(
        other.seen, signed(other.seen_n), user.seen, signed(user.seen_n), user.seen[:0]
    )
    if other.query_n > 0 and (later or (same and user.query_n == 0)):
        user.query_n = other.query_n
        copy_into(user.query_word, other.query_word)
    last_ts = max(user.last_ts, other.last_ts)
    decay_vector(user, last_ts - user.last_ts, model.vector_half_life_s)
    decay_vector(other, last_ts - other.last_ts, model.vector_half_life_s)
    for k in range(signed(other.vector_n)):
        add_to_vector(user, other.vector_item[k], float(other.vector_weight[k]))
    user.events += other.events
    user.sessions += other.sessions - (1 if same else 0)
    user.purchases += other.purchases
    user.monetary += other.monetary
    if same:
        user.session_start = min(user.session_start, other.session_start)
        user.session_events = min(signed(user.session_events) + signed(other.session_events), 65535)
    user.first_ts = min(user.first_ts, other.first_ts)
    user.purchase_ts = max(user.purchase_ts, other.purchase_ts)
    user.timer_ts = max(user.timer_ts, other.timer_ts)
    user.last_ts = last_ts
    user.refused |= other.refused  # who has said no once has said no
