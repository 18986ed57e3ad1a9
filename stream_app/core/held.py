"""Which customers' published lists hold an item: kept by the worker that publishes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_app.core.arena import Arena
from stream_app.core.jit import kernel, signed

_MARKS = 65_536
_BY_PRICE = np.uint64(0x9E3779B9)


def by_price(items: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What stands for ``items`` (hashes) where they are in a list that goes by their prices."""
    return items ^ _BY_PRICE


def with_priced(
    priced: NDArray[np.bool_],
    counts: NDArray[np.integer[Any]],
    items: NDArray[np.uint64],
    because: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """``counts`` and ``items`` of lists that also hold, by price, what the ``priced`` ones have.

    And what these have it ``because`` of, as that has a price too.

    >>> counts, items = with_priced(np.array([False, True]), np.array([1, 1]),
    ...                             np.array([7, 8], np.uint64), np.array([0, 9], np.uint64))
    >>> counts.tolist(), items[:2].tolist(), (items[2:] == by_price(np.array([8, 9], "u8"))).all()
    ([1, 3], [7, 8], np.True_)
    """
    own = counts.astype(np.int64)
    if not priced.any():
        return own, items
    theirs = np.repeat(priced, own)
    after = np.repeat(own.cumsum()[priced], own[priced])
    more = by_price(np.concatenate((items[theirs], because[theirs])))
    held = np.insert(items, np.concatenate((after, after)), more)
    return np.where(priced, 3 * own, own), held


@kernel
def _holders(
    starts: NDArray[np.int64],
    counts: NDArray[np.int32],
    data: NDArray[np.uint32],
    rows: int,
    marks: NDArray[np.uint8],
    wanted: NDArray[np.uint32],
    out: NDArray[np.int64],
) -> int:
    """Rows with a value among the sorted ``wanted``; ``marks`` are their lowest 16 bits."""
    n = 0
    for row in range(rows):
        for k in range(starts[row], starts[row] + signed(counts[row])):
            value = data[k]
            if marks[value & 0xFFFF]:
                at = np.searchsorted(wanted, value)
                if at < len(wanted) and wanted[at] == value:
                    out[n] = row
                    n += 1
                    break
    return n


class HeldLists:
    """The items in the lists last published to each of at most ``customers_max`` customers.

    Those published longest ago give way: ``complete`` is False from then on. Items are known by
    the lowest 32 bits of their hash; that two share them does no harm, a list is only ranked anew.

    >>> held = HeldLists(customers_max=100)
    >>> held.put(["anna", "bert"], np.array([0, 0, 1]), np.array([2, 1, 1]),
    ...          np.array([7, 8, 9, 7], np.uint64))
    >>> held.holders(np.array([7], np.uint64)), held.holders(np.array([9, 5], np.uint64))
    (['bert', 'anna'], ['anna'])
    """

    def __init__(self, *, customers_max: int) -> None:
        assert customers_max > 0
        self.complete = True
        self._customers_max = customers_max
        self._rows: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._items = Arena(np.uint32)
        self._put_at = np.zeros(64, np.int64)
        self._tick = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def put(
        self,
        names: Sequence[str],
        owners: NDArray[np.integer[Any]],
        counts: NDArray[np.integer[Any]],
        items: NDArray[np.uint64],
        *,
        live: bool = True,
    ) -> None:
        """Replace the lists of distinct customers: ``owners (m,)`` are rising places in ``names``.

        List i has ``counts[i]`` of the item hashes in ``items``. Lists that are not ``live`` were
        read from the log and may be older than what :meth:`is_live`.
        """
        if len(self._rows) + len(names) > self._customers_max:
            self._evict(len(self._rows) + len(names) - self._customers_max)
        self._tick += 1
        rows = np.array([self._row(name) for name in names], np.int64)
        per_customer = np.bincount(owners, counts, len(names)).astype(np.int64)
        self._items.put(rows, (items & np.uint64(0xFFFFFFFF)).astype(np.uint32), per_customer)
        self._put_at[rows] = self._tick if live else 0

    def is_live(self, name: str) -> bool:
        """Whether the customer's lists are known as this worker published them itself."""
        row = self._rows.get(name)
        return row is not None and bool(self._put_at[row] > 0)

    def drop(self, names: Sequence[str]) -> None:
        """Forget customers."""
        rows = [row for name in names if (row := self._rows.pop(name, -1)) >= 0]
        if rows:
            at = np.array(rows, np.int64)
            self._items.put(at, np.zeros(0, np.uint32), np.zeros(len(at), np.int64))
            self._free.extend(rows)

    def holders(self, items: NDArray[np.uint64]) -> list[str]:
        """Customers with any of the items in a list; who was active last comes first."""
        wanted = np.unique((items & np.uint64(0xFFFFFFFF)).astype(np.uint32))
        marks = np.zeros(_MARKS, np.uint8)
        marks[wanted & 0xFFFF] = 1
        rows_n = min(len(self._names), len(self._items.counts))
        out = np.empty(rows_n, np.int64)
        arena = self._items
        n = _holders(arena.starts, arena.counts, arena.data, rows_n, marks, wanted, out)
        rows = out[:n]
        newest_first = rows[np.lexsort((-rows, -self._put_at[rows]))]
        return [self._names[row] for row in newest_first.tolist()]

    def _row(self, name: str) -> int:
        row = self._rows.get(name)
        if row is None:
            if self._free:
                row = self._free.pop()
                self._names[row] = name
            else:
                row = len(self._names)
                self._names.append(name)
                if row >= len(self._put_at):
                    self._put_at = np.concatenate((self._put_at, np.zeros_like(self._put_at)))
            self._rows[name] = row
        return row

    def _evict(self, wanted: int) -> None:
        self.complete = False
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        count = min(len(rows), max(wanted, self._customers_max // 8))
        oldest = rows[np.argsort(self._put_at[rows], kind="stable")[:count]]
        self.drop([self._names[row] for row in oldest.tolist()])

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays; names and their index come on top, about 160 a customer."""
        return self._items.nbytes + self._put_at.nbytes
