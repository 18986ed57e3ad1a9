"""Rows found by 64-bit ids: the open-addressing arrays that kernels search with ``find``."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.item_index import lookup_ids
from stream_app.core.jit import kernel, one_layout


@kernel
def _add(
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    ids: NDArray[np.uint64],
    rows: NDArray[np.int64],
) -> None:
    mask = np.uint64(len(keys) - 1)
    for k in range(len(ids)):
        if ids[k] != 0:
            at = ids[k] & mask
            while slots[at] >= 0:
                at = (at + np.uint64(1)) & mask
            keys[at] = ids[k]
            slots[at] = rows[k]


class HashIndex:
    """``row = find(index.keys, index.slots, id)``; id 0 is none. Ids are hashes already.

    >>> index = HashIndex()
    >>> index.add(np.array([70, 80], np.uint64), np.array([0, 1]))
    >>> index.rows(np.array([80, 90, 0], np.uint64)).tolist()
    [1, -1, -1]
    """

    def __init__(self) -> None:
        self.rebuild(np.zeros(0, np.uint64))

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """``(n,)`` rows of ``(n,)`` ids, -1 where there is none."""
        out = np.empty(len(ids), np.int64)
        lookup_ids(self.keys, self.slots, one_layout(ids), out)
        return out

    def add(self, ids: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Index ``rows`` by distinct ids that are not in yet."""
        self._used += len(ids)
        if 2 * self._used > len(self.keys):
            taken = self.slots >= 0
            ids = np.concatenate((self.keys[taken], ids))
            rows = np.concatenate((self.slots[taken].astype(np.int64), rows))
            self._make(self._used)
        _add(self.keys, self.slots, ids, rows)

    def rebuild(self, ids: NDArray[np.uint64]) -> None:
        """Start again with ``ids[row]`` in every row; 0 for rows that are free."""
        self._used = len(ids)
        self._make(self._used)
        _add(self.keys, self.slots, ids, np.arange(len(ids)))

    def _make(self, rows: int) -> None:
        size = 1 << int(np.ceil(np.log2(4 * max(rows, 256))))
        self.keys = np.zeros(size, np.uint64)
        self.slots = np.full(size, -1, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self.keys.nbytes + self.slots.nbytes
