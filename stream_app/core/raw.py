"""Records as bytes: numpy makes, copies and picks them field by field, at twenty times the cost.

Called wherever a batch handles arrays of records as wholes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def zeroed(n: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """``n`` records of zeros."""
    return np.zeros(n * dtype.itemsize, np.uint8).view(dtype)


def copied(records: NDArray[np.void]) -> NDArray[np.void]:
    """A copy of ``(n,)`` records that stand one after the other, with what pads them."""
    return records.view(np.uint8).copy().view(records.dtype)


def picked(records: NDArray[np.void], at: NDArray[Any]) -> NDArray[np.void]:
    """``records[at]``: rows, or a mask of them.

    >>> users = zeroed(3, np.dtype([("id", "u8"), ("events", "u4")]))
    >>> users["id"] = [4, 5, 6]
    >>> picked(users, np.array([2, 0]))["id"].tolist()
    [6, 4]
    """
    rows: NDArray[np.void] = _whole(records)[at].view(records.dtype)
    return rows


def together(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """``parts``, at least one, all of one kind, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([_whole(part) for part in parts]).view(parts[0].dtype)


def _whole(records: NDArray[np.void]) -> NDArray[np.void]:
    return records.view(np.dtype((np.void, records.dtype.itemsize)))
