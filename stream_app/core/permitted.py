"""Which items may be in a list at all: what the catalog says of them, and what the shop bars."""

import numpy as np
from numpy.typing import NDArray

from stream_app.core.catalog import LISTED, Catalog
from stream_app.core.item_index import lookup_ids
from stream_app.core.jit import one_layout
from stream_app.core.rules import Rules


class Permitted:
    """The part of the rules that is the same for every customer, list and moment.

    Ranking checks it candidate by candidate (:func:`stream_app.core.rules.bar`); this is for lists
    that are out already, and for lists that are no customer's. An item the catalog does not know
    has no price and is permitted, unless it is excluded by its id.

    >>> from stream_app.core.catalog import CatalogItem
    >>> from stream_app.core.rules import make_rules
    >>> catalog = Catalog(items_max=10)
    >>> rows = catalog.upsert([CatalogItem("a", price=5.0), CatalogItem("b", price=50.0)])
    >>> Permitted(catalog, make_rules(price_max=9.0))(np.append(catalog.ids[:2], np.uint64(7)))
    array([ True, False,  True])
    """

    def __init__(self, catalog: Catalog, rules: Rules) -> None:
        self._catalog = catalog
        self._rules = rules
        self._excludes = bool((rules.excluded_slots >= 0).any())

    def __call__(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of ``(n,)`` items (hashes) may be listed."""
        if not (self._catalog.rows_n or self._excludes):
            return np.ones(len(ids), np.bool_)
        rules, rows = self._rules, self._catalog.rows(ids)
        barred = ~LISTED[self._catalog.flags[rows]]
        if rules.price_min > 0.0 or rules.price_max < np.inf:
            price = self._catalog.price[rows].astype(np.float64)
            barred |= (price < rules.price_min) | (price > rules.price_max)  # NaN is neither
        barred &= rows >= 0
        if self._excludes:
            excluded = np.empty(len(ids), np.int64)
            lookup_ids(rules.excluded_keys, rules.excluded_slots, one_layout(ids), excluded)
            barred |= excluded >= 0
        permitted: NDArray[np.bool_] = ~barred
        return permitted
