"""Measure and calibrate classifiers: purchase intent (two classes), support intents (many).

Called by the offline fits and by the live calibration monitor. ``positive`` ``(n,)`` is true for
the positive class, ``probability`` ``(n,)`` its predicted probability. A measure that the data
cannot give (the AUC of one class only) is NaN, never a flattering 0 or 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream_app.core.metrics import harmonic_mean

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

probability_floor = 1e-15  # keeps the log loss of a certain but wrong prediction finite
platt_steps = 25  # Newton steps; two parameters converge in fewer than ten


@dataclass(frozen=True, slots=True)
class ReliabilityTable:
    """Per non-empty probability bin: rows, mean predicted probability, share of positives."""

    count: NDArray[np.int64]
    predicted: FloatArray
    observed: FloatArray


def _pair(positive: ArrayLike, probability: ArrayLike) -> tuple[BoolArray, FloatArray]:
    truth, score = np.asarray(positive, dtype=bool), np.asarray(probability, dtype=np.float64)
    assert truth.shape == score.shape and truth.ndim == 1
    return truth, score


def auc(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic, ties half (Hanley and McNeil 1982).

    >>> auc([0, 1, 1], [0.2, 0.2, 0.9])
    0.75
    """
    truth, value = _pair(positive, score)
    n_positive = int(truth.sum())
    n_negative = truth.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    _, where, counts = np.unique(value, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    mean_rank = last_rank - (counts - 1) / 2.0
    rank_sum = float(mean_rank[where][truth].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)


def log_loss(positive: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative log likelihood in nats.

    >>> round(log_loss([1, 0], [0.5, 0.5]), 4)
    0.6931
    """
    truth, value = _pair(positive, probability)
    if not truth.size:
        return float("nan")
    value = np.clip(value, probability_floor, 1.0 - probability_floor)
    return float(-np.log(np.where(truth, value, 1.0 - value)).mean())


def brier(positive: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared error of the probability (Brier 1950).

    >>> brier([1, 0], [0.5, 0.5])
    0.25
    """
    truth, value = _pair(positive, probability)
    return float(((value - truth) ** 2).mean()) if truth.size else float("nan")


def decision_measures(
    positive: ArrayLike, probability: ArrayLike, *, threshold: float
) -> dict[str, float]:
    """Accuracy, precision, recall, F1 when ``probability >= threshold`` means positive.

    Precision without a positive prediction, and recall without a positive row, are 0.

    >>> decision_measures([1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1], threshold=0.5)
    {'accuracy': 0.5, 'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
    """
    truth, value = _pair(positive, probability)
    chosen = value >= threshold
    found = int((chosen & truth).sum())
    precision = found / max(int(chosen.sum()), 1)
    recall = found / max(int(truth.sum()), 1)
    return {
        "accuracy": float((chosen == truth).mean()) if truth.size else float("nan"),
        "precision": precision,
        "recall": recall,
        "f1": harmonic_mean(precision, recall),
    }


def best_f1_threshold(positive: ArrayLike, probability: ArrayLike) -> tuple[float, float]:
    """The threshold with the highest F1 and that F1. Choose it on training data, never on test.

    The threshold lies midway between the last accepted and the first refused probability, so that
    it does not cling to one training row. Without a positive row: (infinity, 0).

    >>> best_f1_threshold([1, 1, 0, 0], [0.9, 0.6, 0.4, 0.1])
    (0.5, 1.0)
    """
    truth, value = _pair(positive, probability)
    total = int(truth.sum())
    if total == 0:
        return float("inf"), 0.0
    order = np.argsort(-value, kind="stable")
    value, truth = value[order], truth[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(value) != 0, True))
    found = np.cumsum(truth)[last_of_tie]
    f1 = 2.0 * found / (last_of_tie + 1 + total)
    best = int(np.argmax(f1))
    accepted = value[last_of_tie[best]]
    refused = value[last_of_tie[best] + 1] if best + 1 < last_of_tie.size else accepted
    threshold = float((accepted + refused) / 2.0)
    # Midway between neighbouring floats can round down to the refused one.
    return (threshold if threshold > refused else float(accepted)), float(f1[best])


def reliability_table(
    positive: ArrayLike, probability: ArrayLike, *, bins: int = 10
) -> ReliabilityTable:
    """Predicted against observed share in ``bins`` equal-width probability bins.

    >>> table = reliability_table([0, 1], [0.0, 0.9], bins=2)
    >>> table.predicted.tolist(), table.observed.tolist()
    ([0.0, 0.9], [0.0, 1.0])
    """
    truth, value = _pair(positive, probability)
    place = np.minimum((value * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    predicted = np.bincount(place, value, bins)[filled] / count[filled]
    observed = np.bincount(place, truth, bins)[filled] / count[filled]
    return ReliabilityTable(count[filled], predicted, observed)


def calibration_error(positive: ArrayLike, probability: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error: rows' mean |predicted - observed| per bin (Naeini et al. 2015).

    >>> round(calibration_error([0, 1], [0.25, 0.75], bins=2), 3)
    0.25
    """
    table = reliability_table(positive, probability, bins=bins)
    if not table.count.size:
        return float("nan")
    gap = np.abs(table.predicted - table.observed)
    return float(table.count @ gap / table.count.sum())


def accuracy(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Share of equal labels.

    >>> accuracy(["a", "b"], ["a", "c"])
    0.5
    """
    truth, guess = np.asarray(actual), np.asarray(predicted)
    assert truth.shape == guess.shape
    return float((truth == guess).mean()) if truth.size else float("nan")


def macro_f1(actual: ArrayLike, predicted: ArrayLike) -> float:
    """Unweighted mean of each class's F1 over the classes seen in either argument.

    >>> round(macro_f1(["a", "a", "b"], ["a", "b", "b"]), 4)
    0.6667
    """
    truth, guess = np.asarray(actual), np.asarray(predicted)
    assert truth.shape == guess.shape
    if not truth.size:
        return float("nan")
    classes, code = np.unique(np.concatenate([truth, guess]), return_inverse=True)
    actual_code, guess_code = code[: truth.size], code[truth.size :]
    n = classes.size
    correct = np.bincount(actual_code[actual_code == guess_code], minlength=n)
    size = np.bincount(actual_code, minlength=n) + np.bincount(guess_code, minlength=n)
    return float((2.0 * correct / size).mean())


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """1 / (1 + e^-x) without overflow.

    >>> sigmoid(np.array([0.0, -1000.0])).tolist()
    [0.5, 0.0]
    """
    small = np.exp(-np.abs(log_odds))
    result: FloatArray = np.where(log_odds >= 0, 1.0, small) / (1.0 + small)
    return result


def platt_scaling(log_odds: FloatArray, positive: BoolArray) -> tuple[float, float]:
    """Slope and offset that make held-out ``log_odds`` ``(n,)`` likeliest (Platt 1999).

    Targets are pulled towards 1/2 by Platt's prior, so separable data keep finite values.

    >>> sold = np.array([False, True, False, True] * 9)
    >>> slope, offset = platt_scaling(np.array([-2.0, -1.0, 1.0, 2.0] * 9), sold)
    >>> 0 < slope < 1 and abs(offset) < 1e-6
    True
    """
    if not positive.size:
        return 1.0, 0.0
    n_positive = float(positive.sum())
    n_negative = positive.size - n_positive
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    design = np.column_stack([log_odds, np.ones(log_odds.size)])
    parameters = np.array([1.0, 0.0])
    for _ in range(platt_steps):
        expected = sigmoid(design @ parameters)
        weight = expected * (1.0 - expected)
        hessian = (design * weight[:, None]).T @ design + 1e-6 * np.eye(2)
        parameters = parameters + np.linalg.solve(hessian, design.T @ (target - expected))
        # A slope far from 1 on a handful of rows is noise; a sign change would reverse the order.
        parameters = np.clip(parameters, [0.2, -5.0], [3.0, 5.0])
    return float(parameters[0]), float(parameters[1])
