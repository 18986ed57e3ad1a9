"""Compile the model's inner loops. Every kernel also runs, slowly, as plain Python."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    from numba import njit
except ImportError:  # pragma: no cover - a dependency; the plain path is tested without JIT
    njit = None  # type: ignore[assignment]


def kernel(function: Function) -> Function:
    """Compile ``function`` with numba, cached on disk and without the GIL.

    Kernels take and return numpy arrays and scalars only, so that the plain Python function
    (``NUMBA_DISABLE_JIT=1``, or no numba at all) computes the same bits.
    """
    if njit is None:  # pragma: no cover
        return function
    return cast(Function, njit(cache=True, nogil=True)(function))


@kernel
def signed(value: Any) -> Any:
    """A signed integer: unsigned ones mixed with signed ones become floats in numba."""
    return np.int64(value)
