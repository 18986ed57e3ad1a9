"""Values of varying number by row, in one array: tokens, labels and texts of the catalog."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Value = TypeVar("Value", bound=np.generic)
_WASTE_MIN = 65_536  # entries; below that, tidying up is not worth it


class Arena:
    """``data[starts[row] : starts[row] + counts[row]]`` are the values of ``row``.

    Arrays grow by doubling; what replaced values leave behind is reclaimed when it is half of all.

    >>> arena = Arena(np.uint32)
    >>> arena.put(np.array([2, 0]), np.array([5, 6, 7]), np.array([2, 1]))
    >>> arena.put(np.array([2]), np.array([9]), np.array([1]))
    >>> arena.get(2).tolist(), arena.get(0).tolist(), arena.get(1).tolist()
    ([9], [7], [])
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.data: NDArray[Any] = np.zeros(1024, dtype)
        self.starts = np.zeros(64, np.int64)
        self.counts = np.zeros(64, np.int32)
        self._used = 0
        self._live = 0

    def get(self, row: int) -> NDArray[Any]:
        """The values of ``row``; a view that the next :meth:`put` may move."""
        if row >= len(self.counts):
            return self.data[:0]
        start = int(self.starts[row])
        return self.data[start : start + int(self.counts[row])]

    def reserve(self, rows: int) -> None:
        """Make room for rows below ``rows``; new ones have no values."""
        if rows > len(self.counts):
            size = max(rows, 2 * len(self.counts))
            self.starts = grown(self.starts, size)
            self.counts = grown(self.counts, size)

    def put(
        self, rows: NDArray[np.integer[Any]], data: NDArray[Any], counts: NDArray[np.integer[Any]]
    ) -> None:
        """Replace the values of the distinct ``rows`` by runs of ``data``, ``counts`` long."""
        if not len(rows):
            return
        self.reserve(int(rows.max()) + 1)
        self._live += len(data) - int(self.counts[rows].sum())
        self.counts[rows] = 0
        if self._used - (self._live - len(data)) > max(self._live, _WASTE_MIN):
            self._tidy()
        end = self._used + len(data)
        if end > len(self.data):
            self.data = grown(self.data, max(end, 2 * len(self.data)))
        self.data[self._used : end] = data
        self.starts[rows] = self._used + np.cumsum(counts) - counts
        self.counts[rows] = counts
        self._used = end

    def _tidy(self) -> None:
        total = int(self.counts.sum())
        counts = self.counts.astype(np.int64)
        starts = np.cumsum(counts) - counts
        self.data[:total] = self.data[np.repeat(self.starts - starts, counts) + np.arange(total)]
        self.starts = starts
        self._used = total

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self.data.nbytes + self.starts.nbytes + self.counts.nbytes


def grown(array: NDArray[Value], size: int) -> NDArray[Value]:
    """A copy of ``array`` with ``size`` rows, new ones zero."""
    out = np.zeros((size, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out
