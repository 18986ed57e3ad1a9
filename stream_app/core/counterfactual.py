"""What another policy would have earned, from decisions logged with their chances.

``propensity (n,)`` is the chance with which the logged action was drawn, ``target (n,)`` the chance
with which the policy in question would have drawn that same action, ``reward (n,)`` what followed.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A policy's value per decision with a 95 % interval, and how many logs it rests on.

    ``effective`` is Kish's effective sample size of the weights: far below n, the policy was
    hardly ever tried and the interval is not to be believed.
    """

    value: float
    low: float
    high: float
    effective: float


def _weights(propensity: ArrayLike, target: ArrayLike, clip: float) -> Floats:
    chance = np.asarray(propensity, np.float64)
    assert (chance > 0.0).all(), "an action that was taken had a chance"
    weights: Floats = np.minimum(np.asarray(target, np.float64) / chance, clip)
    return weights


def _estimate(terms: Floats, weights: Floats) -> Estimate:
    n = len(terms)
    if n == 0:
        return Estimate(math.nan, -math.inf, math.inf, 0.0)
    mean = float(terms.mean())
    error = 1.96 * float(terms.std()) / math.sqrt(n)
    total, square = float(weights.sum()), float((weights * weights).sum())
    effective = total * total / square if square > 0.0 else 0.0
    return Estimate(mean, mean - error, mean + error, effective)


def ips(
    propensity: ArrayLike, target: ArrayLike, reward: ArrayLike, *, clip: float = math.inf
) -> Estimate:
    """Inverse propensity scores (Horvitz and Thompson 1952); unbiased without ``clip``.

    >>> ips([0.5, 0.5], [1.0, 0.0], [3.0, 9.0]).value
    3.0
    """
    weights = _weights(propensity, target, clip)
    return _estimate(weights * np.asarray(reward, np.float64), weights)


def snips(
    propensity: ArrayLike, target: ArrayLike, reward: ArrayLike, *, clip: float = math.inf
) -> Estimate:
    """Self-normalised (Swaminathan and Joachims 2015): a little bias, far less variance.

    >>> snips([0.5, 0.5, 0.5], [1.0, 1.0, 0.0], [3.0, 5.0, 9.0]).value
    4.0
    """
    weights = _weights(propensity, target, clip)
    rewards = np.asarray(reward, np.float64)
    total = float(weights.sum())
    if total == 0.0:
        return Estimate(math.nan, -math.inf, math.inf, 0.0)
    value = float(weights @ rewards) / total
    # Delta method: the ratio's terms around the value.
    spread = _estimate(weights * (rewards - value) * len(rewards) / total, weights)
    half = spread.high - spread.value
    return Estimate(value, value - half, value + half, spread.effective)


def doubly_robust(
    propensity: ArrayLike,
    target: ArrayLike,
    reward: ArrayLike,
    predicted_logged: ArrayLike,
    predicted_target: ArrayLike,
    *,
    clip: float = math.inf,
) -> Estimate:
    """A model of rewards corrected by the logs (Dudík, Langford and Li 2011).

    Right if either the chances or the model are. ``predicted_logged (n,)`` is the model's reward
    of the logged action, ``predicted_target (n,)`` its mean under the policy.

    >>> doubly_robust([0.5], [0.0], [9.0], [1.0], [4.0]).value
    4.0
    """
    weights = _weights(propensity, target, clip)
    off = np.asarray(reward, np.float64) - np.asarray(predicted_logged, np.float64)
    return _estimate(np.asarray(predicted_target, np.float64) + weights * off, weights)
