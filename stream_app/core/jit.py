"""Compile the model's inner loops. Every kernel also runs, slowly, as plain Python."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    import numba
except ImportError:  # pragma: no cover - numba is a dependency; the plain path is tested without JIT
    numba = None


def kernel(function: Function) -> Function:
    """Compile ``function`` with numba, cached on disk and without the GIL.

    Kernels take and return numpy arrays and scalars only, so that the plain Python function
    (``NUMBA_DISABLE_JIT=1``, or no numba at all) computes the same bits.
    """
    if numba is None:  # pragma: no cover
        return function
    return cast(Function, numba.njit(cache=True, nogil=True)(function))
