"""What a customer's state shows at a moment, one code per feature: the input of every prediction.

Codes are bins, not numbers: a logistic regression on bins needs no scaling, learns any shape, and
one table of names (:data:`FEATURES`) documents it. Called by LEARN after each event.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, signed
from stream_app.core.model import KIND, KINDS

Row = Any

STEPS_SHOWN = 8  # steps beyond count as the last
CLASSES = (
    "search",
    "look",
    "add_to_cart",
    "remove_from_cart",
    "wish",
    "begin_checkout",
    "purchase",
    "after_sales",
    "nothing",
    "session_end",
)
CLASS_N = 9  # of events; the last one, session_end, is an outcome only
SESSION_END = 9
_NAMED = {
    "search": 0,
    "view": 1,
    "click": 1,
    "add_to_cart": 2,
    "remove_from_cart": 3,
    "wishlist": 4,
    "share": 4,
    "begin_checkout": 5,
    "purchase": 6,
    "refund": 7,
    "rate": 7,
    "review": 7,
    "support": 7,
}
# Impressions, erasures and internal records say nothing about what a customer does.
CLASS_OF_KIND = np.array([_NAMED.get(kind, 8) for kind in KINDS], np.int64)
NOTHING = 8
_ADD = KIND["add_to_cart"]

# name, bins, what it is
FEATURES = (
    ("always", 1, "1: the base rate"),
    ("session_events", 9, "events in the session: 1, 2, 3, 4, 5-6, 7-9, 10-14, 15-24, 25+"),
    (
        "session_length",
        8,
        "seconds of the session: edges 10, 30, 60, 180, 600, 1800, 3600",
    ),
    ("cart", 20, "items in the cart 0..4+ × put there in this session 0..3+"),
    ("steps", 64, "journey step × step before"),
    ("last_event", 27, "class of the event × times its item is among the recent ones 1, 2, 3+"),
    ("item", 8, "recent events of the item 0, 1, 2, 3+ × it is in the cart or was bought"),
    ("variety", 6, "distinct items among the last six events"),
    ("pause", 7, "seconds since the event before: edges 5, 20, 60, 180, 600, 1800"),
    ("absence", 8, "days between this session and the one before: 1 h … 60 d; first session"),
    ("sessions", 7, "sessions so far: 1, 2, 3, 4-5, 6-9, 10-19, 20+"),
    ("purchases", 30, "purchases so far 0, 1, 2, 3-5, 6-9, 10+ × days since: 0.1, 1, 7, 30"),
    ("basket", 6, "mean purchase value by the shop's mean: none, .5, .8, 1.25, 2"),
    ("hour", 16, "hour of day (UTC), blocks of three × weekend"),
    ("buying_rate", 6, "purchases per earlier session: 0, .1, .3, .6, 1"),
    ("step_time", 6, "seconds in the step: edges 10, 60, 300, 1800, 86400"),
    ("activity", 6, "events per session so far: edges 2, 4, 8, 15, 30"),
    ("known", 8, "anonymous × events in the session 1, 2, 3, 4+"),
    ("price_level", 5, "prices looked at against the shop's, standard deviations: -1, -.3, .3, 1"),
    ("cart_age", 7, "seconds since the last add_to_cart: edges 30, 120, 600, 3600, 86400; never"),
    ("focus", 5, "share of the strongest item in the customer's vector: .2, .35, .5, .8"),
)
FEATURES_N = len(FEATURES)
CODES_MAX = 24  # bytes of a stored moment: room for features to come
OFFSETS = np.cumsum([0] + [bins for _, bins, _ in FEATURES])
SLOTS_N = 272  # of the weight tables: more than OFFSETS[-1], a multiple of 8
assert OFFSETS[-1] <= SLOTS_N and FEATURES_N <= CODES_MAX
_STARTS = OFFSETS[:-1].copy()

_EVENTS = np.array([2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0])
_LENGTH_S = np.array([10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0])
_PAUSE_S = np.array([5.0, 20.0, 60.0, 180.0, 600.0, 1800.0])
_ABSENCE_S = np.array([3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0, 60 * 86400.0])
_SESSIONS = np.array([2.0, 3.0, 4.0, 6.0, 10.0, 20.0])
_PURCHASES = np.array([1.0, 2.0, 3.0, 6.0, 10.0])
_SINCE_S = np.array([8640.0, 86400.0, 7 * 86400.0, 30 * 86400.0])
_BASKET = np.array([0.5, 0.8, 1.25, 2.0])
_RATE = np.array([1e-9, 0.1, 0.3, 0.6, 1.0])
_STEP_S = np.array([10.0, 60.0, 300.0, 1800.0, 86400.0])
_ACTIVITY = np.array([2.0, 4.0, 8.0, 15.0, 30.0])
_PRICE = np.array([-1.0, -0.3, 0.3, 1.0])
_CART_S = np.array([30.0, 120.0, 600.0, 3600.0, 86400.0])
_FOCUS = np.array([0.2, 0.35, 0.5, 0.8])


@kernel
def placed(value: float, edges: NDArray[np.float64]) -> int:
    """How many ``edges`` lie at or below ``value``.

    >>> placed(5.0, np.array([1.0, 5.0, 9.0]))
    2
    """
    n = 0
    while n < len(edges) and value >= edges[n]:
        n += 1
    return n


@kernel
def _items_shown(user: Row, item: int) -> tuple[int, int, int]:
    """Recent events of ``item``, distinct items among the last six, is it in cart or bought."""
    n = signed(user.ring_n)
    same = 0
    for k in range(n):
        if user.ring_item[k] == item:
            same += 1
    distinct = 0
    for k in range(max(0, n - 6), n):
        fresh = 1
        for other in range(max(0, n - 6), k):
            if user.ring_item[other] == user.ring_item[k]:
                fresh = 0
        distinct += fresh
    owned = 0
    for k in range(signed(user.cart_n)):
        if user.cart_item[k] == item:
            owned = 1
    for k in range(signed(user.bought_n)):
        if user.bought_item[k] == item:
            owned = 1
    if item == 0:
        return 0, distinct, 0
    return same, distinct, owned


@kernel
def _focus(user: Row) -> float:
    most, total = 0.0, 0.0
    for k in range(signed(user.vector_n)):
        weight = float(user.vector_weight[k])
        total += weight
        most = max(most, weight)
    return most / total if total > 0.0 else 0.0


@kernel
def show(
    user: Row, ts: float, item: int, mean_value: float, deviations: float, codes: NDArray[np.uint8]
) -> None:
    """Fill ``codes (CODES_MAX,)`` with what ``user`` shows at ``ts``, after the event of ``item``.

    ``mean_value`` is the shop's mean purchase; ``deviations`` the customer's price level.
    """
    same, distinct, owned = _items_shown(user, item)
    events = float(user.session_moves)
    cart = min(signed(user.cart_n), 4)
    codes[0] = 0
    codes[1] = placed(events, _EVENTS)
    codes[2] = placed(ts - user.session_start, _LENGTH_S)
    codes[3] = cart * 4 + min(signed(user.session_adds), 3)
    step, before = min(signed(user.step), 7), min(signed(user.previous_step), 7)
    codes[4] = step * STEPS_SHOWN + before
    codes[5] = signed(user.last_class) * 3 + min(max(same, 1), 3) - 1
    codes[6] = min(same, 3) * 2 + owned
    codes[7] = min(distinct, 6) - 1 if distinct > 0 else 0
    codes[8] = placed(float(user.pause_s), _PAUSE_S)
    codes[9] = 7 if user.sessions < 2 else placed(float(user.absence_s), _ABSENCE_S)
    codes[10] = placed(float(user.sessions), _SESSIONS)
    bought = placed(float(user.purchases), _PURCHASES)
    codes[11] = bought * 5 + placed(ts - float(user.purchase_ts), _SINCE_S)
    basket = 0
    if user.purchases > 0 and mean_value > 0.0 and user.monetary > 0.0:
        basket = 1 + placed(float(user.monetary) / float(user.purchases) / mean_value, _BASKET)
    codes[12] = basket
    day = math.floor(ts / 86400.0)
    weekend = 1 if (day + 3.0) % 7.0 >= 5.0 else 0  # 1970-01-01 was a Thursday
    codes[13] = int((ts - day * 86400.0) / 10800.0) * 2 + weekend
    earlier = max(float(user.sessions) - 1.0, 1.0)
    codes[14] = placed(float(user.purchases) / earlier, _RATE)
    codes[15] = placed(ts - user.entered_at, _STEP_S)
    codes[16] = placed(float(user.events) / max(float(user.sessions), 1.0), _ACTIVITY)
    codes[17] = (4 if user.anonymous else 0) + min(max(int(events), 1), 4) - 1
    codes[18] = placed(deviations, _PRICE)
    codes[19] = 6 if user.add_ts == 0 else placed(ts - float(user.add_ts), _CART_S)
    codes[20] = placed(_focus(user), _FOCUS)


@kernel
def to_slots(codes: NDArray[np.uint8], slots: NDArray[np.int64]) -> None:
    """Slot numbers ``(FEATURES_N,)`` in the weight tables."""
    for f in range(FEATURES_N):
        slots[f] = _STARTS[f] + signed(codes[f])
