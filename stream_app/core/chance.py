"""Chance without a generator: a uniform number of an event, the same in every replay."""

from typing import Any

import numpy as np

from stream_app.core.jit import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@kernel
def mixed(a: Any, b: Any) -> Any:
    """A well-mixed uint64 of two: SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    z = (np.uint64(a) ^ (np.uint64(b) * _STEP)) + _STEP
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@kernel
def uniform(a: Any, b: Any, stream: int) -> float:
    """A number in [0, 1) of a customer's hash, an offset or count, and the use it is for.

    >>> uniform(np.uint64(7), 3, 0) == uniform(np.uint64(7), 3, 0)
    True
    >>> draws = np.array([uniform(np.uint64(7), k, 1) for k in range(1_000)])
    >>> bool(0.47 < draws.mean() < 0.53), bool(0.07 < draws.var() < 0.095)
    (True, True)
    """
    z = mixed(mixed(np.uint64(a), np.uint64(b)), np.uint64(stream))
    return float(z >> _11) * (1.0 / 9007199254740992.0)
