"""How probable it is that a customer's next item is one of their recent ones.

One logistic regression per clickstream partition over a handful of categories of each recent item:
how long ago, how often, in which session, with what kind of event, and how this session has gone so
far. It learns from every item event by AdaGrad (Duchi et al. 2011), so that a shop whose customers
view an item again and again and one where a viewed item is put into the cart next both get
probabilities that hold. Called by LEARN before an event is applied, and by scoring after.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import allocating, kernel, signed
from stream_app.core.model import KIND, KINDS, RING_MAX

Row = Any

_KIND_BITS = 0x7F  # of ring_kind; the bit above says that a session began here

# Kinds that speak alike of what comes next: looking, cart, purchase, wish, anything else.
_CLASSES_N = 5
_CLASS = np.full(len(KINDS), 4, np.int64)
for _name, _class in {
    "view": 0,
    "click": 0,
    "add_to_cart": 1,
    "begin_checkout": 1,
    "purchase": 2,
    "wishlist": 3,
}.items():
    _CLASS[KIND[_name]] = _class

_AGES_S = np.array([10.0, 60.0, 300.0, 1800.0, 6 * 3600.0, 48 * 3600.0, 10 * 86400.0])
_AGES_N = len(_AGES_S) + 1
_LENGTHS_N, _RUNS_N, _PLACES_N, _TIMES_N, _DISTINCT_N = 7, 5, 7, 3, 5
_REPEATS_N, _RETURNS_N = 4, 4

# Blocks of weights. Those of the current item and of earlier ones are apart: the factor of two.
_EARLIER = _LENGTHS_N * _RUNS_N
_KINDS = _EARLIER + _PLACES_N * _TIMES_N * _DISTINCT_N * 2
_HABIT = _KINDS + _CLASSES_N * _CLASSES_N * 2
_AGE = _HABIT + _REPEATS_N * _RETURNS_N * 2
_PAUSE = _AGE + _AGES_N * 2
_OFTEN = _PAUSE + (_AGES_N + 1) * 2
REVISIT_WEIGHTS_N = _OFTEN + 5 * 2
CATEGORIES_N = 6

_PRIOR_LOGIT = -2.0  # before anything is learned, one recent item in eight comes next
_RATE = 0.2  # AdaGrad's step; 0.05 to 0.4 are within 1 % of each other's log loss
_DAMPING = 0.1  # squared gradient that a weight is born with, so that the first step is no leap


class Recent(NamedTuple):
    """The distinct items of one ring, newest first, and each one's categories (weights' indexes).

    ``items``, ``times`` (in the current session, or before it), ``often`` (in the ring), ``last``
    (place in the ring) ``(RING_MAX,)``; ``categories (RING_MAX, CATEGORIES_N)``.
    """

    items: NDArray[np.uint64]
    times: NDArray[np.int64]
    often: NDArray[np.int64]
    last: NDArray[np.int64]
    categories: NDArray[np.int64]


@allocating
def new_recent() -> Recent:
    """Work space for :func:`recent_items`."""
    return Recent(
        np.zeros(RING_MAX, np.uint64),
        np.zeros(RING_MAX, np.int64),
        np.zeros(RING_MAX, np.int64),
        np.zeros(RING_MAX, np.int64),
        np.zeros((RING_MAX, CATEGORIES_N), np.int64),
    )


@kernel
def _age(elapsed_s: float) -> int:
    age = 0
    while age < len(_AGES_S) and elapsed_s >= _AGES_S[age]:
        age += 1
    return age


@kernel
def _gather(user: Row, first: int, end: int, recent: Recent) -> int:
    """Distinct items of the whole ring; those of the current session come first by themselves."""
    n = 0
    for k in range(end - 1, -1, -1):
        item = user.ring_item[k]
        at = 0
        while at < n and recent.items[at] != item:
            at += 1
        if at == n:
            recent.items[n] = item
            recent.last[n] = k
            recent.often[n] = 0
            recent.times[n] = 0
            n += 1
        recent.often[at] += 1
        if k >= first or recent.last[at] < first:
            recent.times[at] += 1
    return n


@kernel
def _habits(user: Row, first: int, end: int, recent: Recent, n: int) -> tuple[int, int, int, int]:
    """Of the session: the run at its end, distinct items, repeats before the run, returns."""
    run = 1
    while end - 1 - run >= first and user.ring_item[end - 1 - run] == user.ring_item[end - 1]:
        run += 1
    distinct = 0
    while distinct < n and recent.last[distinct] >= first:
        distinct += 1
    switches = 0
    for k in range(first + 1, end):
        if user.ring_item[k] != user.ring_item[k - 1]:
            switches += 1
    # A session that never returns switches once per distinct item but the first.
    return run, distinct, end - first - distinct - (run - 1), switches - (distinct - 1)


@kernel
def recent_items(user: Row, recent: Recent) -> tuple[int, int]:
    """Fill ``recent`` from a customer's ring; returns how many, and how many of the session."""
    end = signed(user.ring_n)
    if end == 0:
        return 0, 0
    first = end - signed(user.session_n)
    n = _gather(user, first, end, recent)
    run, distinct, repeats, returns = _habits(user, first, end, recent, n)
    length = min(signed(user.session_events), _LENGTHS_N - 1)
    now = float(user.ring_ts[end - 1])
    pause = 0
    if end - first > 1:
        pause = 1 + _age(now - float(user.ring_ts[end - 2]))
    kind = _CLASS[user.ring_kind[end - 1] & _KIND_BITS]
    habit = min(repeats, _REPEATS_N - 1) * _RETURNS_N + min(returns, _RETURNS_N - 1)
    for q in range(n):
        category = recent.categories[q]
        current = 1 if q == 0 else 0
        inside = 1 if recent.last[q] >= first else 0
        if q == 0:
            category[0] = length * _RUNS_N + min(run, _RUNS_N - 1)
        else:
            shape = (min(q, _PLACES_N) - 1) * _TIMES_N + min(recent.times[q], _TIMES_N) - 1
            shape = shape * _DISTINCT_N + min(distinct, _DISTINCT_N - 1)
            category[0] = _EARLIER + shape * 2 + inside
        own = _CLASS[user.ring_kind[recent.last[q]] & _KIND_BITS]
        category[1] = _KINDS + (own * _CLASSES_N + kind) * 2 + current
        category[2] = _HABIT + habit * 2 + current
        category[3] = _AGE + _age(now - float(user.ring_ts[recent.last[q]])) * 2 + inside
        category[4] = _PAUSE + pause * 2 + current
        category[5] = _OFTEN + min(recent.often[q], 4) * 2 + current
    return n, distinct


@kernel
def revisit_logit(categories: NDArray[np.int64], q: int, weights: NDArray[np.float32]) -> float:
    """Log odds that the next item is the one with the categories ``categories[q]``."""
    z = _PRIOR_LOGIT
    for f in range(CATEGORIES_N):
        z += float(weights[categories[q, f]])
    return z


@kernel
def learn_revisits(
    item: int,
    recent: Recent,
    n: int,
    weights: NDArray[np.float32],
    squares: NDArray[np.float32],
) -> None:
    """One gradient step per recent item: ``item`` came next, the others did not."""
    categories = recent.categories
    for q in range(n):
        p = 1.0 / (1.0 + math.exp(-revisit_logit(categories, q, weights)))
        gradient = p - (1.0 if recent.items[q] == item else 0.0)
        for f in range(CATEGORIES_N):
            at = categories[q, f]
            squares[at] = float(squares[at]) + gradient * gradient
            step = _RATE * gradient / math.sqrt(float(squares[at]) + _DAMPING)
            weights[at] = float(weights[at]) - step
