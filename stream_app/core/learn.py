"""LEARN: a batch of events into customers' states, and the transitions that items learn from.

Runs before scoring: a session view that lags by one event halves the hit rate.
"""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bot_guard import is_too_fast
from stream_app.core.bounded import index_of, remember
from stream_app.core.customer import (
    FIRST_OF_SESSION,
    Row,
    add_to_vector,
    append_event,
    decay_vector,
    given_back_ts,
    keep_books,
    note_category,
    note_event,
    note_query,
)
from stream_app.core.cycles import new_cycles, note_cycle
from stream_app.core.insight import (
    Policy,
    after_event,
    before_event,
    new_desk,
    plain_policy,
    starts_session,
)
from stream_app.core.internal import (
    APPLIED,
    DUPLICATE,
    ERASED,
    NO_TIMER,
    QUARANTINED,
    REFUSED,
    STALE,
    Exchange,
    new_exchange,
    take_internal,
)
from stream_app.core.jit import allocating, copy_into, kernel, signed
from stream_app.core.journey import Plan, pass_time, take_step
from stream_app.core.learned import EVENT, TRANSITION, Learned
from stream_app.core.model import (
    GAP_MAX_S,
    INTERNAL,
    KIND,
    KIND_WEIGHTS,
    PREVIOUS_MAX,
    Model,
)
from stream_app.core.neighbourhood import SNAPSHOT, forget_customer, snapshot_due, take_snapshot
from stream_app.core.raw import picked, zeroed
from stream_app.core.revisits import Recent, learn_revisits, new_recent, recent_items
from stream_app.core.sampling import Sample, keep, new_sample
from stream_app.core.state import new_users

__all__ = [  # outcomes are told apart where internal events are, and used with what is learned
    "APPLIED",
    "DUPLICATE",
    "ERASED",
    "EVENT",
    "NO_TIMER",
    "QUARANTINED",
    "REFUSED",
    "STALE",
    "TRANSITION",
    "Learned",
    "learn",
    "learn_events",
]

_PLAIN = plain_policy()
_BLANK = new_users(np.zeros(1, np.uint64))
_VIEW, _CLICK = KIND["view"], KIND["click"]
_ADD, _PURCHASE, _REFUND = KIND["add_to_cart"], KIND["purchase"], KIND["refund"]
_ERASE = KIND["erase"]
_INTERNAL = KIND[INTERNAL[0]]


@kernel
def _learn_recent(user: Row, partition: Row, item: int, recent: Recent) -> None:
    """Whether the customer's next item was one of their recent ones, seen from before."""
    n, _ = recent_items(user, recent)
    learn_revisits(item, recent, n, partition.revisit_weights, partition.revisit_squares)


@kernel
def _enter_session(user: Row, event: Row, model: Model, plan: Plan) -> None:
    """Start a new session when the session id changes, or without ids after a pause."""
    if user.events > 0:
        pass_time(user, event.ts, plan.timeouts)
    if starts_session(user, event, model):
        user.sessions += 1
        user.session_start = event.ts
        user.category_views = 0
        user.session_n = 0
        user.session_events = 0
        user.query_n = 0
        if user.events == 0:
            user.first_ts = event.ts
            user.step = plan.start
            user.previous_step = plan.start
            user.entered_at = event.ts
    if event.session != 0:
        user.session = event.session


@kernel
def _take_step(user: Row, partition: Row, event: Row, returning: bool, plan: Plan) -> None:
    """Move along the journey."""
    step = take_step(user, event, returning, plan)
    if step != user.step:
        partition.step_counts[user.step, step] += 1.0
        user.previous_step = user.step
        user.step = step
        user.entered_at = event.ts


@kernel
def _count_move(user: Row, partition: Row, event: Row) -> None:
    """How often a session goes on, and how often with the same item."""
    if user.session_n > 0:
        partition.transitions += 1.0
        if user.ring_item[signed(user.ring_n) - 1] == event.item:
            partition.repeats += 1.0


@kernel
def _set_previous(user: Row, at: int, ts: float, d: int, out: Row) -> None:
    """The item at place ``at`` of the ring, -1 = none, came ``d`` places before one at ``ts``.

    Times go by whole seconds, as the ring has them: what is taken back later must weigh the same.
    """
    if at >= 0:  # no conditional expression: with a signed 0 it would be a float in numba
        out.previous[d] = user.ring_item[at]
        out.gap_s[d] = min(max(int(ts) - signed(user.ring_ts[at]), 0), GAP_MAX_S)
    else:
        out.previous[d] = 0
        out.gap_s[d] = 0


@kernel
def _say(event: Row, ts: float, weight: float, out: Row) -> None:
    """What the event says of its item alone, as of ``ts``."""
    out.item = event.item
    out.ts = ts
    out.offset = event.offset
    out.weight = weight
    copy_into(out.segment, event.segment)


@kernel
def _retract(
    user: Row, event: Row, weight: float, bought_ts: float, out: NDArray[np.void], n: int
) -> int:
    """Take back the latest matching event as it was learned: same neighbours, same time.

    Of a purchase that is no longer among the recent events, but remembered as of ``bought_ts``,
    what the item itself got: its neighbours are forgotten.
    """
    taken_back = _PURCHASE if event.kind == _REFUND else _ADD
    for k in range(signed(user.ring_n) - 1, -1, -1):
        if user.ring_item[k] == event.item and user.ring_kind[k] & 0x7F == taken_back:
            at = k
            for d in range(PREVIOUS_MAX):
                at = -1 if at < 0 or user.ring_kind[at] & FIRST_OF_SESSION else at - 1
                _set_previous(user, at, float(user.ring_ts[k]), d, out[n])
            _say(event, float(user.ring_ts[k]), weight, out[n])
            user.ring_kind[k] = _VIEW | (user.ring_kind[k] & FIRST_OF_SESSION)  # taken back once
            return n + 1
    if bought_ts > 0.0:
        for d in range(PREVIOUS_MAX):
            _set_previous(user, -1, bought_ts, d, out[n])
        _say(event, bought_ts, weight, out[n])
        return n + 1
    return n


@kernel
def _transition(user: Row, event: Row, weight: float, out: Row) -> None:
    for d in range(PREVIOUS_MAX):
        at = signed(user.ring_n) - 1 - d if d < user.session_n else -1
        _set_previous(user, at, event.ts, d, out)
    _say(event, event.ts, weight, out)


@kernel
def _choose(
    user: Row,
    partition: Row,
    event: Row,
    weight: float,
    learn_globals: bool,
    snapshot: Row,
    out: Row,
) -> None:
    """The customer turns to an item: the transition to it, and the session so far."""
    if user.session_n == 0:
        take_snapshot(user, event.ts, event.offset, snapshot)
    if learn_globals:
        _count_move(user, partition, event)
    _transition(user, event, weight, out)
    append_event(user, event.item, event.ts, event.kind)
    note_category(user, event.category)


@kernel
def _refused(user: Row, event: Row, one_more: bool, last: int, model: Model) -> int:
    """Why the event is not taken, else ``APPLIED``; those of one record go the same way."""
    if event.refused:
        return REFUSED
    if one_more:
        return last if last in (DUPLICATE, QUARANTINED) else APPLIED
    if event.kind >= _INTERNAL:
        return APPLIED
    if event.event_id != 0:
        if index_of(user.seen, user.seen_n, event.event_id) >= 0:
            return DUPLICATE
        user.seen_n = remember(user.seen, user.seen_n, event.event_id)
    if event.kind != _ERASE and is_too_fast(user, event.ts, model):
        return QUARANTINED
    return APPLIED


@kernel
def _is_in_session(user: Row, item: int) -> bool:
    first = signed(user.ring_n) - signed(user.session_n)
    return bool(index_of(user.ring_item[first:], user.session_n, item) >= 0)


@kernel
def _keep_books(user: Row, event: Row, cycles: Row, learn_globals: bool) -> None:
    elapsed_s = keep_books(user, event)
    if elapsed_s > 0.0 and learn_globals:
        note_cycle(cycles, event.item, event.category, elapsed_s, event.ts)
    note_query(user, event)


@kernel
def _erase(
    users: NDArray[np.void], row: int, event: Row, blank: NDArray[np.void], snapshot: Row
) -> None:
    """The customer begins anew, and so do the owners of their items."""
    forget_customer(users[row], event.offset, snapshot)
    users[row] = blank[0]
    users[row].id = event.customer


@kernel
def _weigh(user: Row, event: Row, weight: float, snapshot: Row) -> None:
    """What the customer did with the item counts in their vector, and is told now and then."""
    add_to_vector(user, event.item, weight)
    if weight > 0.0 and snapshot_due(user):
        take_snapshot(user, event.ts, event.offset, snapshot)


@kernel
def _note_ends(
    ends: NDArray[np.int64], e: int, n: int, snapshots: NDArray[np.void], exchange: Exchange
) -> None:
    """What there is before event ``e``."""
    told = 0
    if e > 0:
        told = ends[e - 1, 1]
        if snapshots[e - 1].item[0] != 0:
            told += 1
    ends[e, 0], ends[e, 1], ends[e, 2] = n, told, exchange.n[0]


@allocating
def learn_events(
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    events: NDArray[np.void],
    homes: NDArray[np.int64],
    partitions: NDArray[np.void],
    cycles: NDArray[np.void],
    plan: Plan,
    weights: NDArray[np.float64],
    model: Model,
    policy: Policy,
    learn_globals: bool,
    blank: NDArray[np.void],
    status: NDArray[np.uint8],
    timers: NDArray[np.uint8],
    sample: Sample,
    exchange: Exchange,
    out: NDArray[np.void],
    snapshots: NDArray[np.void],
    ends: NDArray[np.int64],
) -> None:
    """Apply ``events`` in order to ``users[rows]``, ``partitions[homes]``; fills the rest."""
    recent, desk = new_recent(), new_desk()
    n = 0
    for e in range(len(events)):
        event, user, part = events[e], users[rows[e]], partitions[homes[e]]
        mind = part.insight
        _note_ends(ends, e, n, snapshots, exchange)
        # Of the same record as the one before.
        one_more = e > 0 and homes[e] == homes[e - 1] and event.offset == events[e - 1].offset
        status[e] = _refused(user, event, one_more, status[e - 1], model)
        if status[e] != APPLIED:
            part.rejected += 0 if one_more else 1
            continue
        if event.kind == _ERASE:
            _erase(users, rows[e], event, blank, snapshots[e])
            status[e] = ERASED
            part.applied += 1
            continue
        if event.kind >= _INTERNAL:
            status[e], timers[e] = take_internal(
                users, rows[e], part, mind, event, plan, model, policy, desk, blank, exchange
            )
            continue
        weight = weights[event.kind]
        chosen = event.item != 0 and weight > 0.0
        if learn_globals:
            if chosen:
                _learn_recent(user, part, event.item, recent)
                keep(sample, e, users, rows[e], part)
            before_event(user, mind, event, one_more, model, policy, desk)
        _enter_session(user, event, model, plan)
        decay_vector(user, event.ts - user.last_ts, model.vector_half_life_s)
        returning = chosen and _is_in_session(user, event.item)
        bought_ts = given_back_ts(user, event)  # books forget what was given back
        _keep_books(user, event, cycles[homes[e]], learn_globals)
        if chosen:
            _choose(user, part, event, weight, learn_globals, snapshots[e], out[n])
            n += 1
        elif event.item != 0 and weight < 0.0:
            n = _retract(user, event, weight, bought_ts, out, n)
        if event.item != 0 and weight != 0.0:
            _weigh(user, event, weight, snapshots[e])
        _take_step(user, part, event, returning, plan)
        note_event(user, event)
        if learn_globals:
            after_event(user, mind, event, policy, desk)
        part.applied += 0 if one_more else 1
    _note_ends(ends, len(events), n, snapshots, exchange)


def learn(
    users: NDArray[np.void],
    rows: NDArray[np.int64],
    events: NDArray[np.void],
    partitions: NDArray[np.void],
    model: Model,
    plan: Plan,
    *,
    homes: NDArray[np.int64] | None = None,
    policy: Policy = _PLAIN,
    adopted: NDArray[np.void] | None = None,
    cycles: NDArray[np.void] | None = None,
    learn_globals: bool = True,
) -> Learned:
    """Apply ``(n,) EVENT`` records in order, in place, to ``users[rows]`` and ``partitions (p,)``.

    ``homes (n,)`` is the row of each event's partition, 0 where not given; events of one follow
    each other. ``adopted (m,) USER`` are the states that the m merge events carry; ``cycles (p,)
    CYCLES`` learns, in place, how long customers wait before they buy an item again.
    ``policy`` are the actions and experiments that are on. ``learn_globals=False`` leaves what the
    partition learns about all its customers as it is (the frozen evaluation protocol).
    """
    status, timers = np.zeros(len(events), np.uint8), np.full(len(events), NO_TIMER, np.uint8)
    out, snapshots = zeroed(len(events), TRANSITION), zeroed(len(events), SNAPSHOT)
    exchange = new_exchange(events["kind"], adopted)
    sample = new_sample(events["offset"], wanted=learn_globals)
    ends = np.empty((len(events) + 1, 3), np.int64)
    learn_events(
        users,
        rows,
        events,
        np.zeros(len(events), np.int64) if homes is None else homes,
        partitions,
        new_cycles() if cycles is None else cycles,
        plan,
        KIND_WEIGHTS,
        model,
        policy,
        learn_globals,
        _BLANK,
        status,
        timers,
        sample,
        exchange,
        out,
        snapshots,
        ends,
    )
    told = picked(snapshots, snapshots["item"][:, 0] != 0)
    handed = exchange.handed[: exchange.n[0]]
    return Learned(status, out[: ends[-1, 0]], told, timers, handed, *sample.kept(), ends)
