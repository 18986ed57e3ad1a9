"""Predict what a customer will do, and learn from what they did. Called by LEARN at every event.

Three yes-or-no questions, each a Bayesian logistic regression on the customer's moment
(:mod:`stream_app.core.moments`):

- ``purchase_in_session``: a purchase in the rest of this session;
- ``purchase_in_week``: a purchase in the next seven days;
- ``churn``: no other session within ``churn_after_s`` of this one's end;

besides the class of the next event (Dirichlet-smoothed counts by journey step and last event) and
the value of the order, should there be one (a gamma regression with log link, by AdaGrad).

Labels come late. Of every session, and of every customer's week, one moment is sampled with equal
chances (Vitter 1985, by a hash of customer and offset), kept in the customer's state, and learned
once its label is certain, with the weight of all moments it stands for: first the prediction made
then is measured, then the model moves. The same log gives the same models, bit for bit.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.chance import uniform
from stream_app.core.insight_fields import CHURN, IN_SESSION, IN_WEEK, NEXT_EVENT
from stream_app.core.jit import allocating, copy_into, kernel, signed
from stream_app.core.model import KIND
from stream_app.core.moments import (
    CLASS_OF_KIND,
    CODES_MAX,
    FEATURES_N,
    NOTHING,
    SESSION_END,
    STEPS_SHOWN,
    show,
    to_slots,
)
from stream_app.core.prequential import LABELS, WEIGHT, note_label
from stream_app.core.slots import belief, learn_row, moderated, variance_min

Row = Any

WEEK_S = 7 * 86400.0
_WEIGHT_MAX = 64  # moments that one sampled moment may stand for
_SHARE_MAX = 4.0  # observations that a label may count as when learned
_PRIOR_VARIANCE = 4.0 / FEATURES_N
_DRIFT_GAIN = 4.0  # how much less is known after a drift
_BACKOFF = 5.0  # events that the counts over all steps are worth beside those of one step
_SMOOTH = 0.5  # Dirichlet prior of each outcome
_VALUE_RATE, _VALUE_DAMPING = 0.1, 1.0
_CLASSES = SESSION_END + 1
_PURCHASE, _ADD = KIND["purchase"], KIND["add_to_cart"]
_SEEN, _MEAN, _SQUARED, _BASE_SQUARED, _OFF = range(5)  # of INSIGHT.value


class Scratch(NamedTuple):
    """Work space of one pass over a batch."""

    codes: NDArray[np.uint8]
    slots: NDArray[np.int64]


@allocating
def new_scratch() -> Scratch:
    """Work space for :func:`settle` and :func:`foresee`."""
    return Scratch(np.zeros(CODES_MAX, np.uint8), np.zeros(FEATURES_N, np.int64))


@kernel
def _learn_label(
    mind: Row,
    head: int,
    codes: NDArray[np.uint8],
    p: float,
    positive: bool,
    weight: int,
    ts: float,
    scratch: Scratch,
) -> None:
    """Measure the prediction ``p``, then learn; after a drift, believe the past less."""
    w = float(min(signed(weight), _WEIGHT_MAX))
    drifted = note_label(p, positive, w, ts, mind.gauges[head], mind.buckets[head])
    to_slots(codes, scratch.slots)
    mean, variance = mind.belief_mean[head], mind.belief_variance[head]
    # Relative weights: one sampled moment is one observation, however many it stands for.
    typical = mind.gauges[head, WEIGHT] / mind.gauges[head, LABELS]
    share = min(w / typical, _SHARE_MAX)
    learn_row(scratch.slots, positive, share, mean, variance, variance_min)
    if drifted:
        for s in range(len(variance)):
            variance[s] = min(_PRIOR_VARIANCE, _DRIFT_GAIN * float(variance[s]))


@kernel
def _expected_value(mind: Row, slots: NDArray[np.int64]) -> float:
    total = 0.0
    for slot in slots:
        total += float(mind.value_weight[slot])
    return float(mind.value[_MEAN]) * math.exp(min(max(total, -3.0), 3.0))


@kernel
def _learn_value(
    mind: Row, codes: NDArray[np.uint8], value: float, weight: int, scratch: Scratch
) -> None:
    """Of a session that bought for ``value``: one gradient step of a gamma regression."""
    to_slots(codes, scratch.slots)
    books = mind.value
    expected = _expected_value(mind, scratch.slots)
    w = float(min(signed(weight), _WEIGHT_MAX))
    if books[_SEEN] > 0.0:
        books[_SQUARED] += w * (value - expected) ** 2
        books[_BASE_SQUARED] += w * (value - books[_MEAN]) ** 2
        books[_OFF] += w * abs(value - expected)
        gradient = min(w, 8.0) * max(1.0 - value / max(expected, 1e-9), -5.0)
        for slot in scratch.slots:
            square = float(mind.value_square[slot]) + gradient * gradient
            mind.value_square[slot] = square
            step = _VALUE_RATE * gradient / math.sqrt(square + _VALUE_DAMPING)
            mind.value_weight[slot] = float(mind.value_weight[slot]) - step
    books[_SEEN] += w
    books[_MEAN] += (value - books[_MEAN]) * w / books[_SEEN]


@kernel
def next_chances(mind: Row, step: int, last: int, out: NDArray[np.float64]) -> None:
    """Probability of each class of event to come next, ``out (10,)``; see ``moments.CLASSES``."""
    total, inner = 0.0, 0.0
    for c in range(_CLASSES):
        total += float(mind.next_any[last, c]) + _SMOOTH
        inner += float(mind.next[step, last, c])
    for c in range(_CLASSES):
        prior = (float(mind.next_any[last, c]) + _SMOOTH) / total
        out[c] = (float(mind.next[step, last, c]) + _BACKOFF * prior) / (inner + _BACKOFF)


@allocating
def _learn_next(mind: Row, user: Row, outcome: int, ts: float) -> None:
    """What came after the customer's last event; measured as: was it the likeliest class?"""
    chances = np.zeros(_CLASSES)
    step, last = min(signed(user.step), STEPS_SHOWN - 1), signed(user.last_class)
    next_chances(mind, step, last, chances)
    likeliest = int(np.argmax(chances))
    hit = likeliest == outcome
    note_label(chances[likeliest], hit, 1.0, ts, mind.gauges[NEXT_EVENT], mind.buckets[NEXT_EVENT])
    mind.next[step, last, outcome] = float(mind.next[step, last, outcome]) + 1.0
    mind.next_any[last, outcome] = float(mind.next_any[last, outcome]) + 1.0
    if mind.next_any[last, outcome] > 100_000.0:  # the past counts half, and float32 stays exact
        for c in range(_CLASSES):
            mind.next_any[last, c] = float(mind.next_any[last, c]) * 0.5
    if mind.next[step, last, outcome] > 10_000.0:
        for c in range(_CLASSES):
            mind.next[step, last, c] = float(mind.next[step, last, c]) * 0.5


@kernel
def _week_of(user: Row, ts: float) -> float:
    """Number of the customer's own week: weeks of different customers begin at different times."""
    return float(math.floor(ts / WEEK_S + uniform(user.id, 0, 2)))


@kernel
def _settle_weeks(user: Row, mind: Row, now: float, scratch: Scratch) -> None:
    if user.ripe_on > 0 and now > float(user.ripe_ts) + WEEK_S:
        bought = user.ripe_bought > 0
        _learn_label(mind, IN_WEEK, user.ripe_codes, user.ripe_p, bought, user.ripe_n, now, scratch)
        user.ripe_on = 0
    if user.week_on == 0 or _week_of(user, now) == _week_of(user, float(user.week_ts)):
        return
    if user.week_bought > 0 or now > float(user.week_ts) + WEEK_S:
        bought = user.week_bought > 0
        _learn_label(mind, IN_WEEK, user.week_codes, user.week_p, bought, user.week_n, now, scratch)
    else:
        copy_into(user.ripe_codes, user.week_codes)
        user.ripe_p, user.ripe_ts, user.ripe_n = user.week_p, user.week_ts, user.week_n
        user.ripe_bought = 0
        user.ripe_on = CODES_MAX
    user.week_on = 0


@kernel
def session_ended(user: Row, now: float, new_session: bool, gap_s: float) -> bool:
    """Whether the session that is open in the state is over, and not yet settled."""
    return user.session_open > 0 and (new_session or now - user.last_ts > gap_s)


@kernel
def settle(
    user: Row,
    mind: Row,
    now: float,
    new_session: bool,
    gap_s: float,
    churn_after_s: float,
    scratch: Scratch,
) -> None:
    """Learn every label of ``user`` that is certain at ``now``, before the event is applied.

    Also right for a customer without an event: a journey timer, the end of a replay.
    """
    _settle_weeks(user, mind, now, scratch)
    if session_ended(user, now, new_session, gap_s):
        _learn_next(mind, user, SESSION_END, now)
        if user.moment_on > 0:
            bought = user.moment_bought > 0
            _learn_label(
                mind,
                IN_SESSION,
                user.moment_codes,
                user.moment_p,
                bought,
                user.moment_n,
                now,
                scratch,
            )
            if bought and user.moment_value > 0.0:
                value = float(user.moment_value)
                _learn_value(mind, user.moment_codes, value, user.moment_n, scratch)
            user.moment_on = 0
        user.moment_n = 0
        user.session_open = 0
    pause = now - user.last_ts
    if user.events > 0 and user.churned == 0 and (new_session or pause > churn_after_s):
        # The state since the session's end is the state at its end: the moment needs no keeping.
        item: Any = np.uint64(0)  # of the ids' type: with an int, both would be floats in numba
        if user.ring_n > 0:
            item = user.ring_item[signed(user.ring_n) - 1]
        show_moment(user, mind, user.last_ts, item, scratch.codes)
        gone = pause > churn_after_s
        _learn_label(mind, CHURN, scratch.codes, user.p_churn, gone, 1, now, scratch)
        user.churned = 1
    if new_session:
        user.session_bought = 0
        user.session_value = 0.0
        user.absence_s = max(pause, 0.0) if user.events > 0 else 0.0
        user.session_moves = 0
        user.session_adds = 0
        user.moment_n = 0
        user.churned = 0


@kernel
def price_deviations(user: Row, mind: Row) -> float:
    """How dear what the customer looks at is: standard deviations of log price from the mean."""
    if user.price_n == 0 or mind.price[0] < 2.0:
        return 0.0
    off = float(user.price_level) - float(mind.price[1])
    return off / math.sqrt(max(float(mind.price[2]), 1e-6))


@kernel
def show_moment(user: Row, mind: Row, ts: float, item: int, codes: NDArray[np.uint8]) -> None:
    """The codes of :func:`stream_app.core.moments.show`, in this shop."""
    show(user, ts, item, mind.value[_MEAN], price_deviations(user, mind), codes)


@kernel
def _note_price(user: Row, mind: Row, value: float) -> None:
    level = math.log(value)
    n = min(signed(user.price_n) + 1, 20)
    user.price_n = n
    user.price_level = float(user.price_level) + (level - float(user.price_level)) / n
    mind.price[0] = min(mind.price[0] + 1.0, 5_000.0)
    off = level - mind.price[1]
    mind.price[1] += off / mind.price[0]
    mind.price[2] += (off * (level - mind.price[1]) - mind.price[2]) / mind.price[0]


@kernel
def _predict(user: Row, mind: Row, slots: NDArray[np.int64]) -> None:
    mean, variance = belief(slots, mind.belief_mean[IN_SESSION], mind.belief_variance[IN_SESSION])
    user.p_session = moderated(mean, variance)
    mean, variance = belief(slots, mind.belief_mean[IN_WEEK], mind.belief_variance[IN_WEEK])
    user.p_week = moderated(mean, variance)
    mean, variance = belief(slots, mind.belief_mean[CHURN], mind.belief_variance[CHURN])
    user.p_churn = moderated(mean, variance)
    user.order_value = _expected_value(mind, slots)


@kernel
def anticipate(user: Row, mind: Row, event: Row, new_session: bool, one_more: bool) -> None:
    """Before the event is applied: measure and learn what kind of event it is; note the pause."""
    outcome = CLASS_OF_KIND[event.kind]
    if outcome == NOTHING:
        return
    if one_more:
        pass
    elif user.session_open > 0 and not new_session:
        _learn_next(mind, user, outcome, event.ts)
        user.pause_s = max(event.ts - user.last_ts, 0.0)
    else:
        user.pause_s = 0.0
    if event.kind == _PURCHASE:
        user.moment_bought = 1
        user.week_bought = 1
        user.ripe_bought = 1
        user.moment_value = float(user.moment_value) + event.value
        user.session_bought = 1
        user.session_value = float(user.session_value) + event.value


@kernel
def foresee(user: Row, mind: Row, event: Row, scratch: Scratch) -> bool:
    """After the event was applied: predict, and perhaps make this the sampled moment.

    Returns whether it now is the session's sampled moment.
    """
    outcome = CLASS_OF_KIND[event.kind]
    if outcome == NOTHING:
        return False
    user.session_open = 1
    user.last_class = outcome
    user.last_kind = event.kind
    user.session_moves = min(signed(user.session_moves) + 1, 65535)
    if event.kind == _ADD:
        user.session_adds = min(signed(user.session_adds) + 1, 255)
        user.add_ts = np.uint32(event.ts)
    if event.value > 0.0:
        _note_price(user, mind, event.value)
    show_moment(user, mind, event.ts, event.item, scratch.codes)
    to_slots(scratch.codes, scratch.slots)
    _predict(user, mind, scratch.slots)
    _sample_week(user, event, scratch)
    user.moment_n = min(signed(user.moment_n) + 1, 65535)
    if uniform(user.id, event.offset, 0) * float(user.moment_n) >= 1.0 and user.moment_on > 0:
        return False
    copy_into(user.moment_codes, scratch.codes)
    user.moment_p = user.p_session
    user.moment_value = 0.0
    user.moment_bought = 0
    user.moment_on = CODES_MAX
    return True


@kernel
def _sample_week(user: Row, event: Row, scratch: Scratch) -> None:
    n = 1
    if user.week_on > 0:
        n = min(signed(user.week_n) + 1, 65535)
    user.week_n = n
    if uniform(user.id, event.offset, 1) * float(n) >= 1.0:
        return
    copy_into(user.week_codes, scratch.codes)
    user.week_p = user.p_week
    user.week_ts = np.uint32(event.ts)
    user.week_bought = 0
    user.week_on = CODES_MAX


@kernel
def predict_now(user: Row, mind: Row, ts: float, scratch: Scratch) -> None:
    """Predict without an event: as of ``ts``, about the last item."""
    item: Any = np.uint64(0)
    if user.ring_n > 0:
        item = user.ring_item[signed(user.ring_n) - 1]
    show_moment(user, mind, ts, item, scratch.codes)
    to_slots(scratch.codes, scratch.slots)
    _predict(user, mind, scratch.slots)
