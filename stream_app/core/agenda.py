"""Near deadlines of one partition's customers, in memory and bounded.

The truth is in the customers' states; this says when to look there. What lies beyond the horizon is
left out and found again when the states are gone through, so memory follows what falls due within
hours, not the number of customers.
"""

import numpy as np
from numpy.typing import NDArray

BUCKET_S = 10.0
Pairs = tuple[NDArray[np.uint64], NDArray[np.float64]]


class Agenda:
    """Deadlines (unix seconds) before ``until``, at most about ``size``; buckets of ten seconds.

    >>> agenda = Agenda(100, until=1000.0)
    >>> agenda.add(np.array([1, 2, 3], np.uint64), np.array([50.0, 60.0, 2000.0]))
    >>> agenda.due(55.0).tolist(), agenda.due(55.0).tolist(), len(agenda)
    ([1], [], 1)
    """

    def __init__(self, size: int, *, until: float = -np.inf) -> None:
        assert size > 0
        self.until = until
        self._size = size
        self._held = 0
        self._buckets: dict[int, list[Pairs]] = {}

    def __len__(self) -> int:
        return self._held

    def add(self, ids: NDArray[np.uint64], due: NDArray[np.float64]) -> None:
        """Note deadlines ``due (n,)`` of customers ``ids (n,)``; older notes of theirs stay."""
        near = due < self.until
        if not near.any():
            return
        ids, due = ids[near], due[near]
        bucket = np.floor_divide(due, BUCKET_S).astype(np.int64)
        for number in np.unique(bucket).tolist():
            here = bucket == number
            self._buckets.setdefault(number, []).append((ids[here], due[here]))
        self._held += len(ids)
        if self._held > self._size:
            self._shrink()

    def due(self, now: float) -> NDArray[np.uint64]:
        """Customers with a deadline up to ``now``, ascending, each once; they are taken out."""
        last = int(now // BUCKET_S)
        passed = [number for number in self._buckets if number <= last]
        found: list[NDArray[np.uint64]] = []
        for number in sorted(passed):
            ids, due = _joined(self._buckets.pop(number))
            self._held -= len(ids)
            found.append(ids[due <= now])
            if (due > now).any():
                self.add(ids[due > now], due[due > now])
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)

    def _shrink(self) -> None:
        """Keep a customer's latest note only; then, when that is not enough, the nearest half."""
        ids, due = _joined([pair for pairs in self._buckets.values() for pair in pairs])
        order = np.lexsort((due, ids))
        ids, due = ids[order], due[order]
        latest = np.append(ids[1:] != ids[:-1], True)
        ids, due = ids[latest], due[latest]
        if len(ids) > self._size // 2:
            self.until = float(np.partition(due, self._size // 2)[self._size // 2])
        self._buckets, self._held = {}, 0
        near = due < self.until
        self.add(ids[near], due[near])


def _joined(pairs: list[Pairs]) -> Pairs:
    return np.concatenate([ids for ids, _ in pairs]), np.concatenate([due for _, due in pairs])
