"""Compile the model's inner loops. Every kernel also runs, slowly, as plain Python."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

try:
    from numba import config, njit

    _PLAIN = bool(getattr(config, "DISABLE_JIT", False))
except ImportError:  # pragma: no cover - a dependency; the plain path is tested without JIT
    _PLAIN = True
if not _PLAIN:
    from stream_app.core.linking import Kernel


def _get_field(record: Any, name: str) -> Any:
    names = np.void.__getattribute__(record, "dtype").names
    return record[name] if name in names else np.void.__getattribute__(record, name)


def _set_field(record: Any, name: str, value: Any) -> None:
    record[name] = value


# A record whose fields are attributes, as numba has them, also one named like a method. Made by
# hand: numpy's types call the class final, numpy itself does not.
_Record: Any = type(
    "_Record", (np.void,), {"__getattribute__": _get_field, "__setattr__": _set_field}
)


@cache
def _of_records(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same layout with :class:`_Record` at each level; other types as they are."""
    if dtype.names is None or dtype.fields is None:
        return dtype
    fields = [dtype.fields[name] for name in dtype.names]
    formats, offsets = [_of_records(field[0]) for field in fields], [field[1] for field in fields]
    layout: Any = {"names": dtype.names, "formats": formats, "offsets": offsets}
    layout["itemsize"] = dtype.itemsize
    return np.dtype((_Record, np.dtype(layout)))


def _readable(value: Any) -> Any:
    """Structured arrays as arrays of :class:`_Record`; the memory is shared."""
    if isinstance(value, np.ndarray):
        if value.dtype.names is not None and value.dtype.type is not _Record:
            return value.view(_of_records(value.dtype))
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_readable, value))
    return value


def kernel(function: Function) -> Function:
    """Compile ``function`` with numba, cached on disk and without the GIL.

    It makes no arrays, so nobody counts references to the ones it is given: with a hundred of them
    that took longer than many a kernel's work. What makes some, or calls a kernel that returns
    some, is :func:`allocating`.

    Kernels take and return numpy arrays and scalars only, or named tuples of them, so that the
    plain Python function (``NUMBA_DISABLE_JIT=1``, or no numba at all) computes the same bits.
    Two float32 are widened by ``np.float64`` before they meet: numba's ``float`` leaves them as
    they are, Python's does not. So is one that meets a number of Python's, such as ``0.0`` or what
    ``math.exp`` gives: numba computes that in float64, numpy in float32.
    A division by zero gives infinity or NaN: the check for it would keep loops from running side
    by side in vector registers.
    """
    return _compiled(function, counting=False)


def allocating(function: Function) -> Function:
    """Like :func:`kernel`, for one that makes arrays: references are counted in it."""
    return _compiled(function, counting=True)


def _compiled(function: Function, *, counting: bool) -> Function:
    if not _PLAIN:
        options = {"nopython": True, "nogil": True, "error_model": "numpy", "_nrt": counting}
        return cast(Function, Kernel(function, targetoptions={**options, "no_cfunc_wrapper": True}))

    @wraps(function)
    def plain(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*map(_readable, args))

    return cast(Function, plain)


def inlined(function: Function) -> Function:
    """Like :func:`kernel`, copied into its callers: for the few lines of an inner loop.

    A call that passes arrays counts references to each of them, which costs more than such lines.
    """
    if not _PLAIN:
        return cast(Function, njit(inline="always", error_model="numpy")(function))
    return function


def one_layout(array: NDArray[Any]) -> NDArray[Any]:
    """``array``, or a copy of it, contiguous and writable: else a kernel is compiled once more."""
    return np.require(array, requirements=["C", "W"])


@kernel
def copy_into(to: Any, values: Any) -> None:
    """``to[k] = values[k]`` for all k; ``to[:] = values`` would be ten times the code."""
    for k in range(len(values)):
        to[k] = values[k]


@kernel
def signed(value: Any) -> Any:
    """A signed integer: unsigned ones mixed with signed ones become floats in numba."""
    return np.int64(value)
