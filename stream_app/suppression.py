"""Customers who were erased: what was theirs is not taken in again, also when a log is replayed.

The compacted topic ``erasures`` holds, by the hash of the customer, the time of the last erasure.
Every worker reads it whole before its first event; LEARN drops older events of those customers.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.events import Reject
from stream_app.ports import RawBatch, Record


class Erasure(msgspec.Struct):
    """One record of the topic. Its key is the hash of the customer, 16 hexadecimal digits."""

    erased_at: float  # event time, unix seconds


_decode = msgspec.json.Decoder(Erasure).decode
_encode = msgspec.json.Encoder().encode


def erasure_record(customer: int, erased_at: float) -> Record:
    """What the topic says of an erased customer, without their id."""
    return Record(f"{customer:016x}".encode(), _encode(Erasure(erased_at)))


class Suppression:
    """Erased customers in memory, 16 bytes each; ``customers_max`` of them, newest kept."""

    def __init__(self, *, customers_max: int) -> None:
        assert customers_max > 0
        self._max = customers_max
        self._erased: dict[int, float] = {}
        self._ids: NDArray[np.uint64] | None = None
        self._until: NDArray[np.float64] = np.zeros(0)

    def __len__(self) -> int:
        return len(self._erased)

    def add(self, customer: int, erased_at: float) -> None:
        """Drop what ``customer`` (a hash) did up to ``erased_at`` from now on."""
        before = self._erased.pop(customer, -np.inf)
        self._erased[customer] = max(before, erased_at)
        while len(self._erased) > self._max:
            del self._erased[next(iter(self._erased))]
        self._ids = None

    def apply(self, batch: RawBatch) -> list[Reject]:
        """Follow a batch of the topic; returns what is no erasure."""
        rejects = []
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                customer = int((key or b"").decode("ascii"), 16)
            except (ValueError, UnicodeDecodeError):
                rejects.append(Reject(row, "bad_id", "the key is not 16 hexadecimal digits"))
                continue
            if not value:
                self._erased.pop(customer, None)
                self._ids = None
                continue
            try:
                self.add(customer, _decode(value).erased_at)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                rejects.append(Reject(row, "malformed", f"not an erasure: {exc}"[:200]))
        return rejects

    def admitted(
        self, customers: NDArray[np.uint64], ts: NDArray[np.float64]
    ) -> NDArray[np.bool_] | None:
        """Which of ``(n,)`` events may be taken in; ``None`` for all, the usual case.

        >>> suppression = Suppression(customers_max=10)
        >>> suppression.add(7, 100.0)
        >>> suppression.admitted(np.array([7, 7, 8], np.uint64), np.array([99.0, 101.0, 99.0]))
        array([False,  True,  True])
        """
        if not self._erased:
            return None
        if self._ids is None:
            ids = np.fromiter(self._erased, np.uint64, len(self._erased))
            until = np.fromiter(self._erased.values(), np.float64, len(self._erased))
            order = np.argsort(ids)
            self._ids, self._until = ids[order], until[order]
        at = np.minimum(np.searchsorted(self._ids, customers), len(self._ids) - 1)
        old: NDArray[np.bool_] = (self._ids[at] == customers) & (ts <= self._until[at])
        return ~old if old.any() else None
