"""What one event changes in a customer's state: ring, cart, purchases, vector, categories."""

from typing import Any

import numpy as np

from stream_app.core.bounded import drop_at, index_of
from stream_app.core.jit import kernel, signed
from stream_app.core.model import (
    BOUGHT_MAX,
    CART_MAX,
    DEVICE,
    KIND,
    QUERY_MAX,
    RING_MAX,
    VECTOR_MAX,
)

_ADD, _REMOVE = KIND["add_to_cart"], KIND["remove_from_cart"]
_PURCHASE, _REFUND, _SEARCH = KIND["purchase"], KIND["refund"], KIND["search"]
FIRST_OF_SESSION = 0x80  # in ring_kind, beside the kind: it was paired with nothing before
Row = Any  # one record of a structured array, as numba sees it


@kernel
def decay_vector(user: Row, elapsed_s: float, half_life_s: float) -> None:
    if elapsed_s > 0.0 and user.vector_n > 0:
        factor = np.float32(0.5 ** (elapsed_s / half_life_s))
        for k in range(user.vector_n):
            user.vector_weight[k] *= factor


@kernel
def add_to_vector(user: Row, item: int, weight: float) -> None:
    """Add to the sparse user vector; a full one loses its smallest entry (ties: smallest id)."""
    at = index_of(user.vector_item, user.vector_n, item)
    if at >= 0:
        user.vector_weight[at] = max(0.0, user.vector_weight[at] + weight)
        return
    if weight <= 0.0:
        return
    at = signed(user.vector_n)
    if at < VECTOR_MAX:
        user.vector_n = at + 1
    else:
        at = 0
        for k in range(1, VECTOR_MAX):
            w, least = user.vector_weight[k], user.vector_weight[at]
            if w < least or (w == least and user.vector_item[k] < user.vector_item[at]):
                at = k
    user.vector_item[at] = item
    user.vector_weight[at] = weight


@kernel
def append_event(user: Row, item: int, ts: float, kind: int) -> None:
    n = signed(user.ring_n)
    if n == RING_MAX:
        for k in range(RING_MAX - 1):
            user.ring_item[k] = user.ring_item[k + 1]
            user.ring_ts[k] = user.ring_ts[k + 1]
            user.ring_kind[k] = user.ring_kind[k + 1]
        n = RING_MAX - 1
    user.ring_item[n] = item
    user.ring_ts[n] = np.uint32(ts)
    user.ring_kind[n] = kind if user.session_n > 0 else kind | FIRST_OF_SESSION
    user.ring_n = n + 1
    user.session_n = min(user.session_n + 1, RING_MAX)
    user.session_events = min(user.session_events + 1, 65535)


@kernel
def note_category(user: Row, category: int) -> None:
    """How many item events in a row named this category; those that name none say nothing."""
    if category != 0:
        same = user.category == category
        user.category_views = min(user.category_views + 1, 255) if same else 1
        user.category = category


@kernel
def _forget_bought(user: Row, at: int) -> None:
    drop_at(user.bought_ts, user.bought_n, at)
    user.bought_n = drop_at(user.bought_item, user.bought_n, at)


@kernel
def _remember_bought(user: Row, item: int, ts: float) -> float:
    """Put ``item`` last among those bought; returns the seconds since it was bought before.

    0 when it was not, or when nobody knows, or in the same session: that is one purchase.
    """
    elapsed_s, latest = 0.0, ts
    at = index_of(user.bought_item, user.bought_n, item)
    if at >= 0:
        before = float(user.bought_ts[at])
        if 0.0 < before <= user.session_start - 1.0:  # kept in whole seconds
            elapsed_s = max(ts - before, 0.0)
        latest = max(ts, before)
    if at >= 0 or user.bought_n == BOUGHT_MAX:
        _forget_bought(user, max(at, 0))
    user.bought_item[user.bought_n] = item
    user.bought_ts[user.bought_n] = np.uint32(latest)
    user.bought_n += 1
    return elapsed_s


@kernel
def given_back_ts(user: Row, event: Row) -> float:
    """When what a refund gives back was bought last; 0 of other events, or when nobody knows."""
    if event.kind != _REFUND or event.item == 0:
        return 0.0
    at = index_of(user.bought_item, user.bought_n, event.item)
    return float(user.bought_ts[at]) if at >= 0 else 0.0


@kernel
def keep_books(user: Row, event: Row) -> float:
    """Cart and purchases; returns the seconds since an item bought again was bought before."""
    kind, elapsed_s = event.kind, 0.0
    if kind == _ADD and index_of(user.cart_item, user.cart_n, event.item) < 0:
        if user.cart_n == CART_MAX:
            user.cart_n = drop_at(user.cart_item, user.cart_n, 0)
        user.cart_item[signed(user.cart_n)] = event.item
        user.cart_n += 1
    elif kind in (_REMOVE, _PURCHASE):
        at = index_of(user.cart_item, user.cart_n, event.item)
        if at >= 0:
            user.cart_n = drop_at(user.cart_item, user.cart_n, at)
    if kind == _PURCHASE:
        user.purchases += 1
        user.purchase_ts = max(user.purchase_ts, event.ts)
        user.monetary += np.float32(event.value)
        if event.item != 0:
            elapsed_s = _remember_bought(user, event.item, event.ts)
    elif kind == _REFUND:
        user.monetary -= np.float32(event.value)
        at = index_of(user.bought_item, user.bought_n, event.item)
        if at >= 0:
            _forget_bought(user, at)
    return elapsed_s


@kernel
def note_query(user: Row, event: Row) -> None:
    """The words of a search, until the next one or the end of the session."""
    if event.kind == _SEARCH:
        n = 0
        while n < QUERY_MAX and event.query[n] != 0:
            user.query_word[n] = event.query[n]
            n += 1
        user.query_n = n


@kernel
def note_event(user: Row, event: Row) -> None:
    """What every event of a customer leaves behind."""
    user.last_ts = max(user.last_ts, event.ts)
    user.events += 1
    user.offset = event.offset
    user.anonymous = DEVICE if event.anonymous > 0 and event.device > 0 else event.anonymous
