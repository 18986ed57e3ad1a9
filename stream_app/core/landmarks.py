"""Forward decay (Cormode et al. 2009): weights grow with event time, relative to a landmark.

A landmark moves in whole steps of ``LANDMARK_HALF_LIVES`` half-lives, so that moving it multiplies
by a power of two and loses no bit. Used by all tables of decayed counts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.model import LANDMARK_HALF_LIVES

GROWTH_STEPS_MAX = 1000.0  # tables that have learned nothing yet stand at landmark 0, in 1970


def landmark_of(ts: float, half_life_s: float) -> int:
    """The landmark step that ``ts`` lies in.

    >>> landmark_of(33.0, half_life_s=1.0)
    2
    """
    return int(ts // (LANDMARK_HALF_LIVES * half_life_s))


def growth_of(ts: float, landmark: int, half_life_s: float) -> float:
    """What a weight of one at ``ts`` counts relative to ``landmark``."""
    steps = ts / half_life_s - LANDMARK_HALF_LIVES * landmark
    return float(2.0 ** min(steps, GROWTH_STEPS_MAX))


def factor_of(steps: int) -> float:
    """By what to multiply when the landmark moves ``-steps`` steps."""
    return float(2.0 ** max(LANDMARK_HALF_LIVES * steps, -1000))


def factors_of(steps: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """:func:`factor_of` of ``(n,)`` steps."""
    return np.ldexp(1.0, np.maximum(LANDMARK_HALF_LIVES * steps.astype(np.int64), -1000))


def ranges(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """``0..counts[0]-1, 0..counts[1]-1, ...`` in one array.

    >>> ranges(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
