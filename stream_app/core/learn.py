"""LEARN: a batch of events into customers' states, and the transitions that items learn from.

Runs before scoring: a session view that lags by one event halves the hit rate.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bounded import drop_at, index_of, remember
from stream_app.core.jit import kernel, signed
from stream_app.core.journey import STEP, transition_table
from stream_app.core.model import (
    BOUGHT_MAX,
    CART_MAX,
    INTERNAL,
    KIND,
    KIND_WEIGHTS,
    PREVIOUS_MAX,
    RING_MAX,
    VECTOR_MAX,
    Model,
)
from stream_app.core.revisits import Recent, learn_revisits, new_recent, recent_items
from stream_app.core.sampling import Sample, keep, new_sample
from stream_app.core.state import new_users

# One event as the kernels see it; hashes are 0 where the event has no such field.
EVENT = np.dtype(
    [
        ("customer", "u8"),
        ("item", "u8"),
        ("ts", "f8"),
        ("offset", "i8"),
        ("value", "f8"),  # price times quantity
        ("units", "f4"),
        ("session", "u4"),
        ("event_id", "u4"),
        ("category", "u4"),
        ("kind", "u1"),
        ("anonymous", "u1"),
    ],
    align=True,
)

# What one item event says about item pairs; sent to the owners of all its items.
TRANSITION = np.dtype(
    [
        ("item", "u8"),
        ("previous", "u8", (PREVIOUS_MAX,)),  # nearest first, 0 = none
        ("ts", "f8"),
        ("offset", "i8"),  # of the event in its clickstream partition
        ("weight", "f8"),
    ],
    align=True,
)

APPLIED, DUPLICATE, ERASED, STALE = range(4)
_TABLE = transition_table()
_BROWSE, _CONSIDER, _CART = STEP["browse"], STEP["consider"], STEP["cart"]
_DISCOVER, _DORMANT = STEP["discover"], STEP["dormant"]
_VIEW, _CLICK = KIND["view"], KIND["click"]
_ADD, _REMOVE = KIND["add_to_cart"], KIND["remove_from_cart"]
_PURCHASE, _REFUND = KIND["purchase"], KIND["refund"]
_ERASE, _REFRESH, _INTERNAL = KIND["erase"], KIND["refresh"], KIND[INTERNAL[0]]
FIRST_OF_SESSION = 0x80  # in ring_kind, beside the kind: it was paired with nothing before


class Learned(NamedTuple):
    """``status`` (events,) uint8 and the ``transitions`` (n,) TRANSITION in event order.

    ``probes (p,) USER`` are customers as they were before the events ``probed (p,)``.
    """

    status: NDArray[np.uint8]
    transitions: NDArray[np.void]
    probes: NDArray[np.void]
    probed: NDArray[np.int64]


Row = Any  # one record of a structured array, as numba sees it


@kernel
def _learn_recent(user: Row, partition: Row, item: int, recent: Recent) -> None:
    """Whether the customer's next item was one of their recent ones, seen from before."""
    n, _ = recent_items(user, recent)
    learn_revisits(item, recent, n, partition.revisit_weights, partition.revisit_squares)


@kernel
def _decay_vector(user: Row, elapsed_s: float, half_life_s: float) -> None:
    if elapsed_s > 0.0 and user.vector_n > 0:
        factor = np.float32(0.5 ** (elapsed_s / half_life_s))
        for k in range(user.vector_n):
            user.vector_weight[k] *= factor


@kernel
def _add_to_vector(user: Row, item: int, weight: float) -> None:
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
def _append_event(user: Row, item: int, ts: float, kind: int) -> None:
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
def _note_category(user: Row, category: int) -> None:
    """How many item events in a row named this category; those that name none say nothing."""
    if category != 0:
        same = user.category == category
        user.category_views = min(user.category_views + 1, 255) if same else 1
        user.category = category


@kernel
def _enter_session(user: Row, event: Row, model: Model) -> None:
    """Start a new session when the session id changes, or without ids after a pause."""
    pause = event.ts - user.last_ts
    if user.session != 0 and event.session != 0:
        fresh = user.session != event.session
    else:
        fresh = pause > model.session_gap_s
    if user.events == 0 or fresh:
        user.sessions += 1
        user.session_start = event.ts
        user.category_views = 0
        user.session_n = 0
        user.session_events = 0
        if user.events == 0:
            user.first_ts = event.ts
            user.step = _DISCOVER
            user.previous_step = _DISCOVER
            user.entered_at = event.ts
        elif pause > model.dormant_after_s:
            user.previous_step = user.step
            user.step = _DORMANT
            user.entered_at = user.last_ts + model.dormant_after_s
    if event.session != 0:
        user.session = event.session


@kernel
def _take_step(
    user: Row, partition: Row, event: Row, table: NDArray[np.uint8], returning: bool
) -> None:
    """Move along the journey table; coming back to an item means considering it."""
    step = table[event.kind, user.step]
    if returning and step == _BROWSE:
        step = _CONSIDER
    if step == _CART and user.cart_n == 0 and event.kind == _REMOVE:
        step = _BROWSE
    if step != user.step:
        partition.step_counts[user.step, step] += 1.0
        user.previous_step = user.step
        user.step = step
        user.entered_at = event.ts


@kernel
def _keep_books(user: Row, event: Row) -> None:
    """Cart and purchases."""
    kind = event.kind
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
        if event.item != 0 and index_of(user.bought_item, user.bought_n, event.item) < 0:
            if user.bought_n == BOUGHT_MAX:
                user.bought_n = drop_at(user.bought_item, user.bought_n, 0)
            user.bought_item[user.bought_n] = event.item
            user.bought_n += 1
    elif kind == _REFUND:
        user.monetary -= np.float32(event.value)
        at = index_of(user.bought_item, user.bought_n, event.item)
        if at >= 0:
            user.bought_n = drop_at(user.bought_item, user.bought_n, at)


@kernel
def _retract(user: Row, event: Row, weight: float, out: NDArray[np.void], n: int) -> int:
    """Take back the latest matching event as it was learned: same neighbours, same time."""
    taken_back = _PURCHASE if event.kind == _REFUND else _ADD
    for k in range(signed(user.ring_n) - 1, -1, -1):
        if user.ring_item[k] == event.item and user.ring_kind[k] & 0x7F == taken_back:
            out[n].item = event.item
            at = k
            for d in range(PREVIOUS_MAX):
                at = -1 if at < 0 or user.ring_kind[at] & FIRST_OF_SESSION else at - 1
                if at >= 0:
                    out[n].previous[d] = user.ring_item[at]
                else:  # no conditional expression: with a signed 0 it would be a float in numba
                    out[n].previous[d] = 0
            out[n].ts = float(user.ring_ts[k])
            out[n].offset = event.offset
            out[n].weight = weight
            user.ring_kind[k] = _VIEW | (user.ring_kind[k] & FIRST_OF_SESSION)  # taken back once
            return n + 1
    return n


@kernel
def _transition(user: Row, event: Row, weight: float, out: Row) -> None:
    out.item = event.item
    for d in range(PREVIOUS_MAX):
        if d < user.session_n:
            out.previous[d] = user.ring_item[signed(user.ring_n) - 1 - d]
        else:
            out.previous[d] = 0
    out.ts = event.ts
    out.offset = event.offset
    out.weight = weight


@kernel
def _take_internal(user: Row, partition: Row, event: Row) -> int:
    """Believe a record of our own as far as the customer's state bears it out."""
    if event.kind == _REFRESH and user.events > 0:
        user.offset = event.offset  # the version of lists that are ranked anew
        partition.applied += 1
        return APPLIED
    partition.rejected += 1
    return STALE


@kernel
def _is_repeated(user: Row, event: Row, one_more: bool, last: int) -> bool:
    """Whether the event's record was applied before: its events are taken or dropped together."""
    if one_more:
        return bool(last == DUPLICATE)
    if event.event_id == 0 or event.kind >= _INTERNAL:
        return False
    if index_of(user.seen, user.seen_n, event.event_id) >= 0:
        return True
    user.seen_n = remember(user.seen, user.seen_n, event.event_id)
    return False


@kernel
def learn_events(
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    events: NDArray[np.void],
    partition: NDArray[np.void],
    table: NDArray[np.uint8],
    weights: NDArray[np.float64],
    model: Model,
    learn_globals: bool,
    blank: NDArray[np.void],
    status: NDArray[np.uint8],
    sample: Sample,
    out: NDArray[np.void],
) -> int:
    """Apply ``events`` in order to ``users[rows]``; returns how many transitions are in ``out``."""
    recent = new_recent()
    part = partition[0]
    n = 0
    for e in range(len(events)):
        event = events[e]
        user = users[rows[e]]
        one_more = e > 0 and event.offset == events[e - 1].offset  # of the same record
        if _is_repeated(user, event, one_more, status[e - 1]):
            status[e] = DUPLICATE
            part.rejected += 0 if one_more else 1
            continue
        if event.kind == _ERASE:
            users[rows[e]] = blank[0]
            users[rows[e]].id = event.customer
            status[e] = ERASED
            part.applied += 1
            continue
        if event.kind >= _INTERNAL:
            status[e] = _take_internal(user, part, event)
            continue
        if learn_globals and event.item != 0 and weights[event.kind] > 0.0:
            _learn_recent(user, part, event.item, recent)
            keep(sample, e, users, rows[e], part)
        _enter_session(user, event, model)
        _decay_vector(user, event.ts - user.last_ts, model.vector_half_life_s)
        weight = weights[event.kind]
        first = signed(user.ring_n) - signed(user.session_n)
        returning = (
            event.item != 0
            and weight > 0.0
            and index_of(user.ring_item[first:], user.session_n, event.item) >= 0
        )
        _keep_books(user, event)
        _take_step(user, part, event, table, returning)
        if event.item != 0 and weight > 0.0:
            if learn_globals and user.session_n > 0:
                part.transitions += 1.0
                if user.ring_item[signed(user.ring_n) - 1] == event.item:
                    part.repeats += 1.0
            _transition(user, event, weight, out[n])
            n += 1
            _append_event(user, event.item, event.ts, event.kind)
            _note_category(user, event.category)
        elif event.item != 0 and weight < 0.0:
            n = _retract(user, event, weight, out, n)
        if event.item != 0 and weight != 0.0:
            _add_to_vector(user, event.item, weight)
        user.last_ts = max(user.last_ts, event.ts)
        user.events += 1
        user.offset = event.offset
        user.anonymous = event.anonymous
        part.applied += 0 if one_more else 1
    return n


def learn(
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    events: NDArray[np.void],
    partition: NDArray[np.void],
    model: Model,
    *,
    learn_globals: bool = True,
) -> Learned:
    """Apply ``(n,) EVENT`` records in order, in place, to ``users[rows]`` and ``partition``.

    ``learn_globals=False`` leaves the partition's repeat and return tables as they are (the frozen
    evaluation protocol).
    """
    status = np.zeros(len(events), np.uint8)
    out = np.zeros(len(events), TRANSITION)
    sample = new_sample(events["offset"], wanted=learn_globals)
    n = learn_events(
        users,
        rows,
        events,
        partition,
        _TABLE,
        KIND_WEIGHTS,
        model,
        learn_globals,
        new_users(np.zeros(1, np.uint64)),
        status,
        sample,
        out,
    )
    return Learned(status, out[:n], *sample.kept())
