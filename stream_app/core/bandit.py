"""A contextual bandit that decides among a few arms and knows with which chance it did.

Rewards are predicted by one Bayesian linear regression per arm (ridge, by rank-one updates of the
inverse: Sherman and Morrison 1950), and arms are drawn by inverse-gap weighting (SquareCB, Foster
and Rakhlin 2020): the best arm most often, every other the rarer the worse it looks. The chance of
each draw has a closed form, which is what off-policy estimates need, and the draw itself is a hash
of the customer and the offset: a replay decides the same.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import allocating, kernel

Floats = NDArray[Any]

EXPLORATION = 15.0  # SquareCB's gamma grows with this times the root of the decisions resolved
_COUNT_MAX = 50_000.0  # resolved decisions after which exploration does not fall any more


@kernel
def predicted(inverse: Floats, total: Floats, context: Floats) -> float:
    """Expected reward of an arm: ``context · inverse · total``; shapes (d,), (d, d), (d,).

    >>> predicted(np.eye(2), np.array([3.0, 4.0]), np.array([1.0, 0.5]))
    5.0
    """
    value = 0.0
    for i in range(len(context)):
        row = 0.0
        for j in range(len(context)):
            row += np.float64(inverse[i, j]) * np.float64(total[j])
        value += row * float(context[i])
    return value


@allocating
def reinforce(inverse: Floats, total: Floats, context: Floats, reward: float) -> None:
    """Learn one reward, in place.

    >>> inverse, total = np.eye(1), np.zeros(1)
    >>> for _ in range(9):
    ...     reinforce(inverse, total, np.ones(1), 2.0)
    >>> round(predicted(inverse, total, np.ones(1)), 6)  # 9 rewards of 2 and the prior's one of 0
    1.8
    """
    d = len(context)
    gain = np.zeros(d)
    spread = 1.0
    for i in range(d):
        for j in range(d):
            gain[i] += np.float64(inverse[i, j]) * np.float64(context[j])
        spread += gain[i] * float(context[i])
    for i in range(d):
        for j in range(i + 1):  # symmetric by construction, also after rounding
            value = float(inverse[i, j]) - gain[i] * gain[j] / spread
            inverse[i, j] = value
            inverse[j, i] = value
        inverse[i, i] = max(float(inverse[i, i]), 1e-7)
        total[i] = float(total[i]) + reward * float(context[i])


@kernel
def chances(values: Floats, allowed: NDArray[np.uint8], gamma: float, out: Floats) -> int:
    """Fill ``out`` with the chance of each allowed arm; returns the best arm, -1 for none allowed.

    >>> out = np.zeros(3)
    >>> best = chances(np.array([0.5, 1.0, 9.0]), np.array([1, 1, 0], np.uint8), 6.0, out)
    >>> best, out.tolist()
    (1, [0.2, 0.8, 0.0])
    """
    best, count = -1, 0
    for a in range(len(values)):
        out[a] = 0.0
        if allowed[a]:
            count += 1
            if best < 0 or values[a] > values[best]:
                best = a
    if best < 0:
        return -1
    rest = 1.0
    for a in range(len(values)):
        if allowed[a] and a != best:
            out[a] = 1.0 / (count + gamma * (values[best] - values[a]))
            rest -= out[a]
    out[best] = rest
    return best


@kernel
def drawn(shares: Floats, u: float) -> int:
    """The arm at ``u`` in [0, 1) of the cumulated chances; ties go to the lower number.

    >>> [drawn(np.array([0.2, 0.0, 0.8]), u) for u in (0.0, 0.19, 0.2, 0.99)]
    [0, 0, 2, 2]
    """
    at, last = 0.0, 0
    for a in range(len(shares)):
        if shares[a] > 0.0:
            last = a
            at += shares[a]
            if u < at:
                return a
    return last


@kernel
def gamma_of(resolved: float) -> float:
    """How sharply to prefer the best after so many rewards."""
    return EXPLORATION * math.sqrt(min(resolved, _COUNT_MAX) + 1.0)
