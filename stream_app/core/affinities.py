"""What customers like: categories, brands and prices of the items they had to do with lately.

The entries of the sparse item vector, weighted by kind of event and faded with time, times the
catalog's columns. Computed when a profile is made, from what is there.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bounded import index_of
from stream_app.core.catalog import Catalog, CatalogView
from stream_app.core.item_index import find
from stream_app.core.jit import allocating, signed
from stream_app.core.model import VECTOR_MAX
from stream_app.core.segments import price_levels

TOP_N = 3
PRICES_MAX = 2_048  # of the catalog, that a price is compared with: 1 % off where there are more

Floats = NDArray[np.float64]


class Liked(NamedTuple):
    """The strongest values of one column for n customers, best first; arrays are ``(n, TOP_N)``.

    ``rows`` of the catalog have the ``values`` (hashes), -1 for none; ``shares`` are of the weight
    of all items whose value is known.
    """

    values: NDArray[np.uint32]
    rows: NDArray[np.int64]
    shares: Floats


class Affinities(NamedTuple):
    """Of n customers. ``price (n,)`` is the weighted geometric mean, NaN where none is known."""

    categories: Liked
    brands: Liked
    price: Floats


def affinities(
    users: NDArray[np.void], personal: NDArray[np.bool_], catalog: Catalog
) -> Affinities:
    """What ``(n,) USER`` records tell as far as ``personal (n,)``: the others like nothing."""
    n = len(users)
    found = Affinities(_nothing(n), _nothing(n), np.full(n, np.nan))
    _fill(users, personal, catalog.view(), found)
    return found


def _nothing(n: int) -> Liked:
    shape = n, TOP_N
    return Liked(np.zeros(shape, np.uint32), np.full(shape, -1, np.int64), np.zeros(shape))


@allocating
def _fill(
    users: NDArray[np.void], personal: NDArray[np.bool_], catalog: CatalogView, out: Affinities
) -> None:
    rows, weights = np.zeros(VECTOR_MAX, np.int64), np.zeros(VECTOR_MAX)
    for u in range(len(users)):
        if not personal[u]:
            continue
        user, n = users[u], 0
        logs, total = 0.0, 0.0
        for k in range(signed(user.vector_n)):
            weight = np.float64(user.vector_weight[k])
            row = find(catalog.keys, catalog.slots, user.vector_item[k])
            if weight <= 0.0 or row < 0:
                continue
            rows[n], weights[n] = row, weight
            n += 1
            if catalog.price[row] > 0.0:  # NaN is not
                logs += weight * math.log(np.float64(catalog.price[row]))
                total += weight
        _strongest(catalog.category, rows, weights, n, u, out.categories)
        _strongest(catalog.brand, rows, weights, n, u, out.brands)
        if total > 0.0:
            out.price[u] = math.exp(logs / total)


@allocating
def _strongest(
    column: NDArray[np.uint32], rows: NDArray[np.int64], weights: Floats, n: int, u: int, out: Liked
) -> None:
    """Sums of ``weights`` by value of the column, the largest first; ties: the smallest hash."""
    values, sums = np.zeros(VECTOR_MAX, np.uint64), np.zeros(VECTOR_MAX)
    first = np.zeros(VECTOR_MAX, np.int64)
    groups, total = 0, 0.0
    for k in range(n):
        value = column[rows[k]]
        if value == 0:
            continue
        at = index_of(values, groups, value)
        if at < 0:
            at = groups
            values[at], first[at] = value, rows[k]
            groups += 1
        sums[at] += weights[k]
        total += weights[k]
    for place in range(min(groups, TOP_N)):
        best = 0
        for g in range(1, groups):
            if sums[g] > sums[best] or (sums[g] == sums[best] and values[g] < values[best]):
                best = g
        out.values[u, place], out.rows[u, place] = values[best], first[best]
        out.shares[u, place] = sums[best] / total
        sums[best] = 0.0


def price_sample(catalog: Catalog) -> Floats:
    """Logarithms, ascending, of prices in the catalog: of all, or of evenly spaced rows.

    >>> from stream_app.core.catalog import CatalogItem
    >>> catalog = Catalog(items_max=10)
    >>> _ = catalog.upsert([CatalogItem("a", price=4.0), CatalogItem("b"), CatalogItem("c")])
    >>> np.exp(price_sample(catalog)).round(3).tolist()
    [4.0]
    """
    apart = max(-(-catalog.rows_n // PRICES_MAX), 1)
    prices = catalog.price[: catalog.rows_n : apart]
    return np.sort(np.log(prices[prices > 0.0].astype(np.float64)))


def price_standing(prices: Floats, sample: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Share of ``sample`` that is cheaper than each of ``prices (n,)``, and its price level.

    The level is an index into :data:`~stream_app.core.segments.PRICE_LEVELS`; prices that are NaN
    have level 0.

    >>> share, level = price_standing(np.array([1.0, 8.0, np.nan]), np.log([1.0, 2.0, 4.0, 8.0]))
    >>> share[:2].tolist(), level.tolist()
    ([0.125, 0.875], [1, 3, 0])
    """
    known = ~np.isnan(prices)
    logs = np.log(np.where(known, prices, 1.0))
    below = np.searchsorted(sample, logs, "left") + np.searchsorted(sample, logs, "right")
    spread = max(float(sample.std()), 1e-3) if len(sample) else 1.0
    middle = float(sample.mean()) if len(sample) else 0.0
    level = price_levels((logs - middle) / spread, known.astype(np.uint8))
    return below / max(2 * len(sample), 1), level
