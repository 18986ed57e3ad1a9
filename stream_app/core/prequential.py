"""Test, then learn: how good predictions were, counted as their labels arrive.

One row of counters per predictor lives in the partition's state, so that the measures are as exact
and as replayable as the state itself. Measures of several partitions add up. A label may stand for
several moments: every sum is weighted (Horvitz and Thompson 1952).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel
from stream_app.core.metrics import harmonic_mean

BUCKETS_N = 32  # of log odds, this many from _LOW on
_LOW, _WIDTH = -8.0, 0.375
# Columns of a predictor's row.
LABELS, WEIGHT, POSITIVE, LOSS, BASE_LOSS, SQUARED = range(6)
RECENT_LOSS, RECENT_BASE, WATCH_MEAN, WATCH_SUM, WATCH_LEAST, WATCHED = range(6, 12)
DRIFTS, DRIFT_TS = 12, 13
GAUGES_N = 14

_RECENT = 1.0 / 500.0  # of a label in the recent means
_DRIFT_TOLERANCE = 0.05  # nats that the loss may rise without being drift
_DRIFT_LIMIT = 50.0  # nats of excess that are an alarm: about e^-20 by chance
_DRIFT_AFTER = 200  # labels before the watch begins
_FLOOR = 1e-6


@kernel
def _loss(p: float, positive: bool) -> float:
    p = min(max(p, _FLOOR), 1.0 - _FLOOR)
    return -math.log(p) if positive else -math.log(1.0 - p)


@kernel
def bucket_of(p: float) -> int:
    """The bucket of a probability, by log odds."""
    p = min(max(p, _FLOOR), 1.0 - _FLOOR)
    at = int((math.log(p / (1.0 - p)) - _LOW) / _WIDTH)
    return min(max(at, 0), BUCKETS_N - 1)


@kernel
def note_label(
    p: float,
    positive: bool,
    weight: float,
    ts: float,
    gauges: NDArray[np.float64],
    buckets: NDArray[np.float64],
) -> bool:
    """Count a label whose prediction was ``p``; returns whether the loss has drifted upwards.

    ``gauges (GAUGES_N,)`` and ``buckets (BUCKETS_N, 3)`` are one predictor's. Drift is what Page's
    cumulative sum calls so (Page 1954; Gama et al. 2013, eq. 2 on prequential losses).
    """
    p = np.float64(p)
    base = (gauges[POSITIVE] + 0.5) / (gauges[WEIGHT] + 1.0)
    loss, base_loss = _loss(p, positive), _loss(base, positive)
    gauges[LABELS] += 1.0
    gauges[WEIGHT] += weight
    gauges[POSITIVE] += weight if positive else 0.0
    gauges[LOSS] += weight * loss
    gauges[BASE_LOSS] += weight * base_loss
    off = p - (1.0 if positive else 0.0)
    gauges[SQUARED] += weight * off * off
    at = bucket_of(p)
    buckets[at, 1 if positive else 0] += weight
    buckets[at, 2] += weight * p
    share = max(_RECENT, 1.0 / gauges[LABELS])
    gauges[RECENT_LOSS] += share * (loss - gauges[RECENT_LOSS])
    gauges[RECENT_BASE] += share * (base_loss - gauges[RECENT_BASE])
    return _watch(loss, ts, gauges)


@kernel
def _watch(loss: float, ts: float, gauges: NDArray[np.float64]) -> bool:
    if gauges[LABELS] <= _DRIFT_AFTER:
        gauges[WATCHED] = 0.0
        return False
    if gauges[WATCHED] == 0.0:
        gauges[WATCH_MEAN] = gauges[RECENT_LOSS]
    gauges[WATCHED] += 1.0
    gauges[WATCH_MEAN] += (loss - gauges[WATCH_MEAN]) / (gauges[WATCHED] + _DRIFT_AFTER)
    gauges[WATCH_SUM] += loss - gauges[WATCH_MEAN] - _DRIFT_TOLERANCE
    gauges[WATCH_LEAST] = min(gauges[WATCH_LEAST], gauges[WATCH_SUM])
    if gauges[WATCH_SUM] - gauges[WATCH_LEAST] <= _DRIFT_LIMIT:
        return False
    gauges[DRIFTS] += 1.0
    gauges[DRIFT_TS] = ts
    gauges[WATCHED] = gauges[WATCH_SUM] = gauges[WATCH_LEAST] = 0.0
    return True


def bucket_auc(buckets: NDArray[np.float64]) -> float:
    """Area under the ROC curve from ``(n, 3)`` buckets, rising; ties within a bucket count half.

    NaN without both classes.

    >>> bucket_auc(np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    1.0
    """
    negative, positive = buckets[:, 0], buckets[:, 1]
    pairs = negative.sum() * positive.sum()
    if pairs == 0.0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum() / pairs)


def _decided(buckets: NDArray[np.float64]) -> dict[str, float]:
    """Measures of the decision at the bucket edge with the best F1."""
    negative, positive = buckets[:, 0], buckets[:, 1]
    found = np.cumsum(positive[::-1])[::-1]
    chosen = found + np.cumsum(negative[::-1])[::-1]
    total = positive.sum()
    f1 = np.divide(2.0 * found, chosen + total, out=np.zeros(len(found)), where=chosen > 0)
    at = int(np.argmax(f1))
    precision = float(found[at] / max(chosen[at], 1e-300))
    recall = float(found[at] / max(total, 1e-300))
    everything = float(buckets[:, :2].sum()) or math.nan
    wrong = float(chosen[at] - found[at] + total - found[at])
    edge = _LOW + _WIDTH * at if at else -math.inf
    return {
        "threshold": 1.0 / (1.0 + math.exp(-edge)) if at else 0.0,
        "accuracy": 1.0 - wrong / everything,
        "precision": precision,
        "recall": recall,
        "f1": harmonic_mean(precision, recall),
    }


def reliability(buckets: NDArray[np.float64]) -> list[dict[str, float]]:
    """Per filled bucket: weight, mean predicted probability, observed share."""
    weight = buckets[:, :2].sum(axis=1)
    rows = buckets[weight > 0], weight[weight > 0]
    return [
        {"weight": float(w), "predicted": float(row[2] / w), "observed": float(row[1] / w)}
        for row, w in zip(*rows, strict=True)
    ]


def report(gauges: NDArray[np.float64], buckets: NDArray[np.float64]) -> dict[str, Any]:
    """Every measure of one predictor; NaN where there is no label yet.

    ``f1`` and its company are at the best bucket edge so far; ``calibration_error`` is the mean
    |predicted - observed| over the buckets (Naeini et al. 2015).
    """
    weight = gauges[WEIGHT] or math.nan
    table = reliability(buckets)
    gap = sum(row["weight"] * abs(row["predicted"] - row["observed"]) for row in table)
    return {
        "labels": int(gauges[LABELS]),
        "positive_rate": float(gauges[POSITIVE] / weight),
        "auc": bucket_auc(buckets),
        "log_loss": float(gauges[LOSS] / weight),
        "base_log_loss": float(gauges[BASE_LOSS] / weight),
        "recent_log_loss": float(gauges[RECENT_LOSS]) if gauges[LABELS] else math.nan,
        "recent_base_log_loss": float(gauges[RECENT_BASE]) if gauges[LABELS] else math.nan,
        "mse": float(gauges[SQUARED] / weight),
        "calibration_error": float(gap / weight),
        **_decided(buckets),
        "drifts": int(gauges[DRIFTS]),
        "last_drift_ts": float(gauges[DRIFT_TS]),
        "reliability": table,
    }
