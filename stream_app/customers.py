"""The customers of a batch, each once. Found by LEARN when it loads their states."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Customers(NamedTuple):
    """n customers by id, ascending.

    ``keys`` are their ids as the store has them, ``first (n,)`` the row of each one's first event,
    ``rows`` the customer of each event.
    """

    ids: NDArray[np.uint64]
    keys: list[bytes]
    first: NDArray[np.int64]
    rows: NDArray[np.int64]


def customers_of(events: NDArray[np.void]) -> Customers:
    """Who the ``EVENT`` records are about.

    >>> events = np.zeros(3, [("customer", "u8")])
    >>> events["customer"] = [9, 2, 9]
    >>> found = customers_of(events)
    >>> found.ids.tolist(), found.first.tolist(), found.rows.tolist()
    ([2, 9], [1, 0], [1, 0, 1])
    """
    customers = events["customer"]
    ids, first, rows = np.unique(customers, return_index=True, return_inverse=True)
    packed = ids.tobytes()
    return Customers(
        ids,
        [packed[at : at + 8] for at in range(0, len(packed), 8)],
        first,
        rows,
    )
