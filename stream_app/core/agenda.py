"""Near deadlines of one partition's customers, in memory and bounded.

The truth is in the customers' states; this says when to look there. So one note of a customer is
enough, the earliest: who looks then and finds that the deadline has moved notes the new one. What
lies beyond the horizon is left out and found again when the states are gone through, so memory
follows the customers with something due within hours, neither all customers nor their events.
"""

import numpy as np
from numpy.typing import NDArray

FRESH_MIN = 4_096  # notes; fewer are not worth looking for repeated ones


class Agenda:
    """Deadlines (unix seconds) before ``until``, of at most about ``size`` customers.

    >>> agenda = Agenda(100, until=1000.0)
    >>> agenda.add(np.array([1, 2, 3], np.uint64), np.array([50.0, 60.0, 2000.0]))
    >>> agenda.due(55.0).tolist(), agenda.due(55.0).tolist(), len(agenda)
    ([1], [], 1)
    """

    def __init__(self, size: int, *, until: float = -np.inf) -> None:
        assert size > 0
        self.until = until
        self._size = size
        # Those of distinct customers by time, then fresh ones as they came, of which some repeat.
        self._ids = np.zeros(0, np.uint64)
        self._due = np.zeros(0)
        self._fresh_ids = np.zeros(64, np.uint64)
        self._fresh_due = np.zeros(64)
        self._fresh = 0
        self._next = np.inf  # the earliest of the fresh ones

    def __len__(self) -> int:
        """Notes, repeated ones among them."""
        return len(self._ids) + self._fresh

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        parts = self._ids, self._due, self._fresh_ids, self._fresh_due
        return sum(part.nbytes for part in parts)

    def add(self, ids: NDArray[np.uint64], due: NDArray[np.float64]) -> None:
        """Note deadlines ``due (n,)`` of customers ``ids (n,)``; earlier notes of theirs stay."""
        near = due < self.until
        ids, due = ids[near], due[near]
        if not len(ids):
            return
        end = self._fresh + len(ids)
        if end > len(self._fresh_ids):
            more = max(end, 2 * len(self._fresh_ids))
            self._fresh_ids = np.resize(self._fresh_ids, more)
            self._fresh_due = np.resize(self._fresh_due, more)
        self._fresh_ids[self._fresh : end], self._fresh_due[self._fresh : end] = ids, due
        self._fresh = end
        self._next = min(self._next, float(due.min()))
        if end > max(len(self._ids), min(FRESH_MIN, self._size // 2)):
            self._tidy()

    def due(self, now: float) -> NDArray[np.uint64]:
        """Customers with a deadline up to ``now``, ascending, each once; they are taken out."""
        passed = int(self._due.searchsorted(now, "right"))
        found = self._ids[:passed]
        self._ids, self._due = self._ids[passed:], self._due[passed:]
        if self._next <= now:
            ids, due = self._fresh_ids[: self._fresh], self._fresh_due[: self._fresh]
            later = due > now
            found = np.concatenate((found, ids[~later]))
            self._keep(ids[later], due[later])
        return np.unique(found)

    def _keep(self, ids: NDArray[np.uint64], due: NDArray[np.float64]) -> None:
        """These are the fresh ones."""
        self._fresh = len(ids)
        self._fresh_ids[: self._fresh], self._fresh_due[: self._fresh] = ids, due
        self._next = float(due.min(initial=np.inf))

    def _tidy(self) -> None:
        """Keep each customer's earliest note only; when they are too many, the nearest half."""
        ids = np.concatenate((self._ids, self._fresh_ids[: self._fresh]))
        due = np.concatenate((self._due, self._fresh_due[: self._fresh]))
        order = np.lexsort((due, ids))
        ids, due = ids[order], due[order]
        first = np.append(True, ids[1:] != ids[:-1])
        ids, due = ids[first], due[first]
        by_time = np.argsort(due, kind="stable")
        if len(ids) > self._size:
            by_time = by_time[: max(self._size // 2, 1)]
            self.until = float(due[by_time[-1]])
        self._ids, self._due = ids[by_time], due[by_time]
        self._fresh_ids, self._fresh_due = np.zeros(64, np.uint64), np.zeros(64)
        self._fresh, self._next = 0, np.inf
