"""Segments: clusters of customers learned online, and labels by rule. Called at a session's end.

Mini-batch k-means with one customer at a time (Sculley 2010; MacQueen 1967) on what is known of
every customer: recency, frequency, value and habits, standardised, and a hashed projection of the
customer's sparse item vector (Weinberger et al. 2009). A centre's rate is one over its count, so
centres settle and keep their numbers; a centre that nearly nobody joins is moved, rarely, to a
customer far from every other one, and counted as such.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.chance import mixed
from stream_app.core.insight_fields import PLACE_N, SEGMENTS_MAX
from stream_app.core.jit import kernel, signed

Row = Any

FACTS_N = 8  # of a place; the other numbers are the projected item vector
_TASTE_N = PLACE_N - FACTS_N
_TASTE_WEIGHT = 1.5  # length of a full taste beside facts of unit variance
_FORGET_AFTER = 5_000.0  # customers that the running mean and variance remember
_COUNT_MAX = 2_000.0  # a centre never becomes so heavy that it stops following its customers
_LONELY = 0.01  # share of customers under which a centre may move
_FAR = 4.0  # times the mean squared distance that makes a customer worth a centre of their own
PLACED, OWN, OTHER, SILHOUETTE = range(4)

RFM_LABELS = ("new", "active", "loyal", "at_risk", "lost")
PRICE_LEVELS = ("unknown", "low", "middle", "high")


@kernel
def _facts(user: Row, deviations: float, place: NDArray[np.float64]) -> None:
    sessions = max(float(user.sessions), 1.0)
    money = max(float(user.monetary), 0.0) / max(float(user.purchases), 1.0)
    place[0] = math.log1p(float(user.absence_s) / 3600.0)
    place[1] = math.log1p(sessions)
    place[2] = math.log1p(float(user.purchases))
    place[3] = math.log1p(money)
    place[4] = math.log1p(float(user.events) / sessions)
    place[5] = float(user.purchases) / sessions
    place[6] = deviations
    place[7] = math.log1p(max(user.last_ts - user.session_start, 0.0) / 60.0)


@kernel
def _taste(user: Row, place: NDArray[np.float64]) -> None:
    """Signed hashing of the item vector, scaled to length ``_TASTE_WEIGHT``."""
    total = 0.0
    for k in range(signed(user.vector_n)):
        weight = np.float64(user.vector_weight[k])
        total += weight * weight
        drawn = mixed(user.vector_item[k], np.uint64(11))
        at = FACTS_N + int(drawn % np.uint64(_TASTE_N))
        positive = (drawn >> np.uint64(32)) & np.uint64(1) == np.uint64(1)
        place[at] += weight if positive else -weight
    if total > 0.0:
        scale = _TASTE_WEIGHT / math.sqrt(total)
        for k in range(FACTS_N, PLACE_N):
            place[k] *= scale


@kernel
def _standardise(mind: Row, place: NDArray[np.float64], learning: bool) -> None:
    seen = mind.segment_quality[PLACED]
    rate = max(1.0 / (seen + 1.0), 1.0 / _FORGET_AFTER)
    for k in range(FACTS_N):
        mean, variance = float(mind.place_mean[k]), float(mind.place_variance[k])
        if learning:
            off = place[k] - mean
            mean += rate * off
            variance += rate * (off * (place[k] - mean) - variance)
            mind.place_mean[k], mind.place_variance[k] = mean, variance
        scaled = (place[k] - mean) / math.sqrt(variance + 0.05)
        place[k] = min(max(scaled, -4.0), 4.0)


@kernel
def _nearest(mind: Row, place: NDArray[np.float64], k: int) -> tuple[int, float, float]:
    """The nearest of ``k`` centres, the squared distance to it, and to the second."""
    best, least, second = 0, np.inf, np.inf
    for c in range(k):
        distance = 0.0
        for f in range(PLACE_N):
            off = place[f] - float(mind.segment_centre[c, f])
            distance += off * off
        if distance < least:
            best, second, least = c, least, distance
        elif distance < second:
            second = distance
    return best, least, second


@kernel
def _move_lonely(mind: Row, place: NDArray[np.float64], k: int, distance: float) -> int:
    """The lonely centre that goes to this far-off customer; -1 when there is none."""
    quality = mind.segment_quality
    if quality[PLACED] < 100.0 * k or distance < _FAR * quality[OWN]:
        return -1
    lonely, total = 0, 0.0
    for c in range(k):
        total += mind.segment_n[c]
        if mind.segment_n[c] < mind.segment_n[lonely]:
            lonely = c
    if mind.segment_n[lonely] >= _LONELY * total:
        return -1
    mind.segment_n[lonely] = 0.0
    return lonely


@kernel
def join_segment(
    user: Row, mind: Row, deviations: float, k: int, place: NDArray[np.float64]
) -> None:
    """Place the customer whose session has ended among ``k`` segments; the centre follows them.

    ``user.segment`` is the segment's number + 1. ``place (PLACE_N,)`` is work space.
    """
    place[:] = 0.0
    _facts(user, deviations, place)
    _taste(user, place)
    _standardise(mind, place, True)
    quality = mind.segment_quality
    filled = int(min(quality[PLACED], float(k)))
    best, own, other = 0, 0.0, 0.0
    if filled < k:
        best = filled  # the first customers are the first centres
    else:
        best, own, other = _nearest(mind, place, k)
        moved = _move_lonely(mind, place, k, own)
        if moved >= 0:
            best, own = moved, 0.0
    count = min(mind.segment_n[best] + 1.0, _COUNT_MAX)
    mind.segment_n[best] = count
    for f in range(PLACE_N):
        centre = float(mind.segment_centre[best, f])
        mind.segment_centre[best, f] = centre + (place[f] - centre) / count
    quality[PLACED] += 1.0
    if other > 0.0 and other < np.inf:
        rate = max(1.0 / (quality[PLACED] - k), 1.0 / 2_000.0)
        a, b = math.sqrt(own), math.sqrt(other)
        quality[OWN] += rate * (own - quality[OWN])
        quality[OTHER] += rate * (other - quality[OTHER])
        quality[SILHOUETTE] += rate * ((b - a) / max(b, 1e-12) - quality[SILHOUETTE])
    user.segment = best + 1


def segment_report(mind: NDArray[np.void], k: int) -> dict[str, Any]:
    """Sizes (recent weights), inertia and the simplified silhouette (Hruschka et al. 2004)."""
    quality = mind["segment_quality"]
    count = mind["segment_n"][:k]
    return {
        "k": k,
        "placed": int(quality[PLACED]),
        "shares": (count / max(count.sum(), 1.0)).round(4).tolist(),
        "inertia": float(quality[OWN]),
        "next_inertia": float(quality[OTHER]),
        "silhouette": float(quality[SILHOUETTE]),
    }


def rfm_labels(users: NDArray[np.void], now: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into :data:`RFM_LABELS` of ``(n,) USER`` records at ``now (n,)``.

    *lost*: silent for 90 days; *at_risk*: for 30, or longer than five times their usual interval
    (at least a week); *loyal*: three purchases or more; *new*: a single session; else *active*.

    >>> from stream_app.core.state import new_users
    >>> users = new_users(np.arange(4, dtype=np.uint64))
    >>> users["sessions"], users["purchases"] = [1, 5, 5, 2], [0, 3, 0, 0]
    >>> users["last_ts"] = [0, 0, -100 * 86400.0, -40 * 86400.0]
    >>> [RFM_LABELS[k] for k in rfm_labels(users, np.zeros(4))]
    ['new', 'loyal', 'lost', 'at_risk']
    """
    silent_days = (now - users["last_ts"]) / 86400.0
    usual = users["absence_s"] / 86400.0
    overdue = silent_days > np.maximum(5 * usual, 7)
    late = (silent_days > 30.0) | ((users["sessions"] > 1) & overdue)
    label = np.where(users["purchases"] >= 3, 2, np.where(users["sessions"] <= 1, 0, 1))
    return np.asarray(np.where(silent_days > 90.0, 4, np.where(late, 3, label)), np.int64)


def price_levels(deviations: NDArray[np.float64], seen: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index into :data:`PRICE_LEVELS`; ``deviations (n,)`` of log price from the shop's mean.

    >>> price_levels(np.array([0.0, -1.0, 0.1, 2.0]), np.array([0, 3, 3, 3])).tolist()
    [0, 1, 2, 3]
    """
    level = np.where(deviations < -0.5, 1, np.where(deviations > 0.5, 3, 2))
    return np.asarray(np.where(seen > 0, level, 0), np.int64)


assert SEGMENTS_MAX <= 254, "segments are stored in one byte"
