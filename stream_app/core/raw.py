"""Records as bytes: numpy makes, copies and picks them field by field, at twenty times the cost.

Called wherever a batch handles arrays of records as wholes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def zeroed(n: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """``n`` records of zeros."""
    return np.ndarray(n, dtype, np.zeros(n * dtype.itemsize, np.uint8))


def copied(records: NDArray[np.void]) -> NDArray[np.void]:
    """A copy of ``(n,)`` records that stand one after the other, with what pads them."""
    return np.ndarray(len(records), records.dtype, bytearray(records.tobytes()))


def stacked(records: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """A copy of ``records``, all of one kind and each ``(1,)``, as ``(n,)``."""
    memory = bytearray(b"".join([one.tobytes() for one in records]))
    return np.ndarray(len(records), records[0].dtype, memory)


def picked(records: NDArray[np.void], at: NDArray[Any]) -> NDArray[np.void]:
    """``records[at]``: rows, or a mask of them.

    >>> users = zeroed(3, np.dtype([("id", "u8"), ("events", "u4")]))
    >>> users["id"] = [4, 5, 6]
    >>> picked(users, np.array([2, 0]))["id"].tolist()
    [6, 4]
    """
    rows = _whole(records)[at]
    return np.ndarray(len(rows), records.dtype, rows)


def together(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """``parts``, at least one, all of one kind, one after the other."""
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([_whole(part) for part in parts])
    return np.ndarray(len(rows), parts[0].dtype, rows)


def bytes_of(records: NDArray[np.void]) -> NDArray[np.uint8]:
    """``(n, bytes of one)``: the memory of ``(n,)`` records."""
    return np.ndarray((len(records), records.dtype.itemsize), np.uint8, records)


# Arrays are made from buffers here: ``view`` looks at each field of both types before.
def _whole(records: NDArray[np.void]) -> NDArray[np.void]:
    return np.ndarray(len(records), np.dtype((np.void, records.dtype.itemsize)), records)
