"""What must not be in a list, and how a list is shaped: the shop's rules, checked per candidate.

An item the catalog does not know counts as available, with nothing known about it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.core.bounded import index_of
from stream_app.core.catalog import AVAILABLE, DELETED, HIDDEN, CatalogView
from stream_app.core.cycles import new_cycles, usual_s
from stream_app.core.hash_index import HashIndex
from stream_app.core.item_index import find
from stream_app.core.jit import kernel, signed
from stream_app.core.list_kinds import CART, CART_ITEMS
from stream_app.core.model import KIND
from stream_app.core.revisits import Row

# Why an item is not in a list; 0 is no reason.
BARS = (
    "",
    "deleted",
    "not_available",
    "hidden",
    "excluded",
    "price",
    "in_cart",
    "bought",
    "seen",
    "category_full",
    "brand_full",
)
_DELETED, _GONE, _HIDDEN, _EXCLUDED, _PRICE, _IN_CART, _BOUGHT, _SEEN = range(1, 9)
_PURCHASE = KIND["purchase"]
_KIND_BITS = 0x7F


class Rules(NamedTuple):
    """See :func:`make_rules`; a NamedTuple of scalars and arrays, because kernels take it."""

    any: bool  # whether a candidate has to be checked at all
    shaped: bool  # whether the order of scores is not yet the list
    seen: bool
    cart: bool
    bought_s: float
    cycle_category: NDArray[np.uint32]
    cycle_s: NDArray[np.float64]
    learned: NDArray[np.void]  # (p,) CYCLES
    home: NDArray[np.int64]  # (1,): which of them the list at hand goes by; work space
    learned_share: float
    price_min: float
    price_max: float
    excluded_keys: NDArray[np.uint64]
    excluded_slots: NDArray[np.int32]
    category_max: int
    brand_max: int
    diversity: float
    exploration: float


def make_rules(
    *,
    seen: bool = False,
    cart: bool = False,
    bought_s: float = 0.0,
    cycles_s: Mapping[int, float] | None = None,
    learned_share: float = 0.0,
    price_min: float = 0.0,
    price_max: float = np.inf,
    excluded: Sequence[int] = (),
    category_max: int = 0,
    brand_max: int = 0,
    diversity: float = 0.0,
    exploration: float = 0.0,
) -> Rules:
    """Rules of a shop.

    ``seen``: leave recently seen items out. ``cart``: what is in the cart out of all lists, not
    only the cart's. ``bought_s``: seconds that a bought item stays out, ``cycles_s`` by the hash of
    its category or top category, ``learned_share`` of its usual time between two purchases where
    that was learned (into ``learned`` of the result). ``excluded``: item hashes never to list.
    ``category_max`` and ``brand_max``: items of one at most in a list, 0 for no limit.
    ``diversity``: 0 the best first … 1 each unlike those before. ``exploration``: share of places
    for items that are new.

    >>> make_rules().any, make_rules(price_max=9.0).any, make_rules(brand_max=2).shaped
    (False, True, True)
    """
    cycles = dict(sorted((cycles_s or {}).items()))
    index = HashIndex()
    ids = np.unique(np.array(list(excluded), np.uint64))
    index.add(ids, np.arange(len(ids)))
    checked = seen or cart or bought_s > 0 or bool(cycles) or len(ids) > 0
    return Rules(
        checked or price_min > 0 or price_max < np.inf,
        category_max > 0 or brand_max > 0 or diversity > 0 or exploration > 0,
        seen,
        cart,
        bought_s,
        np.array(list(cycles), np.uint32),
        np.array(list(cycles.values()), np.float64),
        new_cycles(),
        np.zeros(1, np.int64),
        learned_share,
        float(np.float32(price_min)),  # as the catalog keeps prices: a bound is within
        float(np.float32(price_max)),
        index.keys,
        index.slots,
        category_max,
        brand_max,
        diversity,
        exploration,
    )


@kernel
def cycle_s(rules: Rules, catalog: CatalogView, item: Any) -> Any:
    """Seconds until an item is due again: as set for its category, else as learned, else all."""
    category, top = np.uint32(0), np.uint32(0)
    row = find(catalog.keys, catalog.slots, item)
    if row >= 0:
        category, top = catalog.category[row], catalog.category_top[row]
        for k in range(len(rules.cycle_category)):
            if rules.cycle_category[k] == category:
                return rules.cycle_s[k]
        for k in range(len(rules.cycle_category)):
            if rules.cycle_category[k] == top:
                return rules.cycle_s[k]
    if rules.learned_share > 0.0:
        usual = usual_s(rules.learned[rules.home[0]], item, category, top)
        if usual > 0.0:
            return rules.learned_share * usual
    return rules.bought_s


@kernel
def bought_at(user: Row, item: int) -> float:
    """When the customer bought it last.

    States of older releases date purchases by the recent events, else by the last purchase.
    """
    at = index_of(user.bought_item, user.bought_n, item)
    if at >= 0 and user.bought_ts[at] > 0:
        return float(user.bought_ts[at])
    for k in range(signed(user.ring_n) - 1, -1, -1):
        if user.ring_item[k] == item and user.ring_kind[k] & _KIND_BITS == _PURCHASE:
            return float(user.ring_ts[k])
    return float(user.purchase_ts)


@kernel
def bar(rules: Rules, catalog: CatalogView, user: Row, which: int, ts: float, item: int) -> int:
    """Why the item (a hash) may not be in list ``which`` of ``user`` at ``ts``; 0: it may."""
    row = find(catalog.keys, catalog.slots, item)
    if row >= 0:
        flags = catalog.flags[row]
        if flags & DELETED:
            return _DELETED
        if flags & AVAILABLE == 0:
            return _GONE
        if flags & HIDDEN:
            return _HIDDEN
        price = catalog.price[row]
        if price < rules.price_min or price > rules.price_max:  # unknown is NaN, and passes
            return _PRICE
    if find(rules.excluded_keys, rules.excluded_slots, item) >= 0:
        return _EXCLUDED
    if which == CART_ITEMS:  # they chose it, and are reminded of it
        return 0
    if (rules.cart or which == CART) and index_of(user.cart_item, user.cart_n, item) >= 0:
        return _IN_CART
    cycles = rules.bought_s > 0.0 or len(rules.cycle_s) > 0
    bought = cycles and index_of(user.bought_item, user.bought_n, item) >= 0
    if bought and ts - bought_at(user, item) < cycle_s(rules, catalog, item):
        return _BOUGHT
    if rules.seen and index_of(user.ring_item, user.ring_n, item) >= 0:
        return _SEEN
    return 0
