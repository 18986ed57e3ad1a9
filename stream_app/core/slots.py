"""Bayesian logistic regression on indicator slots, one weighted observation at a time.

The learner under both intent models: of a table's tree leaves (:mod:`stream_app.core.intent`) and
of what a customer's state shows (:mod:`stream_app.core.foresight`). Weights are independent
normals; an observation is one extended-Kalman step with a diagonal covariance (West, Harrison and
Migon 1985; Chapelle and Li 2011): the step of a slot is its share of the whole uncertainty, so many
slots at once cannot overshoot.
"""

import math
from typing import Any

from numpy.typing import NDArray

from stream_app.core.jit import kernel

variance_min = 1e-5  # no slot gets so sure that it stops following its customers


@kernel
def moderated(mean: float, variance: float) -> float:
    """Probability when the log odds are normal: MacKay 1992, eq. 4.9."""
    z = mean / math.sqrt(1.0 + math.pi * variance / 8.0)
    if z < -700.0:  # plain Python raises where the compiled one gives infinity
        return 0.0
    return 1.0 / (1.0 + math.exp(-z))


@kernel
def belief(slots: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]) -> tuple[float, float]:
    """Mean and variance of the log odds of one row, ``(m,)`` slot numbers.

    >>> import numpy as np
    >>> belief(np.array([0, 1]), np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.25, 0.0]))
    (3.0, 0.75)
    """
    total, spread = 0.0, 0.0
    for slot in slots:
        total += float(mean[slot])
        spread += float(variance[slot])
    return total, spread


@kernel
def learn_row(
    slots: NDArray[Any],
    positive: bool,
    weight: float,
    mean: NDArray[Any],
    variance: NDArray[Any],
    floor: float,
) -> None:
    """Move ``mean`` and ``variance`` by one observation that stands for ``weight`` of them.

    >>> import numpy as np
    >>> mean, variance = np.zeros(2), np.ones(2)
    >>> learn_row(np.array([0]), True, 1.0, mean, variance, variance_min)
    >>> [round(float(x), 3) for x in (mean[0], variance[0], mean[1], variance[1])]
    [0.4, 0.8, 0.0, 1.0]
    """
    total, spread = belief(slots, mean, variance)
    expected = moderated(total, 0.0)
    curvature = weight * expected * (1.0 - expected)
    surprise = weight * ((1.0 if positive else 0.0) - moderated(total, spread))
    share = 1.0 / (1.0 + curvature * spread)
    for slot in slots:
        gain = float(variance[slot]) * share
        mean[slot] = float(mean[slot]) + gain * surprise
        variance[slot] = max(float(variance[slot]) * (1.0 - gain * curvature), floor)
