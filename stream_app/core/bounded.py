"""Short lists inside a customer's record: a fixed array and how many of its entries are used."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.jit import kernel, signed


@kernel
def remember(seen: NDArray[np.uint32], n: int, value: int) -> int:
    """Append to a full-or-filling list, dropping the oldest; returns the new length."""
    if n == len(seen):
        for k in range(n - 1):
            seen[k] = seen[k + 1]
        seen[n - 1] = value
        return n
    seen[n] = value
    return n + 1


@kernel
def index_of(items: NDArray[np.uint64], n: int, item: int) -> int:
    """Position of ``item`` among the first ``n``; -1 when absent."""
    for k in range(signed(n)):  # an unsigned n would make k, with -1, a float in numba
        if items[k] == item:
            return k
    return -1


@kernel
def drop_at(items: NDArray[np.uint64], n: int, at: int) -> int:
    """Remove one entry, keeping order; returns the new length."""
    for k in range(at, signed(n) - 1):
        items[k] = items[k + 1]
    items[n - 1] = 0
    return n - 1
